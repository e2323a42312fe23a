//! Callers for unit tests.

use std::sync::Arc;

use sallyport_protocol::id::{CallSource, ClientId, SessionId, TenantId, UserId};

use crate::auth::{Credential, Principal, UsableModels};

/// A user with a personal access token.
pub(in crate::pipeline) fn principal(tenant: &str, user: &str) -> Arc<Principal> {
    Arc::new(Principal {
        user: UserId::parse(user).unwrap(),
        name: None,
        tenant: TenantId::parse(tenant).unwrap(),
        session: SessionId::parse("s_1").unwrap(),
        client: ClientId::parse("sp_cli").unwrap(),
        source: CallSource::parse("cli").unwrap(),
        roles: Arc::default(),
        department: None,
        scopes: Arc::default(),
        policy_version: None,
        credential: Credential::Pat { id: "x".to_owned() },
        models: UsableModels::All,
    })
}
