//! A whole Chat Completions answer as a whole Messages reply.

use std::borrow::Cow;

use sallyport_guest_codec::error::{self, UpstreamError, garbage};
use sallyport_guest_codec::json::Json;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::usage::UNKNOWN;
use sallyport_guest_codec::{surrogate, tool_input};
use sallyport_guest_sdk::provider::{Failure, Reply};
use serde::Serialize;

use crate::answer::{AnsweredFunction, AnsweredToolCall, Completion, stop_reason};

#[derive(Serialize)]
struct ReplyMessage<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    stop_reason: &'static str,
    stop_sequence: Option<String>,
    usage: Counts,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    /// Thinking of a foreign model carries no signature.
    Thinking {
        thinking: Cow<'a, str>,
        signature: &'static str,
    },
    Text {
        text: Cow<'a, str>,
    },
    ToolUse {
        id: String,
        name: String,
        input: Json<'static>,
    },
}

#[expect(clippy::struct_field_names, reason = "the wire's names")]
/// Clients read the first two as numbers, whatever is known.
#[derive(Serialize)]
struct Counts {
    input_tokens: u32,
    output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_creation_input_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_read_input_tokens: Option<u32>,
}

/// Translates the body of a successful answer.
pub(crate) fn translate(body: &[u8], context: &ReplyContext) -> Result<Reply, Failure> {
    if body.trim_ascii().is_empty() {
        return Err(garbage("the upstream's answer was empty"));
    }
    let no_completion = || {
        let said = UpstreamError::read(body);
        if said.is_empty() {
            garbage("the upstream's answer is not JSON of a chat completion")
        } else {
            error::of_object(&said)
        }
    };
    let mended;
    let mut completion: Completion<'_> = if let Ok(completion) = serde_json::from_slice(body) {
        completion
    } else {
        // Half characters keep a reply from being read; nothing else that is mended would.
        mended = surrogate::mend(body, None);
        serde_json::from_slice(&mended).map_err(|_| no_completion())?
    };
    if completion.is_error() {
        let json = completion.choice_error().map_or(body, |it| it.get().as_bytes());
        return Err(error::of_object(&UpstreamError::read(json)));
    }
    let usage = completion.usage().unwrap_or(UNKNOWN);
    let choices = completion.choices.take().ok_or_else(no_completion)?;
    let choice = choices.into_iter().min_by_key(|it| it.index.unwrap_or_default());
    let mut choice = choice.ok_or_else(|| garbage("the upstream's answer holds no choice"))?;
    let mut said = choice
        .message
        .take()
        .or_else(|| choice.delta.take())
        .ok_or_else(|| garbage("the upstream's answer holds no message"))?;

    let mut content = Vec::new();
    if let Some(thinking) = said.take_reasoning() {
        content.push(Block::Thinking { thinking, signature: "" });
    }
    let refusal = said.refusal.take().filter(|it| !it.0.is_empty());
    let refused = refusal.is_some();
    if let Some(pieces) = said.content.take() {
        pieces.each(false, &mut |is_thinking, text| {
            if !text.is_empty() {
                let block = if is_thinking {
                    Block::Thinking { thinking: text, signature: "" }
                } else {
                    Block::Text { text }
                };
                content.push(block);
            }
            Ok::<(), Failure>(())
        })?;
    }
    if let Some(text) = refusal {
        content.push(Block::Text { text: text.0 });
    }
    let mut calls = said.tool_calls.take().unwrap_or_default();
    if let Some(function) = said.function_call.take() {
        calls.push(AnsweredToolCall::only(function));
    }
    for (at, call) in calls.iter().enumerate() {
        let taken = calls.iter().take(at).any(|it| it.id() == call.id());
        let function = call.function.as_ref();
        let name = function.map_or("", AnsweredFunction::name);
        if name.is_empty() {
            return Err(garbage("the upstream called a tool without naming it"));
        }
        content.push(Block::ToolUse {
            id: context.tool_use_id(if taken { "" } else { call.id() }, at),
            name: context.tool(name.to_owned()),
            input: tool_input::whole(&function.map_or(Cow::Borrowed(""), AnsweredFunction::arguments)),
        });
    }
    let met = choice.met(context);
    let (stop_reason, stop_sequence) =
        stop_reason(choice.finish_reason.as_ref().map(|it| &*it.0), !calls.is_empty(), refused, met);

    let message = ReplyMessage {
        id: context.message_id(completion.id()),
        kind: "message",
        role: "assistant",
        model: match &completion.model {
            Some(model) if !model.0.is_empty() => &model.0,
            _ => &context.model,
        },
        content,
        stop_reason,
        stop_sequence,
        usage: Counts {
            input_tokens: usage.input.unwrap_or_default(),
            output_tokens: usage.output.unwrap_or_default(),
            cache_creation_input_tokens: usage.cache_write,
            cache_read_input_tokens: usage.cache_read,
        },
    };
    let json = serde_json::to_vec(&message)
        .map_err(|error| garbage(format!("the reply cannot be written: {error}")))?;
    Ok(Reply { json, usage })
}
