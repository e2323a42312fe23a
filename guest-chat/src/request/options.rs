//! What shapes the answer: limits, sampling, reasoning and the form of the output.

use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{
    Invalid, OutputConfig, OutputSchema, Path, Thinking, ThinkingMode, required_text,
};
use sallyport_guest_codec::names::ReplyContext;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Target;
use crate::chat::{JsonSchema, Options, ResponseFormat, Toggle};
use crate::config::Reasoning;
use crate::facts::Facts;
use crate::vendor::{Limit, Switch};

/// The options of a Messages request.
pub(super) struct Wanted<'a> {
    pub(super) max_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<&'a RawValue>,
    pub(super) stop_sequences: Vec<&'a RawValue>,
    pub(super) thinking: Option<Thinking<'a>>,
    pub(super) output_config: Option<OutputConfig<'a>>,
    pub(super) output_format: Option<&'a RawValue>,
    /// The effort in force for the turn asked for.
    pub(super) effort: Option<&'a RawValue>,
    /// Whether the model may call tools.
    pub(super) offers_tools: bool,
}

/// A thinking budget below the first is `low` effort, below the second `medium`, else `high`.
const BUDGETS: (u64, u64) = (4096, 16384);
/// Budgets in place of the lower steps of effort; at the higher ones the model thinks as long as it likes.
const EFFORTS: [(&str, u64); 2] = [("low", 1024), ("medium", 8192)];
const NO_SAMPLING: &str = "dropped: a reasoning model takes no such option";
const FOUR: &str = "dropped: the upstream takes four";
const NO_MORE: &str = "dropped: the upstream takes no more";
const NO_REASONING: &str = "dropped: the model's reasoning is not controlled";

/// Translates the options; `context` learns the stop sequences, which a reply may name.
pub(super) fn translate<'a>(
    wanted: Wanted<'a>,
    target: &Target<'_>,
    losses: &mut Losses,
    context: &mut ReplyContext,
) -> Result<Options<'a>, Invalid> {
    let reasoning = target.config.reasoning.of(target.facts);
    let is_openai = reasoning == Reasoning::Openai;
    let wire = &target.wire;
    let mut options =
        Options { top_k: wanted.top_k, reasoning_format: wire.reasoning_format, ..Options::default() };
    let samples = wire.samples && !is_openai;

    let mut limit = wanted.max_tokens;
    let most = target.config.max_output_tokens.or(target.facts.max_output_tokens);
    if let (Some(asked), Some(most)) = (limit, most)
        && asked > most
    {
        limit = Some(most);
        losses.add("max_tokens", "lowered to what the route allows");
    }
    if is_openai || wire.limit == Limit::MaxCompletionTokens {
        options.max_completion_tokens = limit;
    } else {
        options.max_tokens = limit;
    }

    // 1 is what a reasoning model does anyway.
    for (name, value, slot) in [
        ("temperature", wanted.temperature, &mut options.temperature),
        ("top_p", wanted.top_p, &mut options.top_p),
    ] {
        match value {
            Some(value) if !samples && (value - 1.0).abs() > f64::EPSILON => losses.add(name, NO_SAMPLING),
            Some(_) if !samples => {}
            value => *slot = value,
        }
    }

    if is_openai && !wanted.stop_sequences.is_empty() {
        losses.add("stop_sequences", NO_SAMPLING);
    } else {
        for (at, stop) in wanted.stop_sequences.into_iter().enumerate() {
            let path = Path::root("stop_sequences");
            let path = path.index(at);
            context.stops.push(required_text(Some(stop), path)?.into_owned());
            if at < wire.most_stops {
                options.stop.push(stop);
            } else {
                losses.add(path, if wire.most_stops == 4 { FOUR } else { NO_MORE });
            }
        }
    }

    if wire.switch == Switch::Effort {
        options.reasoning_effort =
            effort(wanted.thinking.as_ref(), wanted.effort, reasoning, target.facts, losses)?;
    } else {
        switch(wanted.thinking.as_ref(), wanted.effort, target, losses, &mut options)?;
    }
    if wanted.offers_tools
        && reasoning != Reasoning::None
        && let Some(only) = &target.facts.effort_with_tools
    {
        let only = target.facts.effort(only);
        if options.reasoning_effort.is_some_and(|it| it != only) {
            losses.add("output_config.effort", "replaced: the model takes one effort only beside tools");
        }
        options.reasoning_effort = Some(only);
    }
    if let Some(thinking) =
        wanted.thinking.as_ref().filter(|_| reasoning != Reasoning::None && wire.switch == Switch::Effort)
    {
        losses.dropped("thinking", &thinking.unknown);
    }

    let asked = OutputSchema::read(wanted.output_config.as_ref(), wanted.output_format, losses)?;
    options.response_format = asked.map(|asked| {
        let (schema, strict) = (asked.schema, enforced(&asked, losses));
        ResponseFormat::JsonSchema { json_schema: JsonSchema { name: "output", schema, strict } }
    });
    Ok(options)
}

/// `thinking` says whether and how long, `output_config.effort` how hard; OpenAI has one scale for both.
pub fn effort(
    thinking: Option<&Thinking<'_>>,
    effort: Option<&RawValue>,
    reasoning: Reasoning,
    facts: &Facts,
    losses: &mut Losses,
) -> Result<Option<&'static str>, Invalid> {
    let mode = thinking.map(Thinking::mode).transpose()?;
    let output_config = Path::root("output_config");
    let wanted = effort.map(|it| required_text(Some(it), output_config.field("effort"))).transpose()?;
    if reasoning == Reasoning::None {
        if mode == Some(ThinkingMode::Enabled) {
            losses.add("thinking", NO_REASONING);
        }
        if wanted.is_some() {
            losses.add("output_config.effort", NO_REASONING);
        }
        return Ok(None);
    }
    if mode == Some(ThinkingMode::Disabled) {
        let least = facts.effort("none");
        if least != "none" {
            losses.add("thinking", "reduced to the least effort");
        }
        return Ok(Some(least));
    }
    let by_effort = match wanted.as_deref() {
        None => None,
        Some(wanted @ ("low" | "medium" | "high" | "xhigh" | "max")) => {
            let step = facts.effort(wanted);
            if step != wanted {
                losses.add("output_config.effort", "moved to the nearest step that the model knows");
            }
            Some(step)
        }
        Some(_) => {
            losses.add("output_config.effort", "dropped: not a step the upstream knows");
            None
        }
    };
    let by_budget = thinking.and_then(|it| it.budget_tokens).map(|budget| {
        losses.add("thinking.budget_tokens", "approximated by an effort");
        match budget {
            budget if budget < BUDGETS.0 => facts.effort("low"),
            budget if budget < BUDGETS.1 => facts.effort("medium"),
            _ => facts.effort("high"),
        }
    });
    Ok(by_effort.or(by_budget))
}

/// Switches thinking on or off where that is no matter of effort.
fn switch(
    thinking: Option<&Thinking<'_>>,
    effort: Option<&RawValue>,
    target: &Target<'_>,
    losses: &mut Losses,
    options: &mut Options<'_>,
) -> Result<(), Invalid> {
    let mode = thinking.map(Thinking::mode).transpose()?;
    let output_config = Path::root("output_config");
    let wanted = effort.map(|it| required_text(Some(it), output_config.field("effort"))).transpose()?;
    let budget = thinking.and_then(|it| it.budget_tokens).filter(|_| mode == Some(ThinkingMode::Enabled));
    if let Some(thinking) = thinking {
        losses.dropped("thinking", &thinking.unknown);
    }
    let mut takes_budget = false;
    match (target.wire.switch, mode) {
        (Switch::EffortNone, mode) => {
            options.reasoning_effort = (mode == Some(ThinkingMode::Disabled)).then_some("none");
        }
        (Switch::Thinking, mode) => {
            options.thinking = mode.map(|mode| match mode {
                ThinkingMode::Enabled => Toggle::Enabled,
                ThinkingMode::Disabled => Toggle::Disabled,
            });
        }
        (Switch::EnableThinking { off_when_whole }, mode) => {
            let off = (off_when_whole && !target.streaming).then_some(false);
            options.enable_thinking = mode.map(|it| it == ThinkingMode::Enabled).or(off);
            if mode == Some(ThinkingMode::Enabled) {
                takes_budget = true;
                let step = EFFORTS.iter().find(|(step, _)| wanted.as_deref() == Some(*step));
                options.thinking_budget = budget.or_else(|| step.map(|(_, budget)| *budget));
                if wanted.is_some() {
                    losses.add("output_config.effort", "approximated by a budget");
                }
            }
        }
        (Switch::Always, Some(ThinkingMode::Disabled)) => {
            losses.add("thinking", "not switched off: the model always thinks");
        }
        (Switch::Effort | Switch::Always, _) => {}
    }
    if budget.is_some() && !takes_budget {
        losses.add("thinking.budget_tokens", "dropped: the model takes no budget");
    }
    if wanted.is_some() && !takes_budget {
        losses.add("output_config.effort", "dropped: the model takes no effort");
    }
    Ok(())
}

/// Whether the schema is asked for in strict mode; one that this does not take is asked for all the same, and not enforced.
pub fn enforced(asked: &OutputSchema<'_>, losses: &mut Losses) -> bool {
    let strict = serde_json::from_str(asked.schema.get()).is_ok_and(|it| is_strict(&it));
    if !strict {
        losses.add(asked.path, "schema asked for but not enforced: it allows what strict mode does not");
    }
    strict
}

/// Whether the upstream's strict mode takes the schema: each object closed, each property required.
fn is_strict(schema: &Value) -> bool {
    let Value::Object(fields) = schema else {
        return match schema {
            Value::Array(items) => items.iter().all(is_strict),
            _ => true,
        };
    };
    if let Some(Value::Object(properties)) = fields.get("properties") {
        let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
        let required: Vec<&str> = match fields.get("required") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !closed || !properties.keys().all(|it| required.contains(&it.as_str())) {
            return false;
        }
        if !properties.values().all(is_strict) {
            return false;
        }
    } else if fields.get("type").and_then(Value::as_str) == Some("object")
        && fields.get("additionalProperties") != Some(&Value::Bool(false))
    {
        return false;
    }
    ["items", "anyOf", "$defs", "definitions"].iter().filter_map(|it| fields.get(*it)).all(|it| match it {
        Value::Object(map) if !map.contains_key("type") => map.values().all(is_strict),
        other => is_strict(other),
    })
}

#[cfg(test)]
mod tests {
    use super::is_strict;
    use serde_json::json;

    #[test]
    fn a_schema_is_strict_when_each_object_is_closed_and_complete() {
        let leaf = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
        assert!(is_strict(&leaf));
        assert!(is_strict(&json!({"type": "array", "items": leaf})));
        let mut open = leaf.clone();
        open["additionalProperties"] = json!(true);
        assert!(!is_strict(&open));
        let mut optional = leaf;
        optional["required"] = json!([]);
        assert!(!is_strict(&optional));
        assert!(!is_strict(
            &json!({"type": "object", "properties": {"in": optional}, "required": ["in"], "additionalProperties": false})
        ));
        assert!(!is_strict(&json!({"anyOf": [open, {"type": "null"}]})));
    }
}
