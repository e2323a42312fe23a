//! Asks the targets of a route, one after the other, until one begins to answer. What may be asked again, and of whom, is decided from
//! what the host itself saw of the upstream, not from what a provider makes of it.
//!
//! *Invariant:* once an answer has begun no other target is asked: [`Attempts::run`] takes the attempts for good.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sallyport_protocol::attempt::AttemptEnd;
use sallyport_protocol::messages::event::EventKind;
use sallyport_protocol::messages::sse::Splitter;
use serde_json::{Map, Value, json};

use super::exchange::{Begin, EventSource, Exchanging, Heard, describe};
use super::unary::is_reply;
use super::underway::Going;
use super::whole::Whole;
use super::{Call, Operation, Pipeline, Refusal};
use crate::component::contract::provider::TransportFault;
use crate::config::{RetrySettings, RouteTarget};
use crate::upstream::{AnswerBody, Breaker, BreakerPass};

/// As much of a stream is read before the client has any of it, where another target could be asked instead.
const LONGEST_FIRST_EVENT: usize = 64 * 1024;
/// The first wait before an upstream is asked again that does not say when; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// How upstreams say that a prompt is too long: Anthropic (<https://platform.claude.com/docs/en/build-with-claude/context-windows>), OpenAI and
/// what speaks its API (the code `context_length_exceeded`, vLLM's message), Gemini.
const TOO_LONG: [&str; 5] = [
    "prompt is too long",
    "exceed context limit",
    "context_length_exceeded",
    "maximum context length",
    "exceeds the maximum number of tokens",
];

/// The targets that a call may be sent to.
pub(super) struct Attempts {
    targets: Vec<Arc<RouteTarget>>,
    retry: RetrySettings,
    /// The row lists them.
    listed: bool,
}

/// One target in its turn.
struct AttemptTurn<'a> {
    target: &'a Arc<RouteTarget>,
    breaker: &'a Arc<Breaker>,
    /// Others are left.
    more: bool,
}

// === impl Attempts ===

impl Attempts {
    /// Those of a call.
    pub(super) fn of(call: &Call) -> Self {
        Self { targets: call.targets.clone(), retry: call.route.retry, listed: call.route.lists_attempts() }
    }

    /// Asks until one begins to answer, or none is left: then the client is told what the last one said.
    pub(super) async fn run(self, pipeline: &Pipeline, going: &mut Going) -> Begin {
        if self.listed { Box::pin(self.each(pipeline, going)).await } else { once(pipeline, going).await }
    }

    async fn each(self, pipeline: &Pipeline, going: &mut Going) -> Begin {
        let now = || pipeline.clock.monotonic();
        let of = |target: &Arc<RouteTarget>| (Arc::clone(target), pipeline.upstream.breaker(target));
        // Who asked not to be called is called only where nobody else is left.
        let (resting, ready): (Vec<_>, Vec<_>) =
            self.targets.iter().map(of).partition(|(_, breaker)| breaker.is_paused(now()));
        let mut queue: VecDeque<_> = ready.into_iter().chain(resting).collect();
        let mut failed = None;
        let mut soonest: Option<Duration> = None;
        while let Some((target, breaker)) = queue.pop_front() {
            let pass = match breaker.pass(target.breaker, now()) {
                Ok(pass) => pass,
                Err(open) => {
                    soonest = Some(soonest.map_or(open, |soonest| soonest.min(open)));
                    note(&mut going.call, &target, AttemptEnd::BreakerOpen, Map::new());
                    continue;
                }
            };
            if let Err(refusal) = Box::pin(turn_to(pipeline, &mut going.call, &target)).await {
                let mut more = Map::new();
                more.insert("reason".to_owned(), refusal.to_string().into());
                note(&mut going.call, &target, AttemptEnd::NotAllowed, more);
                continue;
            }
            breaker.earn(self.retry.budget_percent);
            let turn = AttemptTurn { target: &target, breaker: &breaker, more: !queue.is_empty() };
            match self.ask(pipeline, going, &turn, pass).await {
                Ok(begin) => return begin,
                Err(begin) => failed = Some(begin),
            }
        }
        failed.unwrap_or_else(|| {
            let after = soonest.unwrap_or(Duration::from_secs(1)).as_millis();
            Begin::Refused(Refusal::NoUpstream { retry_after_ms: u32::try_from(after).unwrap_or(u32::MAX) })
        })
    }

    /// Asks one target, and again where it did not take the request. `Err`: the next one is to be asked.
    async fn ask(
        &self,
        pipeline: &Pipeline,
        going: &mut Going,
        turn: &AttemptTurn<'_>,
        mut pass: BreakerPass,
    ) -> Result<Begin, Begin> {
        let now = || pipeline.clock.monotonic();
        let mut repeated = 0;
        loop {
            let began = now();
            let mut begin = once(pipeline, going).await;
            let heard = going.exchanging.as_mut().and_then(Exchanging::heard);
            let mut end = end_of(&begin, heard.as_ref());
            if end == AttemptEnd::Refused && going.call.route.context_fallback && is_too_long(&begin) {
                end = AttemptEnd::TooLong;
            }
            if turn.more
                && let Begin::Stream(EventSource::Forwarded(body)) = &mut begin
            {
                match first_event(body).await {
                    Ok(false) => {}
                    // The client is given it where no other target answers.
                    Ok(true) => end = AttemptEnd::Failed,
                    Err(refusal) => {
                        begin = Begin::Refused(refusal);
                        end = AttemptEnd::Unusable;
                    }
                }
            }
            if turn.more && is_no_reply(&begin, going.call.request.operation) {
                begin = Begin::Refused(Refusal::BadAnswer { what: "it is no Messages reply".to_owned() });
                end = AttemptEnd::Unusable;
            }
            let asked = now();
            note(&mut going.call, turn.target, end, details(heard.as_ref(), asked.saturating_sub(began)));
            let wanted = heard.as_ref().and_then(Heard::retry_after);
            if let Some(pause) = wanted.filter(|_| end == AttemptEnd::Busy) {
                turn.breaker.pause(pause, asked);
            }
            settle(pass, end, heard.as_ref(), asked);
            if !end.goes_on() {
                going.watch(turn.breaker, turn.target);
                return Ok(begin);
            }
            let again = matches!(end, AttemptEnd::Busy | AttemptEnd::Unreachable);
            let wait = wanted.unwrap_or_else(|| jittered(pipeline, FIRST_WAIT.saturating_mul(1 << repeated)));
            if !again
                || repeated == self.retry.attempts
                || wait > self.retry.max_wait
                || !turn.breaker.spend()
            {
                return Err(begin);
            }
            repeated += 1;
            tokio::time::sleep(wait).await;
            match turn.breaker.pass(turn.target.breaker, now()) {
                Ok(next) => pass = next,
                Err(_) => return Err(begin),
            }
        }
    }
}

// === private helpers ===

/// Asks the call's target once.
async fn once(pipeline: &Pipeline, going: &mut Going) -> Begin {
    let Going { call, exchanging, .. } = going;
    if let Some(earlier) = exchanging.take() {
        call.record.provider(earlier.part());
    }
    match Exchanging::open(&pipeline.components, call).await {
        Ok(opened) => exchanging.insert(opened).begin(&pipeline.upstream, call).await,
        Err(refusal) => Begin::Refused(refusal),
    }
}

/// Makes `target` the call's. Where policies and the route's predicate would see another provider or region, they are asked about it
/// first: what they said of the call's first target does not hold for this one.
pub(super) async fn turn_to(
    pipeline: &Pipeline,
    call: &mut Call,
    target: &Arc<RouteTarget>,
) -> Result<(), Refusal> {
    if Arc::ptr_eq(&call.target, target) {
        return Ok(());
    }
    let before = (Arc::clone(&call.target), Arc::clone(&call.request));
    call.target = Arc::clone(target);
    let facts = &call.request.facts;
    if target.differs_from(&facts.provider, facts.region.as_deref()) {
        call.request = Arc::new(call.request.at(target));
    }
    let judged = call.targets.first().filter(|it| !target.differs_from(&it.provider, it.region.as_deref()));
    if judged.is_none()
        && let Err(refusal) = pipeline.permit(call).await
    {
        (call.target, call.request) = before;
        return Err(refusal);
    }
    call.record.goes_to(target);
    Ok(())
}

/// Whether a whole answer that an upstream gave itself is none: nobody has had a byte of it yet.
fn is_no_reply(begin: &Begin, operation: Operation) -> bool {
    let Begin::Whole(Whole::Json { bytes, usage: None }) = begin else { return false };
    operation == Operation::Message && !is_reply(bytes)
}

/// How it ended, from what the host saw.
fn end_of(begin: &Begin, heard: Option<&Heard>) -> AttemptEnd {
    let refusal = match begin {
        Begin::Stream(_) | Begin::Whole(Whole::Json { .. } | Whole::Tokens { .. }) => {
            return AttemptEnd::Answered;
        }
        Begin::Whole(Whole::Error { status, .. }) => return end_of_status(*status),
        Begin::Refused(refusal) => refusal,
    };
    match refusal {
        Refusal::Credential | Refusal::Unidentified => AttemptEnd::Credential,
        Refusal::NoProvider { .. } | Refusal::ProviderFault { .. } | Refusal::ProviderBroke { .. } => {
            AttemptEnd::Provider
        }
        Refusal::Declined(_) | Refusal::Lossy { .. } => AttemptEnd::NotCarried,
        Refusal::BadAnswer { .. } => end_of_fault(heard).unwrap_or(AttemptEnd::Unusable),
        Refusal::Failed(failure) => match heard {
            Some(Heard::Status { status, .. }) if *status >= 300 => end_of_status(*status),
            Some(Heard::Fault(_)) => end_of_fault(heard).unwrap_or(AttemptEnd::BrokeOff),
            _ if failure.retryable => AttemptEnd::Unusable,
            _ => AttemptEnd::Refused,
        },
        _ => AttemptEnd::Gateway,
    }
}

/// Whether an upstream says that the prompt is too long for its model, in the words of the APIs that there are.
fn is_too_long(begin: &Begin) -> bool {
    let said = match begin {
        Begin::Whole(Whole::Error { bytes, .. }) => bytes.as_ref(),
        Begin::Refused(Refusal::Failed(failure)) => failure.message.as_bytes(),
        _ => return false,
    };
    TOO_LONG.iter().any(|words| memchr::memmem::find(said, words.as_bytes()).is_some())
}

fn end_of_status(status: u16) -> AttemptEnd {
    match status {
        429 | 503 | 529 => AttemptEnd::Busy,
        408 | 500..=599 => AttemptEnd::Failed,
        400..=499 => AttemptEnd::Refused,
        _ => AttemptEnd::Unusable,
    }
}

fn end_of_fault(heard: Option<&Heard>) -> Option<AttemptEnd> {
    let Some(Heard::Fault(fault)) = heard else { return None };
    Some(match fault {
        TransportFault::Connect => AttemptEnd::Unreachable,
        TransportFault::TimedOut => AttemptEnd::TimedOut,
        TransportFault::Closed | TransportFault::Other(_) => AttemptEnd::BrokeOff,
        TransportFault::TooLarge => AttemptEnd::Unusable,
    })
}

/// Tells the breaker how it went, as far as that says anything of the upstream.
fn settle(pass: BreakerPass, end: AttemptEnd, heard: Option<&Heard>, now: Duration) {
    // A limit of this caller's is no sign that the upstream is in trouble.
    let limited = matches!(heard, Some(Heard::Status { status: 429, .. }));
    match end {
        AttemptEnd::Answered | AttemptEnd::Refused | AttemptEnd::TooLong => pass.answered(now),
        AttemptEnd::Busy if limited => pass.answered(now),
        AttemptEnd::Busy
        | AttemptEnd::Failed
        | AttemptEnd::Unreachable
        | AttemptEnd::TimedOut
        | AttemptEnd::BrokeOff
        | AttemptEnd::Unusable
        | AttemptEnd::Credential => pass.failed(now),
        AttemptEnd::Provider
        | AttemptEnd::NotCarried
        | AttemptEnd::BreakerOpen
        | AttemptEnd::NotAllowed
        | AttemptEnd::Gateway => drop(pass),
    }
}

/// Waits for the first event of a stream, which is given back. Whether it is an error: some upstreams answer 200 and then say that they
/// have no room.
async fn first_event(body: &mut AnswerBody) -> Result<bool, Refusal> {
    let bad = |what: &str| Refusal::BadAnswer { what: what.to_owned() };
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut splitter = Splitter::default();
    let mut read = 0;
    let first = loop {
        let Some(piece) = body.chunk().await.map_err(|error| bad(describe(&error.fault())))? else {
            return Err(bad("the upstream ended before the reply was complete"));
        };
        read += piece.len();
        splitter.push(piece.clone());
        pieces.push(piece);
        let first = splitter.next_event().map_err(|error| bad(&error.to_string()))?;
        if first.is_some() || read > LONGEST_FIRST_EVENT {
            break first;
        }
    };
    body.unread(pieces);
    Ok(first.is_some_and(|event| event.kind() == EventKind::Error))
}

/// A wait that is as long as given, or up to a quarter shorter, so that calls that failed together do not come back together.
fn jittered(pipeline: &Pipeline, wait: Duration) -> Duration {
    let mut random = [0; 1];
    pipeline.entropy.fill(&mut random);
    let [random] = random;
    wait.saturating_sub(wait.saturating_mul(u32::from(random)) / 1024)
}

fn details(heard: Option<&Heard>, took: Duration) -> Map<String, Value> {
    let mut out = Map::new();
    match heard {
        Some(Heard::Status { status, .. }) => {
            out.insert("status".to_owned(), (*status).into());
        }
        Some(Heard::Fault(fault)) => {
            out.insert("fault".to_owned(), describe(fault).into());
        }
        None => {}
    }
    out.insert("ms".to_owned(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX).into());
    out
}

/// An entry of `attempts` in the row.
fn note(call: &mut Call, target: &RouteTarget, end: AttemptEnd, more: Map<String, Value>) {
    let mut entry = json!({ "target": target.name, "provider": target.provider, "end": end });
    if let Some(entry) = entry.as_object_mut() {
        if let Some(model) = &target.upstream_model {
            entry.insert("upstream_model".to_owned(), model.as_str().into());
        }
        entry.extend(more);
    }
    call.record.attempt(entry);
}
