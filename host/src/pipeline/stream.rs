//! A stream, from the moment it is asked for: pings where the upstream is silent, before its head as well as after; events go to
//! the client as they come, through the gate. The last event waits until the row is closed.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sallyport_protocol::id::TraceId;
use sallyport_protocol::messages::error::{self, ErrorType};
use sallyport_protocol::messages::event::StreamEvent;
use sallyport_protocol::messages::grammar::Grammar;
use sallyport_protocol::messages::sse::{RawEvent, Rest, Splitter};
use serde::Deserialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::exchange::{Begin, Exchanging, Source, Step, describe};
use super::gate::{Gate, Taken, Voice, cut};
use super::row::Ending;
use super::unary::Whole;
use super::{Call, Pipeline, Refusal, Reply, ReplyBody};
use crate::audit::OpenRow;
use crate::upstream::AnswerBody;

/// Pieces that may wait for a slow client.
const AHEAD: usize = 32;

/// A stream on its way to the client.
struct Pump {
    pipeline: Arc<Pipeline>,
    call: Call,
    exchanging: Exchanging,
    gate: Gate,
    client: mpsc::Sender<Bytes>,
    feed: Feed,
    /// When the client was sent something last.
    spoke: Instant,
}

/// Whom an answer goes to.
enum Client {
    /// It waits for a head.
    Waiting(oneshot::Sender<Result<Reply, Refusal>>),
    /// It has one, and reads.
    Reading(mpsc::Sender<Bytes>),
}

/// Where events come from.
enum Feed {
    Forwarded { body: AnswerBody, splitter: Splitter },
    Typed { first: Option<StreamEvent>, grammar: Grammar },
}

/// Events that came together.
enum Batch {
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
    /// The client went away.
    Left,
    /// It broke; the client is told.
    Broken(Refusal),
}

// === impl Pipeline ===

impl Pipeline {
    /// Has a stream served; answers as soon as it is known what the client's head is. The rest happens while the client reads.
    pub(super) async fn stream(
        self: &Arc<Self>,
        call: Call,
        open: OpenRow,
        exchanging: Exchanging,
    ) -> Result<Reply, Refusal> {
        let (head, answered) = oneshot::channel();
        self.tasks.spawn(Arc::clone(self).begin(call, open, exchanging, Client::Waiting(head)));
        answered.await.unwrap_or_else(|_| Err(broke_off("it was lost within the gateway")))
    }

    /// Waits for the upstream's head, with pings where that takes long, and then for the rest.
    async fn begin(
        self: Arc<Self>,
        mut call: Call,
        open: OpenRow,
        mut exchanging: Exchanging,
        mut client: Client,
    ) {
        let begun = {
            let mut begun = pin!(exchanging.begin(&self, &call));
            let quiet = call.route.patience.ping;
            let mut alive = pin!(tokio::time::sleep(quiet));
            loop {
                tokio::select! {
                    biased;
                    begun = &mut begun => break Some(begun),
                    () = client.gone() => break None,
                    () = &mut alive => {
                        client = client.reads(&HeaderMap::new(), &call.request.trace);
                        let Client::Reading(events) = &client else { break None };
                        if !ping(events) {
                            break None;
                        }
                        alive.as_mut().reset(Instant::now() + quiet);
                    }
                }
            }
        };
        if matches!(client, Client::Reading(_)) {
            // The client had its 200 before anything was known of the upstream.
            call.record.note("head_before_upstream", true);
        }
        match (begun, client) {
            (None, _) => {
                call.record.provider(&exchanging);
                drop(exchanging);
                let ending =
                    Ending::failed("client_disconnected", "the client went away before its answer began");
                // Nobody is left to be told.
                drop(self.close(call, open, &ending).await);
            }
            (Some(Begin::Stream(source)), client) => {
                call.record.first_byte(self.clock.as_ref());
                let Client::Reading(client) = client.reads(exchanging.headers(), &call.request.trace) else {
                    return;
                };
                let (feed, voice) = match source {
                    Source::Forwarded(body) => {
                        (Feed::Forwarded { body, splitter: Splitter::default() }, Voice::Upstream)
                    }
                    Source::Typed(first) => {
                        (Feed::Typed { first: Some(first), grammar: Grammar::new() }, Voice::Provider)
                    }
                };
                let gate = Gate::new(&call.bundle, voice);
                let spoke = Instant::now();
                Pump { pipeline: self, call, exchanging, gate, client, feed, spoke }.run(open).await;
            }
            (Some(Begin::Refused(refusal)), Client::Waiting(head)) => {
                call.record.provider(&exchanging);
                drop(exchanging);
                drop(head.send(Err(self.fail(call, open, refusal).await)));
            }
            (Some(Begin::Whole(whole)), Client::Waiting(head)) => {
                drop(head.send(self.whole(call, open, exchanging, whole).await));
            }
            (Some(Begin::Refused(refusal)), Client::Reading(client)) => {
                call.record.provider(&exchanging);
                drop(exchanging);
                let last = told(&refusal, &call.request.http_id);
                self.finish(call, open, &client, Some(last), &refusal.ending()).await;
            }
            (Some(Begin::Whole(whole)), Client::Reading(client)) => {
                call.record.provider(&exchanging);
                drop(exchanging);
                let (last, ending) = as_event(&whole, &call.request.http_id);
                self.finish(call, open, &client, Some(last), &ending).await;
            }
        }
    }

    /// Closes the row, and then says the last word.
    async fn finish(
        &self,
        call: Call,
        open: OpenRow,
        client: &mpsc::Sender<Bytes>,
        last: Option<Bytes>,
        ending: &Ending,
    ) {
        let request_id = call.request.http_id.clone();
        let last = match (self.close(call, open, ending).await, last) {
            (Ok(()), last) => last,
            (Err(unavailable), Some(_)) => Some(told(&Refusal::AuditUnavailable(unavailable), &request_id)),
            (Err(_), None) => None,
        };
        if let Some(last) = last {
            // A client that left before the last event has lost nothing that it waits for.
            drop(client.send(last).await);
        }
    }
}

// === impl Client ===

impl Client {
    /// Waits until nobody waits or reads any more.
    async fn gone(&mut self) {
        match self {
            Self::Waiting(head) => head.closed().await,
            Self::Reading(events) => events.closed().await,
        }
    }

    /// Gives it the head of a stream, if it has none.
    fn reads(self, headers: &HeaderMap, trace: &TraceId) -> Self {
        let Self::Waiting(head) = self else { return self };
        let (events, receiver) = mpsc::channel(AHEAD);
        let mut headers = headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // Proxies that would buffer a stream know this one.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        let body = ReplyBody::Stream(receiver);
        // A client that left has dropped its end; the next look at the channel says so.
        drop(head.send(Ok(Reply { status: StatusCode::OK, headers, body, trace: trace.clone() })));
        Self::Reading(events)
    }
}

// === impl Pump ===

impl Pump {
    async fn run(mut self, open: OpenRow) {
        let end = self.pump().await;
        let Self { pipeline, mut call, exchanging, mut gate, client, .. } = self;
        call.record.used(gate.usage());
        call.record.provider(&exchanging);
        // The upstream is let go before the row is written: a client that left must not keep it busy.
        drop(exchanging);
        if let (End::Whole(_), Some(text)) = (&end, gate.last_text()) {
            pipeline.ended(&mut call, text).await;
        }
        let (last, ending) = match end {
            End::Whole(last) => (Some(last), Ending::served(200)),
            End::Failed { said, bytes } => {
                let reason = format!("the upstream ended its stream: {said}");
                (Some(bytes), Ending { status: Some(200), ..Ending::failed("upstream_error", reason) })
            }
            End::Left => (None, Ending::failed("client_disconnected", "the client went away")),
            End::Broken(refusal) => (Some(told(&refusal, &call.request.http_id)), refusal.ending()),
        };
        pipeline.finish(call, open, &client, last, &ending).await;
    }

    async fn pump(&mut self) -> End {
        loop {
            let batch = match self.wait().await {
                Some(Ok(batch)) => batch,
                Some(Err(refusal)) => return End::Broken(refusal),
                None => return End::Left,
            };
            let mut out = BytesMut::new();
            let end = match batch {
                Batch::Raw(events) => self.raw(events, &mut out).await,
                Batch::Typed(events) => self.typed(events, &mut out).await,
                Batch::End => Some(End::Broken(cut_short())),
            };
            if !self.send(out).await {
                return End::Left;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Sends what may go to the client; whether it is still there.
    async fn send(&mut self, out: BytesMut) -> bool {
        if out.is_empty() {
            return true;
        }
        self.spoke = Instant::now();
        self.client.send(out.freeze()).await.is_ok()
    }

    /// Waits for events; keeps the client alive where it hears nothing, be it that nothing comes or that all of it is held, and
    /// notices if it leaves.
    async fn wait(&mut self) -> Option<Result<Batch, Refusal>> {
        let Self { pipeline, call, exchanging, client, feed, spoke, .. } = self;
        let quiet = call.route.patience.ping;
        let mut next = pin!(feed.next(pipeline, call, exchanging));
        let mut alive = pin!(tokio::time::sleep_until(*spoke + quiet));
        loop {
            tokio::select! {
                biased;
                batch = &mut next => return Some(batch),
                () = client.closed() => return None,
                () = &mut alive => {
                    if !ping(client) {
                        return None;
                    }
                    *spoke = Instant::now();
                    alive.as_mut().reset(*spoke + quiet);
                }
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

    async fn taken(&mut self, taken: Taken, out: &mut BytesMut) -> Option<End> {
        match taken {
            Taken::Passed => None,
            Taken::Tool(tool) => {
                self.pipeline.issue(&mut self.call, tool);
                None
            }
            Taken::Decide(mut held) => {
                // What came before the tool call need not wait for its hooks.
                if !self.send(out.split()).await {
                    return Some(End::Left);
                }
                let decision = self.pipeline.decide(&mut self.call, &mut held.tool, &held.input).await;
                self.pipeline.issue(&mut self.call, held.tool.clone());
                self.gate.settle(held, &decision, out);
                None
            }
            Taken::Last(bytes) => Some(End::Whole(bytes)),
            Taken::Cut(mut held) => {
                let decision = cut(&mut held.tool);
                self.pipeline.issue(&mut self.call, held.tool.clone());
                self.gate.settle(held, &decision, out);
                None
            }
            Taken::Failed { said, bytes } => Some(End::Failed { said, bytes }),
            Taken::Unreadable(what) => Some(End::Broken(Refusal::Unreadable { what })),
            Taken::TooLarge => Some(End::Broken(Taken::too_large())),
        }
    }
}

// === impl Feed ===

impl Feed {
    async fn next(
        &mut self,
        pipeline: &Pipeline,
        call: &Call,
        exchanging: &mut Exchanging,
    ) -> Result<Batch, Refusal> {
        match self {
            Self::Forwarded { body, splitter } => loop {
                let Some(chunk) = body.chunk().await.map_err(|error| broke_off(describe(error.fault())))?
                else {
                    return Ok(match std::mem::take(splitter).finish() {
                        Rest::Event(event) => Batch::Raw(vec![event]),
                        Rest::Nothing | Rest::Partial(_) => Batch::End,
                    });
                };
                splitter.push(chunk);
                let mut events = Vec::new();
                while let Some(event) =
                    splitter.next_event().map_err(|error| broke_off(&error.to_string()))?
                {
                    events.push(event);
                }
                if !events.is_empty() {
                    return Ok(Batch::Raw(events));
                }
            },
            Self::Typed { first, .. } => {
                let mut events: Vec<_> = first.take().into_iter().collect();
                while events.is_empty() || exchanging.has_more() {
                    match exchanging.next(pipeline, call).await? {
                        Step::Event(event) => events.push(event),
                        Step::Done if events.is_empty() => return Ok(Batch::End),
                        Step::Done => break,
                        Step::Forward(..) | Step::Message(_) | Step::Tokens(..) => {
                            return Err(exchanging.broke_contract("a whole answer within a stream"));
                        }
                    }
                }
                Ok(Batch::Typed(events))
            }
        }
    }
}

// === private helpers ===

fn cut_short() -> Refusal {
    broke_off("the upstream ended before the reply was complete")
}

fn broke_off(what: &str) -> Refusal {
    Refusal::BadAnswer { what: what.to_owned() }
}

/// Says that the stream lives; whether the client is still there. One whose pieces wait for it needs no ping.
fn ping(client: &mpsc::Sender<Bytes>) -> bool {
    let mut ping = Vec::new();
    StreamEvent::Ping.write(&mut ping);
    !matches!(client.try_send(ping.into()), Err(TrySendError::Closed(_)))
}

/// The event that a running stream ends in.
fn told(refusal: &Refusal, request_id: &str) -> Bytes {
    error::sse_error(error_type(refusal), &refusal.to_string(), request_id).into()
}

/// What an upstream answered instead of a stream, as the event and the ending of a stream that began already.
fn as_event(whole: &Whole, request_id: &str) -> (Bytes, Ending) {
    #[derive(Deserialize)]
    struct Answer {
        error: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "type")]
        kind: String,
        message: String,
    }
    let Whole::Error { status, bytes } = whole else {
        let refusal = broke_off("it is no event stream");
        return (told(&refusal, request_id), refusal.ending());
    };
    let reason = format!("the upstream answered {status}");
    let (kind, message) = match serde_json::from_slice::<Answer>(bytes) {
        Ok(Answer { error }) => (error.kind, error.message),
        Err(_) => (ErrorType::Api.as_str().to_owned(), reason.clone()),
    };
    let ending = Ending { status: Some(*status), ..Ending::failed("upstream_error", reason) };
    (error::sse_error(&kind, &message, request_id).into(), ending)
}

/// What kind of error a running stream ends in.
fn error_type(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Failed(failure) => &failure.error_type,
        Refusal::Overloaded => ErrorType::Overloaded.as_str(),
        _ => ErrorType::Api.as_str(),
    }
}
