//! The two records of `wit/types.wit` that every component is told for each call. Their texts are shared, so that to tell them once
//! more copies none of them. The bindings compare their layout with that of the contract.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::bindings::shared::sallyport::gateway::types::Attribute;

/// `record principal`: who is calling.
#[derive(Debug, Clone, PartialEq, ComponentType, Lift, Lower, Serialize, Deserialize)]
#[component(record)]
pub struct PrincipalFacts {
    /// `u_...`
    pub user: Arc<str>,
    /// The tenant the user belongs to.
    pub tenant: Arc<str>,
    /// `sess_...`: one conversation or one exchange of a token.
    pub session: Arc<str>,
    /// `sp_...`: the client software.
    pub client: Arc<str>,
    /// cowork, subagent, job, api, cli, web, oauth or mcp.
    pub source: Arc<str>,
    /// Roles within the tenant.
    pub roles: Arc<[String]>,
    /// The user's department, where the tenant keeps departments.
    pub department: Option<Arc<str>>,
    /// What the credential may be used for.
    pub scopes: Arc<[String]>,
    /// Room to grow.
    pub attributes: Vec<Attribute>,
}

/// `record call`: the facts of an inference call that most policies decide on.
#[derive(Debug, Clone, PartialEq, ComponentType, Lift, Lower, Serialize, Deserialize)]
#[component(record)]
pub struct CallFacts {
    /// The call's trace id.
    pub trace: Arc<str>,
    /// Milliseconds since 1970-01-01T00:00Z, as decimal text.
    #[component(name = "time-ms")]
    pub time_ms: Arc<str>,
    /// Who is calling.
    pub principal: PrincipalFacts,
    /// The model that the client named.
    pub model: Arc<str>,
    /// The route chosen for it: its model pattern.
    pub route: Arc<str>,
    /// Tag of the provider that will serve it.
    pub provider: Arc<str>,
    /// Whether the client asked for a stream.
    pub streaming: bool,
    /// `max_tokens` of the request.
    #[component(name = "max-tokens")]
    pub max_tokens: Option<u32>,
    /// Size of the client's body in bytes.
    #[component(name = "body-bytes")]
    pub body_bytes: u32,
    /// How many messages the conversation holds.
    #[component(name = "message-count")]
    pub message_count: u32,
    /// Names of the tools that the request defines or names.
    pub tools: Arc<[String]>,
    /// Which agent of the client speaks, if it says so.
    pub agent: Option<Arc<str>>,
    /// The region the route serves, if it names one.
    pub region: Option<Arc<str>>,
    /// Room to grow.
    pub attributes: Vec<Attribute>,
}
