//! The events of the Messages stream: typed, read from and written as server-sent events. The host alone
//! serialises what a provider component says, so that no component can put a byte of its own framing on a
//! client's stream. Shapes: <https://docs.claude.com/en/docs/build-with-claude/streaming>.

use serde::{Deserialize, Deserializer};

use super::{error, json};

pub use self::kind::{EventKind, quick_kind};
pub use self::parse::{EventError, parse};
pub use self::strict::{Ambiguous, Checked, check, strict, strict_unsaid, tool_input};

mod kind;
mod parse;
mod strict;

/// Tokens of one call. `None` is "not said", which is not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// `input_tokens`: input outside any cache.
    #[serde(rename = "input_tokens")]
    pub input: Option<u64>,
    /// `output_tokens`, thinking included.
    #[serde(rename = "output_tokens")]
    pub output: Option<u64>,
    /// `cache_read_input_tokens`: input read from a prompt cache.
    #[serde(rename = "cache_read_input_tokens")]
    pub cache_read: Option<u64>,
    /// `cache_creation_input_tokens`: input written to a prompt cache.
    #[serde(rename = "cache_creation_input_tokens")]
    pub cache_write: Option<u64>,
    /// `cache_creation.ephemeral_1h_input_tokens`: those of `cache_write` that were written to live for an hour.
    #[serde(rename = "cache_creation", default, deserialize_with = "for_an_hour")]
    pub cache_write_1h: Option<u64>,
}

/// One event of the Messages stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// `message_start`: the reply begins.
    MessageStart {
        /// `msg_...`
        id: String,
        /// The model that answers.
        model: String,
        /// What is known so far.
        usage: Usage,
    },
    /// `content_block_start`
    BlockStart {
        /// Index of the block, from 0, ascending by one.
        index: u32,
        /// What begins.
        block: Block,
    },
    /// `content_block_delta`
    BlockDelta {
        /// Which block.
        index: u32,
        /// The piece.
        delta: Delta,
    },
    /// `content_block_stop`
    BlockStop {
        /// Which block.
        index: u32,
    },
    /// `message_delta`: stop reason and usage, the latter cumulative.
    MessageDelta {
        /// `end_turn`, `max_tokens`, `stop_sequence`, `tool_use`, `pause_turn`, `refusal`, ...
        stop_reason: Option<String>,
        /// Which stop sequence was met.
        stop_sequence: Option<String>,
        /// Tokens counted so far.
        usage: Usage,
    },
    /// `message_stop`: the reply is complete.
    MessageStop,
    /// `ping`: keep-alive.
    Ping,
    /// `error`: the reply broke off.
    Error {
        /// `overloaded_error`, ...; see [`error::ErrorType`].
        error_type: String,
        /// Shown to the user.
        message: String,
    },
    /// An event this version has no case for.
    Raw {
        /// Its name: the `event` field, and the `type` of its data.
        name: String,
        /// Its data: a JSON object.
        data: String,
    },
}

/// The head of a content block. The texts are what the block starts with, which is nothing in nearly every
/// stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// `text`
    Text(String),
    /// `thinking`
    Thinking {
        /// What it starts with.
        thinking: String,
        /// Its signature, where it is known from the start.
        signature: String,
    },
    /// `redacted_thinking`: its data, readable by the upstream alone.
    RedactedThinking(String),
    /// `tool_use`
    ToolUse {
        /// `toolu_...`
        id: String,
        /// The tool's name.
        name: String,
        /// The input it starts with, as JSON: `{}` where deltas bring the input.
        input: String,
    },
    /// A block this version has no case for: its JSON object.
    Raw(String),
}

/// A piece of a content block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// `text_delta`
    Text(String),
    /// `input_json_delta`: a piece of the JSON text of a tool call's input.
    InputJson(String),
    /// `thinking_delta`
    Thinking(String),
    /// `signature_delta`
    Signature(String),
    /// A delta this version has no case for: its JSON object.
    Raw(String),
}

// === impl Usage ===

impl Usage {
    /// Takes in what a later event says. Counts are cumulative: a later one replaces an earlier one, never
    /// adds to it, and never lowers it (some upstreams send 0 at the end for what they counted at the start).
    pub fn merge(&mut self, later: Self) {
        // What is counted at the end replaces what was estimated at the beginning; a zero says nothing new.
        let counted =
            |earlier: Option<u64>, later: Option<u64>| later.filter(|count| *count > 0).or(earlier).or(later);
        self.input = counted(self.input, later.input);
        self.output = self.output.max(later.output);
        self.cache_read = counted(self.cache_read, later.cache_read);
        self.cache_write = counted(self.cache_write, later.cache_write);
        self.cache_write_1h = counted(self.cache_write_1h, later.cache_write_1h);
    }

    /// Whether nothing was said at all.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the `usage` of a Messages reply or event; `None` where `json` is no such object.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Appends the `usage` object. Clients compute with `input_tokens` and `output_tokens`, so these are
    /// written as 0 where `required` asks for them and nothing is known; what is metered and charged is never
    /// read back from here.
    pub(super) fn write(&self, out: &mut Vec<u8>, required: Required) {
        let input = self.input.or_else(|| matches!(required, Required::Both).then_some(0));
        let fields: [(&[u8], Option<u64>); 4] = [
            (b"\"input_tokens\":", input),
            (b"\"cache_creation_input_tokens\":", self.cache_write),
            (b"\"cache_read_input_tokens\":", self.cache_read),
            (b"\"output_tokens\":", Some(self.output.unwrap_or(0))),
        ];
        let mut lead = b'{';
        for (name, value) in fields {
            if let Some(value) = value {
                out.push(lead);
                out.extend_from_slice(name);
                json::number(out, value);
                lead = b',';
            }
        }
        if let Some(hour) = self.cache_write_1h {
            out.extend_from_slice(b",\"cache_creation\":{\"ephemeral_5m_input_tokens\":");
            json::number(out, self.cache_write.unwrap_or(hour).saturating_sub(hour));
            out.extend_from_slice(b",\"ephemeral_1h_input_tokens\":");
            json::number(out, hour);
            out.push(b'}');
        }
        out.push(b'}');
    }
}

fn for_an_hour<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct ByLife {
        ephemeral_1h_input_tokens: Option<u64>,
    }
    let by_life = Option::<ByLife>::deserialize(deserializer)?;
    Ok(by_life.and_then(|by_life| by_life.ephemeral_1h_input_tokens))
}

/// Which counts a `usage` object must have on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Required {
    /// `input_tokens` and `output_tokens`: a whole message.
    Both,
    /// `output_tokens` alone: a `message_delta`.
    Output,
}

// === impl StreamEvent ===

impl StreamEvent {
    /// Which kind it is.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::MessageStart { .. } => EventKind::MessageStart,
            Self::BlockStart { .. } => EventKind::BlockStart,
            Self::BlockDelta { .. } => EventKind::BlockDelta,
            Self::BlockStop { .. } => EventKind::BlockStop,
            Self::MessageDelta { .. } => EventKind::MessageDelta,
            Self::MessageStop => EventKind::MessageStop,
            Self::Ping => EventKind::Ping,
            Self::Error { .. } => EventKind::Error,
            Self::Raw { .. } => EventKind::Other,
        }
    }

    /// Appends the event as a server-sent event: `event: <name>`, `data: <JSON>`, a blank line. Whatever
    /// texts it holds, it is exactly one event: line breaks in raw JSON become spaces, and a raw name loses
    /// its control characters.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::MessageStart { id, model, usage } => {
                out.extend_from_slice(
                    b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":",
                );
                json::string(out, id);
                out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
                json::string(out, model);
                out.extend_from_slice(
                    b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":",
                );
                usage.write(out, Required::Both);
                out.extend_from_slice(b"}}\n\n");
            }
            Self::BlockStart { index, block } => {
                out.extend_from_slice(
                    b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
                );
                json::number(out, u64::from(*index));
                out.extend_from_slice(b",\"content_block\":");
                block.write(out);
                out.extend_from_slice(b"}\n\n");
            }
            Self::BlockDelta { index, delta } => {
                out.extend_from_slice(
                    b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
                );
                json::number(out, u64::from(*index));
                out.extend_from_slice(b",\"delta\":");
                delta.write(out);
                out.extend_from_slice(b"}\n\n");
            }
            Self::BlockStop { index } => {
                out.extend_from_slice(
                    b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
                );
                json::number(out, u64::from(*index));
                out.extend_from_slice(b"}\n\n");
            }
            Self::MessageDelta { stop_reason, stop_sequence, usage } => {
                out.extend_from_slice(
                    b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":",
                );
                json::optional(out, stop_reason.as_deref());
                out.extend_from_slice(b",\"stop_sequence\":");
                json::optional(out, stop_sequence.as_deref());
                out.extend_from_slice(b"},\"usage\":");
                usage.write(out, Required::Output);
                out.extend_from_slice(b"}\n\n");
            }
            Self::MessageStop => {
                out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
            }
            Self::Ping => out.extend_from_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n"),
            Self::Error { error_type, message } => {
                out.extend_from_slice(b"event: error\ndata: ");
                error::write(out, error_type, message, None);
                out.extend_from_slice(b"\n\n");
            }
            Self::Raw { name, data } => {
                out.extend_from_slice(b"event: ");
                out.extend(name.bytes().filter(|b| !b.is_ascii_control()));
                out.extend_from_slice(b"\ndata: ");
                json::raw(out, data);
                out.extend_from_slice(b"\n\n");
            }
        }
    }
}

// === impl Block ===

impl Block {
    /// A text block that starts empty.
    pub fn text() -> Self {
        Self::Text(String::new())
    }

    /// A thinking block that starts empty.
    pub fn thinking() -> Self {
        Self::Thinking { thinking: String::new(), signature: String::new() }
    }

    /// A tool call whose input comes in deltas.
    pub fn tool_use(id: impl Into<String>, name: impl Into<String>) -> Self {
        Self::ToolUse { id: id.into(), name: name.into(), input: "{}".to_owned() }
    }

    /// Appends the block's JSON object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                json::string(out, text);
            }
            Self::Thinking { thinking, signature } => {
                out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
                json::string(out, thinking);
                out.extend_from_slice(b",\"signature\":");
                json::string(out, signature);
            }
            Self::RedactedThinking(data) => {
                out.extend_from_slice(b"{\"type\":\"redacted_thinking\",\"data\":");
                json::string(out, data);
            }
            Self::ToolUse { id, name, input } => {
                out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
                json::string(out, id);
                out.extend_from_slice(b",\"name\":");
                json::string(out, name);
                out.extend_from_slice(b",\"input\":");
                json::raw(out, if input.is_empty() { "{}" } else { input });
            }
            Self::Raw(json) => return json::raw(out, json),
        }
        out.push(b'}');
    }
}

// === impl Delta ===

impl Delta {
    /// How many bytes of text it carries.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text)
            | Self::InputJson(text)
            | Self::Thinking(text)
            | Self::Signature(text)
            | Self::Raw(text) => text.len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (head, text): (&[u8], _) = match self {
            Self::Text(text) => (b"{\"type\":\"text_delta\",\"text\":", text),
            Self::InputJson(text) => (b"{\"type\":\"input_json_delta\",\"partial_json\":", text),
            Self::Thinking(text) => (b"{\"type\":\"thinking_delta\",\"thinking\":", text),
            Self::Signature(text) => (b"{\"type\":\"signature_delta\",\"signature\":", text),
            Self::Raw(json) => return json::raw(out, json),
        };
        out.extend_from_slice(head);
        json::string(out, text);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests;
