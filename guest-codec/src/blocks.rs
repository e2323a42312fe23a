//! Content blocks of a streamed reply, one after the other. Upstreams may interleave text, thinking and several tool calls; a
//! Messages stream has one block open at a time, so tool calls, and what comes after the first of them, wait until all have come.

use std::collections::VecDeque;

use sallyport_guest_sdk::Usage;
use sallyport_guest_sdk::provider::{Failure, StreamEvent};

use crate::error::garbage;
use crate::ledger::Ledger;
use crate::names::ReplyContext;
use crate::tool_input;

/// Blocks of one reply.
#[derive(Debug, Default)]
pub struct Blocks {
    ledger: Ledger,
    /// Blocks that begin at the reply's end: tool calls, and what came after the first of them.
    waiting: VecDeque<Waiting>,
    /// Bytes that wait.
    held: usize,
    calls: Vec<HeldCall>,
}

/// A piece of a tool call, or all of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallPiece<'a> {
    /// Its place among the calls of the reply, where the upstream numbers them.
    pub index: Option<u64>,
    /// Its id; empty where the upstream says none, or has said it before.
    pub id: &'a str,
    /// The tool's name; empty where the upstream has said it before.
    pub name: &'a str,
    /// A piece of its input's JSON.
    pub input: &'a str,
}

/// A block that has to wait.
#[derive(Debug)]
enum Waiting {
    Text(String),
    /// Thinking, and its signature once that came.
    Thinking(String, Option<String>),
    /// The tool call with this place in `calls`.
    Call(usize),
}

#[derive(Debug)]
struct HeldCall {
    index: Option<u64>,
    /// As the upstream spells it.
    id: String,
    name: String,
    input: String,
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

/// The most that waits for the reply's end, in bytes, and the most tool calls of one reply.
const HELD_LIMIT: usize = 16 << 20;
const CALLS_LIMIT: usize = 1024;

// === impl Blocks ===

impl Blocks {
    /// A reply of which nothing was said.
    pub fn new(context: ReplyContext) -> Self {
        Self { ledger: Ledger::new(context), ..Self::default() }
    }

    /// What the request asked for.
    pub fn context(&self) -> &ReplyContext {
        self.ledger.context()
    }

    /// Whether the reply has begun.
    pub fn has_begun(&self) -> bool {
        self.ledger.has_begun()
    }

    /// Whether all of it was said.
    pub fn is_over(&self) -> bool {
        self.ledger.is_over()
    }

    /// Whether the model called a tool.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// What was said since this was asked last.
    pub fn take(&mut self) -> Vec<StreamEvent> {
        self.ledger.take()
    }

    /// Begins the reply, once: with the upstream's id and model, where it names them.
    pub fn begin(&mut self, id: Option<&str>, model: Option<&str>, usage: Usage) {
        self.ledger.begin(id, model, usage);
    }

    /// A piece of text.
    pub fn text(&mut self, piece: String) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            self.ledger.text(piece);
        } else if !piece.is_empty() {
            self.hold(piece.len())?;
            match self.waiting.back_mut() {
                Some(Waiting::Text(text)) => text.push_str(&piece),
                _ => self.waiting.push_back(Waiting::Text(piece)),
            }
        }
        Ok(())
    }

    /// A piece of thinking.
    pub fn thinking(&mut self, piece: String) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            self.ledger.thinking(piece);
        } else if !piece.is_empty() {
            self.hold(piece.len())?;
            match self.waiting.back_mut() {
                Some(Waiting::Thinking(text, None)) => text.push_str(&piece),
                _ => self.waiting.push_back(Waiting::Thinking(piece, None)),
            }
        }
        Ok(())
    }

    /// The signature of what was thought last, which ends it. Where the last that was said is no thinking, it is that of thinking
    /// without a text: what a client sends back before the block that follows.
    pub fn signature(&mut self, signature: String) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            self.ledger.signed(signature);
            return Ok(());
        }
        self.hold(signature.len())?;
        match self.waiting.back_mut() {
            Some(Waiting::Thinking(_, slot @ None)) => *slot = Some(signature),
            _ => self.waiting.push_back(Waiting::Thinking(String::new(), Some(signature))),
        }
        Ok(())
    }

    /// A piece of a tool call, or all of it. Only at the reply's end is it known that nothing follows: some servers begin with `{}`
    /// and send the input later, or send all of it again. A tool gets exactly one JSON object, so its call waits until then.
    pub fn call(&mut self, piece: CallPiece<'_>) -> Result<(), Failure> {
        let at = self.find(piece.index, piece.id, piece.name)?;
        self.ledger.close();
        self.hold(piece.input.len())?;
        if let Some(call) = self.calls.get_mut(at) {
            call.extent.follow(piece.input);
            call.input.push_str(piece.input);
        }
        if !self.waiting.iter().any(|it| matches!(it, Waiting::Call(waiting) if *waiting == at)) {
            self.waiting.push_back(Waiting::Call(at));
        }
        Ok(())
    }

    /// The reply is complete: so are its blocks.
    pub fn finish(
        &mut self,
        stop_reason: &str,
        stop_sequence: Option<String>,
        usage: Usage,
    ) -> Result<(), Failure> {
        if self.is_over() {
            return Ok(());
        }
        self.ledger.close();
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting {
                Waiting::Text(text) => self.ledger.text(text),
                Waiting::Thinking(text, signature) => {
                    self.ledger.thinking(text);
                    if let Some(signature) = signature {
                        self.ledger.signed(signature);
                    }
                }
                Waiting::Call(at) => self.say_call(at)?,
            }
            self.ledger.close();
        }
        self.ledger.finish(stop_reason, stop_sequence, usage);
        Ok(())
    }

    fn say_call(&mut self, at: usize) -> Result<(), Failure> {
        let input = self.calls.get_mut(at).map(|it| std::mem::take(&mut it.input)).unwrap_or_default();
        let Some(call) = self.calls.get(at).filter(|it| !it.name.is_empty()) else {
            return Err(garbage("the upstream called a tool without naming it"));
        };
        let taken = self.calls.iter().take(at).any(|it| it.id == call.id);
        let id = self.context().tool_use_id(if taken { "" } else { &call.id }, at);
        let name = call.name.clone();
        self.ledger.tool_use(id, name, tool_input::whole(&input).get());
        Ok(())
    }

    /// Makes sure that what waits does not grow without bound.
    fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        self.held = self.held.saturating_add(bytes);
        if self.held > HELD_LIMIT {
            return Err(garbage(
                "the upstream's tool calls are larger than the 16 MiB that the gateway holds",
            ));
        }
        Ok(())
    }

    /// Which call a piece belongs to; a new one if it is none of those known.
    fn find(&mut self, index: Option<u64>, id: &str, name: &str) -> Result<usize, Failure> {
        let begins = |call: &HeldCall| {
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
                call.name = self.ledger.context().tool(name.to_owned());
            }
            if call.id.is_empty() {
                id.clone_into(&mut call.id);
            }
            return Ok(at);
        }
        if self.calls.len() >= CALLS_LIMIT {
            return Err(garbage("the upstream called too many tools at once"));
        }
        self.calls.push(HeldCall {
            index,
            id: id.to_owned(),
            name: self.ledger.context().tool(name.to_owned()),
            input: String::new(),
            extent: Extent::default(),
        });
        Ok(self.calls.len() - 1)
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

#[cfg(test)]
mod tests {
    use super::{Blocks, CallPiece};
    use crate::golden::{assert_well_formed, calls_of, event_json, text_of};
    use crate::names::ReplyContext;
    use crate::usage::UNKNOWN;

    fn said(pieces: &[CallPiece<'_>]) -> Vec<(String, String)> {
        let mut blocks = Blocks::new(ReplyContext { seed: "0".to_owned(), ..ReplyContext::default() });
        blocks.text("before".to_owned()).unwrap();
        for piece in pieces {
            blocks.call(*piece).unwrap();
        }
        blocks.text("after".to_owned()).unwrap();
        blocks.finish("tool_use", None, UNKNOWN).unwrap();
        let events = blocks.take();
        assert_well_formed(&events, true);
        assert_eq!(text_of(&events), "beforeafter");
        calls_of(&events)
    }

    fn piece<'a>(index: Option<u64>, id: &'a str, name: &'a str, input: &'a str) -> CallPiece<'a> {
        CallPiece { index, id, name, input }
    }

    #[test]
    fn pieces_find_their_call_by_index_by_id_or_by_order() {
        let pair =
            |a: &str, b: &str| vec![(a.to_owned(), "{\"a\":1}".to_owned()), (b.to_owned(), "{}".to_owned())];
        let by_index = [
            piece(Some(0), "a", "look", "{\"a\""),
            piece(Some(1), "b", "look", "{"),
            piece(Some(0), "", "", ":1}"),
            piece(Some(1), "", "", "}"),
        ];
        assert_eq!(said(&by_index), pair("a", "b"));
        let by_id = [
            piece(None, "a", "look", "{\"a\""),
            piece(None, "b", "look", "{"),
            piece(None, "a", "", ":1}"),
            piece(None, "b", "", "}"),
        ];
        assert_eq!(said(&by_id), pair("a", "b"));
        let by_order =
            [piece(None, "", "look", "{\"a\""), piece(None, "", "", ":1}"), piece(None, "", "look", "{}")];
        assert_eq!(said(&by_order), pair("toolu_0_0", "toolu_0_1"));
        let all_numbered_zero = [piece(Some(0), "a", "look", "{\"a\":1}"), piece(Some(0), "b", "look", "{}")];
        assert_eq!(said(&all_numbered_zero), pair("a", "b"));
    }

    #[test]
    fn a_signature_ends_the_thinking_before_it_or_stands_alone_before_its_call() {
        let mut blocks = Blocks::new(ReplyContext { seed: "0".to_owned(), ..ReplyContext::default() });
        blocks.thinking("hm".to_owned()).unwrap();
        blocks.signature("a".to_owned()).unwrap();
        blocks.call(piece(Some(0), "1", "look", "{}")).unwrap();
        blocks.signature("b".to_owned()).unwrap();
        blocks.call(piece(Some(1), "2", "look", "{}")).unwrap();
        blocks.finish("tool_use", None, UNKNOWN).unwrap();
        let events = blocks.take();
        assert_well_formed(&events, true);
        let said: Vec<String> = events.iter().map(|it| event_json(it).to_string()).collect();
        let order = [
            r#"{"block":"thinking","start":0}"#,
            r#"{"delta":0,"thinking":"hm"}"#,
            r#"{"delta":0,"signature":"a"}"#,
            r#"{"block":{"id":"1","name":"look"},"start":1}"#,
            r#"{"block":"thinking","start":2}"#,
            r#"{"delta":2,"signature":"b"}"#,
            r#"{"block":{"id":"2","name":"look"},"start":3}"#,
        ];
        let mut rest = said.iter();
        assert!(order.iter().all(|it| rest.any(|said| said == it)), "{said:#?}");
    }

    #[test]
    fn two_calls_never_share_an_id() {
        let twice = [piece(Some(0), "a", "look", "{\"a\":1}"), piece(Some(1), "a", "look", "{}")];
        let ids: Vec<String> = said(&twice).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["a", "toolu_0_1"]);
    }

    #[test]
    fn a_call_without_a_name_ends_the_reply() {
        let mut blocks = Blocks::default();
        blocks.call(piece(Some(0), "a", "", "{}")).unwrap();
        assert!(blocks.finish("tool_use", None, UNKNOWN).is_err());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut blocks = Blocks::default();
        let long = "x".repeat(1 << 20);
        let call = piece(Some(0), "a", "look", &long);
        assert!((0..16).all(|_| blocks.call(call).is_ok()));
        assert!(blocks.call(call).is_err());
        let mut blocks = Blocks::default();
        assert!((0..1024).all(|n| blocks.call(piece(Some(n), "", "look", "")).is_ok()));
        assert!(blocks.call(piece(Some(1024), "", "look", "")).is_err());
    }
}
