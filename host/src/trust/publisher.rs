//! Who may sign for a purpose: the publishers that are handed over, and the stored keys that stood at that time.

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Kind, Publisher};
use sallyport_protocol::signature::{self, KeyId};

use super::{Requirement, TrustState};
use crate::db::catalog::TrustedKey;

impl TrustState {
    /// A key that was revoked since is among them, marked.
    pub(super) fn publishers(&self, purpose: Requirement<'_>) -> Vec<Publisher> {
        let mut publishers = purpose.publishers.to_vec();
        let stands = |key: &&TrustedKey| key.expires_at.is_none_or(|expires| purpose.signed_by < expires);
        publishers.extend(self.keys.iter().filter(stands).filter_map(stored));
        // Whom another tenant trusts, or trusts no longer, is its own affair, though it may be the same key.
        publishers.retain(|it| it.tenant.is_none() || it.tenant.as_ref() == purpose.tenant);
        for publisher in &mut publishers {
            let id = KeyId::of(&publisher.key);
            publisher.revoked |= self.revocations.of_key(id.as_str(), publisher.tenant.as_ref()).is_some();
        }
        publishers
    }
}

// === private helpers ===

/// A stored key as a publisher; `None` if it cannot be read, and so signs nothing.
fn stored(key: &TrustedKey) -> Option<Publisher> {
    let tenant = match key.tenant_id.as_str() {
        "" => None,
        id => Some(TenantId::parse(id).ok()?),
    };
    let kinds = key.kinds.0.iter().map(|kind| Kind::parse(kind)).collect::<Option<_>>()?;
    let public = signature::public_key(&key.public_key).ok()?;
    Some(Publisher {
        key: public,
        namespace: key.namespace.clone(),
        kinds,
        tenant,
        development: false,
        revoked: false,
    })
}
