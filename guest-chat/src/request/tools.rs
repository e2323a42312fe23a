//! Tools on offer and the choice among them, as functions.

use sallyport_guest_codec::json::Json;
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::object;
use sallyport_guest_codec::offer::{Chosen, Offer, OfferedTool};
use serde_json::value::RawValue;

use super::Target;
use crate::chat::{self, Function, NamedFunction, OfferedFunction, ToolChoice};
use crate::vendor::Forced;

object! {
    /// What is read of `input_schema`.
    struct Schema {
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

/// Translates tools and choice.
pub(super) fn translate<'a>(
    offer: Offer<'a>,
    thinks: bool,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Tools<'a> {
    let wire = &target.wire;
    let mut parallel = None;
    if offer.one_at_a_time {
        if target.facts.parallel_tool_calls == Some(false) {
            losses.add("tool_choice.disable_parallel_tool_use", "dropped: the model has no such option");
        } else {
            parallel = Some(false);
        }
    } else if !wire.parallel && !offer.tools.is_empty() {
        parallel = Some(true);
    }
    let forced = if thinks { wire.forced_thinking } else { wire.forced };
    let choice = offer.choice.map(|choice| match choice {
        Chosen::Auto => ToolChoice::Mode("auto"),
        Chosen::None => ToolChoice::Mode("none"),
        Chosen::Any if forced == Forced::All => ToolChoice::Mode("required"),
        Chosen::Named(name) if forced != Forced::Nothing => {
            ToolChoice::Named { kind: Function::Function, function: NamedFunction { name } }
        }
        Chosen::Any | Chosen::Named(_) => {
            losses.add("tool_choice", "left to the model: the upstream does not force this call");
            ToolChoice::Mode("auto")
        }
    });
    let tool = |tool: OfferedTool<'a>| chat::Tool {
        kind: Function::Function,
        function: OfferedFunction {
            name: tool.name,
            description: tool.description,
            parameters: tool.input_schema.map(parameters),
            strict: if wire.says_loose { Some(tool.strict) } else { tool.strict.then_some(true) },
        },
    };
    Tools { offered: offer.tools.into_iter().map(tool).collect(), choice, parallel }
}

/// A schema as servers take it: one of an object says which properties it has, be it none.
pub fn parameters(schema: &RawValue) -> Json<'_> {
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
