//! Drives a provider's state machine: its outputs become upstream requests and client events, the upstream's answers become
//! its inputs. All I/O is the host's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};
use sallyport_protocol::messages::event::StreamEvent;
use sallyport_protocol::messages::index::Span;
use sallyport_protocol::messages::splice::{Splice, Splices};

use super::row::ProviderPart;
use super::whole::Whole;
use super::{Call, Operation, Refusal, event};
use crate::component::contract::provider::{
    Failure, Input, Loss, Output, Reply, RequestBody, RequestKind, ResponseHead, TransportFault,
    UpstreamRequest,
};
use crate::component::contract::{Attribute, Call as CallFacts, Edit};
use crate::component::{Component, Components, Exchange, ExchangeRequest, Fault, Said};
use crate::config::{Config, Endpoint, ExposeSecret as _, RouteCredential, RouteTarget, SecretString};
use crate::upstream::{self, Answer, AnswerBody, Destination, SendError, Upstream, UpstreamCredential};

/// Longest that the waits of a provider may take in one call, and how many there may be: each costs a call of the guest.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(1);
pub(super) const MOST_WAITS: u32 = 32;
/// As much of an answer's body a provider is told at once, in bytes.
const AT_ONCE: usize = 256 * 1024;
/// Upstream requests that one call may take.
pub(super) const MOST_REQUESTS: u32 = 32;

/// The attribute of a call that holds what is known of the model, as JSON.
const MODEL_FACTS: &str = "model_facts";
/// The attribute of a call whose body holds thinking without a signature.
const UNSIGNED_THINKING: &str = "unsigned_thinking";
const SIGNATURE: &[u8] = b"\"signature\"";
/// How the value of a signature begins that is not Anthropic's: empty, or marked by a provider (`guest-codec/src/carry.rs`).
const FOREIGN: [&[u8]; 2] = [b"\"\"", b"\"sallyport."];
/// What stands where an upstream repeated the credential.
pub(super) const HIDDEN: &str = "[credential]";

/// A provider at work on one call.
pub(super) struct Exchanging {
    /// Gone once the exchange is over: its memory is free while a body is still pumped.
    exchange: Option<Exchange>,
    component: Arc<Component>,
    micros: u32,
    calls: u32,
    queue: VecDeque<Output>,
    /// The head of an answer, until the provider is told of it together with what of the body came with it.
    head: Option<ResponseHead>,
    body: Option<AnswerBody>,
    /// What of the body the provider was told last: where it forwards, the client gets that too.
    told: Vec<Bytes>,
    /// All of the body was told.
    complete: bool,
    losses: Vec<Loss>,
    headers: HeaderMap,
    requests: u32,
    waits: u32,
    waited: Duration,
    /// What the upstream was shown of a credential that is made anew for each call.
    shown: Vec<SecretString>,
    /// The provider failed, rather than its upstream.
    broken: bool,
    /// What the host itself saw of the last answer.
    heard: Option<Heard>,
}

/// What the host saw of an upstream's last answer, whatever the provider makes of it.
pub(super) enum Heard {
    /// A head.
    Status {
        status: u16,
        /// How long the upstream asks not to be called.
        retry_after: Option<Duration>,
    },
    /// No head, or a body that broke off.
    Fault(TransportFault),
}

/// What the provider came to next.
pub(super) enum ProviderStep {
    /// An event for the client.
    Event(StreamEvent),
    /// The upstream's body goes to the client as it is, with this status; the client sees the headers that were told.
    Forward(u16, AnswerBody),
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
    Stream(EventSource),
    /// With a whole answer.
    Whole(Whole),
}

/// Where the events of a stream come from.
pub(super) enum EventSource {
    /// From the upstream, as they are.
    Forwarded(AnswerBody),
    /// From the provider; this is the first one.
    Typed(StreamEvent),
}

// === impl Exchanging ===

impl Exchanging {
    /// Puts the target's provider to work.
    pub(super) async fn open(components: &Components, call: &Call) -> Result<Self, Refusal> {
        let tag = &call.target.provider;
        let Some(component) = call.bundle.providers.get(tag) else {
            return Err(Refusal::NoProvider { tag: tag.clone() });
        };
        let (exchange, outputs) = begun(components, component, call).await?;
        let mut exchanging = Self {
            micros: exchange.micros(),
            calls: exchange.calls(),
            exchange: Some(exchange),
            component: Arc::clone(component),
            queue: VecDeque::new(),
            head: None,
            body: None,
            told: Vec::new(),
            complete: false,
            losses: Vec::new(),
            headers: HeaderMap::new(),
            requests: 0,
            waits: 0,
            waited: Duration::ZERO,
            shown: Vec::new(),
            broken: false,
            heard: None,
        };
        exchanging.take(call, outputs)?;
        Ok(exchanging)
    }

    /// Runs until it is known what the client gets.
    pub(super) async fn begin(&mut self, upstream: &Upstream, call: &Call) -> Begin {
        let step = match self.next(upstream, call).await {
            Ok(step) => step,
            Err(refusal) => return Begin::Refused(refusal),
        };
        let streams = call.request.streams();
        match step {
            ProviderStep::Forward(status, body) => self.forward(status, body, streams, call).await,
            ProviderStep::Event(first) if streams => Begin::Stream(EventSource::Typed(first)),
            ProviderStep::Event(first) => match Whole::fold(self, upstream, call, first).await {
                Ok(whole) => Begin::Whole(whole),
                Err(refusal) => Begin::Refused(refusal),
            },
            ProviderStep::Message(reply) if !streams => {
                Begin::Whole(Whole::Json { bytes: reply.json.into(), usage: Some(event::usage(reply.usage)) })
            }
            ProviderStep::Tokens(count, estimate) if call.request.operation == Operation::CountTokens => {
                Begin::Whole(Whole::Tokens { count, estimate })
            }
            ProviderStep::Message(_) | ProviderStep::Tokens(..) => {
                Begin::Refused(self.broke_contract("an answer that was not asked for"))
            }
            ProviderStep::Done => Begin::Refused(self.broke_contract("no answer")),
        }
    }

    /// The next thing that concerns the client. Not to be dropped half-way: the provider would be lost.
    pub(super) async fn next(&mut self, upstream: &Upstream, call: &Call) -> Result<ProviderStep, Refusal> {
        loop {
            let Some(output) = self.queue.pop_front() else {
                self.read(call).await?;
                continue;
            };
            match output {
                Output::Send(wanted) => self.send(upstream, call, wanted).await?,
                Output::SendThenForward(wanted) => {
                    // Its instance is gone before the upstream is dialled.
                    self.end();
                    return match self.ask(upstream, call, wanted).await? {
                        Ok(Answer { status, headers, body, .. }) => {
                            let mut headers = upstream::passed_on(&headers);
                            for secret in self.shown_of(call) {
                                for value in headers.values_mut() {
                                    hide_in_header(value, secret);
                                }
                            }
                            self.tell(headers);
                            Ok(ProviderStep::Forward(status.as_u16(), body))
                        }
                        Err(fault) => Err(Refusal::Failed(unanswered(&fault))),
                    };
                }
                Output::Forward(head) => {
                    let Some(mut body) = self.body.take() else {
                        // It broke off before the provider was told of its head.
                        return Err(match &self.heard {
                            Some(Heard::Fault(fault)) => Refusal::Failed(unanswered(fault)),
                            _ => self.broke_contract("forward without an answer to forward"),
                        });
                    };
                    self.end();
                    body.unread(std::mem::take(&mut self.told));
                    self.tell(upstream::for_client(&head.headers));
                    return Ok(ProviderStep::Forward(head.status, body));
                }
                Output::Event(event) => return Ok(ProviderStep::Event(event::wire(event))),
                Output::Message(reply) => return Ok(ProviderStep::Message(reply)),
                Output::TokenCount(count) => return Ok(ProviderStep::Tokens(count, false)),
                Output::TokenEstimate(count) => return Ok(ProviderStep::Tokens(count, true)),
                Output::Wait(ms) => {
                    tokio::time::sleep(self.pause(ms)?).await;
                    self.feed(call, vec![Input::Elapsed]).await?;
                }
                // Taken in when the outputs came.
                Output::Lost(_) => {}
                Output::ResponseHeaders(headers) => self.tell(upstream::for_client(&headers)),
                Output::Done => {
                    self.end();
                    return Ok(ProviderStep::Done);
                }
                Output::Fail(failure) => {
                    self.end();
                    return Err(if self.requests == 0 {
                        Refusal::Declined(failure)
                    } else {
                        Refusal::Failed(self.discreet(failure, call))
                    });
                }
                Output::Other(_) => {
                    return Err(self.broke_contract("an output that this gateway does not know"));
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

    /// What the row says of the provider so far.
    pub(super) fn part(&self) -> ProviderPart<'_> {
        ProviderPart {
            component: &self.component,
            micros: self.exchange.as_ref().map_or(self.micros, Exchange::micros),
            calls: self.exchange.as_ref().map_or(self.calls, Exchange::calls),
            broken: self.broken,
            losses: &self.losses,
        }
    }

    /// What the host saw of the last answer.
    pub(super) fn heard(&mut self) -> Option<Heard> {
        self.heard.take()
    }

    /// Headers of the upstream's answer that the client sees. They are told once.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.headers)
    }

    /// The client sees these headers.
    fn tell(&mut self, headers: HeaderMap) {
        if self.headers.is_empty() {
            self.headers = headers;
        } else {
            self.headers.extend(headers);
        }
    }

    pub(super) fn broke_contract(&self, what: &str) -> Refusal {
        Refusal::ProviderBroke { tag: self.component.name().to_owned(), what: what.to_owned() }
    }

    async fn forward(&mut self, status: u16, body: AnswerBody, streams: bool, call: &Call) -> Begin {
        let media = self.media_type();
        let encoded = self.headers.contains_key(header::CONTENT_ENCODING);
        let bad = |what: &str| Begin::Refused(Refusal::BadAnswer { what: what.to_owned() });
        match status {
            400..=599 => match Whole::error(status, body).await {
                Ok(whole) => Begin::Whole(self.shown_of(call).fold(whole, Whole::without)),
                Err(refusal) => Begin::Refused(refusal),
            },
            200..=299 if encoded => bad("it is encoded, though no encoding was asked for"),
            200..=299 if streams && media == "text/event-stream" => {
                Begin::Stream(EventSource::Forwarded(body))
            }
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

    /// Tells the provider of all that has come of the upstream's answer: its head with what of the body is there already, and of a
    /// body that nobody reads while it comes as much as fits.
    async fn read(&mut self, call: &Call) -> Result<(), Refusal> {
        let Some(body) = self.body.as_mut().filter(|_| !self.complete) else {
            return Err(self.broke_contract("nothing to do and nothing to wait for"));
        };
        let mut inputs: Vec<Input> = self.head.take().map(Input::Head).into_iter().collect();
        self.told.clear();
        let mut size = 0_usize;
        let end = loop {
            let next = if self.told.is_empty() || !call.request.streams() {
                Some(body.chunk().await)
            } else {
                body.chunk().now_or_never()
            };
            match next {
                Some(Ok(Some(chunk))) => {
                    size = size.saturating_add(chunk.len());
                    self.told.push(chunk);
                }
                Some(Ok(None)) => break Some(Input::End),
                Some(Err(error)) => {
                    self.heard = Some(Heard::Fault(error.fault()));
                    break Some(Input::Failed(error.fault()));
                }
                None => break None,
            }
            if size >= AT_ONCE {
                break None;
            }
        };
        if size > 0 {
            inputs.push(Input::Chunk(self.told.concat()));
        }
        match end {
            // What there is of it stays, for a provider that forwards.
            Some(Input::End) => self.complete = true,
            Some(_) => self.body = None,
            None => {}
        }
        inputs.extend(end);
        self.feed(call, inputs).await
    }

    /// Makes a request whose answer the provider is told of.
    async fn send(
        &mut self,
        upstream: &Upstream,
        call: &Call,
        wanted: UpstreamRequest,
    ) -> Result<(), Refusal> {
        match self.ask(upstream, call, wanted).await? {
            Ok(Answer { status, headers, body, .. }) => {
                let mut headers = upstream::for_guest(&headers);
                for secret in self.shown_of(call) {
                    for header in &mut headers {
                        hide(&mut header.value, secret);
                    }
                }
                let head = ResponseHead { status: status.as_u16(), headers };
                (self.head, self.body, self.complete) = (Some(head), Some(body), false);
                Ok(())
            }
            Err(fault) => {
                (self.head, self.body) = (None, None);
                self.feed(call, vec![Input::Failed(fault)]).await
            }
        }
    }

    /// Makes a request: its answer, of which the body is to come, or why there is none.
    async fn ask(
        &mut self,
        upstream: &Upstream,
        call: &Call,
        wanted: UpstreamRequest,
    ) -> Result<Result<Answer, TransportFault>, Refusal> {
        self.requests += 1;
        if self.requests > MOST_REQUESTS {
            return Err(self.broke_contract("too many upstream requests"));
        }
        let Some(endpoint) = &call.target.endpoint else {
            return Err(self.broke_contract("an upstream request to a target without an endpoint"));
        };
        let to = destination(endpoint, &call.target, &call.config, &self.component);
        let wanted = UpstreamRequest { body: without_user_id(wanted.body, call), ..wanted };
        let sent = upstream.send(to, wanted, &call.request.body.bytes).await;
        self.heard = Heard::of(&sent);
        match sent {
            Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => {
                upstream.refused(&call.target, credential(call), answer.status.as_u16());
                self.end();
                Err(Refusal::Credential)
            }
            Ok(mut answer) => {
                if answer.status.is_success() {
                    upstream.accepted(&call.target);
                }
                self.shown.append(&mut answer.shown);
                Ok(Ok(answer))
            }
            Err(SendError::NotAllowed(what)) => Err(self.broke_contract(what)),
            Err(SendError::Identity(error)) => {
                upstream.without_identity(&call.target);
                self.end();
                Err(if error.is_transient() { Refusal::Unidentified } else { Refusal::Credential })
            }
            Err(SendError::Transport { fault, cause }) => {
                if let Some(cause) = cause {
                    tracing::warn!(provider = call.target.provider, "the upstream did not answer: {cause:?}");
                }
                Ok(Err(fault))
            }
        }
    }

    /// Everything secret that the upstream was shown.
    fn shown_of<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = &'a SecretString> {
        let text = match credential(call) {
            Some(RouteCredential::Text(secret)) => Some(secret),
            Some(RouteCredential::Cloud(_)) | None => None,
        };
        text.into_iter().chain(&self.shown)
    }

    /// An upstream may echo the credential that it did not like.
    fn discreet(&self, mut failure: Failure, call: &Call) -> Failure {
        for secret in self.shown_of(call) {
            hide(&mut failure.message, secret);
            hide(&mut failure.error_type, secret);
        }
        failure
    }

    /// Tells the provider what happened, and takes in what it says.
    async fn feed(&mut self, call: &Call, inputs: Vec<Input>) -> Result<(), Refusal> {
        let Some(exchange) = &mut self.exchange else {
            return Err(self.broke_contract("the exchange is over"));
        };
        match exchange.next(inputs).await {
            Ok(outputs) => self.take(call, outputs),
            Err(fault) => {
                self.end();
                self.broken = true;
                Err(broke(&call.target.provider, fault))
            }
        }
    }

    fn take(&mut self, call: &Call, outputs: Vec<Output>) -> Result<(), Refusal> {
        for output in outputs {
            if let Output::Lost(loss) = output {
                self.losses.push(loss);
            } else {
                self.queue.push_back(output);
            }
        }
        match self.losses.first() {
            Some(loss) if call.route.lossless => Err(Refusal::Lossy { field: loss.field.clone() }),
            _ => Ok(()),
        }
    }

    fn end(&mut self) {
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        if let Some(mut exchange) = self.exchange.take() {
            (self.micros, self.calls) = (exchange.micros(), exchange.calls());
            if let Some(log) = exchange.take_log() {
                let name = self.component.name();
                tracing::info!(target: "guest", { component.name = name }, "{}", log.escape_debug());
            }
        }
    }
}

// === impl Heard ===

impl Heard {
    fn of(sent: &Result<Answer, SendError>) -> Option<Self> {
        match sent {
            Ok(answer) => Some(Self::Status {
                status: answer.status.as_u16(),
                retry_after: upstream::retry_after(&answer.headers),
            }),
            Err(SendError::Transport { fault, .. }) => Some(Self::Fault(fault.clone())),
            Err(SendError::NotAllowed(_) | SendError::Identity(_)) => None,
        }
    }

    /// How long the upstream asks not to be called.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Fault(_) => None,
        }
    }
}

// === private helpers ===

/// Puts a provider to work on a call.
async fn begun(
    components: &Components,
    component: &Arc<Component>,
    call: &Call,
) -> Result<(Exchange, Vec<Output>), Refusal> {
    let request = &call.request;
    let index = &request.body.index;
    let upstream_model = call.target.model(&index.model).to_owned();
    let asked = ExchangeRequest {
        call: told_of(call, &upstream_model),
        body: Arc::clone(&request.body) as _,
        upstream_model,
        model_span: (index.model_span.start, index.model_span.len()),
        headers: request.body.headers(),
        kind: match request.operation {
            Operation::Message => RequestKind::Message,
            Operation::CountTokens => RequestKind::CountTokens,
        },
        target: request.target.clone(),
    };
    components.exchange(component, asked).await.map_err(|fault| {
        component.tally().count(Said::Fault, 0);
        broke(&call.target.provider, fault)
    })
}

/// What the call's provider would send of the request, if it forwards: that is what a batch holds of it. Nothing is sent.
pub(super) async fn carried(components: &Components, call: &mut Call) -> Result<Bytes, Refusal> {
    let tag = call.target.provider.clone();
    let Some(component) = call.bundle.providers.get(&tag).cloned() else {
        return Err(Refusal::NoProvider { tag });
    };
    let broke =
        |what: &str| Refusal::ProviderBroke { tag: component.name().to_owned(), what: what.to_owned() };
    let (exchange, outputs) = begun(components, &component, call).await?;
    let (micros, calls) = (exchange.micros(), exchange.calls());
    drop(exchange);
    let (mut losses, mut wanted) = (Vec::new(), None);
    for output in outputs {
        match output {
            Output::Lost(loss) => losses.push(loss),
            Output::SendThenForward(request) => wanted = Some(request.body),
            Output::Fail(failure) => return Err(Refusal::Declined(failure)),
            _ => return Err(broke("a request of a batch that is not forwarded")),
        }
    }
    let losses = losses.as_slice();
    call.record.provider(ProviderPart { component: &component, micros, calls, broken: false, losses });
    if let Some(loss) = losses.first().filter(|_| call.route.lossless) {
        return Err(Refusal::Lossy { field: loss.field.clone() });
    }
    let bytes = &call.request.body.bytes;
    let edits = match wanted.map(|body| without_user_id(body, call)) {
        Some(RequestBody::Original) => return Ok(bytes.clone()),
        Some(RequestBody::Spliced(edits)) => edits,
        _ => return Err(broke("a request of a batch that it writes anew")),
    };
    let splices = edits.into_iter().map(|Edit { offset, len, replacement }| Splice {
        span: Span { start: offset, end: offset.saturating_add(len) },
        with: replacement,
    });
    let spliced = Splices::from_unsorted(splices.collect()).and_then(|splices| splices.apply(bytes));
    spliced.map(Bytes::from).map_err(|_| broke("splice outside the body"))
}

/// Where requests to a target go, and as whom.
pub(super) fn destination<'a>(
    endpoint: &'a Endpoint,
    target: &'a RouteTarget,
    config: &'a Config,
    component: &'a Component,
) -> Destination<'a> {
    let form = target.api_key_form.as_ref().unwrap_or_else(|| component.credential_form());
    let credential = credential_of(target, config).map(|credential| match credential {
        RouteCredential::Text(secret) => UpstreamCredential::Text { secret, form },
        RouteCredential::Cloud(credential) => {
            UpstreamCredential::Cloud { credential, region: target.aws_region() }
        }
    });
    Destination { endpoint, credential, timeouts: target.timeouts }
}

fn credential(call: &Call) -> Option<&RouteCredential> {
    credential_of(&call.target, &call.config)
}

/// The credential that a target names.
pub(super) fn credential_of<'a>(target: &RouteTarget, config: &'a Config) -> Option<&'a RouteCredential> {
    target.api_key_secret.as_deref().and_then(|name| config.secrets.credential(name))
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
        RequestBody::Empty | RequestBody::Bytes(_) | RequestBody::Other(_) => body,
    }
}

/// The call's facts with what is known of the model that is asked for.
fn told_of(call: &Call, upstream_model: &str) -> CallFacts {
    let mut facts = CallFacts::clone(&call.request.facts);
    let mut known = call.config.facts.of(&call.target.provider, upstream_model);
    if let Some(own) = &call.target.model_facts {
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

/// Whether a `signature` in the body is empty, or one that a provider carries for its own upstream: thinking that this gateway once gave
/// out for another vendor's model. Looked for here, where it costs next to nothing, so that a provider that forwards need not read the
/// body to find that there is none.
fn holds_unsigned_thinking(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, SIGNATURE).any(|at| {
        let rest = body.get(at + SIGNATURE.len()..).unwrap_or_default().trim_ascii_start();
        let value = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value.is_some_and(|value| FOREIGN.iter().any(|begin| value.starts_with(begin)))
    })
}

/// Takes the credential out of a text.
fn hide(text: &mut String, credential: &SecretString) {
    let secret = credential.expose_secret();
    if !secret.is_empty() && text.contains(secret) {
        *text = text.replace(secret, HIDDEN);
    }
}

/// The same of the value of a header.
pub(super) fn hide_in_header(value: &mut HeaderValue, credential: &SecretString) {
    let secret = credential.expose_secret();
    if secret.is_empty() || memchr::memmem::find(value.as_bytes(), secret.as_bytes()).is_none() {
        return;
    }
    let text = value.to_str().unwrap_or_default().replace(secret, HIDDEN);
    *value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(HIDDEN));
}

fn broke(tag: &str, fault: Fault) -> Refusal {
    match fault {
        Fault::Exhausted => Refusal::Overloaded,
        fault => Refusal::ProviderFault { tag: tag.to_owned(), fault },
    }
}

/// What a request that brought no answer is to the client of a provider that forwards. The SDK's providers say the same.
pub(super) fn unanswered(fault: &TransportFault) -> Failure {
    let (status, error_type, message, retryable) = match fault {
        TransportFault::Connect => (502, "api_error", "the upstream cannot be reached", true),
        TransportFault::TimedOut => (504, "timeout_error", "the upstream did not answer in time", true),
        TransportFault::Closed => (502, "api_error", "the connection to the upstream broke off", true),
        TransportFault::TooLarge => {
            (502, "api_error", "the upstream's answer is larger than the gateway accepts", false)
        }
        TransportFault::Other(_) => (502, "api_error", "the upstream did not answer", true),
    };
    let (error_type, message) = (error_type.to_owned(), message.to_owned());
    Failure { status, error_type, message, retryable, retry_after_ms: None }
}

/// What a transport fault means to a client whose provider forwards.
pub(super) fn describe(fault: &TransportFault) -> &'static str {
    match fault {
        TransportFault::Connect => "the upstream could not be reached",
        TransportFault::TimedOut => "the upstream did not answer in time",
        TransportFault::Closed => "the upstream broke off",
        TransportFault::TooLarge => "the upstream's answer is too large",
        TransportFault::Other(_) => "the upstream did not answer",
    }
}
