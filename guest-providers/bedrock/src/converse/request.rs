//! A Messages request as a Converse request, and what was lost on the way.

use sallyport_guest_codec::json::{Json, is_array, string};
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{
    Content, Invalid, OutputSchema, Path, Request, Thinking, ThinkingMode, required_text,
};
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::offer::{Chosen, Offer, OfferedTool, offer, without_anthropics_own};
use sallyport_guest_codec::parts::{CACHE, plain_text};
use sallyport_guest_codec::turns::walk;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::model::{Model, Thinks};
use super::turns::{Conversation, NAMES};
use super::wire::{
    Body, CACHE_POINT, Inference, InputSchema, SystemBlock, Tool, ToolChoice, ToolConfig, ToolSpec,
};
use crate::config::Config;

/// A translated request.
#[derive(Debug)]
pub(super) struct Translated<'a> {
    pub(super) body: Body<'a>,
    pub(super) losses: Losses,
    pub(super) context: ReplyContext,
}

/// A thinking budget below the first is `low` effort, below the second `medium`, else `high`.
const BUDGETS: (u64, u64) = (4096, 16384);
/// A schema that says nothing of the input.
const ANYTHING: &str = r#"{"type":"object","properties":{}}"#;

/// Translates the client's body. `context` carries on what the reply will need.
pub(super) fn translate<'a>(
    body: &'a str,
    model: &Model,
    config: &Config,
    mut context: ReplyContext,
) -> Result<Translated<'a>, Invalid> {
    let body = Request::read(body)?;
    let mut losses = Losses::default();
    without_anthropics_own(&body, config.server_tools, &mut losses)?;
    let messages = body.messages.as_ref().ok_or_else(|| Invalid::missing(Path::root("messages")))?;

    let system = match body.system {
        Some(raw) => system(raw, model, &mut losses)?,
        None => Vec::new(),
    };
    let mut conversation = Conversation::new(model.caches);
    let effort = body.output_config.as_ref().and_then(|it| it.effort);
    let effort = walk(messages, &mut conversation, effort, &mut losses)?;
    if body.cache_control.is_some() {
        losses.add(CACHE.0, CACHE.1);
    }

    let mut inference = Inference {
        max_tokens: body.max_tokens,
        temperature: body.temperature,
        top_p: body.top_p,
        ..Inference::default()
    };
    if let (Some(asked), Some(most)) = (body.max_tokens, model.most)
        && asked > most
    {
        inference.max_tokens = Some(most);
        losses.add("max_tokens", "lowered to what the model takes");
    }
    for (at, stop) in body.stop_sequences.iter().flatten().enumerate() {
        let path = Path::root("stop_sequences");
        context.stops.push(required_text(Some(*stop), path.index(at))?.into_owned());
        inference.stop_sequences.push(*stop);
    }
    let additional = thinking(&body, effort, model, &mut losses)?;
    let output_config = form(&body, &mut losses)?;
    losses.dropped("", &body.unknown);
    let offer = offer(
        body.tools.unwrap_or_default(),
        body.tool_choice,
        NAMES,
        config.server_tools,
        &mut losses,
        &mut context,
    )?;
    let tool_config = tools(offer, &conversation, &mut losses);
    let body = Body {
        system,
        messages: conversation.finish(),
        inference_config: inference,
        tool_config,
        output_config,
        additional_model_request_fields: additional,
    };
    Ok(Translated { body, losses, context })
}

/// The system prompt: block by block, where a cache marker may stand behind one.
fn system<'a>(
    raw: &'a RawValue,
    model: &Model,
    losses: &mut Losses,
) -> Result<Vec<SystemBlock<'a>>, Invalid> {
    let path = Path::root("system");
    let mut system = Vec::new();
    let mut push = |text: Json<'a>, marked: bool| {
        if string(&text).is_some_and(|it| !it.trim().is_empty()) {
            system.push(SystemBlock::Text(text));
            if marked {
                system.push(SystemBlock::CachePoint(CACHE_POINT));
            }
        }
    };
    let marked = model.caches && is_array(raw) && raw.get().contains("cache_control");
    if !marked {
        push(plain_text(raw, path, losses)?, false);
        return Ok(system);
    }
    let Content::Blocks(blocks) = Content::read(raw, path)? else { return Ok(system) };
    for (at, block) in blocks.iter().enumerate() {
        let path = path.index(at);
        losses.dropped(path, &block.unknown);
        push(Json::Borrowed(block.text(path)?), block.cache_control.is_some());
    }
    Ok(system)
}

/// Thinking and effort, as the model is told of them.
fn thinking(
    body: &Request<'_>,
    effort: Option<&RawValue>,
    model: &Model,
    losses: &mut Losses,
) -> Result<Option<Value>, Invalid> {
    let mode = body.thinking.as_ref().map(Thinking::mode).transpose()?;
    let output_config = Path::root("output_config");
    let effort = effort.map(|it| required_text(Some(it), output_config.field("effort"))).transpose()?;
    let budget = body.thinking.as_ref().and_then(|it| it.budget_tokens);
    let budget = budget.filter(|_| mode == Some(ThinkingMode::Enabled));
    if model.thinks == Thinks::Untold {
        if mode == Some(ThinkingMode::Enabled) {
            losses.add("thinking", "dropped: the model's reasoning is not controlled");
        }
        if effort.is_some() {
            losses.add("output_config.effort", "dropped: the model's reasoning is not controlled");
        }
        return Ok(None);
    }
    if let Some(thinking) = &body.thinking {
        losses.dropped("thinking", &thinking.unknown);
    }
    let step = match (effort.as_deref(), budget) {
        (Some(wanted @ ("low" | "medium" | "high" | "xhigh" | "max")), _) => {
            let step = model.effort(wanted);
            if step != wanted {
                losses.add("output_config.effort", "moved to the nearest step that the model knows");
            }
            Some(step)
        }
        (_, Some(budget)) => {
            losses.add("thinking.budget_tokens", "approximated by an effort");
            Some(model.effort(match budget {
                budget if budget < BUDGETS.0 => "low",
                budget if budget < BUDGETS.1 => "medium",
                _ => "high",
            }))
        }
        (Some(_), None) => {
            losses.add("output_config.effort", "dropped: not a step the upstream knows");
            None
        }
        (None, None) => None,
    };
    Ok(match (model.thinks, mode) {
        (Thinks::Config, Some(ThinkingMode::Disabled)) => {
            Some(json!({"reasoningConfig": {"type": "disabled"}}))
        }
        (Thinks::Config, Some(ThinkingMode::Enabled)) => {
            let step = step.unwrap_or("medium");
            Some(json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": step}}))
        }
        // It thinks only where it is told to.
        (Thinks::Config, None) => {
            if effort.is_some() {
                losses.add("output_config.effort", "dropped: the model does not think");
            }
            None
        }
        (_, Some(ThinkingMode::Disabled)) => {
            losses.add("thinking", "reduced to the least effort");
            Some(json!({"reasoning_effort": model.effort("minimal")}))
        }
        (_, _) => step.map(|it| json!({"reasoning_effort": it})),
    })
}

/// The form of the output: <https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html>.
fn form(body: &Request<'_>, losses: &mut Losses) -> Result<Option<Value>, Invalid> {
    let asked = OutputSchema::read(body.output_config.as_ref(), body.output_format, losses)?;
    let Some(OutputSchema { schema, .. }) = asked else { return Ok(None) };
    let structure = json!({"jsonSchema": {"name": "output", "schema": schema.get()}});
    Ok(Some(json!({"textFormat": {"type": "json_schema", "structure": structure}})))
}

/// Tools and the choice among them. There is no way to forbid calls; and where the conversation holds calls, tools have to be offered.
fn tools<'a>(
    offer: Offer<'a>,
    conversation: &Conversation<'a>,
    losses: &mut Losses,
) -> Option<ToolConfig<'a>> {
    let anything = || {
        RawValue::from_string(ANYTHING.to_owned()).map_or_else(|_| Json::Owned(Box::default()), Json::Owned)
    };
    if offer.tools.is_empty() {
        if conversation.called.is_empty() {
            return None;
        }
        losses.add("tools", "tools of earlier calls offered: the upstream takes no call without");
        let tool = |name: &String| {
            let input_schema = InputSchema { json: anything() };
            Tool::ToolSpec(ToolSpec {
                name: name.clone().into(),
                description: None,
                input_schema,
                strict: false,
            })
        };
        return Some(ToolConfig { tools: conversation.called.iter().map(tool).collect(), tool_choice: None });
    }
    if offer.one_at_a_time {
        losses.add("tool_choice.disable_parallel_tool_use", "dropped: the upstream has no such option");
    }
    let tool_choice = match offer.choice {
        None => None,
        Some(Chosen::Auto) => Some(ToolChoice::Auto {}),
        Some(Chosen::Any) => Some(ToolChoice::Any {}),
        Some(Chosen::Named(name)) => Some(ToolChoice::Tool { name }),
        Some(Chosen::None) => {
            losses.add("tool_choice", "left to the model: the upstream cannot forbid calls");
            None
        }
    };
    let tool = |OfferedTool { name, description, input_schema, strict }| {
        // An empty description is refused.
        let description: Option<&RawValue> = description.filter(|it: &&RawValue| it.get() != "\"\"");
        let json =
            input_schema.filter(|it: &&RawValue| it.get() != "{}").map_or_else(anything, Json::Borrowed);
        Tool::ToolSpec(ToolSpec { name, description, input_schema: InputSchema { json }, strict })
    };
    Some(ToolConfig { tools: offer.tools.into_iter().map(tool).collect(), tool_choice })
}
