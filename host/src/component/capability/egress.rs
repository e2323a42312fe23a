//! Requests of hooks to what they were granted: who may, how often, and what the row says of it. They are sent elsewhere, behind [`Egress`](crate::component::contract::Egress).

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::fault::EgressCode;

use crate::component::bindings::hook::sallyport::gateway::egress;
use crate::component::contract::Fetched;
use crate::component::contract::egress::{EgressFault, Request, Response};
use crate::component::fault::Stop;
use crate::component::state::State;

/// Maximum requests of one event.
pub(crate) const MAX_REQUESTS: usize = 32;
/// Maximum characters of a grant's name in a row, where there is no such grant.
const MAX_NAME_CHARS: usize = 64;

/// One request of a hook, for the row: no path, no query, no byte of what was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressCall {
    /// Through which grant.
    pub grant: String,
    /// The answer's status, or the name of what went wrong.
    pub outcome: Result<u16, EgressCode>,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// How long it took.
    pub took: Duration,
}

// === impl EgressCall ===

impl EgressCall {
    pub(crate) fn new(grant: &str, fetched: &Fetched) -> Self {
        let Fetched { result, took } = fetched;
        Self {
            grant: grant.chars().take(MAX_NAME_CHARS).collect(),
            outcome: result.as_ref().map(|answer| answer.status).map_err(code),
            bytes: result.as_ref().map_or(0, |answer| answer.body.len()),
            took: *took,
        }
    }
}

// === impl State ===

impl egress::Host for State {
    async fn fetch(
        &mut self,
        grant: String,
        request: Request,
    ) -> wasmtime::Result<Result<Response, EgressFault>> {
        self.host_call()?;
        if self.scene.counters.is_none() {
            return Err(Stop::Configuring.into());
        }
        if self.egress_calls.len() >= MAX_REQUESTS {
            return Ok(Err(EgressFault::TooMany));
        }
        let fetched = match self.scene.grants.get(&grant) {
            Some(grant) => Arc::clone(grant).fetch(request).await,
            None => Fetched::not_granted(),
        };
        self.egress_calls.push(EgressCall::new(&grant, &fetched));
        Ok(fetched.result)
    }
}

// === private helpers ===

/// Its name in rows.
fn code(fault: &EgressFault) -> EgressCode {
    match fault {
        EgressFault::NotGranted => EgressCode::NotGranted,
        EgressFault::NotAllowed(_) => EgressCode::NotAllowed,
        EgressFault::TooMany => EgressCode::TooMany,
        EgressFault::Unreachable => EgressCode::Unreachable,
        EgressFault::TimedOut => EgressCode::TimedOut,
        EgressFault::Closed => EgressCode::Closed,
        EgressFault::TooLarge => EgressCode::TooLarge,
        EgressFault::Other(_) => EgressCode::Other,
    }
}
