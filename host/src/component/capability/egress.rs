//! Requests to the outside, for hooks that were granted a way: who may, how often, and what the row is told of it. The dialling
//! is done elsewhere, behind [`Egress`](crate::component::contract::Egress).

use std::sync::Arc;
use std::time::Duration;

use crate::component::bindings::hook::sallyport::gateway::egress;
use crate::component::contract::Fetched;
use crate::component::contract::egress::{EgressFault, Request, Response};
use crate::component::fault::Stop;
use crate::component::state::State;

/// Requests of one event.
pub(crate) const MOST: usize = 32;
/// Characters of a grant's name that the row keeps where there is no such grant.
const LONGEST_NAME: usize = 64;

/// One request to the outside, for the row: no path, no query, no byte of what was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressCall {
    /// Through which grant.
    pub grant: String,
    /// The answer's status, or the name of what went wrong.
    pub outcome: Result<u16, &'static str>,
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
            grant: grant.chars().take(LONGEST_NAME).collect(),
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
        if self.egress_calls.len() >= MOST {
            return Ok(Err(EgressFault::TooMany));
        }
        let fetched = match self.scene.grants.get(&grant) {
            Some(way) => Arc::clone(way).fetch(request).await,
            None => Fetched::not_granted(),
        };
        self.egress_calls.push(EgressCall::new(&grant, &fetched));
        Ok(fetched.result)
    }
}

// === private helpers ===

/// A stable name, for audit rows.
fn code(fault: &EgressFault) -> &'static str {
    match fault {
        EgressFault::NotGranted => "not_granted",
        EgressFault::NotAllowed(_) => "not_allowed",
        EgressFault::TooMany => "too_many",
        EgressFault::Unreachable => "unreachable",
        EgressFault::TimedOut => "timed_out",
        EgressFault::Closed => "closed",
        EgressFault::TooLarge => "too_large",
        EgressFault::Other(_) => "other",
    }
}
