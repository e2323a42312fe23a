//! Whom to trust, what to permit, and what to end.

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Capability, Digest, Kind, Name};
use sallyport_protocol::signature::{self, KeyId};
use serde_json::json;
use time::OffsetDateTime;

use super::list::stamp;
use super::packages::NAMESPACE;
use super::state::CatalogState;
use super::{
    Actor, Catalog, CatalogError, NewlyRevoked, PublisherList, RevocationList, ShownComponent,
    ShownPublisher, ShownRevocation,
};
use crate::audit::Action;
use crate::db::catalog::{Grant, Json, RevocationKind, RevokedComponent, TrustedKey, scope};
use crate::trust::Revocations;

/// A publisher's key that is to be trusted.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The public key.
    pub public_key: String,
    /// The namespace whose components it may sign.
    pub namespace: String,
    /// The kinds it may sign.
    pub kinds: Vec<String>,
    /// Its name for people.
    pub label: String,
    /// From when it may sign nothing new.
    pub expires_at: Option<OffsetDateTime>,
    /// The id of the key whose place it takes: that one may sign nothing new from now on.
    pub replaces: Option<String>,
}

/// A capability that is to be granted.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Which one.
    pub capability: String,
    /// From when no longer.
    pub expires_at: Option<OffsetDateTime>,
}

/// What is to be revoked.
#[derive(Debug, Clone)]
pub struct NewRevocation {
    /// `digest`, `version` or `key`.
    pub kind: RevocationKind,
    /// Which one.
    pub subject: String,
    /// Why.
    pub reason: String,
}

// === impl Catalog ===

impl Catalog {
    /// Trusts a key, for the platform or for the actor's tenant.
    pub async fn trust(&self, actor: &Actor, new: NewKey) -> Result<ShownPublisher, CatalogError> {
        let public = signature::public_key(&new.public_key)
            .map_err(|error| CatalogError::Invalid(error.to_string()))?;
        if Name::parse(&format!("{}/x", new.namespace)).is_err() {
            return Err(CatalogError::Invalid("that is no namespace".to_owned()));
        }
        if new.namespace == NAMESPACE {
            return Err(CatalogError::Forbidden("that namespace belongs to the gateway"));
        }
        let kinds: Option<Vec<Kind>> = new.kinds.iter().map(|kind| Kind::parse(kind)).collect();
        let kinds = kinds.filter(|kinds| !kinds.is_empty());
        let kinds = kinds.ok_or_else(|| CatalogError::Invalid("name the kinds it may sign".to_owned()))?;
        if actor.tenant.is_some() && kinds.contains(&Kind::Provider) {
            return Err(CatalogError::Forbidden("a provider belongs to the platform"));
        }
        let key = KeyId::of(&public);
        let snapshot = CatalogState::read(&self.db, &self.trust).await?;
        let tenant_id = scope(actor.tenant.as_ref());
        if let Some(revoked) = snapshot.trust.revocations().of_key(key.as_str(), actor.tenant.as_ref()) {
            return Err(CatalogError::Revoked(revoked.reason.clone()));
        }
        let now = self.clock.now();
        let replaced = match &new.replaces {
            Some(id) => Some(replaced(&snapshot, actor, id, &new.namespace)?),
            None => None,
        };
        let row = TrustedKey {
            key_id: key.as_str().to_owned(),
            namespace: new.namespace,
            tenant_id: tenant_id.to_owned(),
            public_key: signature::public_key_text(&public),
            label: new.label,
            kinds: Json(kinds.iter().map(|kind| kind.as_str().to_owned()).collect()),
            trusted_at: now,
            trusted_by: actor.who.user_id.as_ref().to_owned(),
            expires_at: new.expires_at,
        };
        let payload = json!({
            "key": row.key_id,
            "namespace": row.namespace,
            "kinds": row.kinds.0,
            "expires_at": row.expires_at.map(stamp),
            "replaces": new.replaces,
        });
        self.record(actor, Action::PublisherTrust, payload).await?;
        self.db.trust_key(&row).await?;
        if let Some(mut old) = replaced {
            old.expires_at = Some(old.expires_at.map_or(now, |expires| expires.min(now)));
            self.db.trust_key(&old).await?;
        }
        self.settle().await?;
        Ok(shown(&row))
    }

    /// The publishers of a catalog; for a tenant, its own alone.
    pub async fn publishers(&self, tenant: Option<&TenantId>) -> Result<PublisherList, CatalogError> {
        let trust = self.trust.read().await?;
        let own = trust.keys().iter().filter(|key| key.tenant_id == scope(tenant));
        Ok(PublisherList { publishers: own.map(shown).collect() })
    }

    /// Permits a component of a catalog to use a capability.
    pub async fn grant(
        &self,
        actor: &Actor,
        name: &str,
        new: NewGrant,
    ) -> Result<ShownComponent, CatalogError> {
        actor.only_platform("capabilities are granted by the platform")?;
        let tenant = actor.tenant.as_ref();
        self.known(tenant, name).await?;
        let capability =
            Capability::parse(&new.capability).map_err(|error| CatalogError::Invalid(error.to_string()))?;
        let grant = Grant {
            tenant_id: scope(tenant).to_owned(),
            name: name.to_owned(),
            capability: capability.to_string(),
            granted_at: self.clock.now(),
            granted_by: actor.who.user_id.as_ref().to_owned(),
            expires_at: new.expires_at,
        };
        let payload = json!({
            "component": name,
            "capability": grant.capability,
            "expires_at": grant.expires_at.map(stamp),
        });
        self.record(actor, Action::CapabilityGrant, payload).await?;
        self.db.grant_capability(&grant).await?;
        self.settle().await?;
        self.show(tenant, name).await
    }

    /// Takes a capability back. What is in force and needs it refuses from then on.
    pub async fn withdraw_grant(
        &self,
        actor: &Actor,
        name: &str,
        capability: &str,
    ) -> Result<ShownComponent, CatalogError> {
        actor.only_platform("capabilities are granted by the platform")?;
        let tenant = actor.tenant.as_ref();
        self.known(tenant, name).await?;
        let payload = json!({ "component": name, "capability": capability });
        self.record(actor, Action::CapabilityWithdraw, payload).await?;
        if !self.db.withdraw_grant(tenant, name, capability).await? {
            return Err(CatalogError::NotFound);
        }
        self.settle().await?;
        self.show(tenant, name).await
    }

    /// Ends a component, a release, or everything that a key signed: for all, or in the actor's tenant.
    pub async fn revoke(&self, actor: &Actor, new: NewRevocation) -> Result<NewlyRevoked, CatalogError> {
        let NewRevocation { kind, subject, reason } = new;
        let subject = match kind {
            RevocationKind::Digest => subject.strip_prefix("sha256:").unwrap_or(&subject).to_owned(),
            RevocationKind::Version | RevocationKind::Key => subject,
        };
        if !is_subject(kind, &subject) {
            let what = "a revocation names a digest (64 hex digits), namespace/name@version, or a key's id";
            return Err(CatalogError::Invalid(what.to_owned()));
        }
        let row = RevokedComponent {
            kind: kind.as_str().to_owned(),
            subject,
            tenant_id: scope(actor.tenant.as_ref()).to_owned(),
            reason,
            revoked_at: self.clock.now(),
            revoked_by: actor.who.user_id.as_ref().to_owned(),
        };
        let payload = json!({ "kind": row.kind, "subject": row.subject, "reason": row.reason });
        self.record(actor, Action::ComponentRevoke, payload).await?;
        self.db.revoke_component(&row).await?;
        self.end_revoked().await?;
        self.settle().await?;
        let RevokedComponent { kind, subject, reason, .. } = row;
        Ok(NewlyRevoked { kind, subject, reason })
    }

    /// What was revoked in a catalog; for a tenant also what was revoked for all.
    pub async fn revocations(&self, tenant: Option<&TenantId>) -> Result<RevocationList, CatalogError> {
        let revocations = Revocations::read(&self.db).await?;
        let seen = revocations.seen_by(tenant).map(|it| ShownRevocation {
            kind: it.kind.clone(),
            subject: it.subject.clone(),
            reason: it.reason.clone(),
            revoked_at: stamp(it.revoked_at),
            revoked_by: it.revoked_by.clone(),
        });
        Ok(RevocationList { revocations: seen.collect() })
    }

    async fn known(&self, tenant: Option<&TenantId>, name: &str) -> Result<(), CatalogError> {
        let versions = self.db.component_versions(tenant).await?;
        if versions.iter().any(|version| version.name == name) { Ok(()) } else { Err(CatalogError::NotFound) }
    }
}

// === private helpers ===

fn replaced(
    snapshot: &CatalogState,
    actor: &Actor,
    id: &str,
    namespace: &str,
) -> Result<TrustedKey, CatalogError> {
    let same = |key: &&TrustedKey| {
        key.key_id == id && key.namespace == namespace && key.tenant_id == scope(actor.tenant.as_ref())
    };
    snapshot.trust.keys().iter().find(same).cloned().ok_or(CatalogError::NotFound)
}

fn is_subject(kind: RevocationKind, subject: &str) -> bool {
    match kind {
        RevocationKind::Digest => Digest::parse(&format!("sha256:{subject}")).is_ok(),
        RevocationKind::Key => KeyId::parse(subject).is_ok(),
        RevocationKind::Version => subject.split_once('@').is_some_and(|(name, version)| {
            Name::parse(name).is_ok() && semver::Version::parse(version).is_ok()
        }),
    }
}

fn shown(key: &TrustedKey) -> ShownPublisher {
    ShownPublisher {
        key: key.key_id.clone(),
        public_key: key.public_key.clone(),
        namespace: key.namespace.clone(),
        kinds: key.kinds.0.clone(),
        label: key.label.clone(),
        trusted_at: stamp(key.trusted_at),
        trusted_by: key.trusted_by.clone(),
        expires_at: key.expires_at.map(stamp),
    }
}
