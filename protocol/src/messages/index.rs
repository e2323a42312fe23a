//! An index over the bytes of a Messages request: found in one pass, so that routing and policy read the very bytes that will
//! be forwarded, and nothing is built of a megabyte of conversation. The bytes stay as they came.
//!
//! The request's shape: <https://docs.claude.com/en/api/messages>. What is not known here is passed on, not refused: it is a text
//! like any other, and noted as unknown.

use self::reader::Reader;

pub use self::keys::{fold, folds_to};
pub use self::marks::{Earlier, Marks, Resumed};
pub use self::scan::{MAX_DEPTH, Malformed};
pub use self::unit::Unit;
pub use self::unknown::Unknown;

mod blob;
mod block;
mod keys;
mod locate;
mod marks;
mod number;
mod reader;
mod scan;
mod tools;
mod unit;
mod unknown;

/// Most texts of a request: a conversation of a million tokens has a tenth of them.
pub const MOST_TEXTS: usize = 131_072;
/// Most tools that a request may name.
pub const MOST_TOOLS: usize = 16_384;

/// A byte range of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Where a text of the conversation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The system prompt or a system message.
    System,
    /// Text the user wrote.
    User,
    /// Text the model wrote in an earlier turn.
    Assistant,
    /// A tool call the model made in an earlier turn: its block.
    ToolInput,
    /// What a tool answered.
    ToolOutput,
    /// Text of a document.
    Document,
    /// What the request says of a tool or of a server of tools: name, description, schema, examples.
    Tool,
    /// An address or a file that the upstream reads: of an image, of a document.
    Link,
    /// A value beside the conversation: a parameter, an id, a signature.
    Parameter,
    /// A construct that the index does not know.
    Other,
}

/// How a text stands in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// One JSON string.
    #[default]
    String,
    /// A JSON value with everything in it, keys included.
    Value,
    /// A key of an object and its value.
    Member,
}

/// One text of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// Where it comes from.
    pub origin: Origin,
    /// Where it stands in the body, quotes included.
    pub span: Span,
    /// How it stands there.
    pub form: Form,
    /// Which message it belongs to; `None` outside `messages`.
    pub message: Option<u32>,
    /// Thinking, which the upstream signed: it takes it back as it was, or not at all.
    pub signed: bool,
    /// Within what a tool answered.
    pub answer: bool,
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The user, and whoever is not known.
    User,
    /// The model.
    Assistant,
    /// The operator, in the middle of a conversation.
    System,
}

/// One message of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The value of `content`; empty where there is none.
    pub content: Span,
}

/// One block of a tool: its call or its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolBlock {
    /// Whether the tool has answered: `tool_result` rather than `tool_use`.
    pub is_result: bool,
    /// The whole block.
    pub span: Span,
    /// Which message it belongs to.
    pub message: u32,
}

/// What routing, policies and the audit row need to know of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// `model`.
    pub model: String,
    /// Where the value of `model` stands, quotes included.
    pub model_span: Span,
    /// `stream`; false where absent.
    pub stream: bool,
    /// `max_tokens`, or what stands there under a name that other readers know. The largest, if there are several.
    pub max_tokens: Option<u32>,
    /// `thinking.budget_tokens`.
    pub thinking_tokens: Option<u32>,
    /// How many messages there are.
    pub message_count: u32,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Calls and results of tools that the client runs, in order.
    pub tool_blocks: Vec<ToolBlock>,
    /// Names of the tools that the request defines or names, in order. All that a server may offer are `mcp__NAME__*`.
    pub tools: Vec<String>,
    /// Every text, in order.
    pub texts: Vec<Text>,
    /// Whether the request asks for the client's own safeguards.
    pub has_safeguards: bool,
    /// Where the value of `metadata.user_id` stands.
    pub user_id: Option<Span>,
    /// What the index does not know.
    pub unknown: Unknown,
}

// === impl Span ===

impl Span {
    /// The bytes it covers; nothing where it lies outside.
    pub fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Where `part`, a slice of `body`, stands in it; `None` for bytes from elsewhere.
    pub fn of_part(body: &[u8], part: &[u8]) -> Option<Self> {
        let start = part.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
        let end = start.checked_add(part.len()).filter(|end| *end <= body.len())?;
        Some(Self { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    /// The place before the byte at `offset`.
    pub fn at(offset: u32) -> Self {
        Self { start: offset, end: offset }
    }

    /// How many bytes.
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    /// Whether it covers nothing.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

// === impl Index ===

impl Index {
    /// Reads a request. Errors: what is no JSON object of a Messages request, or could be read in two ways.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        Reader::new(body)?.read().map(|(index, _)| index)
    }

    /// The texts that the user wrote in the last message, if the last message is the user's.
    pub fn last_user_texts(&self) -> impl Iterator<Item = &Text> {
        let last = self
            .texts
            .iter()
            .rev()
            .find(|text| matches!(text.origin, Origin::User))
            .and_then(|text| text.message);
        self.texts
            .iter()
            .filter(move |text| text.origin == Origin::User && text.message == last && last.is_some())
    }

    /// Whether `other` is a request of the same kind in which only texts read otherwise: what was decided about one holds for the other.
    pub fn is_like(&self, other: &Self) -> bool {
        self.model == other.model
            && self.stream == other.stream
            && self.max_tokens == other.max_tokens
            && self.message_count == other.message_count
            && self.tools.len() == other.tools.len()
            && self.unknown.names().len() == other.unknown.names().len()
            && self.texts.len() == other.texts.len()
            && self.texts.iter().zip(&other.texts).all(|(one, other)| one.origin == other.origin)
    }

    /// What scanners are asked about, in order.
    pub fn units(&self) -> Vec<Unit> {
        unit::units(&self.texts)
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
