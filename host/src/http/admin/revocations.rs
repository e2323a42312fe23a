//! `/v1/admin/revocations`: what must not run any more.

use sallyport_protocol::audit::Action;
use schemars::JsonSchema;
use serde::Deserialize;

use super::endpoint::{AdminAnswer, AdminEndpoint, JsonBody};
use super::{Admin, Look, Manage, NotDone};
use crate::catalog::{CatalogError, NewRevocation, NewlyRevoked, RevocationKind, RevocationList};

/// The endpoints.
pub(super) fn endpoints() -> Vec<AdminEndpoint> {
    vec![
        AdminEndpoint::get("revocations.list", "/v1/admin/revocations", list)
            .about("What was revoked in the catalog; for a tenant also what was revoked for all"),
        AdminEndpoint::post("revocations.revoke", "/v1/admin/revocations", revoke)
            .about("End a component, a release, or all that a key signed")
            .rows(&[Action::ComponentRevoke]),
    ]
}

/// What is to be revoked: one of `digest`, `version` and `key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RevocationBody {
    /// SHA-256 of a component: 64 hex digits.
    digest: Option<String>,
    /// `namespace/name@version`
    version: Option<String>,
    /// The id of a key.
    key: Option<String>,
    /// Why; whoever meets it is told.
    reason: String,
}

async fn list(admin: Admin<Look>) -> AdminAnswer<RevocationList> {
    let done = admin.catalog().revocations(admin.tenant()).await.map_err(NotDone::Catalog);
    admin.answer(done).await
}

async fn revoke(mut admin: Admin<Manage, JsonBody<RevocationBody>>) -> AdminAnswer<NewlyRevoked> {
    let done = add(&mut admin).await;
    admin.answer(done).await
}

async fn add(admin: &mut Admin<Manage, JsonBody<RevocationBody>>) -> Result<NewlyRevoked, NotDone> {
    let asked: RevocationBody = admin.json().await?;
    let (kind, subject, reason) = asked.subject()?;
    Ok(admin.catalog().revoke(&admin.actor, NewRevocation { kind, subject, reason }).await?)
}

// === impl RevocationBody ===

impl RevocationBody {
    fn subject(self) -> Result<(RevocationKind, String, String), CatalogError> {
        let Self { digest, version, key, reason } = self;
        match (digest, version, key) {
            (Some(digest), None, None) => Ok((RevocationKind::Digest, digest, reason)),
            (None, Some(version), None) => Ok((RevocationKind::Version, version, reason)),
            (None, None, Some(key)) => Ok((RevocationKind::Key, key, reason)),
            _ => Err(CatalogError::Invalid("name a digest, a version, or a key".to_owned())),
        }
    }
}
