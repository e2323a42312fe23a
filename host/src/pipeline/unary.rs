//! A whole reply: collected, read for usage and tool calls, judged by the hooks, and released once its row is closed.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use sallyport_protocol::messages::event::{self as messages, StreamEvent, Usage};
use sallyport_protocol::messages::fold::Fold;
use sallyport_protocol::messages::grammar::Grammar;
use sallyport_protocol::package::HookEvent;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::exchange::{Exchanging, HIDDEN, Step, describe};
use super::gate::{Decision, cut};
use super::hooks::listeners;
use super::row::{Ending, ToolCall};
use super::{Call, Operation, Pipeline, Refusal, Reply, ReplyBody, event};
use crate::audit::{OpenRow, Outcome, Unavailable};
use crate::component::contract::policy::Settlement;
use crate::component::contract::{Call as CallFacts, CallOutcome};
use crate::component::{Bundle, Entry, Mode};
use crate::config::{ExposeSecret as _, SecretString};
use crate::evidence::Draft;
use crate::upstream::AnswerBody;

/// Longest reply that is collected.
pub(super) const LONGEST_REPLY: usize = 32 * 1024 * 1024;
/// A policy with this capability is told what every call came to; the others have nothing to settle.
const SETTLES: &str = "settle";
/// The stop reason of a turn that the model has ended.
const END_TURN: &str = "\"end_turn\"";
/// Longest error body that is collected.
pub(super) const LONGEST_ERROR: usize = 1024 * 1024;

/// A whole answer.
pub(super) enum Whole {
    /// The upstream's error, as it came.
    Error { status: u16, bytes: Bytes },
    /// A Messages reply, or the answer to a count.
    Json { bytes: Bytes, usage: Option<Usage> },
    /// A count that the provider made.
    Tokens { count: u32, estimate: bool },
}

/// What is read of a reply.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct ToolBlock<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// A range of the reply and what stands there instead.
struct Splice {
    start: usize,
    end: usize,
    text: String,
}

// === impl Whole ===

impl Whole {
    /// Collects the body of an error.
    pub(super) async fn error(status: u16, body: AnswerBody) -> Result<Self, Refusal> {
        Ok(Self::Error { status, bytes: collect(body, LONGEST_ERROR).await? })
    }

    /// An error in which the credential does not stand, if the upstream repeated it.
    pub(super) fn without(self, credential: Option<&SecretString>) -> Self {
        let secret = credential.map(|secret| secret.expose_secret().as_bytes()).filter(|it| !it.is_empty());
        match (self, secret) {
            (Self::Error { status, bytes }, Some(secret))
                if memchr::memmem::find(&bytes, secret).is_some() =>
            {
                let mut out = BytesMut::with_capacity(bytes.len());
                let mut from = 0;
                for at in memchr::memmem::find_iter(&bytes, secret) {
                    out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
                    out.extend_from_slice(HIDDEN.as_bytes());
                    from = at + secret.len();
                }
                out.extend_from_slice(bytes.get(from..).unwrap_or_default());
                Self::Error { status, bytes: out.freeze() }
            }
            (whole, _) => whole,
        }
    }

    /// Collects a reply.
    pub(super) async fn json(body: AnswerBody) -> Result<Self, Refusal> {
        Ok(Self::Json { bytes: collect(body, LONGEST_REPLY).await?, usage: None })
    }

    /// Folds a provider's events into the reply that they describe.
    pub(super) async fn fold(
        exchanging: &mut Exchanging,
        pipeline: &Pipeline,
        call: &Call,
        first: StreamEvent,
    ) -> Result<Self, Refusal> {
        let (mut grammar, mut fold) = (Grammar::new(), Fold::new());
        let mut usage = Usage::default();
        let mut event = first;
        loop {
            grammar.check(&event).map_err(|error| exchanging.broke_contract(&error.to_string()))?;
            fold.push(&event).map_err(|error| exchanging.broke_contract(&error.to_string()))?;
            // What the wire says may be zero where nothing is known; what is metered comes from the events.
            if let StreamEvent::MessageStart { usage: said, .. }
            | StreamEvent::MessageDelta { usage: said, .. } = &event
            {
                usage.merge(*said);
            }
            if grammar.is_over() {
                break;
            }
            event = match exchanging.next(pipeline, call).await? {
                Step::Event(event) => event,
                Step::Done => return Err(exchanging.broke_contract("a reply without an end")),
                Step::Forward(..) | Step::Message(_) | Step::Tokens(..) => {
                    return Err(exchanging.broke_contract("two answers to one call"));
                }
            };
        }
        let bytes = fold.finish().map_err(|error| exchanging.broke_contract(&error.to_string()))?;
        Ok(Self::Json { bytes: bytes.into(), usage: Some(usage) })
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Judges a whole answer, closes the row, and lets it go.
    pub(super) async fn whole(
        &self,
        mut call: Call,
        open: OpenRow,
        exchanging: Exchanging,
        whole: Whole,
    ) -> Result<Reply, Refusal> {
        call.record.first_byte(self.clock.as_ref());
        call.record.provider(&exchanging);
        let mut headers = exchanging.headers().clone();
        drop(exchanging);
        let json = HeaderValue::from_static("application/json");
        let (status, bytes, ending) = match whole {
            Whole::Error { status, bytes } => {
                let reason = format!("the upstream answered {status}");
                let ending = Ending { status: Some(status), ..Ending::failed("upstream_error", reason) };
                (status, bytes, ending)
            }
            Whole::Json { bytes, usage } => {
                let judged = match call.request.operation {
                    Operation::Message => self.judge(&mut call, bytes, usage).await,
                    Operation::CountTokens => counted(bytes),
                };
                match judged {
                    Ok(bytes) => (200, bytes, Ending::served(200)),
                    Err(refusal) => return Err(self.fail(call, open, refusal).await),
                }
            }
            Whole::Tokens { count, estimate } => {
                headers.insert(header::CONTENT_TYPE, json);
                if estimate {
                    headers.insert("x-sallyport-count", HeaderValue::from_static("estimate"));
                }
                (200, json!({ "input_tokens": count }).to_string().into(), Ending::served(200))
            }
        };
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let trace = call.request.trace.clone();
        self.close(call, open, &ending).await.map_err(Refusal::AuditUnavailable)?;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok(Reply { status, headers, body: ReplyBody::Whole(bytes), trace })
    }

    /// Reads a reply and asks the hooks about its tool calls. The bytes change only where a hook said so.
    async fn judge(&self, call: &mut Call, bytes: Bytes, usage: Option<Usage>) -> Result<Bytes, Refusal> {
        let unusable = || Refusal::BadAnswer { what: "it is no Messages reply".to_owned() };
        let read: Read<'_> = serde_json::from_slice(&bytes).map_err(|_| unusable())?;
        if read.kind != "message" {
            return Err(unusable());
        }
        call.record.used(usage.or(read.usage).unwrap_or_default());
        let listens = [HookEvent::PreToolUse, HookEvent::Stop]
            .iter()
            .any(|event| listeners(&call.bundle, *event).next().is_some());
        // What a provider said is given out by the gateway; what an upstream said passes as it is, unless somebody judges it.
        let whole_inputs = listens || usage.is_some();
        let mut hidden = if listens {
            messages::check(&bytes)
                .map_err(|error| Refusal::Unreadable { what: error.to_string() })?
                .tool_uses
        } else {
            0
        };
        let base = bytes.as_ptr() as usize;
        let place = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - base;
            (start, start + raw.get().len())
        };
        let mut splices = Vec::new();
        let mut last_text = None;
        let (mut released, mut stopped) = (0_u32, 0_u32);
        for raw in &read.content {
            let block: ToolBlock<'_> = serde_json::from_str(raw.get()).map_err(|_| unusable())?;
            if block.kind != "tool_use" {
                last_text = block.text.filter(|_| block.kind == "text").map(Cow::into_owned).or(last_text);
                continue;
            }
            let (Some(id), Some(name)) = (block.id, block.name) else { return Err(unusable()) };
            let mut tool = ToolCall { id, name, blocked: None };
            hidden = hidden.saturating_sub(1);
            let input = block.input.map(RawValue::get);
            let is_whole = input.is_some_and(|input| messages::tool_input(input).is_ok());
            let decision = if whole_inputs && !is_whole {
                cut(&mut tool)
            } else {
                self.decide(call, &mut tool, input.unwrap_or("{}")).await
            };
            self.issue(call, tool);
            match decision {
                Decision::Release => released += 1,
                Decision::Modify(text) => {
                    released += 1;
                    let (start, end) = place(block.input.ok_or_else(unusable)?);
                    splices.push(Splice { start, end, text });
                }
                Decision::Stop(why) => {
                    stopped += 1;
                    let (start, end) = place(raw);
                    splices.push(Splice { start, end, text: text_block(&why) });
                    last_text = Some(why);
                }
            }
        }
        if hidden > 0 {
            let what = "it holds a tool call in a place where there should be none".to_owned();
            return Err(Refusal::Unreadable { what });
        }
        let mut ended = read.stop_reason.is_some_and(|reason| reason.get() == END_TURN);
        if stopped > 0
            && released == 0
            && let Some(reason) = read.stop_reason
            && reason.get() == "\"tool_use\""
        {
            let (start, end) = place(reason);
            splices.push(Splice { start, end, text: END_TURN.to_owned() });
            ended = true;
        }
        if ended && listeners(&call.bundle, HookEvent::Stop).next().is_some() {
            self.ended(call, last_text.unwrap_or_default()).await;
        }
        if splices.is_empty() {
            return Ok(bytes);
        }
        splices.sort_by_key(|splice| splice.start);
        Ok(spliced(&bytes, &splices))
    }

    /// Closes the row of a call that was answered: price, rows, and policies that settle.
    pub(super) async fn close(
        &self,
        mut call: Call,
        open: OpenRow,
        ending: &Ending,
    ) -> Result<(), Unavailable> {
        let model = call.route.upstream_model.clone().unwrap_or_else(|| call.request.facts.model.clone());
        call.record.price(&call.config.prices, &model);
        let spent = Settlement {
            usage: event::counted(call.record.usage()),
            cost_micro: call.record.cost_micro().unwrap_or(0).to_string(),
            outcome: match ending.outcome {
                Outcome::Allowed => CallOutcome::Allowed,
                Outcome::Denied => CallOutcome::Denied,
                Outcome::Error => CallOutcome::Error,
            },
        };
        self.keep_evidence(&mut call, ending);
        let Call { record, bundle, request, .. } = call;
        let closed = open.close(record.close(ending, self.clock.as_ref())).await;
        self.settle(&bundle, &request.facts, &spent).await;
        closed
    }

    /// Hands over what was gathered; the row says what became of it.
    fn keep_evidence(&self, call: &mut Call, ending: &Ending) {
        let Some((gathering, policy_version)) = call.record.gathered() else { return };
        let fate = self.evidence.keep(Draft {
            gathering,
            call: call.request.facts.clone(),
            body: call.request.body.bytes.clone(),
            request_id: call.request.http_id.clone(),
            policy_version,
            outcome: ending.outcome.as_str(),
            code: ending.code.clone(),
        });
        call.record.note("evidence", fate.as_str());
    }

    /// Tells the policies that reserved something what came of it. A fault here changes nothing for the client.
    async fn settle(&self, bundle: &Bundle, facts: &CallFacts, spent: &Settlement) {
        let settling = |entry: &&Entry| {
            // In shadow it counted too.
            entry.mode != Mode::Off && entry.component.capabilities().iter().any(|it| it == SETTLES)
        };
        for entry in bundle.policies.iter().filter(settling) {
            let ran = self.components.settle(&entry.component, facts, spent).await;
            if let Err(fault) = ran.result {
                let (name, fault) = (entry.component.name(), fault.code());
                tracing::warn!(component.name = name, component.fault = fault, "a policy could not settle");
            }
        }
    }
}

// === private helpers ===

async fn collect(mut body: AnswerBody, limit: usize) -> Result<Bytes, Refusal> {
    let bad = |what: &str| Refusal::BadAnswer { what: what.to_owned() };
    let mut all = BytesMut::new();
    loop {
        match body.chunk().await {
            Ok(Some(chunk)) if all.len() + chunk.len() > limit => return Err(bad("it is too large")),
            Ok(Some(chunk)) => all.extend_from_slice(&chunk),
            Ok(None) => return Ok(all.freeze()),
            Err(error) => return Err(bad(describe(error.fault()))),
        }
    }
}

fn counted(bytes: Bytes) -> Result<Bytes, Refusal> {
    #[derive(Deserialize)]
    struct Count {
        #[serde(rename = "input_tokens")]
        _tokens: u64,
    }
    match serde_json::from_slice::<Count>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(Refusal::BadAnswer { what: "it is no token count".to_owned() }),
    }
}

fn text_block(text: &str) -> String {
    json!({ "type": "text", "text": text }).to_string()
}

fn spliced(bytes: &Bytes, splices: &[Splice]) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len());
    let mut at = 0;
    for splice in splices {
        out.extend_from_slice(bytes.get(at..splice.start).unwrap_or_default());
        out.extend_from_slice(splice.text.as_bytes());
        at = splice.end;
    }
    out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    out.freeze()
}
