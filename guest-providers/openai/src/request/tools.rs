//! Tools on offer and the choice among them. Tools that the Anthropic API itself runs have no counterpart and are lost.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::content::CACHE;
use super::{Invalid, Target, text_of};
use crate::chat::{self, Function, NamedFunction, OfferedFunction, ToolChoice};
use crate::config::is_o_series;
use crate::json::{is_object, object};
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
                parameters: tool.input_schema,
                strict: tool.strict.filter(|it| *it),
            },
        });
    }

    let mut parallel = None;
    let mut chosen = None;
    if let Some(choice) = choice {
        losses.dropped("tool_choice", &choice.unknown);
        if choice.disable_parallel_tool_use == Some(true) && !offered.is_empty() {
            if is_o_series(target.model) {
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
