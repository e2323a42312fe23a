//! What shapes the answer: limits, sampling, thinking and the form of the output.

use sallyport_guest_codec::json::string;
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{
    Invalid, OutputSchema, Path, Request, Thinking, ThinkingMode, required_text,
};
use sallyport_guest_codec::names::ReplyContext;
use serde_json::value::RawValue;

use super::TOP_K;
use crate::config::{Model, ThinkingForm};
use crate::wire::{self, Options};

/// The most stop sequences that Gemini takes.
const MOST_STOPS: usize = 5;
/// A thinking budget below the first is the level `low`, below the second `medium`, else `high`.
const LEVELS: (u64, u64) = (4096, 16384);
/// The budgets that Google's own compatibility layer makes of efforts: <https://ai.google.dev/gemini-api/docs/openai#thinking>.
const BUDGETS: [(&str, u64); 3] = [("low", 1024), ("medium", 8192), ("high", 24_576)];

/// Translates the options; `effort` is the one in force for the turn asked for. `context` learns the stop sequences.
pub(super) fn translate<'a>(
    body: &Request<'a>,
    effort: Option<&RawValue>,
    model: &Model,
    losses: &mut Losses,
    context: &mut ReplyContext,
) -> Result<Options<'a>, Invalid> {
    let mut options = Options {
        max_output_tokens: body.max_tokens,
        temperature: body.temperature,
        top_p: body.top_p,
        top_k: body.field(TOP_K),
        ..Options::default()
    };
    if body.max_tokens.is_some_and(|it| it > model.most) {
        options.max_output_tokens = Some(model.most);
        losses.add("max_tokens", "lowered to what the model takes");
    }
    for (at, stop) in body.stop_sequences.iter().flatten().enumerate() {
        let path = Path::root("stop_sequences");
        let path = path.index(at);
        context.stops.push(required_text(Some(*stop), path)?.into_owned());
        if at < MOST_STOPS {
            options.stop_sequences.push(*stop);
        } else {
            losses.add(path, "dropped: the upstream takes five");
        }
    }
    options.thinking_config = thinking(body.thinking.as_ref(), effort, model, losses)?;

    if let Some(asked) = OutputSchema::read(body.output_config.as_ref(), body.output_format, losses)? {
        options.response_mime_type = Some("application/json");
        options.response_json_schema = Some(asked.schema);
    }
    Ok(options)
}

/// `thinking` says whether and how long, `output_config.effort` how hard.
fn thinking(
    thinking: Option<&Thinking<'_>>,
    effort: Option<&RawValue>,
    model: &Model,
    losses: &mut Losses,
) -> Result<Option<wire::Thinking>, Invalid> {
    let mode = thinking.map(Thinking::mode).transpose()?;
    let output_config = Path::root("output_config");
    let wanted = effort.map(|it| required_text(Some(it), output_config.field("effort"))).transpose()?;
    let budget = thinking.and_then(|it| it.budget_tokens).filter(|_| mode == Some(ThinkingMode::Enabled));
    let mut config = wire::Thinking::default();
    if let Some(thinking) = thinking {
        let (mut shown, mut unknown) = (true, Vec::new());
        for field in &thinking.unknown {
            if field.name == "display" {
                shown = string(field.value).is_none_or(|it| it != "omitted");
            } else {
                unknown.push(field);
            }
        }
        for field in unknown {
            losses.add(format!("thinking.{}", field.name), "dropped");
        }
        config.include_thoughts = shown && mode == Some(ThinkingMode::Enabled);
    }
    if model.form == ThinkingForm::None {
        if mode == Some(ThinkingMode::Enabled) {
            losses.add("thinking", "dropped: the model does not think");
        }
        if wanted.is_some() {
            losses.add("output_config.effort", "dropped: the model does not think");
        }
        return Ok(None);
    }
    let by_level = model.form == ThinkingForm::Level;
    match (mode, wanted.as_deref()) {
        (Some(ThinkingMode::Disabled), _) if by_level => {
            config.thinking_level = Some(model.level("minimal"));
            losses.add("thinking", "reduced to the least level");
        }
        (Some(ThinkingMode::Disabled), _) if model.may_not_think() => config.thinking_budget = Some(0),
        (Some(ThinkingMode::Disabled), _) => {
            config.thinking_budget = Some(model.budget.0);
            losses.add("thinking", "reduced to the least budget");
        }
        (_, Some(wanted @ ("low" | "medium" | "high" | "xhigh" | "max"))) if by_level => {
            let level = model.level(wanted);
            if level != wanted {
                losses.add("output_config.effort", "moved to the nearest level that the model knows");
            }
            config.thinking_level = Some(level);
            if budget.is_some() {
                losses.add("thinking.budget_tokens", "replaced by the level of the effort");
            }
        }
        (_, wanted) if by_level => {
            if wanted.is_some() {
                losses.add("output_config.effort", "dropped: not a step the upstream knows");
            }
            if let Some(budget) = budget {
                losses.add("thinking.budget_tokens", "approximated by a level");
                config.thinking_level = Some(model.level(match budget {
                    budget if budget < LEVELS.0 => "low",
                    budget if budget < LEVELS.1 => "medium",
                    _ => "high",
                }));
            }
        }
        (_, wanted) => {
            let (least, most) = model.budget;
            if let Some(budget) = budget {
                config.thinking_budget = Some(budget.clamp(least, most));
                if budget > most {
                    losses.add("thinking.budget_tokens", "lowered to what the model takes");
                }
            } else if let Some(wanted) = wanted {
                losses.add("output_config.effort", "approximated by a budget");
                let step = BUDGETS.iter().find(|(step, _)| *step == wanted);
                config.thinking_budget = Some(step.map_or(most, |(_, budget)| (*budget).max(least)));
            }
        }
    }
    Ok((config != wire::Thinking::default()).then_some(config))
}
