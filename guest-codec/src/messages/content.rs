//! Content blocks: <https://docs.claude.com/en/api/messages#body-messages-content>. Blocks of all types are read into one shape,
//! [`Block`], and what a type requires is asked of it; so a block that a provider drops is not refused for what it lacks.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Invalid, Path, required, required_text};
use crate::json::{inside, is_array, is_object, string};
use crate::object;

object! {
    /// A content block of any type: they have few fields between them.
    pub struct Block {
        /// Its type: see [`Block::block_type`].
        kind: &'a RawValue,
        /// `text`: see [`Block::text`].
        text: &'a RawValue,
        /// `tool_use`: its id.
        id: &'a RawValue,
        /// `tool_use`: the tool's name.
        name: &'a RawValue,
        /// `tool_use`: what the tool is called with.
        input: &'a RawValue,
        /// `tool_result`: the call that it answers.
        tool_use_id: &'a RawValue,
        /// `tool_result`, `search_result`: what it holds, a string or blocks.
        content: &'a RawValue,
        /// `tool_result`: whether the tool failed.
        is_error: bool,
        /// `image`, `document`: see [`Block::source`]. `search_result`: an address.
        source: &'a RawValue,
        /// `document`, `search_result`: its title.
        title: &'a RawValue,
        /// `document`: what the model is told of it.
        context: &'a RawValue,
        /// `document`, `search_result`: whether they may be cited. `text`: the citations.
        citations: &'a RawValue,
        /// `thinking`: what was thought.
        thinking: &'a RawValue,
        /// `thinking`: proof that a model of Anthropic's thought so.
        signature: &'a RawValue,
        /// `redacted_thinking`: what only the upstream can read.
        data: &'a RawValue,
        /// `tool_reference`: the tool's name.
        tool_name: &'a RawValue,
        /// A cache marker.
        cache_control: &'a RawValue,
    }
}

object! {
    /// Where an image or a document comes from.
    pub struct Source {
        /// Its type: see [`Source::source_kind`].
        kind: &'a RawValue,
        /// `base64`, `text`: `image/png`, `application/pdf`, `text/plain`, ...
        media_type: &'a RawValue,
        /// `base64`, `text`: all of it.
        data: &'a RawValue,
        /// `url`: where it is.
        url: &'a RawValue,
        /// `content`: a string or blocks.
        content: &'a RawValue,
        /// `file`: its id in Anthropic's Files API.
        file_id: &'a RawValue,
    }
}

/// The types of block that a provider is likely to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockType<'a> {
    /// Text.
    Text,
    /// An image.
    Image,
    /// A document: a PDF, a text, or blocks.
    Document,
    /// A result of a search that the client made.
    SearchResult,
    /// A tool that a search for tools has found.
    ToolReference,
    /// A tool call of the model.
    ToolUse,
    /// What a tool answered.
    ToolResult,
    /// What the model thought.
    Thinking,
    /// What the model thought, encrypted.
    RedactedThinking,
    /// Another type.
    Other(Cow<'a, str>),
}

/// How a source is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind<'a> {
    /// All of it, in base64.
    Base64,
    /// All of it, as text.
    Text,
    /// An address.
    Url,
    /// Blocks.
    Content,
    /// A file that was uploaded before.
    File,
    /// Another way, or none that can be read.
    Other(Cow<'a, str>),
}

/// `content`: blocks, or the string that stands for one text block.
#[derive(Debug)]
pub enum Content<'a> {
    /// A JSON string.
    Text(&'a RawValue),
    /// Blocks.
    Blocks(Vec<Block<'a>>),
}

/// A tool call of an earlier turn.
#[derive(Debug, Clone)]
pub struct ToolUse<'a> {
    /// Its id, as the client knows it.
    pub id: Cow<'a, str>,
    /// The tool's name, as the client knows it.
    pub name: Cow<'a, str>,
    /// What it is called with: a JSON object.
    pub input: Option<&'a RawValue>,
}

/// What a tool answered.
#[derive(Debug, Clone)]
pub struct ToolResult<'a> {
    /// The id of the call.
    pub tool_use_id: Cow<'a, str>,
    /// What it answered: a string or blocks.
    pub content: Option<&'a RawValue>,
    /// Whether the tool failed.
    pub is_error: bool,
}

// === impl Content ===

impl<'a> Content<'a> {
    /// Reads `content`, which stands at `path`.
    pub fn read(raw: &'a RawValue, path: Path<'_>) -> Result<Self, Invalid> {
        if is_array(raw) {
            let blocks = Vec::deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
                .map_err(|error| Invalid(format!("{path}: {error}")))?;
            Ok(Self::Blocks(blocks))
        } else if inside(raw).is_some() {
            Ok(Self::Text(raw))
        } else {
            Err(Invalid::expected(path, "a string or an array of blocks"))
        }
    }
}

// === impl Block ===

impl<'a> Block<'a> {
    /// Its type.
    pub fn block_type(&self, path: Path<'_>) -> Result<BlockType<'a>, Invalid> {
        let kind = required_text(self.kind, path.field("type"))?;
        Ok(match &*kind {
            "text" => BlockType::Text,
            "image" => BlockType::Image,
            "document" => BlockType::Document,
            "search_result" => BlockType::SearchResult,
            "tool_reference" => BlockType::ToolReference,
            "tool_use" => BlockType::ToolUse,
            "tool_result" => BlockType::ToolResult,
            "thinking" => BlockType::Thinking,
            "redacted_thinking" => BlockType::RedactedThinking,
            _ => BlockType::Other(kind),
        })
    }

    /// The text of a `text` block: a JSON string.
    pub fn text(&self, path: Path<'_>) -> Result<&'a RawValue, Invalid> {
        let path = path.field("text");
        let raw = required(self.text, path)?;
        if inside(raw).is_some() { Ok(raw) } else { Err(Invalid::expected(path, "a string")) }
    }

    /// What a `tool_use` block says.
    pub fn tool_use(&self, path: Path<'_>) -> Result<ToolUse<'a>, Invalid> {
        let id = required_text(self.id, path.field("id"))?;
        let name = required_text(self.name, path.field("name"))?;
        if self.input.is_some_and(|it| !is_object(it)) {
            return Err(Invalid::expected(path.field("input"), "an object"));
        }
        Ok(ToolUse { id, name, input: self.input })
    }

    /// What a `tool_result` block says.
    pub fn tool_result(&self, path: Path<'_>) -> Result<ToolResult<'a>, Invalid> {
        let tool_use_id = required_text(self.tool_use_id, path.field("tool_use_id"))?;
        Ok(ToolResult { tool_use_id, content: self.content, is_error: self.is_error == Some(true) })
    }

    /// The source of an `image` or a `document` block.
    pub fn source(&self, path: Path<'_>) -> Result<Source<'a>, Invalid> {
        let path = path.field("source");
        let raw = required(self.source, path)?;
        serde_json::from_str(raw.get()).map_err(|error| Invalid(format!("{path}: {error}")))
    }

    /// Whether it asks for citations, or holds some.
    pub fn has_citations(&self) -> bool {
        self.citations.is_some_and(|it| !matches!(it.get(), "[]" | "{\"enabled\":false}"))
    }

    /// Whether it holds blocks of its own.
    pub fn has_nested_source(&self) -> bool {
        self.source.filter(|it| is_object(it)).is_some_and(|raw| {
            serde_json::from_str::<Source<'_>>(raw.get()).is_ok_and(|source| source.content.is_some())
        })
    }
}

// === impl Source ===

impl<'a> Source<'a> {
    /// How it is given.
    pub fn source_kind(&self) -> SourceKind<'a> {
        let kind = self.kind.and_then(string).unwrap_or_default();
        match &*kind {
            "base64" => SourceKind::Base64,
            "text" => SourceKind::Text,
            "url" => SourceKind::Url,
            "content" => SourceKind::Content,
            "file" => SourceKind::File,
            _ => SourceKind::Other(kind),
        }
    }

    /// Its media type, if it says one.
    pub fn media_type(&self) -> Option<Cow<'a, str>> {
        self.media_type.and_then(string)
    }

    /// Its data, if it holds some.
    pub fn data(&self) -> Option<Cow<'a, str>> {
        self.data.and_then(string)
    }

    /// Its address: a JSON string.
    pub fn url(&self) -> Option<&'a RawValue> {
        self.url.filter(|it| inside(it).is_some())
    }
}
