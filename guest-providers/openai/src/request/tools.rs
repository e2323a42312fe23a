//! Tools on offer and the choice among them. Tools that the Anthropic API itself runs have no counterpart and are lost.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::content::CACHE;
use super::{Invalid, Target, text_of};
use crate::chat::{self, Function, NamedFunction, OfferedFunction, ToolChoice};
use crate::config::ServerTools;
use crate::json::{Json, is_object, object};
use crate::ledger::Ledger;
use crate::names::{Asked, tool_name};

object! {
    /// A tool the client offers.
    Tool {
        kind: &'a RawValue,
        name: &'a RawValue,
        description: &'a RawValue,
        input_schema: &'a RawValue,
        strict: bool,
        defer_loading: bool,
        cache_control: &'a RawValue,
    }
}

object! {
    /// `tool_choice`
    Choice {
        kind: &'a RawValue,
        name: &'a RawValue,
        disable_parallel_tool_use: bool,
    }
}

object! {
    /// What is read of `input_schema`.
    Schema {
        kind: &'a RawValue,
        properties: &'a RawValue,
    }
}

/// What the tools became.
pub(super) struct Tools<'a> {
    pub(super) offered: Vec<chat::Tool<'a>>,
    pub(super) choice: Option<ToolChoice<'a>>,
    pub(super) parallel: Option<bool>,
}

/// Translates tools and choice; `asked` learns which names were changed.
pub(super) fn translate<'a>(
    tools: Vec<Tool<'a>>,
    choice: Option<Choice<'a>>,
    target: &Target<'_>,
    losses: &mut Ledger,
    asked: &mut Asked,
) -> Result<Tools<'a>, Invalid> {
    let mut offered = Vec::with_capacity(tools.len());
    let mut names = BTreeSet::new();
    for (at, tool) in tools.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        if let Some(kind) = tool.kind {
            let kind = text_of(Some(kind), || format!("{path}.type"))?;
            if kind != "custom" {
                // What every deferred tool would be found with; they are all sent in full.
                let needless = kind.starts_with("tool_search_tool_");
                if !needless && target.config.server_tools == ServerTools::Refuse {
                    return Err(Invalid(format!(
                        "{path}: the tool {} is run by Anthropic's API and does not exist behind this model; remove it, or ask \
                         for a model that has it",
                        clipped(&kind)
                    )));
                }
                losses.add(format!("{path} ({kind})"), "tool that the upstream does not know dropped");
                continue;
            }
        }
        let original = text_of(tool.name, || format!("{path}.name"))?;
        let name = tool_name(original.clone());
        if name != original {
            asked.renamed.push((name.clone().into_owned(), original.into_owned()));
        }
        if tool.cache_control.is_some() {
            losses.add(CACHE.0, CACHE.1);
        }
        if tool.defer_loading == Some(true) {
            losses.add(format!("{path}.defer_loading"), "tool sent in full");
        }
        losses.dropped(&path, &tool.unknown);
        if tool.input_schema.is_some_and(|it| !is_object(it)) {
            return Err(Invalid::expected(&format!("{path}.input_schema"), "an object"));
        }
        names.insert(name.clone().into_owned());
        offered.push(chat::Tool {
            kind: Function::Function,
            function: OfferedFunction {
                name,
                description: tool.description,
                parameters: tool.input_schema.map(parameters),
                strict: tool.strict.filter(|it| *it),
            },
        });
    }

    let mut parallel = None;
    let mut chosen = None;
    if let Some(choice) = choice {
        losses.dropped("tool_choice", &choice.unknown);
        if choice.disable_parallel_tool_use == Some(true) && !offered.is_empty() {
            if target.facts.parallel_tool_calls == Some(false) {
                losses.add("tool_choice.disable_parallel_tool_use", "dropped: the model has no such option");
            } else {
                parallel = Some(false);
            }
        }
        chosen = match &*text_of(choice.kind, || "tool_choice.type".to_owned())? {
            "auto" => Some(ToolChoice::Mode("auto")),
            "none" => Some(ToolChoice::Mode("none")),
            "any" if !offered.is_empty() => Some(ToolChoice::Mode("required")),
            "any" => {
                losses.add("tool_choice", "dropped: none of the tools is left");
                None
            }
            "tool" => {
                let name = tool_name(text_of(choice.name, || "tool_choice.name".to_owned())?);
                if names.contains(&*name) {
                    Some(ToolChoice::Named { kind: Function::Function, function: NamedFunction { name } })
                } else {
                    losses.add("tool_choice", "dropped: the tool it names is not offered");
                    None
                }
            }
            other => return Err(Invalid(format!("tool_choice.type: {other:?} is not known"))),
        };
        // Without tools there is nothing to choose among, and servers refuse the field.
        chosen = chosen.filter(|_| !offered.is_empty());
    }
    Ok(Tools { offered, choice: chosen, parallel })
}

/// A schema as servers take it: one of an object says which properties it has, be it none.
fn parameters(schema: &RawValue) -> Json<'_> {
    let Ok(read) = serde_json::from_str::<Schema<'_>>(schema.get()) else { return Json::Borrowed(schema) };
    let of_object = read.kind.is_some_and(|it| it.get() == "\"object\"");
    let empty = read.kind.is_none() && read.unknown.is_empty();
    if read.properties.is_some() || !(of_object || empty) {
        return Json::Borrowed(schema);
    }
    let rest = schema.get().trim_start_matches('{').trim_start();
    let comma = if rest.starts_with('}') { "" } else { "," };
    let kind = if of_object { "" } else { "\"type\":\"object\"," };
    let whole = format!("{{{kind}\"properties\":{{}}{comma}{rest}");
    RawValue::from_string(whole).map_or(Json::Borrowed(schema), Json::Owned)
}

/// A name for an error's text.
fn clipped(name: &str) -> String {
    name.chars().filter(|it| !it.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::parameters;
    use serde_json::value::RawValue;

    #[test]
    fn a_schema_of_an_object_says_which_properties_it_has() {
        for (given, sent) in [
            (r#"{"type":"object"}"#, r#"{"properties":{},"type":"object"}"#),
            (r#"{ "type":"object", "required":[] }"#, r#"{"properties":{},"type":"object", "required":[] }"#),
            ("{}", r#"{"type":"object","properties":{}}"#),
            (r#"{"type":"object","properties":{"a":{}}}"#, r#"{"type":"object","properties":{"a":{}}}"#),
            (r##"{"$ref":"#/x"}"##, r##"{"$ref":"#/x"}"##),
            (r#"{"anyOf":[{"type":"object"}]}"#, r#"{"anyOf":[{"type":"object"}]}"#),
        ] {
            let raw = RawValue::from_string(given.to_owned()).unwrap();
            assert_eq!(parameters(&raw).get(), sent);
        }
    }
}
