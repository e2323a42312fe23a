//! A stream, from the moment it is asked for: pings where the upstream is silent, before its head as well as after; events go to
//! the client as they come, through the gate. The last event waits until the row is closed. All of it is one future, the tail of
//! the call, which runs while the client reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::id::TraceId;
use sallyport_protocol::messages::error::{self, ErrorType};
use sallyport_protocol::messages::event::StreamEvent;
use sallyport_protocol::messages::grammar::Grammar;
use sallyport_protocol::messages::sse::{RawEvent, Rest, Splitter};
use serde::Deserialize;

use super::events::{Events, Slot};
use super::exchange::{Begin, EventSource, Exchanging, ProviderStep, describe};
use super::gate::{Gate, GateAction, Voice, cut};
use super::hooks::Hooks;
use super::row::CallEnding;
use super::underway::{Going, Underway, lost};
use super::whole::Whole;
use super::{Call, Pipeline, Refusal, Reply, ReplyBody};
use crate::upstream::{AnswerBody, BodyError, Upstream};

/// What an upstream has sent already goes to the client as one piece, up to so many bytes.
const PIECE: usize = 64 * 1024;

/// A stream that is passed on.
struct Pump<'a> {
    hooks: &'a Hooks,
    upstream: &'a Upstream,
    call: &'a mut Call,
    exchanging: &'a mut Exchanging,
    gate: &'a mut Gate,
    feed: Feed,
    slot: &'a Slot,
}

/// Where events come from.
enum Feed {
    Forwarded(Forwarded),
    Typed { first: Option<StreamEvent>, grammar: Grammar },
}

/// An upstream's own stream.
struct Forwarded {
    body: AnswerBody,
    splitter: Splitter,
    /// How it goes on, where that was known before what came earlier was passed on.
    ahead: Option<Result<Option<Bytes>, BodyError>>,
}

/// Events that came together.
enum NextEvents {
    Raw(Vec<RawEvent>),
    Typed(Vec<StreamEvent>),
    /// Nothing more comes.
    End,
}

/// How a stream ends.
enum End {
    /// With this last event, once the row is closed.
    Whole(Bytes),
    /// With an error that the upstream itself tells, once the row is closed.
    Failed { said: String, bytes: Bytes },
    /// It broke; the client is told.
    Broken(Refusal),
}

// === impl Pipeline ===

impl Pipeline {
    /// Has a stream served; answers as soon as it is known what the client's head is, or when it has waited for long enough. The
    /// rest happens while the client reads.
    pub(super) async fn stream(&self, mut underway: Underway) -> Result<Reply, Refusal> {
        let Some(going) = underway.going() else { return Err(lost()) };
        let (quiet, trace) = (going.call.target.timeouts.ping, going.call.request.trace.clone());
        let early = going.early();
        let slot = Arc::new(Slot::default());
        let mut begun = Box::pin(async move {
            let begin = underway.answer().await;
            (underway, begin)
        });
        let Ok((mut underway, begin)) = tokio::time::timeout(quiet, &mut begun).await else {
            early.store(true, Ordering::Relaxed);
            let left = Arc::clone(&slot);
            let events = Events::new(slot, quiet, async move {
                let (underway, begin) = begun.await;
                go_on(underway, begin, &left).await;
            });
            return Ok(head(&HeaderMap::new(), trace, events));
        };
        match begin {
            Begin::Refused(refusal) => Err(underway.fail(refusal).await),
            Begin::Whole(whole) => Box::pin(self.answer_whole(underway, whole)).await,
            Begin::Stream(source) => {
                let headers = underway.going().map(Going::take_headers).unwrap_or_default();
                let left = Arc::clone(&slot);
                let events = Events::new(slot, quiet, async move { pump(underway, source, &left).await });
                Ok(head(&headers, trace, events))
            }
        }
    }
}

/// The head of a stream.
fn head(headers: &HeaderMap, trace: TraceId, events: Events) -> Reply {
    let mut headers = headers.clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that would buffer a stream know this one.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Reply { status: StatusCode::OK, headers, body: ReplyBody::Stream(events), trace }
}

/// What becomes of a stream whose head went out before anything was known of the upstream.
async fn go_on(mut underway: Underway, begin: Begin, slot: &Slot) {
    let request_id = request_id(&mut underway);
    match begin {
        Begin::Stream(source) => Box::pin(pump(underway, source, slot)).await,
        Begin::Refused(refusal) => {
            end(underway, slot, told(&refusal, &request_id), &refusal.ending()).await;
        }
        Begin::Whole(whole) => {
            let (last, ending) = as_event(&whole, &request_id);
            end(underway, slot, last, &ending).await;
        }
    }
}

/// Passes a stream on, to its end.
async fn pump(mut underway: Underway, source: EventSource, slot: &Slot) {
    let ended = pass(&mut underway, source, slot).await;
    let request_id = request_id(&mut underway);
    // The upstream is let go before the row is written.
    if let (pipeline, Some(going)) = underway.parts() {
        going.let_go();
        let text = going.gate.as_mut().and_then(Gate::last_text);
        if let (End::Whole(_), Some(text)) = (&ended, text) {
            pipeline.hooks.ended(&mut going.call, text).await;
        }
    }
    let (last, ending) = match ended {
        End::Whole(last) => (last, CallEnding::served(200)),
        End::Failed { said, bytes } => {
            let reason = format!("the upstream ended its stream: {said}");
            (bytes, CallEnding { status: Some(200), ..CallEnding::failed(ErrorCode::UpstreamError, reason) })
        }
        End::Broken(refusal) => (told(&refusal, &request_id), refusal.ending()),
    };
    end(underway, slot, last, &ending).await;
}

async fn pass(underway: &mut Underway, source: EventSource, slot: &Slot) -> End {
    let (pipeline, going) = underway.parts();
    let Some(Going { call, exchanging: Some(exchanging), gate, .. }) = going else {
        return End::Broken(lost());
    };
    let (feed, voice) = match source {
        EventSource::Forwarded(body) => {
            let forwarded = Forwarded { body, splitter: Splitter::default(), ahead: None };
            (Feed::Forwarded(forwarded), Voice::Upstream)
        }
        EventSource::Typed(first) => {
            (Feed::Typed { first: Some(first), grammar: Grammar::new() }, Voice::Provider)
        }
    };
    let gate = gate.insert(Gate::new(&call.bundle, voice));
    let (hooks, upstream) = (&pipeline.hooks, &pipeline.upstream);
    Box::pin(Pump { hooks, upstream, call, exchanging, gate, feed, slot }.run()).await
}

/// Closes the row, and then says the last word.
async fn end(mut underway: Underway, slot: &Slot, last: Bytes, ending: &CallEnding) {
    let request_id = request_id(&mut underway);
    slot.leave(match underway.end(ending).await {
        Ok(()) => last,
        Err(unavailable) => told(&Refusal::AuditUnavailable(unavailable), &request_id),
    });
}

fn request_id(underway: &mut Underway) -> String {
    underway.going().map(|going| going.call.request.http_id.clone()).unwrap_or_default()
}

// === impl Pump ===

impl Pump<'_> {
    async fn run(mut self) -> End {
        loop {
            let batch = match self.feed.next(self.upstream, self.call, self.exchanging).await {
                Ok(batch) => batch,
                Err(refusal) => return End::Broken(refusal),
            };
            let mut out = BytesMut::new();
            let end = match batch {
                NextEvents::Raw(events) => self.raw(events, &mut out).await,
                NextEvents::Typed(events) => self.typed(events, &mut out).await,
                NextEvents::End => Some(End::Broken(cut_short())),
            };
            give(self.slot, out).await;
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn raw(&mut self, events: Vec<RawEvent>, out: &mut BytesMut) -> Option<End> {
        for raw in events {
            let taken = self.gate.raw(&raw, out);
            if let Some(end) = self.taken(taken, out).await {
                return Some(end);
            }
        }
        None
    }

    async fn typed(&mut self, events: Vec<StreamEvent>, out: &mut BytesMut) -> Option<End> {
        for event in events {
            let Feed::Typed { grammar, .. } = &mut self.feed else { return None };
            if let Err(error) = grammar.check(&event) {
                return Some(End::Broken(self.exchanging.broke_contract(&error.to_string())));
            }
            let mut bytes = Vec::new();
            event.write(&mut bytes);
            let taken = self.gate.take(event, bytes.into(), out);
            if let Some(end) = self.taken(taken, out).await {
                return Some(end);
            }
        }
        None
    }

    async fn taken(&mut self, taken: GateAction, out: &mut BytesMut) -> Option<End> {
        match taken {
            GateAction::Passed => None,
            GateAction::Tool(tool) => {
                self.hooks.record_tool_use(self.call, tool);
                None
            }
            GateAction::Decide(mut held) => {
                // What came before the tool call need not wait for its hooks.
                give(self.slot, out.split()).await;
                let decision = self.hooks.evaluate_tool_of(self.call, &mut held.tool, &held.input).await;
                self.hooks.record_tool_use(self.call, held.tool.clone());
                self.gate.settle(held, &decision, out);
                None
            }
            GateAction::Last(bytes) => Some(End::Whole(bytes)),
            GateAction::Cut(mut held) => {
                let decision = cut(&mut held.tool);
                self.hooks.record_tool_use(self.call, held.tool.clone());
                self.gate.settle(held, &decision, out);
                None
            }
            GateAction::Failed { said, bytes } => Some(End::Failed { said, bytes }),
            GateAction::Unreadable(what) => Some(End::Broken(Refusal::Unreadable { what })),
            GateAction::TooLarge => Some(End::Broken(GateAction::too_large())),
        }
    }
}

// === impl Feed ===

impl Feed {
    async fn next(
        &mut self,
        upstream: &Upstream,
        call: &Call,
        exchanging: &mut Exchanging,
    ) -> Result<NextEvents, Refusal> {
        match self {
            Self::Forwarded(forwarded) => forwarded.next().await,
            Self::Typed { first, .. } => {
                let mut events: Vec<_> = first.take().into_iter().collect();
                while events.is_empty() || exchanging.has_more() {
                    match exchanging.next(upstream, call).await? {
                        ProviderStep::Event(event) => events.push(event),
                        ProviderStep::Done if events.is_empty() => return Ok(NextEvents::End),
                        ProviderStep::Done => break,
                        ProviderStep::Forward(..) | ProviderStep::Message(_) | ProviderStep::Tokens(..) => {
                            return Err(exchanging.broke_contract("a whole answer within a stream"));
                        }
                    }
                }
                Ok(NextEvents::Typed(events))
            }
        }
    }
}

// === impl Forwarded ===

impl Forwarded {
    /// The events of what has come; waits until there is one.
    async fn next(&mut self) -> Result<NextEvents, Refusal> {
        let mut events = Vec::new();
        loop {
            let more = match self.ahead.take() {
                Some(known) => known,
                None => self.body.chunk().await,
            };
            let Some(chunk) = more.map_err(|error| broke_off(describe(&error.fault())))? else {
                return Ok(match std::mem::take(&mut self.splitter).finish() {
                    Rest::Event(event) => NextEvents::Raw(vec![event]),
                    Rest::Nothing | Rest::Partial(_) => NextEvents::End,
                });
            };
            self.split(chunk, &mut events)?;
            // What is there already goes out with it.
            let mut size = 0;
            while size < PIECE && self.ahead.is_none() {
                match self.body.chunk().now_or_never() {
                    None => break,
                    Some(Ok(Some(chunk))) => {
                        size += chunk.len();
                        self.split(chunk, &mut events)?;
                    }
                    Some(other) => self.ahead = Some(other),
                }
            }
            if !events.is_empty() {
                return Ok(NextEvents::Raw(events));
            }
        }
    }

    fn split(&mut self, chunk: Bytes, events: &mut Vec<RawEvent>) -> Result<(), Refusal> {
        self.splitter.push(chunk);
        while let Some(event) = self.splitter.next_event().map_err(|error| broke_off(&error.to_string()))? {
            events.push(event);
        }
        Ok(())
    }
}

// === private helpers ===

/// Gives the client what there is for it.
async fn give(slot: &Slot, out: BytesMut) {
    if !out.is_empty() {
        slot.send(out.freeze()).await;
    }
}

fn cut_short() -> Refusal {
    broke_off("the upstream ended before the reply was complete")
}

fn broke_off(what: &str) -> Refusal {
    Refusal::BadAnswer { what: what.to_owned() }
}

/// The event that a running stream ends in.
fn told(refusal: &Refusal, request_id: &str) -> Bytes {
    error::sse_error(error_type(refusal), &refusal.to_string(), request_id).into()
}

/// What an upstream answered instead of a stream, as the event and the ending of a stream that began already.
fn as_event(whole: &Whole, request_id: &str) -> (Bytes, CallEnding) {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: ToldError,
    }
    #[derive(Deserialize)]
    struct ToldError {
        #[serde(rename = "type")]
        kind: String,
        message: String,
    }
    let Whole::Error { status, bytes } = whole else {
        let refusal = broke_off("it is no event stream");
        return (told(&refusal, request_id), refusal.ending());
    };
    let reason = format!("the upstream answered {status}");
    let (kind, message) = match serde_json::from_slice::<ErrorBody>(bytes) {
        Ok(ErrorBody { error }) => (error.kind, error.message),
        Err(_) => (ErrorType::Api.as_str().to_owned(), reason.clone()),
    };
    let ending = CallEnding { status: Some(*status), ..CallEnding::failed(ErrorCode::UpstreamError, reason) };
    (error::sse_error(&kind, &message, request_id).into(), ending)
}

/// What kind of error a running stream ends in.
fn error_type(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Failed(failure) | Refusal::Declined(failure) => &failure.error_type,
        Refusal::Overloaded => ErrorType::Overloaded.as_str(),
        _ => ErrorType::Api.as_str(),
    }
}
