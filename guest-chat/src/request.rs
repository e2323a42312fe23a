//! A Messages request as a Chat Completions request, and what was lost on the way.

mod content;
mod conversation;
mod options;
mod tools;

use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{Invalid, Path, Request, Thinking, ThinkingMode};
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::offer::{offer, without_anthropics_own};
use sallyport_guest_codec::parts::CACHE;
use sallyport_guest_codec::turns::walk;

use crate::chat;
use crate::config::Config;
use crate::facts::Facts;
use crate::vendor::{Switch, Wire};

use conversation::Conversation;
pub use options::{effort, enforced};
pub use tools::parameters;

/// Where `top_k` stands in a Messages request.
const TOP_K: &str = "top_k";

/// A translated request.
#[derive(Debug)]
pub(crate) struct Translated<'a> {
    pub(crate) chat: chat::Request<'a>,
    pub(crate) losses: Losses,
    pub(crate) context: ReplyContext,
}

/// What a translation depends on besides the body.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) config: &'a Config,
    pub(crate) facts: &'a Facts,
    pub(crate) wire: Wire,
    pub(crate) model: &'a str,
    pub(crate) streaming: bool,
}

/// Translates the client's body. `context` carries on what the reply will need.
pub(crate) fn translate<'a>(
    body: &'a str,
    target: &Target<'a>,
    mut context: ReplyContext,
) -> Result<Translated<'a>, Invalid> {
    let body = Request::read(body)?;
    let mut losses = Losses::default();
    without_anthropics_own(&body, target.config.server_tools, &mut losses)?;
    let messages = body.messages.as_ref().ok_or_else(|| Invalid::missing(Path::root("messages")))?;

    let mut conversation = Conversation::new(target);
    if let Some(system) = body.system {
        conversation.system_prompt(system, &mut losses)?;
    }
    let effort = body.output_config.as_ref().and_then(|it| it.effort);
    let effort = walk(messages, &mut conversation, effort, &mut losses)?;
    let messages = conversation.finish();

    if body.cache_control.is_some() {
        losses.add(CACHE.0, CACHE.1);
    }
    let thinks = thinks(body.thinking.as_ref(), target.wire.switch)?;
    let top_k = body.field(TOP_K).filter(|_| target.wire.top_k);
    let offers_tools = body.tools.as_ref().is_some_and(|it| !it.is_empty());
    let options = options::translate(
        options::Wanted {
            max_tokens: body.max_tokens,
            temperature: body.temperature,
            top_p: body.top_p,
            top_k,
            stop_sequences: body.stop_sequences.unwrap_or_default(),
            thinking: body.thinking,
            output_config: body.output_config,
            output_format: body.output_format,
            effort,
            offers_tools,
        },
        target,
        &mut losses,
        &mut context,
    )?;
    let offer = offer(
        body.tools.unwrap_or_default(),
        body.tool_choice,
        target.wire.names,
        target.config.server_tools,
        &mut losses,
        &mut context,
    )?;
    let tools = tools::translate(offer, thinks, target, &mut losses);
    let unknown: Vec<_> =
        body.unknown.into_iter().filter(|it| it.name != TOP_K || !target.wire.top_k).collect();
    losses.dropped("", &unknown);

    let chat = chat::Request {
        model: target.model,
        messages,
        options,
        tools: tools.offered,
        tool_choice: tools.choice,
        parallel_tool_calls: tools.parallel,
        stream: target.streaming,
        stream_options: (target.streaming && target.wire.asks_for_usage)
            .then_some(chat::StreamOptions { include_usage: true }),
    };
    Ok(Translated { chat, losses, context })
}

/// Whether the model will think: as the client says, where that can be said.
fn thinks(thinking: Option<&Thinking<'_>>, switch: Switch) -> Result<bool, Invalid> {
    let mode = thinking.map(Thinking::mode).transpose()?;
    Ok(match (mode, switch) {
        (_, Switch::Always) | (Some(ThinkingMode::Enabled), _) | (None, Switch::Thinking) => true,
        (Some(ThinkingMode::Disabled) | None, _) => false,
    })
}
