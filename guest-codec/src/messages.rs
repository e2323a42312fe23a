//! A Messages request, read: typed where every provider needs it typed, and as it is written where a provider may hand it on. Nothing is
//! copied; texts are JSON strings of the client's body. What has no field here is in `unknown`, with its value.
//!
//! Source of every field: <https://docs.claude.com/en/api/messages>, and for what is behind a beta header the page of that feature.

mod content;
mod options;
mod path;
mod tools;

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::string;
use crate::object;

pub use self::content::{Block, BlockType, Content, Source, SourceKind, ToolResult, ToolUse};
pub use self::options::{OutputConfig, OutputSchema, Thinking, ThinkingMode};
pub use self::path::Path;
pub use self::tools::{Choice, Tool, ToolChoice};

/// Why a request is refused before it is sent: a message in the style of the Messages API, which names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

object! {
    /// The body of `POST /v1/messages` and of `POST /v1/messages/count_tokens`.
    pub struct Request {
        /// The model that the client named.
        model: &'a RawValue,
        /// The conversation.
        messages: Vec<Message<'a>>,
        /// The system prompt: a string or text blocks.
        system: &'a RawValue,
        /// The most output tokens.
        max_tokens: u64,
        /// Whether the client asked for a stream.
        stream: &'a RawValue,
        /// The tools on offer.
        tools: Vec<Tool<'a>>,
        /// Which of them the model is to call.
        tool_choice: Choice<'a>,
        /// Texts at which the model stops: strings.
        stop_sequences: Vec<&'a RawValue>,
        /// Sampling temperature, from 0 to 1.
        temperature: f64,
        /// Nucleus sampling.
        top_p: f64,
        /// Whether and how long the model thinks.
        thinking: Thinking<'a>,
        /// Effort and form of the output.
        output_config: OutputConfig<'a>,
        /// The older place of `output_config.format`.
        output_format: &'a RawValue,
        /// A cache marker for the whole request.
        cache_control: &'a RawValue,
        /// What Claude Code asks of Anthropic's safety systems.
        safeguards: &'a RawValue,
        /// MCP servers that Anthropic's API itself calls.
        mcp_servers: &'a RawValue,
    }
}

object! {
    /// One turn.
    pub struct Message {
        /// Who speaks: see [`Message::role`].
        role: &'a RawValue,
        /// What is said: see [`Message::content`].
        content: &'a RawValue,
        /// Options that hold from this turn on.
        output_config: OutputConfig<'a>,
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user, or a tool on their behalf.
    User,
    /// The model.
    Assistant,
    /// The operator, in the middle of the conversation.
    System,
}

// === impl Request ===

impl<'a> Request<'a> {
    /// Reads a body. The error names the field, or the place in the text.
    pub fn read(body: &'a str) -> Result<Self, Invalid> {
        serde_json::from_str(body).map_err(|error| Invalid(format!("the body: {error}")))
    }

    /// The value of a field that has no place of its own: `top_k`, `metadata`, `service_tier` and whatever comes next year.
    pub fn field(&self, name: &str) -> Option<&'a RawValue> {
        self.unknown.iter().find(|it| it.name == name).map(|it| it.value)
    }
}

// === impl Message ===

impl<'a> Message<'a> {
    /// Who speaks. `path` is the message's.
    pub fn role(&self, path: Path<'_>) -> Result<Role, Invalid> {
        let path = path.field("role");
        match &*required_text(self.role, path)? {
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "system" => Ok(Role::System),
            other => {
                Err(Invalid(format!("{path}: {other:?} is not one of \"user\", \"assistant\", \"system\"")))
            }
        }
    }

    /// What is said, as it is written; [`Content::read`] reads it.
    pub fn content(&self, path: Path<'_>) -> Result<&'a RawValue, Invalid> {
        required(self.content, path.field("content"))
    }
}

// === impl Invalid ===

impl Invalid {
    /// Something else was expected at `path`.
    pub fn expected(path: Path<'_>, what: &str) -> Self {
        Self(format!("{path}: {what} expected"))
    }

    /// A field is missing.
    pub fn missing(path: Path<'_>) -> Self {
        Self(format!("{path}: Field required"))
    }
}

/// The value of a required field.
pub fn required<'a>(raw: Option<&'a RawValue>, path: Path<'_>) -> Result<&'a RawValue, Invalid> {
    raw.ok_or_else(|| Invalid::missing(path))
}

/// The string of a required field.
pub fn required_text<'a>(raw: Option<&'a RawValue>, path: Path<'_>) -> Result<Cow<'a, str>, Invalid> {
    string(required(raw, path)?).ok_or_else(|| Invalid::expected(path, "a string"))
}

#[cfg(test)]
mod tests;
