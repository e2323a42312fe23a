//! The legal order of a Messages stream. A provider component may say what it likes; what reaches a client is
//! a stream that its SDK understands, or an error.

use std::borrow::Cow;

use serde::Deserialize;

use super::event::{self, Block, Delta, EventKind, StreamEvent, Usage};

/// Follows one stream and refuses the first event that does not belong where it stands.
#[derive(Debug, Clone, Default)]
pub struct Grammar {
    state: State,
    next_index: u32,
}

/// Why an event may not stand where it stands. The stream is at an end then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// Not allowed at this point of the stream.
    #[error("{event} is not allowed {place}")]
    Order {
        /// The event's name.
        event: &'static str,
        /// At which point it came.
        place: &'static str,
    },
    /// A block has another index than the stream is at.
    #[error("block {index} where block {expected} was due")]
    Index {
        /// The index that came.
        index: u32,
        /// The index that was due.
        expected: u32,
    },
    /// A delta that its block cannot take.
    #[error("a {delta} in a {block} block")]
    Delta {
        /// The delta's type.
        delta: &'static str,
        /// The block's type.
        block: &'static str,
    },
    /// Raw JSON that is not an object with exactly one `type`, a string.
    #[error("raw json of a {what} is not an object with a type")]
    RawJson {
        /// `event`, `block`, `delta` or `tool input`.
        what: &'static str,
    },
    /// Raw JSON that says of itself to be something this version has a case for, or whose name differs from
    /// its type.
    #[error("a raw {what} is disguised as something else")]
    Disguised {
        /// `event`, `block` or `delta`.
        what: &'static str,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Fresh,
    Between,
    Open(Shape),
    Ending,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Thinking,
    Redacted,
    ToolUse,
    Raw,
}

// === impl Grammar ===

impl Grammar {
    /// A stream of which nothing was seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event. Errors: see [`GrammarError`]; every event after an error is refused too.
    pub fn check(&mut self, event: &StreamEvent) -> Result<(), GrammarError> {
        let result = self.step(event);
        match result {
            Ok(state) => {
                self.state = state;
                Ok(())
            }
            Err(error) => {
                self.state = State::Over;
                Err(error)
            }
        }
    }

    /// Whether `message_start` was seen.
    pub fn has_started(&self) -> bool {
        self.state != State::Fresh
    }

    /// Whether the stream is complete: `message_stop` or `error` was seen, or an event was refused.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether `message_delta` was seen, so that no further block may begin.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending | State::Over)
    }

    /// The index of the open block, if one is open.
    pub fn open_block(&self) -> Option<u32> {
        matches!(self.state, State::Open(_)).then(|| self.next_index.saturating_sub(1))
    }

    /// The index of the block that may begin next.
    pub fn next_index(&self) -> u32 {
        self.next_index
    }

    /// The events that end a running stream early in good order: the open block is closed, a text block says
    /// why, and the turn ends with `end_turn`, which clients take as the regular end of a reply. Empty before
    /// `message_start` and after the end; without the text where no block may begin any more.
    pub fn conclude(&self, why: &str, usage: Usage) -> Vec<StreamEvent> {
        if !self.has_started() || self.is_over() {
            return Vec::new();
        }
        let mut events: Vec<StreamEvent> =
            self.open_block().map(|index| StreamEvent::BlockStop { index }).into_iter().collect();
        if !self.is_ending() {
            let index = self.next_index;
            events.push(StreamEvent::BlockStart { index, block: Block::text() });
            events.push(StreamEvent::BlockDelta { index, delta: Delta::Text(why.to_owned()) });
            events.push(StreamEvent::BlockStop { index });
        }
        let stop_reason = Some("end_turn".to_owned());
        events.push(StreamEvent::MessageDelta { stop_reason, stop_sequence: None, usage });
        events.push(StreamEvent::MessageStop);
        events
    }

    fn step(&mut self, event: &StreamEvent) -> Result<State, GrammarError> {
        let state = self.state;
        let order = || GrammarError::Order { event: event_name(event), place: state.place() };
        match (event, state) {
            (StreamEvent::Ping, _) => Ok(state),
            (_, State::Over) => Err(order()),
            (StreamEvent::Error { .. }, _) | (StreamEvent::MessageStop, State::Ending) => Ok(State::Over),
            (StreamEvent::MessageStart { .. }, State::Fresh) => Ok(State::Between),
            (StreamEvent::BlockStart { index, block }, State::Between) => {
                expect(*index, self.next_index)?;
                let shape = shape(block)?;
                self.next_index = self.next_index.saturating_add(1);
                Ok(State::Open(shape))
            }
            (StreamEvent::BlockDelta { index, delta }, State::Open(shape)) => {
                expect(*index, self.next_index.saturating_sub(1))?;
                fits(delta, shape)?;
                Ok(state)
            }
            (StreamEvent::BlockStop { index }, State::Open(_)) => {
                expect(*index, self.next_index.saturating_sub(1))?;
                Ok(State::Between)
            }
            (StreamEvent::MessageDelta { .. }, State::Between | State::Ending) => Ok(State::Ending),
            (StreamEvent::Raw { name, data }, State::Between | State::Open(_) | State::Ending) => {
                let typed = typed("event", data)?;
                if EventKind::of(name.as_bytes()) != EventKind::Other || typed != name.as_str() {
                    return Err(GrammarError::Disguised { what: "event" });
                }
                Ok(state)
            }
            _ => Err(order()),
        }
    }
}

// === impl State ===

impl State {
    fn place(self) -> &'static str {
        match self {
            Self::Fresh => "before message_start",
            Self::Between => "between blocks",
            Self::Open(_) => "inside a block",
            Self::Ending => "after message_delta",
            Self::Over => "after the end",
        }
    }
}

// === impl Shape ===

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Thinking => "thinking",
            Self::Redacted => "redacted_thinking",
            Self::ToolUse => "tool_use",
            Self::Raw => "raw",
        }
    }
}

fn expect(index: u32, expected: u32) -> Result<(), GrammarError> {
    if index == expected { Ok(()) } else { Err(GrammarError::Index { index, expected }) }
}

fn event_name(event: &StreamEvent) -> &'static str {
    match event {
        StreamEvent::MessageStart { .. } => "message_start",
        StreamEvent::BlockStart { .. } => "content_block_start",
        StreamEvent::BlockDelta { .. } => "content_block_delta",
        StreamEvent::BlockStop { .. } => "content_block_stop",
        StreamEvent::MessageDelta { .. } => "message_delta",
        StreamEvent::MessageStop => "message_stop",
        StreamEvent::Ping => "ping",
        StreamEvent::Error { .. } => "error",
        StreamEvent::Raw { .. } => "an unknown event",
    }
}

fn shape(block: &Block) -> Result<Shape, GrammarError> {
    Ok(match block {
        Block::Text(_) => Shape::Text,
        Block::Thinking { .. } => Shape::Thinking,
        Block::RedactedThinking(_) => Shape::Redacted,
        Block::ToolUse { input, .. } => {
            if !input.is_empty() && event::tool_input(input).is_err() {
                return Err(GrammarError::RawJson { what: "tool input" });
            }
            Shape::ToolUse
        }
        Block::Raw(json) => {
            let known = ["text", "thinking", "redacted_thinking", "tool_use"];
            if known.contains(&typed("block", json)?.as_ref()) {
                return Err(GrammarError::Disguised { what: "block" });
            }
            Shape::Raw
        }
    })
}

fn fits(delta: &Delta, shape: Shape) -> Result<(), GrammarError> {
    let name = match (delta, shape) {
        (Delta::Text(_), Shape::Text | Shape::Raw)
        | (Delta::InputJson(_), Shape::ToolUse | Shape::Raw)
        | (Delta::Thinking(_) | Delta::Signature(_), Shape::Thinking | Shape::Raw) => return Ok(()),
        (Delta::Raw(json), _) => {
            let known = ["text_delta", "input_json_delta", "thinking_delta", "signature_delta"];
            if known.contains(&typed("delta", json)?.as_ref()) {
                return Err(GrammarError::Disguised { what: "delta" });
            }
            return Ok(());
        }
        (Delta::Text(_), _) => "text_delta",
        (Delta::InputJson(_), _) => "input_json_delta",
        (Delta::Thinking(_), _) => "thinking_delta",
        (Delta::Signature(_), _) => "signature_delta",
    };
    Err(GrammarError::Delta { delta: name, block: shape.name() })
}

/// The `type` of a raw JSON object that reads in one way only and holds no tool call: clients follow the last of two names, and
/// what nobody was asked about must not come in another shape.
fn typed<'a>(what: &'static str, json: &'a str) -> Result<Cow<'a, str>, GrammarError> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    match event::check(json.as_bytes()) {
        Ok(checked) if checked.tool_uses > 0 => return Err(GrammarError::Disguised { what }),
        Ok(_) => {}
        Err(_) => return Err(GrammarError::RawJson { what }),
    }
    match serde_json::from_str::<Typed<'a>>(json) {
        Ok(typed) if json.trim_start().starts_with('{') => Ok(typed.kind),
        _ => Err(GrammarError::RawJson { what }),
    }
}

#[cfg(test)]
mod tests;
