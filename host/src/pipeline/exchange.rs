//! Drives a provider's state machine: its outputs become upstream requests and client events, the upstream's answers become
//! its inputs. All I/O is the host's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};
use sallyport_protocol::messages::event::StreamEvent;

use super::unary::Whole;
use super::{Call, Operation, Pipeline, Refusal, event};
use crate::component::contract::provider::{
    Failure, Input, Loss, Output, Reply, RequestBody, RequestKind, ResponseHead, TransportFault,
    UpstreamRequest,
};
use crate::component::contract::{Attribute, Edit};
use crate::component::{Component, Ended, Exchange, ExchangeRequest, Fault, Said};
use crate::config::{ExposeSecret as _, SecretString};
use crate::upstream::{self, AnswerBody, Destination, SendError};

/// Longest that the waits of a provider may take in one call, and how many there may be: each costs a call of the guest.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(1);
pub(super) const MOST_WAITS: u32 = 32;
/// Upstream requests that one call may take.
pub(super) const MOST_REQUESTS: u32 = 32;

/// The attribute of a call that holds what is known of the model, as JSON.
const MODEL_FACTS: &str = "model_facts";
/// The attribute of a call whose body holds thinking without a signature.
const UNSIGNED_THINKING: &str = "unsigned_thinking";
const SIGNATURE: &[u8] = b"\"signature\"";
/// What stands where an upstream repeated the credential.
pub(super) const HIDDEN: &str = "[credential]";

/// A provider at work on one call.
pub(super) struct Exchanging {
    /// Gone once the exchange is over: its memory is free while a body is still pumped.
    exchange: Option<Exchange>,
    component: Arc<Component>,
    micros: u32,
    queue: VecDeque<Output>,
    body: Option<AnswerBody>,
    losses: Vec<Loss>,
    headers: HeaderMap,
    requests: u32,
    waits: u32,
    waited: Duration,
    /// The provider failed, rather than its upstream.
    broken: bool,
}

/// What the provider came to next.
pub(super) enum Step {
    /// An event for the client.
    Event(StreamEvent),
    /// The upstream's body goes to the client as it is.
    Forward(ResponseHead, AnswerBody),
    /// A whole reply.
    Message(Reply),
    /// How many tokens a request has, and whether that is an estimate.
    Tokens(u32, bool),
    /// Nothing more comes.
    Done,
}

/// How an exchange begins, from the client's side.
pub(super) enum Begin {
    /// With an error.
    Refused(Refusal),
    /// With a stream.
    Stream(Source),
    /// With a whole answer.
    Whole(Whole),
}

/// Where the events of a stream come from.
pub(super) enum Source {
    /// From the upstream, as they are.
    Forwarded(AnswerBody),
    /// From the provider; this is the first one.
    Typed(StreamEvent),
}

// === impl Exchanging ===

impl Exchanging {
    /// Puts the route's provider to work.
    pub(super) async fn open(pipeline: &Pipeline, call: &Call) -> Result<Self, Refusal> {
        let tag = &call.route.provider;
        let Some(component) = call.bundle.providers.get(tag) else {
            return Err(Refusal::NoProvider { tag: tag.clone() });
        };
        let request = &call.request;
        let index = &request.body.index;
        let upstream_model = call.route.upstream_model.clone().unwrap_or_else(|| index.model.clone());
        let asked = ExchangeRequest {
            call: told_of(call, &upstream_model),
            body: Arc::clone(&request.body) as _,
            upstream_model,
            model_span: (index.model_span.start, index.model_span.len()),
            headers: upstream::travelling(&request.headers),
            kind: match request.operation {
                Operation::Message => RequestKind::Message,
                Operation::CountTokens => RequestKind::CountTokens,
            },
            target: request.target.clone(),
        };
        let exchange = pipeline.components.exchange(component, asked).await.map_err(|fault| {
            component.tally().count(Said::Fault, 0);
            broke(tag, fault)
        })?;
        let mut exchanging = Self {
            micros: exchange.micros(),
            exchange: Some(exchange),
            component: Arc::clone(component),
            queue: VecDeque::new(),
            body: None,
            losses: Vec::new(),
            headers: HeaderMap::new(),
            requests: 0,
            waits: 0,
            waited: Duration::ZERO,
            broken: false,
        };
        exchanging.feed(call, Input::Start).await?;
        Ok(exchanging)
    }

    /// Runs until it is known what the client gets.
    pub(super) async fn begin(&mut self, pipeline: &Pipeline, call: &Call) -> Begin {
        let step = match self.next(pipeline, call).await {
            Ok(step) => step,
            Err(refusal) => return Begin::Refused(refusal),
        };
        let streams = call.request.streams();
        match step {
            Step::Forward(head, body) => self.forward(head, body, streams, credential(call)).await,
            Step::Event(first) if streams => Begin::Stream(Source::Typed(first)),
            Step::Event(first) => match Whole::fold(self, pipeline, call, first).await {
                Ok(whole) => Begin::Whole(whole),
                Err(refusal) => Begin::Refused(refusal),
            },
            Step::Message(reply) if !streams => {
                Begin::Whole(Whole::Json { bytes: reply.json.into(), usage: Some(event::usage(reply.usage)) })
            }
            Step::Tokens(count, estimate) if call.request.operation == Operation::CountTokens => {
                Begin::Whole(Whole::Tokens { count, estimate })
            }
            Step::Message(_) | Step::Tokens(..) => {
                Begin::Refused(self.broke_contract("an answer that was not asked for"))
            }
            Step::Done => Begin::Refused(self.broke_contract("no answer")),
        }
    }

    /// The next thing that concerns the client. Not to be dropped half-way: the provider would be lost.
    pub(super) async fn next(&mut self, pipeline: &Pipeline, call: &Call) -> Result<Step, Refusal> {
        loop {
            let Some(output) = self.queue.pop_front() else {
                self.read(call).await?;
                continue;
            };
            match output {
                Output::Send(wanted) => self.send(pipeline, call, wanted).await?,
                Output::Forward(head) => {
                    let Some(body) = self.body.take() else {
                        return Err(self.broke_contract("forward without an answer to forward"));
                    };
                    self.end();
                    return Ok(Step::Forward(head, body));
                }
                Output::Event(event) => return Ok(Step::Event(event::wire(event))),
                Output::Message(reply) => return Ok(Step::Message(reply)),
                Output::TokenCount(count) => return Ok(Step::Tokens(count, false)),
                Output::TokenEstimate(count) => return Ok(Step::Tokens(count, true)),
                Output::Wait(ms) => {
                    tokio::time::sleep(self.pause(ms)?).await;
                    self.feed(call, Input::Elapsed).await?;
                }
                // Taken in when the outputs came.
                Output::Lost(_) => {}
                Output::ResponseHeaders(headers) => self.headers.extend(upstream::for_client(&headers)),
                Output::Done => {
                    self.end();
                    return Ok(Step::Done);
                }
            }
        }
    }

    /// How long to wait now that the provider asked for it: no more than is left of what all its waits may take.
    fn pause(&mut self, ms: u32) -> Result<Duration, Refusal> {
        let left = LONGEST_WAIT.saturating_sub(self.waited);
        self.waits += 1;
        if self.waits > MOST_WAITS || left.is_zero() {
            return Err(self.broke_contract("too much waiting"));
        }
        let pause = Duration::from_millis(ms.into()).min(left);
        self.waited = self.waited.saturating_add(pause);
        Ok(pause)
    }

    /// Whether the next event is at hand without waiting.
    pub(super) fn has_more(&self) -> bool {
        matches!(self.queue.front(), Some(Output::Event(_)))
    }

    pub(super) fn losses(&self) -> &[Loss] {
        &self.losses
    }

    pub(super) fn component(&self) -> &Component {
        &self.component
    }

    pub(super) fn micros(&self) -> u32 {
        self.exchange.as_ref().map_or(self.micros, Exchange::micros)
    }

    /// Whether the provider failed, rather than its upstream.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Headers of the upstream's answer that the client sees.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn broke_contract(&self, what: &str) -> Refusal {
        Refusal::ProviderBroke { tag: self.component.name().to_owned(), what: what.to_owned() }
    }

    async fn forward(
        &mut self,
        head: ResponseHead,
        body: AnswerBody,
        streams: bool,
        credential: Option<&SecretString>,
    ) -> Begin {
        self.headers.extend(upstream::for_client(&head.headers));
        let status = head.status;
        let media = self.media_type();
        let encoded = self.headers.contains_key(header::CONTENT_ENCODING);
        let bad = |what: &str| Begin::Refused(Refusal::BadAnswer { what: what.to_owned() });
        match status {
            400..=599 => match Whole::error(status, body).await {
                Ok(whole) => Begin::Whole(whole.without(credential)),
                Err(refusal) => Begin::Refused(refusal),
            },
            200..=299 if encoded => bad("it is encoded, though no encoding was asked for"),
            200..=299 if streams && media == "text/event-stream" => Begin::Stream(Source::Forwarded(body)),
            200..=299 if streams => bad("it is no event stream"),
            200..=299 if media == "application/json" => match Whole::json(body).await {
                Ok(whole) => Begin::Whole(whole),
                Err(refusal) => Begin::Refused(refusal),
            },
            200..=299 => bad("it is no JSON"),
            300..=399 => bad("it points elsewhere, where the gateway does not follow"),
            _ => bad("its status means nothing here"),
        }
    }

    fn media_type(&self) -> String {
        let value =
            self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Feeds the next piece of the upstream's body.
    async fn read(&mut self, call: &Call) -> Result<(), Refusal> {
        let Some(body) = &mut self.body else {
            return Err(self.broke_contract("nothing to do and nothing to wait for"));
        };
        let input = match body.chunk().await {
            Ok(Some(chunk)) => Input::Chunk(chunk.into()),
            Ok(None) => {
                self.body = None;
                Input::End
            }
            Err(error) => {
                self.body = None;
                Input::Failed(error.fault())
            }
        };
        self.feed(call, input).await
    }

    async fn send(
        &mut self,
        pipeline: &Pipeline,
        call: &Call,
        wanted: UpstreamRequest,
    ) -> Result<(), Refusal> {
        self.requests += 1;
        if self.requests > MOST_REQUESTS {
            return Err(self.broke_contract("too many upstream requests"));
        }
        let Some(endpoint) = &call.route.endpoint else {
            return Err(self.broke_contract("an upstream request on a route without an endpoint"));
        };
        let to = Destination { endpoint, credential: credential(call), patience: call.route.patience };
        let wanted = UpstreamRequest { body: without_user_id(wanted.body, call), ..wanted };
        let input = match pipeline.upstream.send(to, wanted, &call.request.body.bytes).await {
            Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => {
                pipeline.upstream.refused(&call.route, answer.status.as_u16());
                self.end();
                return Err(Refusal::Credential);
            }
            Ok(answer) => {
                if answer.status.is_success() {
                    pipeline.upstream.accepted(&call.route);
                }
                self.body = Some(answer.body);
                let mut headers = upstream::for_guest(&answer.headers);
                if let Some(secret) = credential(call) {
                    for header in &mut headers {
                        header.value = without(&header.value, secret);
                    }
                }
                Input::Head(ResponseHead { status: answer.status.as_u16(), headers })
            }
            Err(SendError::NotAllowed(what)) => return Err(self.broke_contract(what)),
            Err(SendError::Transport { fault, cause }) => {
                if let Some(cause) = cause {
                    tracing::warn!(provider = call.route.provider, "the upstream did not answer: {cause:?}");
                }
                Input::Failed(fault)
            }
        };
        self.feed(call, input).await
    }

    async fn feed(&mut self, call: &Call, input: Input) -> Result<(), Refusal> {
        let Some(exchange) = &mut self.exchange else {
            return Err(self.broke_contract("the exchange is over"));
        };
        match exchange.next(input).await {
            Ok(outputs) => {
                for output in outputs {
                    if let Output::Lost(loss) = output {
                        self.losses.push(loss);
                    } else {
                        self.queue.push_back(output);
                    }
                }
            }
            Err(ended) => {
                self.end();
                self.broken = matches!(ended, Ended::Fault(_));
                return Err(match ended {
                    Ended::Failure(failure) => Refusal::Failed(discreet(failure, credential(call))),
                    Ended::Fault(fault) => broke(&call.route.provider, fault),
                });
            }
        }
        if call.route.lossless
            && let Some(loss) = self.losses.first()
        {
            return Err(Refusal::Lossy { field: loss.field.clone() });
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            self.micros = exchange.micros();
            if let Some(log) = exchange.take_log() {
                let name = self.component.name();
                tracing::info!(target: "guest", { component.name = name }, "{}", log.escape_debug());
            }
        }
    }
}

// === private helpers ===

fn credential(call: &Call) -> Option<&SecretString> {
    call.route.api_key_secret.as_deref().and_then(|name| call.config.secrets.get(name))
}

/// `metadata.user_id` names the user to the upstream: it leaves only where the route says so. The API takes null for it.
fn without_user_id(body: RequestBody, call: &Call) -> RequestBody {
    let Some(span) = call.request.body.index.user_id.filter(|_| !call.route.forward_user_id) else {
        return body;
    };
    let edit = Edit { offset: span.start, len: span.len(), replacement: b"null".to_vec() };
    match body {
        RequestBody::Original => RequestBody::Spliced(vec![edit]),
        RequestBody::Spliced(mut edits) => {
            edits.push(edit);
            edits.sort_by_key(|edit| edit.offset);
            RequestBody::Spliced(edits)
        }
        // Bytes of the provider's own making: what it carries over is its translation's affair.
        RequestBody::Empty | RequestBody::Bytes(_) => body,
    }
}

/// The call's facts with what is known of the model that is asked for.
fn told_of(call: &Call, upstream_model: &str) -> crate::component::contract::Call {
    let mut facts = call.request.facts.clone();
    let mut known = call.config.facts.of(&call.route.provider, upstream_model);
    if let Some(own) = &call.route.model_facts {
        known = known.but(own);
    }
    if let Some(value) = known.json() {
        facts.attributes.push(Attribute { name: MODEL_FACTS.to_owned(), value });
    }
    if holds_unsigned_thinking(&call.request.body.bytes) {
        facts.attributes.push(Attribute { name: UNSIGNED_THINKING.to_owned(), value: "true".to_owned() });
    }
    facts
}

/// Whether a `signature` in the body is empty: thinking that this gateway once gave out unsigned. Looked for here, where it
/// costs next to nothing, so that a provider that forwards need not read the body to find that there is none.
fn holds_unsigned_thinking(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, SIGNATURE).any(|at| {
        let rest = body.get(at + SIGNATURE.len()..).unwrap_or_default().trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"\""))
    })
}

/// A text in which the credential does not stand.
fn without(text: &str, credential: &SecretString) -> String {
    let secret = credential.expose_secret();
    if secret.is_empty() || !text.contains(secret) { text.to_owned() } else { text.replace(secret, HIDDEN) }
}

/// An upstream may echo the credential that it did not like.
fn discreet(mut failure: Failure, credential: Option<&SecretString>) -> Failure {
    if let Some(secret) = credential {
        failure.message = without(&failure.message, secret);
        failure.error_type = without(&failure.error_type, secret);
    }
    failure
}

fn broke(tag: &str, fault: Fault) -> Refusal {
    match fault {
        Fault::Exhausted => Refusal::Overloaded,
        fault => Refusal::ProviderFault { tag: tag.to_owned(), fault },
    }
}

/// What a transport fault means to a client whose provider forwards.
pub(super) fn describe(fault: TransportFault) -> &'static str {
    match fault {
        TransportFault::Connect => "the upstream could not be reached",
        TransportFault::TimedOut => "the upstream did not answer in time",
        TransportFault::Closed => "the upstream broke off",
        TransportFault::TooLarge => "the upstream's answer is too large",
    }
}
