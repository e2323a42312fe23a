//! What the rest of the gateway says to guests and hears from them: the types of `wit/`, and what the host must bring.

use std::time::Duration;

pub use super::bindings::policy::sallyport::gateway::types::{
    Attribute, Call, CallOutcome, Edit, Principal, Refusal, RefusalKind, Segment, SegmentKind, Usage,
};

/// What a policy answers.
pub mod policy {
    pub use crate::component::bindings::policy::exports::sallyport::gateway::policy_api::{
        Settlement, Verdict,
    };
}

/// What a scanner is asked and answers.
pub mod scanner {
    pub use crate::component::bindings::scanner::exports::sallyport::gateway::scanner_api::{
        Action, Finding, TextKind,
    };
}

/// What a hook is told and answers.
pub mod hook {
    pub use crate::component::bindings::hook::exports::sallyport::gateway::hook_api::{
        Event, Occurrence, Outcome, Subagent, ToolCall, ToolFailure, ToolResult,
    };
}

/// What a provider is fed and answers.
pub mod provider {
    pub use crate::component::bindings::provider::exports::sallyport::gateway::provider_api::{
        Auth, Block, BlockDelta, BlockStart, Delta, Failure, Input, Loss, MessageDelta, MessageStart, Output,
        Reply, RequestBody, RequestKind, ResponseHead, StreamEvent, ToolUse, TransportFault, UpstreamRequest,
    };
}

/// The client's request body as guests may look at it. Nothing is copied before a guest asks.
pub trait BodyView: Send + Sync + 'static {
    /// The exact bytes.
    fn bytes(&self) -> &[u8];
    /// Every text the client sent, in order.
    fn texts(&self) -> Vec<Segment>;
}

/// Counters shared by all calls, exact across replicas.
pub trait Counters: Send + Sync + 'static {
    /// Takes `cost` from the bucket `key` of `component` in `tenant`, which refills `limit` per `window`. What is left, or
    /// how long until the same request would fit.
    fn take(
        &self,
        tenant: &str,
        component: &str,
        key: &str,
        cost: u32,
        limit: u32,
        window: Duration,
    ) -> Result<u32, Duration>;
}
