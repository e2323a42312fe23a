//! The gate of a reply: reads along for usage and tool calls, and holds a tool call back until its hooks have decided. What no
//! hook changed passes byte for byte.
//!
//! Where a hook listens, every event with data is read strictly, in the order that clients expect: what was judged is what the
//! client sees. Unknown events, blocks and deltas pass, for no client runs anything because of them, unless a tool call is in
//! them. Where nobody listens, an upstream's bytes are only looked at.

use bytes::{Bytes, BytesMut};
use sallyport_protocol::messages::event::{self, Block, Delta, EventKind, StreamEvent, Usage};
use sallyport_protocol::messages::grammar::Grammar;
use sallyport_protocol::messages::sse::RawEvent;
use sallyport_protocol::package::HookEvent;

use super::Refusal;
use super::hooks::{Decision, listeners};
use super::row::ToolCall;
use crate::component::Bundle;

/// Longest input of a tool call that is held.
pub(super) const LONGEST_INPUT: usize = 8 * 1024 * 1024;
/// Longest tool call that is held, its events included: pieces of a few bytes each come in events of a hundred.
pub(super) const LONGEST_CALL: usize = 32 * 1024 * 1024;
/// Longest last text that hooks are told of; what is beyond it is left out.
const LONGEST_TEXT: usize = 256 * 1024;

/// What has passed, and what is held.
pub(super) struct Gate {
    /// Tool calls are held until they are complete.
    holds: bool,
    /// The order of what an upstream sent, where a hook listens.
    order: Option<Grammar>,
    held: Option<Held>,
    /// Tool calls that hooks let pass.
    released: u32,
    /// Tool calls that did not pass.
    stopped: u32,
    usage: Usage,
    /// Who said it.
    voice: Voice,
    /// Something was counted after the start of the reply.
    counted: bool,
    /// The last text so far, where hooks want to know how a turn ends.
    text: Option<String>,
    /// The model has ended its turn.
    ended: bool,
}

/// A tool call on its way.
#[derive(Debug)]
pub(super) struct Held {
    index: u32,
    pub(super) tool: ToolCall,
    pub(super) input: String,
    /// What the input began with, where that is not nothing.
    begun: bool,
    bytes: BytesMut,
}

/// What is to be done after an event was taken.
#[derive(Debug)]
pub(super) enum GateAction {
    /// Go on.
    Passed,
    /// A tool was named that nobody has to decide on.
    Tool(ToolCall),
    /// Ask the hooks.
    Decide(Held),
    /// Its input is not one JSON object: nobody is asked, and nobody gets it.
    Cut(Held),
    /// The reply is complete; these bytes may go once the row is closed.
    Last(Bytes),
    /// The upstream ends its reply with an error; these bytes say so, and may go once the row is closed.
    Failed { said: String, bytes: Bytes },
    /// The stream cannot be read, and so not be judged.
    Unreadable(String),
    /// A tool call is longer than what is held.
    TooLarge,
}

/// Who says the events of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// The upstream: its bytes pass as they are.
    Upstream,
    /// The provider: the host writes what it says, and gives out no tool call that is not whole.
    Provider,
}

// === impl Gate ===

impl Gate {
    /// A gate for a reply under `bundle`.
    pub(super) fn new(bundle: &Bundle, voice: Voice) -> Self {
        let hooks = listeners(bundle, HookEvent::PreToolUse).next().is_some();
        let text = listeners(bundle, HookEvent::Stop).next().is_some();
        Self::listening(hooks, text, voice)
    }

    fn listening(hooks: bool, text: bool, voice: Voice) -> Self {
        Self {
            holds: hooks || voice == Voice::Provider,
            order: ((hooks || text) && voice == Voice::Upstream).then(Grammar::new),
            held: None,
            released: 0,
            stopped: 0,
            usage: Usage::default(),
            voice,
            counted: false,
            text: text.then(String::new),
            ended: false,
        }
    }

    /// The last text of a turn that the model has ended, if hooks want to know of it.
    pub(super) fn last_text(&mut self) -> Option<String> {
        self.text.take().filter(|_| self.ended)
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// What the usage is worth, where nothing was counted after the start of the reply: a provider begins with an estimate, an
    /// upstream with the input alone.
    pub(super) fn provisional(&self) -> Option<&'static str> {
        let known = !self.usage.is_unknown() && !self.counted;
        known.then_some(match self.voice {
            Voice::Provider => "estimated",
            Voice::Upstream => "partial",
        })
    }

    /// Takes one event of an upstream; what may go to the client now is appended to `out`.
    pub(super) fn raw(&mut self, raw: &RawEvent, out: &mut BytesMut) -> GateAction {
        let Some(order) = &mut self.order else {
            let bytes = raw.bytes.clone();
            return self.glance(raw.kind(), bytes, || event::parse(raw.name(), &raw.data()).ok(), out);
        };
        if !raw.has_data() {
            // Comments and keep-alives: no client's program is shown them.
            return self.pass(&raw.bytes, out);
        }
        let read = if self.text.is_some() { event::strict } else { event::strict_unsaid };
        let event = match read(raw.name(), &raw.data()) {
            Ok(event) => event,
            Err(error) => return GateAction::Unreadable(format!("an event cannot be trusted: {error}")),
        };
        if let Err(error) = order.check(&event) {
            return GateAction::Unreadable(format!("its events are out of order: {error}"));
        }
        self.take(event, raw.bytes.clone(), out)
    }

    /// Takes one event that was read whole, and stands where it may stand.
    pub(super) fn take(&mut self, event: StreamEvent, bytes: Bytes, out: &mut BytesMut) -> GateAction {
        if self.held.is_some() && !matches!(event, StreamEvent::Ping | StreamEvent::Error { .. }) {
            return self.hold(&event, &bytes);
        }
        if self.holds
            && let StreamEvent::BlockStart { index, block: Block::ToolUse { id, name, input } } = event
        {
            let tool = ToolCall { id, name, blocked: None };
            let begun = !is_empty_object(&input);
            let input = if begun { input } else { String::new() };
            self.held = Some(Held { index, tool, input, begun, bytes: BytesMut::from(&*bytes) });
            return GateAction::Passed;
        }
        self.glance(event.kind(), bytes, || Some(event), out)
    }

    /// Lets a decided tool call go on, or puts a text in its place.
    pub(super) fn settle(&mut self, held: Held, decision: &Decision, out: &mut BytesMut) {
        let Held { index, tool, bytes, .. } = held;
        match decision {
            Decision::Release => {
                self.released += 1;
                out.extend_from_slice(&bytes);
            }
            Decision::Modify(input) => {
                self.released += 1;
                write(&StreamEvent::BlockStart { index, block: Block::tool_use(tool.id, tool.name) }, out);
                write(&StreamEvent::BlockDelta { index, delta: Delta::InputJson(input.clone()) }, out);
                write(&StreamEvent::BlockStop { index }, out);
            }
            Decision::Stop(why) => {
                self.stopped += 1;
                if let Some(last) = &mut self.text {
                    last.clone_from(why);
                }
                write(&StreamEvent::BlockStart { index, block: Block::text() }, out);
                write(&StreamEvent::BlockDelta { index, delta: Delta::Text(why.clone()) }, out);
                write(&StreamEvent::BlockStop { index }, out);
            }
        }
    }

    /// Looks at an event that may pass. `parse` reads it, if it has to be read.
    fn glance(
        &mut self,
        kind: EventKind,
        bytes: Bytes,
        parse: impl FnOnce() -> Option<StreamEvent>,
        out: &mut BytesMut,
    ) -> GateAction {
        match kind {
            EventKind::MessageStart => {
                if let Some(StreamEvent::MessageStart { usage, .. }) = parse() {
                    self.usage.merge(usage);
                }
            }
            EventKind::MessageDelta => {
                if let Some(StreamEvent::MessageDelta { stop_reason, stop_sequence, usage }) = parse() {
                    self.usage.merge(usage);
                    self.counted |= !usage.is_unknown();
                    self.ended = stop_reason.as_deref() == Some("end_turn");
                    if self.stopped > 0 && self.released == 0 && stop_reason.as_deref() == Some("tool_use") {
                        // No tool is left to run: the turn ends here.
                        self.ended = true;
                        let stop_reason = Some("end_turn".to_owned());
                        write(&StreamEvent::MessageDelta { stop_reason, stop_sequence, usage }, out);
                        return GateAction::Passed;
                    }
                }
            }
            EventKind::BlockDelta if self.text.is_some() => {
                if let (Some(text), Some(StreamEvent::BlockDelta { delta: Delta::Text(piece), .. })) =
                    (&mut self.text, parse())
                    && text.len() + piece.len() <= LONGEST_TEXT
                {
                    text.push_str(&piece);
                }
            }
            EventKind::BlockStart if self.text.is_some() || mentions_tool(&bytes) => match parse() {
                Some(StreamEvent::BlockStart { block: Block::Text(text), .. }) => {
                    if let Some(last) = &mut self.text {
                        *last = text;
                    }
                }
                Some(StreamEvent::BlockStart { block: Block::ToolUse { id, name, .. }, .. }) => {
                    out.extend_from_slice(&bytes);
                    return GateAction::Tool(ToolCall { id, name, blocked: None });
                }
                _ => {}
            },
            EventKind::MessageStop => return GateAction::Last(bytes),
            EventKind::Error => {
                let said = match parse() {
                    Some(StreamEvent::Error { error_type, message }) => format!("{error_type}: {message}"),
                    _ => "an error".to_owned(),
                };
                return GateAction::Failed { said: clipped(&said).to_owned(), bytes };
            }
            _ => {}
        }
        out.extend_from_slice(&bytes);
        GateAction::Passed
    }

    /// What has no data goes where the events around it go.
    fn pass(&mut self, bytes: &Bytes, out: &mut BytesMut) -> GateAction {
        let Some(held) = &mut self.held else {
            out.extend_from_slice(bytes);
            return GateAction::Passed;
        };
        held.bytes.extend_from_slice(bytes);
        if held.bytes.len() > LONGEST_CALL { GateAction::TooLarge } else { GateAction::Passed }
    }

    fn hold(&mut self, event: &StreamEvent, bytes: &Bytes) -> GateAction {
        let Some(held) = &mut self.held else { return GateAction::Passed };
        held.bytes.extend_from_slice(bytes);
        if held.bytes.len() > LONGEST_CALL {
            return GateAction::TooLarge;
        }
        match event {
            StreamEvent::BlockDelta { index, delta: Delta::InputJson(piece) } if *index == held.index => {
                if held.begun && !piece.is_empty() {
                    // Some clients take what it began with, some what follows.
                    return GateAction::Unreadable("a tool call has two inputs".to_owned());
                }
                held.input.push_str(piece);
                if held.input.len() > LONGEST_INPUT { GateAction::TooLarge } else { GateAction::Passed }
            }
            StreamEvent::BlockStop { index } if *index == held.index => {
                let Some(held) = self.held.take() else { return GateAction::Passed };
                if held.input.is_empty() || event::tool_input(&held.input).is_ok() {
                    GateAction::Decide(held)
                } else {
                    GateAction::Cut(held)
                }
            }
            // Anything else inside a tool call is something that the hooks would not see.
            _ => {
                GateAction::Unreadable("a tool call holds something that is no part of its input".to_owned())
            }
        }
    }
}

// === impl GateAction ===

impl GateAction {
    /// Why the stream ends here.
    pub(super) fn too_large() -> Refusal {
        Refusal::ToolCallTooLarge { limit: LONGEST_INPUT }
    }
}

/// A tool call whose input is not one JSON object is not made; the text says so.
pub(super) fn cut(tool: &mut ToolCall) -> Decision {
    let why =
        format!("[the tool {} did not run: its input is not one whole JSON object]", clipped(&tool.name));
    tool.blocked = Some(why.clone());
    Decision::Stop(why)
}

/// So much of an upstream's text as a row and an error have room for.
pub(super) fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(300)).unwrap_or_default()
}

// === private helpers ===

fn write(event: &StreamEvent, out: &mut BytesMut) {
    let mut bytes = Vec::new();
    event.write(&mut bytes);
    out.extend_from_slice(&bytes);
}

fn mentions_tool(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"tool_use").is_some()
}

/// Whether this is what a tool's input begins with where its pieces follow.
fn is_empty_object(input: &str) -> bool {
    let inside = input.trim_ascii().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    input.is_empty() || inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests;
