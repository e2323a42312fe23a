//! A Messages request as a Responses request, and what was lost on the way.

mod items;

use sallyport_guest_chat::{Facts, Reasoning, effort, enforced, parameters};
use sallyport_guest_codec::json::{inside, string};
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{self, Invalid, OutputSchema, Path, ThinkingMode};
use sallyport_guest_codec::names::{NameLimits, ReplyContext};
use sallyport_guest_codec::offer::{Chosen, Offer, OfferedTool, offer, without_anthropics_own};
use sallyport_guest_codec::parts::{CACHE, plain_text};
use sallyport_guest_codec::turns::walk;

use crate::wire::{Body, Choosing, FunctionTool, ReasoningOptions, Sampling, TextFormat, TextOptions};
use crate::{Place, Settings};

use items::Items;

/// Names of functions have 64 characters at most, ids of calls 64
/// (<https://platform.openai.com/docs/api-reference/responses/create#responses_create-tools>).
const NAMES: NameLimits = NameLimits { shortest: 1, tool_name: 64, call_id: 64, letter_first: false };
/// The least limit of output tokens that is taken.
const LEAST: u64 = 16;
const NO_SAMPLING: &str = "dropped: a reasoning model takes no such option";

/// A translated request.
#[derive(Debug)]
pub(crate) struct Translated<'a> {
    pub(crate) body: Body<'a>,
    pub(crate) sampling: Sampling,
    /// Whether the model reasons, so that its reasoning is asked for.
    pub(crate) reasons: bool,
    pub(crate) losses: Losses,
    pub(crate) context: ReplyContext,
}

/// What a translation depends on besides the body.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) facts: &'a Facts,
    pub(crate) place: Place,
    pub(crate) model: &'a str,
}

/// Translates the client's body. `context` carries on what the reply will need.
pub(crate) fn translate<'a>(
    body: &'a str,
    target: &Target<'a>,
    mut context: ReplyContext,
) -> Result<Translated<'a>, Invalid> {
    let Target { settings, facts, place, model } = *target;
    let config = &settings.common;
    let body = messages::Request::read(body)?;
    let mut losses = Losses::default();
    without_anthropics_own(&body, config.server_tools, &mut losses)?;
    let messages = body.messages.as_ref().ok_or_else(|| Invalid::missing(Path::root("messages")))?;

    let instructions = match body.system {
        Some(raw) => Some(plain_text(raw, Path::root("system"), &mut losses)?),
        None => None,
    };
    let mut items = Items::new(config.inline_system, place.vendor, NAMES);
    let wanted = body.output_config.as_ref().and_then(|it| it.effort);
    let wanted = walk(messages, &mut items, wanted, &mut losses)?;
    if body.cache_control.is_some() {
        losses.add(CACHE.0, CACHE.1);
    }

    let reasoning = config.reasoning.of(facts);
    let reasons = reasoning == Reasoning::Openai;
    let sampling = sampling(&body, target, reasons, &mut losses);
    let effort = effort(body.thinking.as_ref(), wanted, reasoning, facts, &mut losses)?;
    let summary = if reasons { summary(&body, settings, &mut losses)? } else { None };
    let text = text(&body, &mut losses)?;
    losses.dropped("", &body.unknown);
    let offer = offer(
        body.tools.unwrap_or_default(),
        body.tool_choice,
        NAMES,
        config.server_tools,
        &mut losses,
        &mut context,
    )?;
    let (tools, tool_choice, mut parallel_tool_calls) = tools(offer);
    if parallel_tool_calls.is_some() && facts.parallel_tool_calls == Some(false) {
        parallel_tool_calls = None;
        losses.add("tool_choice.disable_parallel_tool_use", "dropped: the model has no such option");
    }
    let body = Body {
        model,
        instructions: instructions.filter(|it| inside(it).is_some_and(|it| !it.is_empty())),
        input: items.finish(),
        tools,
        tool_choice,
        parallel_tool_calls,
        reasoning: (effort.is_some() || summary.is_some()).then_some(ReasoningOptions { effort, summary }),
        text,
    };
    Ok(Translated { body, sampling, reasons, losses, context })
}

fn sampling(
    body: &messages::Request<'_>,
    target: &Target<'_>,
    is_reasoner: bool,
    losses: &mut Losses,
) -> Sampling {
    let mut sampling = Sampling { max_output_tokens: body.max_tokens, ..Sampling::default() };
    let most = target.settings.common.max_output_tokens.or(target.facts.max_output_tokens);
    if let (Some(asked), Some(most)) = (body.max_tokens, most)
        && asked > most
    {
        sampling.max_output_tokens = Some(most);
        losses.add("max_tokens", "lowered to what the route allows");
    }
    if body.max_tokens.is_some_and(|it| it < LEAST) {
        sampling.max_output_tokens = Some(LEAST);
        losses.add("max_tokens", "raised to the least that the upstream takes");
    }
    // 1 is what a reasoning model does anyway.
    for (name, value, slot) in [
        ("temperature", body.temperature, &mut sampling.temperature),
        ("top_p", body.top_p, &mut sampling.top_p),
    ] {
        match value {
            Some(value) if is_reasoner && (value - 1.0).abs() > f64::EPSILON => losses.add(name, NO_SAMPLING),
            Some(_) if is_reasoner => {}
            value => *slot = value,
        }
    }
    if body.stop_sequences.as_ref().is_some_and(|it| !it.is_empty()) {
        losses.add("stop_sequences", "dropped: the upstream has no such option");
    }
    sampling
}

/// Which summary of its reasoning is asked for: one where the client has the model think and wants to see it.
fn summary(
    body: &messages::Request<'_>,
    settings: &Settings,
    losses: &mut Losses,
) -> Result<Option<&'static str>, Invalid> {
    let Some(thinking) = &body.thinking else { return Ok(None) };
    let mut shown = true;
    for field in &thinking.unknown {
        if field.name == "display" {
            shown = string(field.value).is_none_or(|it| it != "omitted");
        } else {
            losses.add(format!("thinking.{}", field.name), "dropped");
        }
    }
    let thinks = thinking.mode()? == ThinkingMode::Enabled;
    Ok(if thinks && shown { settings.summary.name() } else { None })
}

fn text<'a>(body: &messages::Request<'a>, losses: &mut Losses) -> Result<Option<TextOptions<'a>>, Invalid> {
    let asked = OutputSchema::read(body.output_config.as_ref(), body.output_format, losses)?;
    Ok(asked.map(|asked| {
        let (schema, strict) = (asked.schema, enforced(&asked, losses));
        TextOptions { format: TextFormat::JsonSchema { name: "output", schema, strict } }
    }))
}

fn tools(offer: Offer<'_>) -> (Vec<FunctionTool<'_>>, Option<Choosing<'_>>, Option<bool>) {
    let choice = offer.choice.map(|choice| match choice {
        Chosen::Auto => Choosing::Mode("auto"),
        Chosen::Any => Choosing::Mode("required"),
        Chosen::None => Choosing::Mode("none"),
        Chosen::Named(name) => Choosing::Named { kind: "function", name },
    });
    let tool = |OfferedTool { name, description, input_schema, strict }| FunctionTool::Function {
        name,
        description,
        parameters: input_schema.map(parameters),
        strict,
    };
    let parallel = offer.one_at_a_time.then_some(false);
    (offer.tools.into_iter().map(tool).collect(), choice, parallel)
}
