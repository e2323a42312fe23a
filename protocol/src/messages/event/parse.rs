//! Reads one event of the Messages stream into its type.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Block, Delta, EventKind, StreamEvent, Usage};

/// Why an event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The data is not JSON of the shape that the event's name promises.
    #[error("the data of {name} is not what it should be")]
    Data {
        /// The event's name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The data is not UTF-8.
    #[error("the data of an event is not utf-8")]
    Utf8,
    /// The `event` field and the data's `type` name different events.
    #[error("the event is named {name} and its data is of type {data_type}")]
    Contradiction {
        /// The `event` field.
        name: String,
        /// The data's `type`.
        data_type: String,
    },
    /// Neither an `event` field nor a `type`.
    #[error("the event has no name")]
    Nameless,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: StartedMessage,
}

#[derive(Deserialize)]
struct StartedMessage {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    index: u32,
    #[serde(borrow)]
    content_block: &'a RawValue,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    index: u32,
    #[serde(borrow)]
    delta: &'a RawValue,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u32,
}

#[derive(Deserialize)]
struct MessageDelta {
    #[serde(default)]
    delta: StopDelta,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize, Default)]
struct StopDelta {
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEvent {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct TextDelta {
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    signature: Option<String>,
}

#[derive(Deserialize)]
struct Redacted {
    #[serde(default)]
    data: Option<String>,
}

#[derive(Deserialize)]
struct ToolUse<'a> {
    id: String,
    name: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct InputJson {
    #[serde(default)]
    partial_json: Option<String>,
}

/// Reads the event with this `event` field (`None` where there is none) and this data. An event, block or
/// delta of an unknown type becomes `Raw`; members that a known one has besides are left out. Errors: see
/// [`EventError`].
pub fn parse(name: Option<&str>, data: &[u8]) -> Result<StreamEvent, EventError> {
    let data = std::str::from_utf8(data).map_err(|_| EventError::Utf8)?;
    let fail = |source| EventError::Data { name: name.unwrap_or("an event").to_owned(), source };
    let typed = serde_json::from_str::<Typed<'_>>(data).map_err(fail)?.kind;
    let name = match (name, typed.as_deref()) {
        (Some(name), Some(data_type)) if name != data_type => {
            return Err(EventError::Contradiction { name: name.to_owned(), data_type: data_type.to_owned() });
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => return Err(EventError::Nameless),
    };
    read(name, data).map_err(|source| EventError::Data { name: name.to_owned(), source })
}

pub(super) fn read(name: &str, data: &str) -> Result<StreamEvent, serde_json::Error> {
    Ok(match EventKind::of(name.as_bytes()) {
        EventKind::MessageStart => {
            let StartedMessage { id, model, usage } = serde_json::from_str::<MessageStart>(data)?.message;
            StreamEvent::MessageStart { id, model, usage: usage.unwrap_or_default() }
        }
        EventKind::BlockStart => {
            let start = serde_json::from_str::<BlockStart<'_>>(data)?;
            StreamEvent::BlockStart { index: start.index, block: block(start.content_block.get())? }
        }
        EventKind::BlockDelta => {
            let piece = serde_json::from_str::<BlockDelta<'_>>(data)?;
            StreamEvent::BlockDelta { index: piece.index, delta: delta(piece.delta.get())? }
        }
        EventKind::BlockStop => {
            StreamEvent::BlockStop { index: serde_json::from_str::<BlockStop>(data)?.index }
        }
        EventKind::MessageDelta => {
            let MessageDelta { delta, usage } = serde_json::from_str(data)?;
            StreamEvent::MessageDelta {
                stop_reason: delta.stop_reason,
                stop_sequence: delta.stop_sequence,
                usage: usage.unwrap_or_default(),
            }
        }
        EventKind::MessageStop => StreamEvent::MessageStop,
        EventKind::Ping => StreamEvent::Ping,
        EventKind::Error => {
            let ErrorBody { kind, message } = serde_json::from_str::<ErrorEvent>(data)?.error;
            StreamEvent::Error { error_type: kind, message }
        }
        EventKind::Other => StreamEvent::Raw { name: name.to_owned(), data: data.to_owned() },
    })
}

pub(super) fn block(json: &str) -> Result<Block, serde_json::Error> {
    let kind = serde_json::from_str::<Typed<'_>>(json)?.kind.unwrap_or_default();
    Ok(match kind.as_ref() {
        "text" => Block::Text(serde_json::from_str::<TextDelta>(json)?.text.unwrap_or_default()),
        "thinking" => {
            let Thinking { thinking, signature } = serde_json::from_str(json)?;
            Block::Thinking {
                thinking: thinking.unwrap_or_default(),
                signature: signature.unwrap_or_default(),
            }
        }
        "redacted_thinking" => {
            Block::RedactedThinking(serde_json::from_str::<Redacted>(json)?.data.unwrap_or_default())
        }
        "tool_use" => {
            let ToolUse { id, name, input } = serde_json::from_str(json)?;
            Block::ToolUse { id, name, input: input.map_or("{}", RawValue::get).to_owned() }
        }
        _ => Block::Raw(json.to_owned()),
    })
}

fn delta(json: &str) -> Result<Delta, serde_json::Error> {
    let kind = serde_json::from_str::<Typed<'_>>(json)?.kind.unwrap_or_default();
    Ok(match kind.as_ref() {
        "text_delta" => Delta::Text(serde_json::from_str::<TextDelta>(json)?.text.unwrap_or_default()),
        "input_json_delta" => {
            Delta::InputJson(serde_json::from_str::<InputJson>(json)?.partial_json.unwrap_or_default())
        }
        "thinking_delta" => {
            Delta::Thinking(serde_json::from_str::<Thinking>(json)?.thinking.unwrap_or_default())
        }
        "signature_delta" => {
            Delta::Signature(serde_json::from_str::<Thinking>(json)?.signature.unwrap_or_default())
        }
        _ => Delta::Raw(json.to_owned()),
    })
}
