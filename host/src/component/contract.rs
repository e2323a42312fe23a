//! What the rest of the gateway says to guests and hears from them: the types of `wit/`, and what the host must bring.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sallyport_protocol::package::Capability;
use serde::{Deserialize, Serialize};

pub use super::bindings::types::{
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

/// The requests of a hook and their answers.
pub mod egress {
    pub use crate::component::bindings::hook::sallyport::gateway::egress::{EgressFault, Request, Response};
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
    /// How many they are.
    fn len(&self) -> usize {
        self.bytes().len()
    }
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Every text the client sent, in order.
    fn texts(&self) -> Vec<Segment>;
}

/// What a guest did with a counter, and what the host answered; waits are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the parameters of `Counters`")]
pub enum Taken {
    /// It took from a bucket.
    Take { key: String, cost: u32, limit: u32, window_ms: u32, answer: Result<u32, u32> },
    /// It corrected what it had taken.
    Correct { key: String, taken: u32, used: u32, limit: u32, window_ms: u32 },
    /// It reserved money.
    Reserve { key: String, micro: u64, cap: u64, window: Window, answer: Result<u64, u32> },
    /// It gave back what it had reserved.
    Release { key: String, reserved: u64, spent: u64, window: Window },
}

/// Counters shared by all calls. Where they are kept is the implementation's to say: an answer may take as long as a database does.
/// Calls that run at the same time never take more together than there is; how far replicas know of each other is the
/// implementation's promise. A guest whose counters cannot be reached is stopped, so that a policy denies.
pub trait Counters: Send + Sync + 'static {
    /// Takes `cost` from the bucket, which refills its limit per window. What is left, or how long until the same request
    /// would fit.
    fn take<'a>(&'a self, bucket: Bucket<'a>, cost: u32) -> Counting<'a, Result<u32, Duration>>;

    /// Books `used` instead of the `taken` that the same call took before. Less is given back as far as it has not refilled
    /// meanwhile; more leaves the bucket in debt, by at most one window. What the call did not take changes nothing.
    fn correct<'a>(&'a self, bucket: Bucket<'a>, taken: u32, used: u32) -> Counting<'a, ()>;

    /// Reserves `micro` microdollars of `budget` under `cap`: what was spent and what is reserved never exceed it together. What
    /// is left under the cap, or how long until the window ends.
    fn reserve<'a>(&'a self, budget: Budget<'a>, micro: u64, cap: u64)
    -> Counting<'a, Result<u64, Duration>>;

    /// Gives `reserved` back and books `spent` instead.
    fn release<'a>(&'a self, budget: Budget<'a>, reserved: u64, spent: u64) -> Counting<'a, ()>;
}

/// Counters that answer at once, as those do that are kept in memory.
pub trait InstantCounters: Send + Sync + 'static {
    /// See [`Counters::take`].
    fn take(&self, bucket: &Bucket<'_>, cost: u32) -> Result<u32, Duration>;

    /// See [`Counters::correct`].
    fn correct(&self, bucket: &Bucket<'_>, taken: u32, used: u32);

    /// See [`Counters::reserve`].
    fn reserve(&self, budget: &Budget<'_>, micro: u64, cap: u64) -> Result<u64, Duration>;

    /// See [`Counters::release`].
    fn release(&self, budget: &Budget<'_>, reserved: u64, spent: u64);
}

impl<T: InstantCounters> Counters for T {
    fn take<'a>(&'a self, bucket: Bucket<'a>, cost: u32) -> Counting<'a, Result<u32, Duration>> {
        Box::pin(ready(Ok(InstantCounters::take(self, &bucket, cost))))
    }

    fn correct<'a>(&'a self, bucket: Bucket<'a>, taken: u32, used: u32) -> Counting<'a, ()> {
        InstantCounters::correct(self, &bucket, taken, used);
        Box::pin(ready(Ok(())))
    }

    fn reserve<'a>(
        &'a self,
        budget: Budget<'a>,
        micro: u64,
        cap: u64,
    ) -> Counting<'a, Result<u64, Duration>> {
        Box::pin(ready(Ok(InstantCounters::reserve(self, &budget, micro, cap))))
    }

    fn release<'a>(&'a self, budget: Budget<'a>, reserved: u64, spent: u64) -> Counting<'a, ()> {
        InstantCounters::release(self, &budget, reserved, spent);
        Box::pin(ready(Ok(())))
    }
}

/// An answer of counters, to come.
pub type Counting<'a, T> = BoxFuture<'a, Result<T, CountersUnreachable>>;

/// What counters are kept in cannot be reached. Why is in the log of whoever keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the counters cannot be reached")]
pub struct CountersUnreachable;

/// The time over which a cap holds, in UTC: those that this host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// Which bucket a policy takes from.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Which component counts.
    pub component: &'a str,
    /// The component's own name for it.
    pub key: &'a str,
    /// What it holds, and refills in a window.
    pub limit: u32,
    /// How long it takes to refill.
    pub window: Duration,
    /// The trace of the call that takes.
    pub call: &'a str,
}

/// Which money a policy speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Budget<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Which component counts.
    pub component: &'a str,
    /// The component's own name for it.
    pub key: &'a str,
    /// How long its cap holds.
    pub window: Window,
    /// When the call began, since 1970-01-01T00:00Z: the window is the one that this lies in.
    pub at: Duration,
}

/// One egress grant: whoever implements it knows authority and credential, and sends.
pub trait Egress: Send + Sync + 'static {
    /// Makes one request within the grant and waits for the whole answer.
    fn fetch(&self, request: egress::Request) -> BoxFuture<'_, Fetched>;
}

/// What came of a hook's request.
#[derive(Debug)]
pub struct Fetched {
    /// The answer, or why there is none.
    pub result: Result<egress::Response, egress::EgressFault>,
    /// How long it took.
    pub took: Duration,
}

impl Fetched {
    /// There is no such grant.
    pub(crate) fn not_granted() -> Self {
        Self { result: Err(egress::EgressFault::NotGranted), took: Duration::ZERO }
    }
}

/// A grant that refuses every request: what a component is tried with before somebody grants it one.
#[derive(Debug, Clone, Copy)]
pub struct NoEgress;

impl Egress for NoEgress {
    fn fetch(&self, _: egress::Request) -> BoxFuture<'_, Fetched> {
        let result = Err(egress::EgressFault::NotGranted);
        Box::pin(ready(Fetched { result, took: Duration::ZERO }))
    }
}

/// Grants that refuse every request, for those that `capabilities` ask for.
pub fn no_egress(capabilities: &[Capability]) -> Grants {
    let asked = capabilities.iter().filter_map(Capability::egress);
    asked.map(|name| (name.to_owned(), Arc::new(NoEgress) as Arc<dyn Egress>)).collect()
}

/// The egress grants of one component, by name.
pub type Grants = BTreeMap<String, Arc<dyn Egress>>;
