//! The tools that a client offers, and the choice among them, as every upstream with functions takes them. Tools that the Anthropic API
//! itself runs have no counterpart: a model that is asked to search and cannot would make something up.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::losses::Losses;
use crate::messages::{self, Choice, Invalid, Path, Request, ToolChoice};
use crate::names::{NameLimits, ReplyContext};
use crate::parts::CACHE;

/// What becomes of tools that the upstream does not have: web search and its like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerTools {
    /// The request is refused and names the tool.
    #[default]
    Refuse,
    /// They are dropped, and recorded as a loss.
    Drop,
}

/// What is on offer.
#[derive(Debug, Default)]
pub struct Offer<'a> {
    /// The tools, in order.
    pub tools: Vec<OfferedTool<'a>>,
    /// Which of them the model is to call; nothing where the client does not say, or no tool is left.
    pub choice: Option<Chosen<'a>>,
    /// The model is to call one tool at most.
    pub one_at_a_time: bool,
}

/// A tool of the client's own.
#[derive(Debug)]
pub struct OfferedTool<'a> {
    /// Its name, as the upstream takes it.
    pub name: Cow<'a, str>,
    /// What it does: a JSON string.
    pub description: Option<&'a RawValue>,
    /// The JSON schema of its input: an object.
    pub input_schema: Option<&'a RawValue>,
    /// Whether the input has to fit the schema.
    pub strict: bool,
}

/// Which tool the model is to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen<'a> {
    /// Any or none.
    Auto,
    /// One of them.
    Any,
    /// None.
    None,
    /// The one with this name, as the upstream takes it.
    Named(Cow<'a, str>),
}

/// Refuses what is between the client and Anthropic's API alone, or records it as lost.
pub fn without_anthropics_own(
    request: &Request<'_>,
    server_tools: ServerTools,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    if request.safeguards.is_some() {
        return Err(Invalid("safeguards: not supported by this model's upstream".to_owned()));
    }
    if request.mcp_servers.is_some_and(|it| it.get() != "[]") {
        if server_tools == ServerTools::Refuse {
            let what =
                "mcp_servers: their tools are run by Anthropic's API and do not exist behind this model";
            return Err(Invalid(what.to_owned()));
        }
        losses.add("mcp_servers", "dropped");
    }
    Ok(())
}

/// Reads tools and choice; `context` learns which names were changed.
pub fn offer<'a>(
    tools: Vec<messages::Tool<'a>>,
    choice: Option<Choice<'a>>,
    names: NameLimits,
    server_tools: ServerTools,
    losses: &mut Losses,
    context: &mut ReplyContext,
) -> Result<Offer<'a>, Invalid> {
    let mut offered = Vec::with_capacity(tools.len());
    let mut known = BTreeSet::new();
    for (at, tool) in tools.into_iter().enumerate() {
        let path = Path::root("tools");
        let path = path.index(at);
        if let Some(kind) = tool.defined_by_anthropic(path)? {
            // What every deferred tool would be found with; they are all sent in full.
            let needless = kind.starts_with("tool_search_tool_");
            if !needless && server_tools == ServerTools::Refuse {
                return Err(Invalid(format!(
                    "{path}: the tool {} is run by Anthropic's API and does not exist behind this model; remove it, or ask for a \
                     model that has it",
                    clipped(&kind)
                )));
            }
            losses.add(format!("{path} ({kind})"), "tool that the upstream does not know dropped");
            continue;
        }
        let original = tool.name(path)?;
        let name = names.tool_name(original.clone());
        if name != original {
            context.renamed.push((name.clone().into_owned(), original.into_owned()));
        }
        if tool.cache_control.is_some() {
            losses.add(CACHE.0, CACHE.1);
        }
        if tool.defer_loading == Some(true) {
            losses.add(path.field("defer_loading"), "tool sent in full");
        }
        losses.dropped(path, &tool.unknown);
        known.insert(name.clone().into_owned());
        offered.push(OfferedTool {
            name,
            description: tool.description,
            input_schema: tool.input_schema(path)?,
            strict: tool.strict == Some(true),
        });
    }
    let Some(choice) = choice else {
        return Ok(Offer { tools: offered, choice: None, one_at_a_time: false });
    };
    losses.dropped("tool_choice", &choice.unknown);
    let chosen = match choice.read()? {
        ToolChoice::Auto => Some(Chosen::Auto),
        ToolChoice::None => Some(Chosen::None),
        ToolChoice::Any if !offered.is_empty() => Some(Chosen::Any),
        ToolChoice::Any => {
            losses.add("tool_choice", "dropped: none of the tools is left");
            None
        }
        ToolChoice::Tool(name) => {
            let name = names.tool_name(name);
            if known.contains(&*name) {
                Some(Chosen::Named(name))
            } else {
                losses.add("tool_choice", "dropped: the tool it names is not offered");
                None
            }
        }
    };
    Ok(Offer {
        // Without tools there is nothing to choose among, and servers refuse the field.
        choice: chosen.filter(|_| !offered.is_empty()),
        one_at_a_time: choice.disable_parallel_tool_use == Some(true) && !offered.is_empty(),
        tools: offered,
    })
}

/// A name for an error's text.
fn clipped(name: &str) -> String {
    name.chars().filter(|it| !it.is_control()).take(64).collect()
}
