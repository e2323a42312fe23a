//! What shapes the answer: limits, sampling, reasoning and the form of the output.

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Invalid, Target, text_of};
use crate::chat::{JsonSchema, Options, ResponseFormat};
use crate::config::Reasoning;
use crate::facts::Facts;
use crate::json::{is_object, object, string};
use crate::ledger::Ledger;
use crate::names;

object! {
    /// `thinking`
    Thinking {
        kind: &'a RawValue,
        budget_tokens: u64,
    }
}

object! {
    /// `output_config`, of the request or of one message.
    OutputConfig {
        effort: &'a RawValue,
        format: &'a RawValue,
    }
}

object! {
    /// `output_config.format`
    Format {
        kind: &'a RawValue,
        schema: &'a RawValue,
    }
}

/// The options of a Messages request.
pub(super) struct Asked<'a> {
    pub(super) max_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) stop_sequences: Vec<&'a RawValue>,
    pub(super) thinking: Option<Thinking<'a>>,
    pub(super) output_config: Option<OutputConfig<'a>>,
    pub(super) output_format: Option<&'a RawValue>,
    /// The effort in force for the turn asked for.
    pub(super) effort: Option<&'a RawValue>,
    /// Whether the model may call tools.
    pub(super) offers_tools: bool,
}

/// The most stop sequences that Chat Completions takes.
const MOST_STOPS: usize = 4;
/// A thinking budget below the first is `low` effort, below the second `medium`, else `high`.
const BUDGETS: (u64, u64) = (4096, 16384);
const NO_SAMPLING: &str = "dropped: a reasoning model takes no such option";
const NO_REASONING: &str = "dropped: the model's reasoning is not controlled";

/// Translates the options; `names` learns the stop sequences, which a reply may name.
pub(super) fn translate<'a>(
    asked: Asked<'a>,
    target: &Target<'_>,
    losses: &mut Ledger,
    names: &mut names::Asked,
) -> Result<Options<'a>, Invalid> {
    let reasoning = target.config.reasoning.of(target.facts);
    let is_openai = reasoning == Reasoning::Openai;
    let mut options = Options::default();

    let mut limit = asked.max_tokens;
    let most = target.config.max_output_tokens.or(target.facts.max_output_tokens);
    if let (Some(wanted), Some(most)) = (limit, most)
        && wanted > most
    {
        limit = Some(most);
        losses.add("max_tokens", "lowered to what the route allows");
    }
    if is_openai {
        options.max_completion_tokens = limit;
    } else {
        options.max_tokens = limit;
    }

    // 1 is what a reasoning model does anyway.
    for (name, value, slot) in [
        ("temperature", asked.temperature, &mut options.temperature),
        ("top_p", asked.top_p, &mut options.top_p),
    ] {
        match value {
            Some(value) if is_openai && (value - 1.0).abs() > f64::EPSILON => losses.add(name, NO_SAMPLING),
            Some(_) if is_openai => {}
            value => *slot = value,
        }
    }

    if is_openai && !asked.stop_sequences.is_empty() {
        losses.add("stop_sequences", NO_SAMPLING);
    } else {
        for (at, stop) in asked.stop_sequences.into_iter().enumerate() {
            names.stops.push(text_of(Some(stop), || format!("stop_sequences[{at}]"))?.into_owned());
            if at < MOST_STOPS {
                options.stop.push(stop);
            } else {
                losses.add(format!("stop_sequences[{at}]"), "dropped: the upstream takes four");
            }
        }
    }

    options.reasoning_effort =
        effort(asked.thinking.as_ref(), asked.effort, reasoning, target.facts, losses)?;
    if asked.offers_tools
        && reasoning != Reasoning::None
        && let Some(only) = &target.facts.effort_with_tools
    {
        let only = target.facts.effort(only);
        if options.reasoning_effort.is_some_and(|it| it != only) {
            losses.add("output_config.effort", "replaced: the model takes one effort only beside tools");
        }
        options.reasoning_effort = Some(only);
    }
    if let Some(thinking) = asked.thinking.as_ref().filter(|_| reasoning != Reasoning::None) {
        losses.dropped("thinking", &thinking.unknown);
    }

    let mut format = asked.output_format.map(|it| ("output_format", it));
    if let Some(config) = asked.output_config {
        losses.dropped("output_config", &config.unknown);
        format = config.format.map(|it| ("output_config.format", it)).or(format);
    }
    if let Some((path, format)) = format {
        options.response_format = response_format(path, format, losses)?;
    }
    Ok(options)
}

/// `thinking` says whether and how long, `output_config.effort` how hard; Chat Completions has one scale for both.
fn effort(
    thinking: Option<&Thinking<'_>>,
    effort: Option<&RawValue>,
    reasoning: Reasoning,
    facts: &Facts,
    losses: &mut Ledger,
) -> Result<Option<&'static str>, Invalid> {
    let kind = match thinking {
        Some(thinking) => Some(text_of(thinking.kind, || "thinking.type".to_owned())?),
        None => None,
    };
    let wanted = match effort {
        Some(effort) => Some(text_of(Some(effort), || "output_config.effort".to_owned())?),
        None => None,
    };
    if reasoning == Reasoning::None {
        if kind.is_some_and(|it| it != "disabled") {
            losses.add("thinking", NO_REASONING);
        }
        if wanted.is_some() {
            losses.add("output_config.effort", NO_REASONING);
        }
        return Ok(None);
    }
    if kind.as_deref() == Some("disabled") {
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

fn response_format<'a>(
    path: &str,
    format: &'a RawValue,
    losses: &mut Ledger,
) -> Result<Option<ResponseFormat<'a>>, Invalid> {
    let format: Format<'a> =
        serde_json::from_str(format.get()).map_err(|error| Invalid(format!("{path}: {error}")))?;
    losses.dropped(path, &format.unknown);
    let is_schema = format.kind.and_then(string).is_some_and(|it| it == "json_schema");
    let Some(schema) = format.schema.filter(|it| is_schema && is_object(it)) else {
        losses.add(path, "dropped: not a form the upstream knows");
        return Ok(None);
    };
    let strict = serde_json::from_str(schema.get()).is_ok_and(|it| is_strict(&it));
    if !strict {
        losses.add(path, "schema asked for but not enforced: it allows what strict mode does not");
    }
    Ok(Some(ResponseFormat::JsonSchema { json_schema: JsonSchema { name: "output", schema, strict } }))
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
