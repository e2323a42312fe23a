//! A whole reply: read for usage and tool calls, evaluated by the hooks, and released once its row is closed.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::messages::event::{self as messages, Usage};
use sallyport_protocol::messages::index::Span;
use sallyport_protocol::messages::splice::{Splice, Splices, text_block};
use sallyport_protocol::package::HookEvent;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::exchange::Begin;
use super::gate::cut;
use super::hooks::{Decision, Hooks, listeners};
use super::row::{CallEnding, ToolCall};
use super::underway::{Underway, lost};
use super::whole::Whole;
use super::{Call, Operation, Pipeline, Refusal, Reply, ReplyBody};

/// The stop reason of a turn that the model has ended.
const END_TURN: &str = "\"end_turn\"";

/// What is read of a reply.
#[derive(Deserialize)]
struct ReplyOutline<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct ToolBlock<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

// === impl Pipeline ===

impl Pipeline {
    /// Serves a call that is answered as a whole.
    pub(super) async fn reply(&self, mut underway: Underway) -> Result<Reply, Refusal> {
        let refusal = match underway.answer().await {
            Begin::Whole(whole) => return self.answer_whole(underway, whole).await,
            Begin::Refused(refusal) => refusal,
            Begin::Stream(_) => {
                let exchanging = underway.going().and_then(|going| going.exchanging.as_ref());
                exchanging.map_or_else(lost, |it| it.broke_contract("a stream that was not asked for"))
            }
        };
        Err(underway.fail(refusal).await)
    }

    /// Has a whole answer evaluated, closes the row, and lets it go.
    pub(super) async fn answer_whole(&self, mut underway: Underway, whole: Whole) -> Result<Reply, Refusal> {
        let Some(going) = underway.going() else { return Err(lost()) };
        let mut headers = going.take_headers();
        // Neither is needed any more: a hook may take its time.
        going.let_go();
        let call = &mut going.call;
        let trace = call.request.trace.clone();
        let json = HeaderValue::from_static("application/json");
        let (status, bytes, ending) = match whole {
            Whole::Error { status, bytes } => {
                let reason = format!("the upstream answered {status}");
                let ending = CallEnding {
                    status: Some(status),
                    ..CallEnding::failed(ErrorCode::UpstreamError, reason)
                };
                (status, bytes, ending)
            }
            Whole::Json { bytes, usage } => {
                let judged = match call.request.operation {
                    Operation::Message => Box::pin(self.hooks.evaluate_reply(call, bytes, usage)).await,
                    Operation::CountTokens => counted(bytes),
                };
                match judged {
                    Ok(bytes) => (200, bytes, CallEnding::served(200)),
                    Err(refusal) => return Err(underway.fail(refusal).await),
                }
            }
            Whole::Tokens { count, estimate } => {
                headers.insert(header::CONTENT_TYPE, json);
                if estimate {
                    headers.insert("x-sallyport-count", HeaderValue::from_static("estimate"));
                }
                (200, json!({ "input_tokens": count }).to_string().into(), CallEnding::served(200))
            }
        };
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        underway.end(&ending).await.map_err(Refusal::AuditUnavailable)?;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok(Reply { status, headers, body: ReplyBody::Whole(bytes), trace })
    }
}

// === impl Hooks ===

impl Hooks {
    /// Reads a reply and asks the hooks about its tool calls. The bytes change only where a hook said so.
    async fn evaluate_reply(
        &self,
        call: &mut Call,
        bytes: Bytes,
        usage: Option<Usage>,
    ) -> Result<Bytes, Refusal> {
        let unusable = || Refusal::BadAnswer { what: "it is no Messages reply".to_owned() };
        let read: ReplyOutline<'_> = serde_json::from_slice(&bytes).map_err(|_| unusable())?;
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
        let place = |raw: &RawValue| Span::of_part(&bytes, raw.get().as_bytes()).ok_or_else(unusable);
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
                self.evaluate_tool_of(call, &mut tool, input.unwrap_or("{}")).await
            };
            self.record_tool_use(call, tool);
            match decision {
                Decision::Release => released += 1,
                Decision::Modify(text) => {
                    released += 1;
                    let span = place(block.input.ok_or_else(unusable)?)?;
                    splices.push(Splice { span, with: text.into_bytes() });
                }
                Decision::Stop(why) => {
                    stopped += 1;
                    splices.push(Splice { span: place(raw)?, with: text_block(&why) });
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
            splices.push(Splice { span: place(reason)?, with: END_TURN.as_bytes().to_vec() });
            ended = true;
        }
        if ended && listeners(&call.bundle, HookEvent::Stop).next().is_some() {
            self.ended(call, last_text.unwrap_or_default()).await;
        }
        if splices.is_empty() {
            return Ok(bytes);
        }
        let splices = Splices::from_unsorted(splices).map_err(|_| unusable())?;
        Ok(splices.apply(&bytes).map_err(|_| unusable())?.into())
    }
}

/// Whether bytes are a reply of the Messages API, so far as that can be seen.
pub(super) fn is_reply(bytes: &[u8]) -> bool {
    serde_json::from_slice::<ReplyOutline<'_>>(bytes).is_ok_and(|read| read.kind == "message")
}

// === private helpers ===

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
