//! Folds the events of a stream into one Messages reply, for clients that asked for no stream from a provider
//! that streams. Shape: <https://docs.claude.com/en/api/messages>.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::event::{Block, Delta, Required, StreamEvent, Usage};
use super::json;

/// The largest reply that is folded, in bytes: 32 MiB.
pub const LIMIT: usize = 32 * 1024 * 1024;

/// Collects the events of one stream, in the order that [`super::grammar::Grammar`] allows.
#[derive(Debug, Default)]
pub struct Fold {
    head: Option<(String, String)>,
    content: Vec<u8>,
    open: Option<Open>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Usage,
    size: usize,
    over: bool,
}

/// Why events do not fold into a reply.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The stream ended before `message_stop`, or never began.
    #[error("the stream ended before the reply was complete")]
    Incomplete,
    /// An event came where it does not belong.
    #[error("an event is out of order")]
    Order,
    /// The input of a tool call is not one JSON object.
    #[error("the input of the tool call in block {index} is not one JSON object")]
    ToolInput {
        /// Which block.
        index: u32,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The reply is larger than [`LIMIT`].
    #[error("the reply is larger than {LIMIT} bytes")]
    TooLarge,
    /// The upstream broke the reply off with an error.
    #[error("the upstream ended the reply: {error_type}: {message}")]
    Upstream {
        /// `overloaded_error`, ...
        error_type: String,
        /// The upstream's own words.
        message: String,
    },
}

#[derive(Debug)]
struct Open {
    index: u32,
    block: Block,
    /// Pieces of a tool call's input.
    input: String,
    /// `citations` of a text block.
    citations: Vec<Value>,
}

// === impl Fold ===

impl Fold {
    /// A reply of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event. Unknown events, and unknown deltas other than citations, have no place in a
    /// reply and are left out. Errors: see [`FoldError`].
    pub fn push(&mut self, event: &StreamEvent) -> Result<(), FoldError> {
        match event {
            StreamEvent::Ping | StreamEvent::Raw { .. } => {}
            StreamEvent::Error { error_type, message } => {
                return Err(FoldError::Upstream { error_type: error_type.clone(), message: message.clone() });
            }
            StreamEvent::MessageStart { id, model, usage } => {
                if self.head.is_some() {
                    return Err(FoldError::Order);
                }
                self.head = Some((id.clone(), model.clone()));
                self.usage.merge(*usage);
            }
            StreamEvent::BlockStart { index, block } => {
                if self.open.is_some() || self.head.is_none() || self.over {
                    return Err(FoldError::Order);
                }
                self.open = Some(Open {
                    index: *index,
                    block: block.clone(),
                    input: String::new(),
                    citations: Vec::new(),
                });
            }
            StreamEvent::BlockDelta { index, delta } => {
                self.size = self.size.saturating_add(delta.len());
                if self.size > LIMIT {
                    return Err(FoldError::TooLarge);
                }
                match &mut self.open {
                    Some(open) if open.index == *index => open.push(delta)?,
                    _ => return Err(FoldError::Order),
                }
            }
            StreamEvent::BlockStop { index } => {
                let open = self.open.take().filter(|open| open.index == *index).ok_or(FoldError::Order)?;
                if !self.content.is_empty() {
                    self.content.push(b',');
                }
                open.write(&mut self.content)?;
                if self.content.len() > LIMIT {
                    return Err(FoldError::TooLarge);
                }
            }
            StreamEvent::MessageDelta { stop_reason, stop_sequence, usage } => {
                if stop_reason.is_some() {
                    self.stop_reason.clone_from(stop_reason);
                }
                if stop_sequence.is_some() {
                    self.stop_sequence.clone_from(stop_sequence);
                }
                self.usage.merge(*usage);
            }
            StreamEvent::MessageStop => {
                if self.open.is_some() || self.head.is_none() {
                    return Err(FoldError::Order);
                }
                self.over = true;
            }
        }
        Ok(())
    }

    /// Tokens counted so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The reply as JSON: `{"id","type","role","model","content","stop_reason","stop_sequence","usage"}`.
    /// Errors: [`FoldError::Incomplete`] before `message_stop`.
    pub fn finish(self) -> Result<Vec<u8>, FoldError> {
        let (Some((id, model)), true) = (self.head, self.over) else {
            return Err(FoldError::Incomplete);
        };
        let mut out = Vec::with_capacity(self.content.len() + 320);
        out.extend_from_slice(b"{\"id\":");
        json::string(&mut out, &id);
        out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        json::string(&mut out, &model);
        out.extend_from_slice(b",\"content\":[");
        out.extend_from_slice(&self.content);
        out.extend_from_slice(b"],\"stop_reason\":");
        json::optional(&mut out, self.stop_reason.as_deref());
        out.extend_from_slice(b",\"stop_sequence\":");
        json::optional(&mut out, self.stop_sequence.as_deref());
        out.extend_from_slice(b",\"usage\":");
        self.usage.write(&mut out, Required::Both);
        out.push(b'}');
        Ok(out)
    }
}

// === impl Open ===

impl Open {
    fn push(&mut self, delta: &Delta) -> Result<(), FoldError> {
        match (&mut self.block, delta) {
            (Block::Text(text), Delta::Text(piece)) => text.push_str(piece),
            (Block::Thinking { thinking, .. }, Delta::Thinking(piece)) => thinking.push_str(piece),
            (Block::Thinking { signature, .. }, Delta::Signature(piece)) => signature.push_str(piece),
            (Block::ToolUse { .. } | Block::Raw(_), Delta::InputJson(piece)) => self.input.push_str(piece),
            (_, Delta::Raw(json)) => {
                if let Ok(Value::Object(mut members)) = serde_json::from_str(json)
                    && let Some(citation) = members.remove("citation")
                {
                    self.citations.push(citation);
                }
            }
            (Block::Raw(_), _) => {}
            _ => return Err(FoldError::Order),
        }
        Ok(())
    }

    fn write(mut self, out: &mut Vec<u8>) -> Result<(), FoldError> {
        let index = self.index;
        let bad = |source| FoldError::ToolInput { index, source };
        let pieces = std::mem::take(&mut self.input);
        let pieces = pieces.trim();
        if !pieces.is_empty() {
            serde_json::from_str::<IgnoredAny>(pieces).map_err(bad)?;
            if !pieces.starts_with('{') {
                return Err(bad(serde::de::Error::custom("it is no object")));
            }
        }
        match &mut self.block {
            Block::ToolUse { input, .. } => {
                if !pieces.is_empty() {
                    pieces.clone_into(input);
                }
                self.block.write(out);
            }
            Block::Raw(json) if !pieces.is_empty() => {
                let mut members: Map<String, Value> = serde_json::from_str(json).map_err(bad)?;
                members.insert("input".to_owned(), serde_json::from_str(pieces).map_err(bad)?);
                out.extend_from_slice(Value::Object(members).to_string().as_bytes());
            }
            Block::Text(text) if !self.citations.is_empty() => {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                json::string(out, text);
                out.extend_from_slice(b",\"citations\":");
                out.extend_from_slice(Value::Array(self.citations).to_string().as_bytes());
                out.push(b'}');
            }
            _ => self.block.write(out),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
