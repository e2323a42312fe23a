//! Content blocks, one after the other. Chat Completions may interleave text, thinking and several tool calls; a
//! Messages stream has one block open at a time, so tool calls, and what comes after the first of them, wait until all have come.

use std::collections::VecDeque;

use sallyport_guest_sdk::provider::{Block, BlockDelta, BlockStart, Delta, Failure, StreamEvent, ToolUse};

use crate::answer::ToolCall;
use crate::arguments;
use crate::error::garbage;
use crate::names::Asked;

/// Blocks of one reply.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    asked: Asked,
    next: u32,
    open: Option<Kind>,
    /// Blocks that begin at the reply's end: tool calls, and what came after the first of them.
    waiting: VecDeque<(Kind, String)>,
    /// Bytes that wait.
    held: usize,
    calls: Vec<Call>,
}

/// What a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Thinking,
    /// The tool call with this place in `calls`.
    Call(usize),
}

#[derive(Debug)]
struct Call {
    index: Option<u64>,
    /// As the upstream spells it.
    id: String,
    name: String,
    arguments: String,
    extent: Extent,
}

/// How far a JSON object has come, without parsing it.
#[derive(Debug, Default)]
struct Extent {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

/// The most that waits for the reply's end, and the most tool calls of one reply.
const MOST_HELD: usize = 16 << 20;
const MOST_CALLS: usize = 1024;
/// The longest delta of a tool call.
const PIECE: usize = 64 << 10;

// === impl Blocks ===

impl Blocks {
    pub(crate) fn new(asked: Asked) -> Self {
        Self { asked, ..Self::default() }
    }

    /// What the request asked for.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Whether the model called a tool.
    pub(crate) fn called(&self) -> bool {
        !self.calls.is_empty()
    }

    /// A piece of text or thinking.
    pub(crate) fn text(
        &mut self,
        kind: Kind,
        piece: String,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.waiting.is_empty() {
            if self.open != Some(kind) {
                self.close(out);
                self.begin(kind, out);
            }
            self.delta(kind, piece, out);
            return Ok(());
        }
        self.hold(piece.len())?;
        match self.waiting.back_mut() {
            Some((waiting, text)) if *waiting == kind => text.push_str(&piece),
            _ => self.waiting.push_back((kind, piece)),
        }
        Ok(())
    }

    /// A piece of a tool call, or all of it. Only at the reply's end is it known that nothing follows: some servers begin with `{}`
    /// and send the arguments later, or send all of them again. A tool gets exactly one JSON object, so its call waits until then.
    pub(crate) fn call(&mut self, piece: &ToolCall<'_>, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        let (name, arguments) = match &piece.function {
            Some(function) => (function.name(), function.arguments()),
            None => ("", "".into()),
        };
        let at = self.find(piece.index, piece.id(), name)?;
        let kind = Kind::Call(at);
        self.close(out);
        self.hold(arguments.len())?;
        if let Some(call) = self.calls.get_mut(at) {
            call.extent.follow(&arguments);
            call.arguments.push_str(&arguments);
        }
        if !self.waiting.iter().any(|(waiting, _)| *waiting == kind) {
            self.waiting.push_back((kind, String::new()));
        }
        Ok(())
    }

    /// The reply is complete: so are its blocks.
    pub(crate) fn finish(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        self.close(out);
        while let Some((kind, text)) = self.waiting.pop_front() {
            if self.is_nameless(kind) {
                return Err(garbage("the upstream called a tool without naming it"));
            }
            self.begin(kind, out);
            let text = match kind {
                Kind::Text | Kind::Thinking => text,
                Kind::Call(at) => {
                    let call = self.calls.get_mut(at).map(|it| std::mem::take(&mut it.arguments));
                    arguments::whole(&call.unwrap_or_default()).get().to_owned()
                }
            };
            for piece in pieces(&text) {
                self.delta(kind, piece.to_owned(), out);
            }
            self.close(out);
        }
        Ok(())
    }

    /// Makes sure that what waits does not grow without bound.
    fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        self.held = self.held.saturating_add(bytes);
        if self.held > MOST_HELD {
            return Err(garbage(
                "the upstream's tool calls are larger than the 16 MiB that the gateway holds",
            ));
        }
        Ok(())
    }

    /// Which call a piece belongs to; a new one if it is none of those known.
    fn find(&mut self, index: Option<u64>, id: &str, name: &str) -> Result<usize, Failure> {
        let begins = |call: &Call| {
            // Servers that number all calls 0 tell them apart by id, or not at all but for a name given anew.
            (!id.is_empty() && !call.id.is_empty() && id != call.id && !name.is_empty())
                || (id.is_empty() && !name.is_empty() && call.extent.complete())
        };
        let known = if index.is_some() {
            self.calls.iter().rposition(|it| it.index == index)
        } else {
            let same = self.calls.iter().rposition(|it| !id.is_empty() && it.id == id);
            same.or_else(|| self.calls.len().checked_sub(1).filter(|_| name.is_empty()))
        };
        if let Some(at) = known
            && let Some(call) = self.calls.get_mut(at)
            && !begins(call)
        {
            if call.name.is_empty() && !name.is_empty() {
                call.name = self.asked.tool(name.to_owned());
            }
            if call.id.is_empty() {
                id.clone_into(&mut call.id);
            }
            return Ok(at);
        }
        if self.calls.len() >= MOST_CALLS {
            return Err(garbage("the upstream called too many tools at once"));
        }
        self.calls.push(Call {
            index,
            id: id.to_owned(),
            name: self.asked.tool(name.to_owned()),
            arguments: String::new(),
            extent: Extent::default(),
        });
        Ok(self.calls.len() - 1)
    }

    fn is_nameless(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Call(at) if self.calls.get(at).is_none_or(|it| it.name.is_empty()))
    }

    fn begin(&mut self, kind: Kind, out: &mut Vec<StreamEvent>) {
        let block = match kind {
            Kind::Text => Block::Text,
            Kind::Thinking => Block::Thinking,
            Kind::Call(at) => {
                let Some(call) = self.calls.get(at) else { return };
                let taken = self.calls.iter().take(at).any(|it| it.id == call.id);
                let id = self.asked.tool_use_id(if taken { "" } else { &call.id }, at);
                Block::ToolUse(ToolUse { id, name: call.name.clone() })
            }
        };
        out.push(StreamEvent::BlockStart(BlockStart { index: self.next, block }));
        self.open = Some(kind);
    }

    fn delta(&self, kind: Kind, text: String, out: &mut Vec<StreamEvent>) {
        let delta = match kind {
            Kind::Text => Delta::Text(text),
            Kind::Thinking => Delta::Thinking(text),
            Kind::Call(_) => Delta::InputJson(text),
        };
        out.push(StreamEvent::BlockDelta(BlockDelta { index: self.next, delta }));
    }

    fn close(&mut self, out: &mut Vec<StreamEvent>) {
        if self.open.take().is_some() {
            out.push(StreamEvent::BlockStop(self.next));
            self.next = self.next.saturating_add(1);
        }
    }
}

// === impl Extent ===

impl Extent {
    fn follow(&mut self, piece: &str) {
        for byte in piece.bytes() {
            self.begun = self.begun || !byte.is_ascii_whitespace();
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }

    fn complete(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}

// === private helpers ===

/// A text in pieces that no reader chokes on.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, tail) = rest.split_at_checked(rest.floor_char_boundary(PIECE))?;
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}
