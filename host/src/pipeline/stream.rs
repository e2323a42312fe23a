//! A running stream: events go to the client as they come, through the gate, with a keep-alive where the upstream is silent.
//! The last event waits until the row is closed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use sallyport_protocol::messages::error::{self, ErrorType};
use sallyport_protocol::messages::event::{self, Kind, StreamEvent};
use sallyport_protocol::messages::grammar::Grammar;
use sallyport_protocol::messages::sse::{RawEvent, Rest, Splitter};
use tokio::sync::mpsc;

use super::exchange::{Exchanging, Source, Step, describe};
use super::gate::{Gate, Taken};
use super::row::Ending;
use super::{Call, Pipeline, Refusal, Reply, ReplyBody};
use crate::audit::OpenRow;
use crate::upstream::AnswerBody;

/// An idle stream says that it lives: clients and proxies give up on a silent one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
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
    /// The client went away.
    Left,
    /// It broke; the client is told.
    Broken(Refusal),
}

// === impl Pipeline ===

impl Pipeline {
    /// Starts a stream; the rest happens while the client reads.
    pub(super) fn stream(
        self: &Arc<Self>,
        mut call: Call,
        open: OpenRow,
        exchanging: Exchanging,
        source: Source,
    ) -> Reply {
        call.record.first_byte(self.clock.as_ref());
        let (client, receiver) = mpsc::channel(AHEAD);
        let mut headers = exchanging.headers().clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // Proxies that would buffer a stream know this one.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        let trace = call.request.trace.clone();
        let feed = match source {
            Source::Forwarded(body) => Feed::Forwarded { body, splitter: Splitter::default() },
            Source::Typed(first) => Feed::Typed { first: Some(first), grammar: Grammar::new() },
        };
        let gate = Gate::new(&call.bundle);
        let pump = Pump { pipeline: Arc::clone(self), call, exchanging, gate, client, feed };
        self.tasks.spawn(pump.run(open));
        Reply { status: StatusCode::OK, headers, body: ReplyBody::Stream(receiver), trace }
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
            End::Left => (None, Ending::failed("client_disconnected", "the client went away")),
            End::Broken(refusal) => {
                let told =
                    error::sse_error(error_type(&refusal), &refusal.to_string(), &call.request.http_id);
                (Some(told.into()), refusal.ending())
            }
        };
        let request_id = call.request.http_id.clone();
        let closed = pipeline.close(call, open, &ending).await;
        let last = match (closed, last) {
            (Ok(()), last) => last,
            (Err(unavailable), Some(_)) => {
                let refusal = Refusal::AuditUnavailable(unavailable);
                Some(error::sse_error(ErrorType::Api.as_str(), &refusal.to_string(), &request_id).into())
            }
            (Err(_), None) => None,
        };
        if let Some(last) = last {
            // A client that left before the last event has lost nothing that it waits for.
            drop(client.send(last).await);
        }
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
            if !out.is_empty() && self.client.send(out.freeze()).await.is_err() {
                return End::Left;
            }
            if let Some(error) = self.gate.error() {
                // The upstream told the client itself.
                tracing::debug!("the upstream ended its stream: {error}");
                return End::Whole(Bytes::new());
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Waits for events; keeps the client alive meanwhile, and notices if it leaves.
    async fn wait(&mut self) -> Option<Result<Batch, Refusal>> {
        let Self { pipeline, call, exchanging, client, feed, .. } = self;
        let mut next = pin!(feed.next(pipeline, call, exchanging));
        let mut alive = pin!(tokio::time::sleep(KEEP_ALIVE));
        loop {
            tokio::select! {
                biased;
                batch = &mut next => return Some(batch),
                () = client.closed() => return None,
                () = &mut alive => {
                    let mut ping = Vec::new();
                    StreamEvent::Ping.write(&mut ping);
                    if client.send(ping.into()).await.is_err() {
                        return None;
                    }
                    alive.as_mut().reset(tokio::time::Instant::now() + KEEP_ALIVE);
                }
            }
        }
    }

    async fn raw(&mut self, events: Vec<RawEvent>, out: &mut BytesMut) -> Option<End> {
        for raw in events {
            let parse = || event::parse(raw.name(), &raw.data()).ok();
            let taken = self.gate.take(raw.kind(), raw.bytes.clone(), parse, out);
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
            let kind: Kind = event.kind();
            let taken = self.gate.take(kind, bytes.into(), || Some(event), out);
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
                if !out.is_empty() && self.client.send(out.split().freeze()).await.is_err() {
                    return Some(End::Left);
                }
                let decision = self.pipeline.decide(&mut self.call, &mut held.tool, &held.input).await;
                self.pipeline.issue(&mut self.call, held.tool.clone());
                self.gate.settle(held, &decision, out);
                None
            }
            Taken::Last(bytes) => Some(End::Whole(bytes)),
            Taken::Unreadable => {
                let what = "its tool calls cannot be read, and so not be judged".to_owned();
                Some(End::Broken(Refusal::BadAnswer { what }))
            }
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

/// What kind of error a running stream ends in.
fn error_type(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Failed(failure) => &failure.error_type,
        Refusal::Overloaded => ErrorType::Overloaded.as_str(),
        _ => ErrorType::Api.as_str(),
    }
}
