//! Tools on offer and the choice among them: <https://docs.claude.com/en/docs/agents-and-tools/tool-use/overview>.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Invalid, Path, required_text};
use crate::json::is_object;
use crate::object;

object! {
    /// A tool that the client offers.
    pub struct Tool {
        /// Its type: none or `custom` for the client's own, else one that Anthropic defines.
        kind: &'a RawValue,
        /// Its name.
        name: &'a RawValue,
        /// What it does.
        description: &'a RawValue,
        /// The JSON schema of its input.
        input_schema: &'a RawValue,
        /// Whether the input has to fit the schema.
        strict: bool,
        /// Whether it is only to be found by a search for tools.
        defer_loading: bool,
        /// A cache marker.
        cache_control: &'a RawValue,
    }
}

object! {
    /// `tool_choice`, as it is written.
    pub struct Choice {
        /// Its type: see [`Choice::read`].
        kind: &'a RawValue,
        /// The tool's name, for the type `tool`.
        name: &'a RawValue,
        /// Whether the model may call one tool at most.
        disable_parallel_tool_use: bool,
    }
}

/// Which tool the model is to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// Any or none.
    Auto,
    /// One of them.
    Any,
    /// None.
    None,
    /// This one.
    Tool(Cow<'a, str>),
}

// === impl Tool ===

impl<'a> Tool<'a> {
    /// The type of a tool that Anthropic defines, and its API may run itself; nothing for the client's own.
    pub fn defined_by_anthropic(&self, path: Path<'_>) -> Result<Option<Cow<'a, str>>, Invalid> {
        if self.kind.is_none() {
            return Ok(None);
        }
        let kind = required_text(self.kind, path.field("type"))?;
        Ok((kind != "custom").then_some(kind))
    }

    /// Its name.
    pub fn name(&self, path: Path<'_>) -> Result<Cow<'a, str>, Invalid> {
        required_text(self.name, path.field("name"))
    }

    /// The schema of its input: a JSON object.
    pub fn input_schema(&self, path: Path<'_>) -> Result<Option<&'a RawValue>, Invalid> {
        if self.input_schema.is_some_and(|it| !is_object(it)) {
            return Err(Invalid::expected(path.field("input_schema"), "an object"));
        }
        Ok(self.input_schema)
    }
}

// === impl Choice ===

impl<'a> Choice<'a> {
    /// What is chosen.
    pub fn read(&self) -> Result<ToolChoice<'a>, Invalid> {
        let path = Path::root("tool_choice");
        let kind = required_text(self.kind, path.field("type"))?;
        Ok(match &*kind {
            "auto" => ToolChoice::Auto,
            "any" => ToolChoice::Any,
            "none" => ToolChoice::None,
            "tool" => ToolChoice::Tool(required_text(self.name, path.field("name"))?),
            other => return Err(Invalid(format!("{}: {other:?} is not known", path.field("type")))),
        })
    }
}
