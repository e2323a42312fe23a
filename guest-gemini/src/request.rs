//! A Messages request as a Gemini request, and a list of what was lost on the way.

mod conversation;
mod options;

use sallyport_guest_codec::json::inside;
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{Invalid, Path, Request};
use sallyport_guest_codec::names::{NameLimits, ReplyContext};
use sallyport_guest_codec::object;
use sallyport_guest_codec::offer::{Chosen, Offer, OfferedTool, offer, without_anthropics_own};
use sallyport_guest_codec::parts::{CACHE, plain_text};
use sallyport_guest_codec::turns::walk;
use sallyport_guest_sdk::Call;
use serde_json::value::RawValue;

use crate::Service;
use crate::config::{Config, Model};
use crate::wire::{Calling, Data, Function, Generate, System, ToolConfig, Tools};

use conversation::Conversation;

/// What Gemini takes: names of functions begin with a letter or `_` (<https://ai.google.dev/api/caching#FunctionDeclaration>).
const NAMES: NameLimits = NameLimits { shortest: 1, tool_name: 64, call_id: 128, letter_first: true };
/// Where `top_k` stands in a Messages request; Gemini has it too.
const TOP_K: &str = "top_k";

/// A translated request.
#[derive(Debug)]
pub(crate) struct Translated<'a> {
    pub(crate) generate: Generate<'a>,
    pub(crate) losses: Losses,
    pub(crate) context: ReplyContext,
}

object! {
    /// What is read of `input_schema`.
    struct Schema {
        properties: &'a RawValue,
    }
}

/// Who is asked, and as the route's configuration has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) config: &'a Config,
    pub(crate) service: Service,
    pub(crate) resource: &'a str,
}

/// Translates the client's body. `context` carries on what the reply will need.
pub(crate) fn translate<'a>(
    body: &'a str,
    to: &Target<'a>,
    call: &Call,
    mut context: ReplyContext,
) -> Result<Translated<'a>, Invalid> {
    let Target { config, service, resource } = *to;
    let model = Model::of(resource, config, call);
    let body = Request::read(body)?;
    let mut losses = Losses::default();
    without_anthropics_own(&body, config.server_tools, &mut losses)?;
    let messages = body.messages.as_ref().ok_or_else(|| Invalid::missing(Path::root("messages")))?;

    let system = match body.system {
        Some(raw) => Some(plain_text(raw, Path::root("system"), &mut losses)?),
        None => None,
    };
    let system = system.filter(|it| inside(it).is_some_and(|it| !it.is_empty()));
    let effort = body.output_config.as_ref().and_then(|it| it.effort);
    let mut conversation = Conversation::new(&model, service);
    let effort = walk(messages, &mut conversation, effort, &mut losses)?;
    let contents = conversation.finish();

    if body.cache_control.is_some() {
        losses.add(CACHE.0, CACHE.1);
    }
    let generation_config = options::translate(&body, effort, &model, &mut losses, &mut context)?;
    let unknown: Vec<_> = body.unknown.into_iter().filter(|it| it.name != TOP_K).collect();
    losses.dropped("", &unknown);
    let offer = offer(
        body.tools.unwrap_or_default(),
        body.tool_choice,
        NAMES,
        config.server_tools,
        &mut losses,
        &mut context,
    )?;
    if offer.one_at_a_time {
        losses.add("tool_choice.disable_parallel_tool_use", "dropped: the upstream has no such option");
    }
    let (tools, tool_config) = tools(offer);
    let generate = Generate {
        model: service.names_model.then_some(resource),
        system_instruction: system.map(|text| System { parts: [Data::Text(text).into()] }),
        contents,
        tools,
        tool_config,
        generation_config,
    };
    Ok(Translated { generate, losses, context })
}

/// Tools and the choice among them: <https://ai.google.dev/gemini-api/docs/function-calling#function_calling_modes>. A tool that is
/// strict is one whose calls are held to its schema, which a mode does for all of them.
fn tools<'a>(offer: Offer<'a>) -> (Vec<Tools<'a>>, Option<ToolConfig<'a>>) {
    if offer.tools.is_empty() {
        return (Vec::new(), None);
    }
    let strict = offer.tools.iter().any(|it| it.strict);
    let calling = |mode| Calling { mode, allowed_function_names: Vec::new() };
    let calling = match offer.choice {
        None | Some(Chosen::Auto) if strict => Some(calling("VALIDATED")),
        None => None,
        Some(Chosen::Auto) => Some(calling("AUTO")),
        Some(Chosen::Any) => Some(calling("ANY")),
        Some(Chosen::None) => Some(calling("NONE")),
        Some(Chosen::Named(name)) => Some(Calling { mode: "ANY", allowed_function_names: vec![name] }),
    };
    let function = |tool: OfferedTool<'a>| Function {
        name: tool.name,
        description: tool.description,
        parameters_json_schema: tool.input_schema.filter(|it| takes_something(it)),
    };
    let functions = offer.tools.into_iter().map(function).collect();
    let config = calling.map(|it| ToolConfig { function_calling_config: it });
    (vec![Tools { function_declarations: functions }], config)
}

/// Whether a schema says anything of the input: of a function without parameters none is sent.
fn takes_something(schema: &RawValue) -> bool {
    let Ok(schema) = serde_json::from_str::<Schema<'_>>(schema.get()) else { return true };
    let empty = |raw: &RawValue| raw.get().trim_matches(['{', '}']).trim().is_empty();
    let plain = |name: &str| matches!(name, "type" | "additionalProperties" | "$schema" | "required");
    !(schema.properties.is_none_or(empty) && schema.unknown.iter().all(|it| plain(&it.name)))
}
