//! The gate of a reply: reads along for usage and tool calls, and holds a tool call back until its hooks have decided. What no
//! hook changed passes byte for byte.

use bytes::{Bytes, BytesMut};
use sallyport_protocol::messages::event::{Block, Delta, Kind, StreamEvent, Usage};
use sallyport_protocol::package::HookEvent;

use super::hooks::{Occasion, listeners};
use super::row::{ToolCall, server_of};
use super::{Call, Pipeline};
use crate::component::Bundle;
use crate::component::contract::hook::{Event, ToolCall as ToolFacts};

/// Longest tool call that is held.
pub(super) const LONGEST_CALL: usize = 8 * 1024 * 1024;
/// Longest last text that hooks are told of; what is beyond it is left out.
const LONGEST_TEXT: usize = 256 * 1024;

/// What has passed, and what is held.
pub(super) struct Gate {
    hooks: bool,
    held: Option<Held>,
    /// Tool calls that hooks let pass.
    released: u32,
    /// Tool calls that hooks stopped.
    stopped: u32,
    usage: Usage,
    error: Option<String>,
    /// The last text so far, where hooks want to know how a turn ends.
    text: Option<String>,
    /// The model has ended its turn.
    ended: bool,
}

/// A tool call on its way.
pub(super) struct Held {
    index: u32,
    pub(super) tool: ToolCall,
    pub(super) input: String,
    bytes: BytesMut,
}

/// What is to be done after an event was taken.
pub(super) enum Taken {
    /// Go on.
    Passed,
    /// A tool was named that nobody has to decide on.
    Tool(ToolCall),
    /// Ask the hooks.
    Decide(Held),
    /// The reply is complete; these bytes may go once the row is closed.
    Last(Bytes),
    /// The stream cannot be read, and so not be judged.
    Unreadable,
}

/// What the hooks decided on a tool call.
pub(super) enum Decision {
    /// It goes on as it is.
    Release,
    /// It goes on with another input.
    Modify(String),
    /// It does not happen; the text says why.
    Stop(String),
}

// === impl Gate ===

impl Gate {
    /// A gate for a reply under `bundle`.
    pub(super) fn new(bundle: &Bundle) -> Self {
        Self {
            hooks: listeners(bundle, HookEvent::PreToolUse).next().is_some(),
            held: None,
            released: 0,
            stopped: 0,
            usage: Usage::default(),
            error: None,
            text: listeners(bundle, HookEvent::Stop).next().map(|_| String::new()),
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

    /// What the upstream said went wrong in the middle of its stream.
    pub(super) fn error(&mut self) -> Option<String> {
        self.error.take()
    }

    /// Takes one event; what may go to the client now is appended to `out`. `parse` reads the event, if it has to be read.
    pub(super) fn take(
        &mut self,
        kind: Kind,
        bytes: Bytes,
        parse: impl FnOnce() -> Option<StreamEvent>,
        out: &mut BytesMut,
    ) -> Taken {
        if self.held.is_some() && !matches!(kind, Kind::Ping | Kind::Error) {
            return self.hold(kind, &bytes, parse);
        }
        match kind {
            Kind::MessageStart => {
                if let Some(StreamEvent::MessageStart { usage, .. }) = parse() {
                    self.usage.merge(usage);
                }
            }
            Kind::MessageDelta => {
                if let Some(StreamEvent::MessageDelta { stop_reason, stop_sequence, usage }) = parse() {
                    self.usage.merge(usage);
                    self.ended = stop_reason.as_deref() == Some("end_turn");
                    if self.stopped > 0 && self.released == 0 && stop_reason.as_deref() == Some("tool_use") {
                        // No tool is left to run: the turn ends here.
                        self.ended = true;
                        let stop_reason = Some("end_turn".to_owned());
                        write(&StreamEvent::MessageDelta { stop_reason, stop_sequence, usage }, out);
                        return Taken::Passed;
                    }
                }
            }
            Kind::BlockDelta if self.text.is_some() => {
                if let (Some(text), Some(StreamEvent::BlockDelta { delta: Delta::Text(piece), .. })) =
                    (&mut self.text, parse())
                    && text.len() + piece.len() <= LONGEST_TEXT
                {
                    text.push_str(&piece);
                }
            }
            Kind::BlockStart if self.hooks || self.text.is_some() || mentions_tool(&bytes) => match parse() {
                Some(StreamEvent::BlockStart { block: Block::Text(text), .. }) => {
                    if let Some(last) = &mut self.text {
                        *last = text;
                    }
                }
                Some(StreamEvent::BlockStart { index, block: Block::ToolUse { id, name, input } }) => {
                    let tool = ToolCall { id, name, blocked: None };
                    if !self.hooks {
                        out.extend_from_slice(&bytes);
                        return Taken::Tool(tool);
                    }
                    let input = if input == "{}" { String::new() } else { input };
                    self.held = Some(Held { index, tool, input, bytes: BytesMut::from(&*bytes) });
                    return Taken::Passed;
                }
                None if self.hooks => return Taken::Unreadable,
                _ => {}
            },
            Kind::MessageStop => return Taken::Last(bytes),
            Kind::Error => {
                let said = match parse() {
                    Some(StreamEvent::Error { error_type, message }) => format!("{error_type}: {message}"),
                    _ => "an error".to_owned(),
                };
                self.error = Some(said);
            }
            // An event of an unknown kind is fine; one that contradicts itself may be anything.
            Kind::Other if self.hooks && has_data(&bytes) && parse().is_none() => return Taken::Unreadable,
            _ => {}
        }
        out.extend_from_slice(&bytes);
        Taken::Passed
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

    fn hold(&mut self, kind: Kind, bytes: &Bytes, parse: impl FnOnce() -> Option<StreamEvent>) -> Taken {
        let Some(held) = &mut self.held else { return Taken::Passed };
        held.bytes.extend_from_slice(bytes);
        if held.bytes.len() > LONGEST_CALL {
            return Taken::Unreadable;
        }
        match (kind, parse()) {
            (Kind::BlockDelta, Some(StreamEvent::BlockDelta { index, delta: Delta::InputJson(piece) }))
                if index == held.index =>
            {
                held.input.push_str(&piece);
                Taken::Passed
            }
            (Kind::BlockStop, Some(StreamEvent::BlockStop { index })) if index == held.index => {
                self.held.take().map_or(Taken::Unreadable, Taken::Decide)
            }
            // Comments and keep-alives without data.
            (Kind::Other, _) if !has_data(bytes) => Taken::Passed,
            // Anything else inside a tool call is something that the hooks would not see.
            _ => Taken::Unreadable,
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Asks the hooks about a tool call that the model wants to make.
    pub(super) async fn decide(&self, call: &mut Call, tool: &mut ToolCall, input: &str) -> Decision {
        let what = Event::PreToolUse(ToolFacts {
            id: tool.id.clone(),
            name: tool.name.clone(),
            input: if input.is_empty() { "{}".to_owned() } else { input.to_owned() },
            server: server_of(&tool.name).map(str::to_owned),
        });
        let occasion = Occasion::of_tool(call, HookEvent::PreToolUse, &tool.id, &tool.name, what);
        let told = self.tell(&call.bundle, occasion).await;
        call.record.hooks(told.rows);
        if let Some(stopped) = told.stopped {
            let why = refusal(&stopped.hook, &tool.name, &stopped.reason);
            tool.blocked = Some(why.clone());
            return Decision::Stop(why);
        }
        told.modified.map_or(Decision::Release, Decision::Modify)
    }
}

// === private helpers ===

fn refusal(hook: &str, tool: &str, reason: &str) -> String {
    format!("[{hook} did not let the tool {tool} run: {reason}]")
}

fn write(event: &StreamEvent, out: &mut BytesMut) {
    let mut bytes = Vec::new();
    event.write(&mut bytes);
    out.extend_from_slice(&bytes);
}

fn mentions_tool(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"tool_use").is_some()
}

fn has_data(bytes: &[u8]) -> bool {
    bytes.starts_with(b"data") || memchr::memmem::find(bytes, b"\ndata").is_some()
}
