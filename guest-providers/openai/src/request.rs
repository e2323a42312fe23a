//! A Messages request as a Chat Completions request, and what was lost on the way.

mod content;
mod conversation;
mod options;
mod tools;

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::chat;
use crate::config::{Config, ServerTools};
use crate::facts::Facts;
use crate::json::{object, string};
use crate::ledger::Ledger;
use crate::names::Asked;

use conversation::Conversation;

/// Why a request is refused before it is sent: a message in the style of the Messages API, which names the field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

/// A translated request.
#[derive(Debug)]
pub(crate) struct Translated<'a> {
    pub(crate) chat: chat::Request<'a>,
    pub(crate) losses: Ledger,
    pub(crate) asked: Asked,
}

/// What a translation depends on besides the body.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) config: &'a Config,
    pub(crate) facts: &'a Facts,
    pub(crate) model: &'a str,
    pub(crate) streaming: bool,
}

object! {
    /// The body of `POST /v1/messages`.
    Body {
        model: &'a RawValue,
        messages: Vec<Message<'a>>,
        system: &'a RawValue,
        max_tokens: u64,
        stream: &'a RawValue,
        tools: Vec<tools::Tool<'a>>,
        tool_choice: tools::Choice<'a>,
        stop_sequences: Vec<&'a RawValue>,
        temperature: f64,
        top_p: f64,
        thinking: options::Thinking<'a>,
        output_config: options::OutputConfig<'a>,
        output_format: &'a RawValue,
        cache_control: &'a RawValue,
        safeguards: &'a RawValue,
        mcp_servers: &'a RawValue,
    }
}

object! {
    /// One turn.
    Message {
        role: &'a RawValue,
        content: &'a RawValue,
        output_config: options::OutputConfig<'a>,
    }
}

/// Translates the client's body. `asked` carries on what the reply will need.
pub(crate) fn translate<'a>(
    body: &'a str,
    target: &Target<'a>,
    mut asked: Asked,
) -> Result<Translated<'a>, Invalid> {
    let body: Body<'a> = serde_json::from_str(body).map_err(|error| Invalid(format!("the body: {error}")))?;
    if body.safeguards.is_some() {
        return Err(Invalid("safeguards: not supported by this model's upstream".to_owned()));
    }
    let mut losses = Ledger::default();
    if body.mcp_servers.is_some_and(|it| it.get() != "[]") {
        if target.config.server_tools == ServerTools::Refuse {
            let what =
                "mcp_servers: their tools are run by Anthropic's API and do not exist behind this model";
            return Err(Invalid(what.to_owned()));
        }
        losses.add("mcp_servers", "dropped");
    }
    let messages = body.messages.ok_or_else(|| Invalid("messages: Field required".to_owned()))?;

    let mut effort = body.output_config.as_ref().and_then(|it| it.effort);
    let mut conversation = Conversation::new(target, &mut losses);
    if let Some(system) = body.system {
        conversation.system_prompt(system)?;
    }
    let last = messages.len().saturating_sub(1);
    for (at, message) in messages.into_iter().enumerate() {
        // The newest effort is the one that applies to the turn asked for.
        effort = conversation.message(at, at == last, message)?.or(effort);
    }
    let messages = conversation.finish();

    if body.cache_control.is_some() {
        losses.add(content::CACHE.0, content::CACHE.1);
    }
    let offers_tools = body.tools.as_ref().is_some_and(|it| !it.is_empty());
    let options = options::translate(
        options::Asked {
            max_tokens: body.max_tokens,
            temperature: body.temperature,
            top_p: body.top_p,
            stop_sequences: body.stop_sequences.unwrap_or_default(),
            thinking: body.thinking,
            output_config: body.output_config,
            output_format: body.output_format,
            effort,
            offers_tools,
        },
        target,
        &mut losses,
        &mut asked,
    )?;
    let tools =
        tools::translate(body.tools.unwrap_or_default(), body.tool_choice, target, &mut losses, &mut asked)?;
    losses.dropped("", &body.unknown);

    let chat = chat::Request {
        model: target.model,
        messages,
        options,
        tools: tools.offered,
        tool_choice: tools.choice,
        parallel_tool_calls: tools.parallel,
        stream: target.streaming,
        stream_options: target.streaming.then_some(chat::StreamOptions { include_usage: true }),
    };
    Ok(Translated { chat, losses, asked })
}

// === impl Invalid ===

impl Invalid {
    pub(crate) fn expected(path: &str, what: &str) -> Self {
        Self(format!("{path}: {what} expected"))
    }
}

/// The string of a required field.
fn text_of(raw: Option<&RawValue>, path: impl Fn() -> String) -> Result<Cow<'_, str>, Invalid> {
    let raw = raw.ok_or_else(|| Invalid(format!("{}: Field required", path())))?;
    string(raw).ok_or_else(|| Invalid::expected(&path(), "a string"))
}
