//! What of a streamed reply was said so far. Events are said through it alone, so that they are always in the order that Messages
//! clients take: one start, blocks one after the other with ascending indices, one delta of the message, one stop
//! (<https://docs.claude.com/en/docs/build-with-claude/streaming#event-types>).

use sallyport_guest_sdk::Usage;
use sallyport_guest_sdk::provider::{
    Block, BlockDelta, BlockStart, Delta, MessageDelta, MessageStart, StreamEvent, ToolUse,
};

use crate::names::ReplyContext;
use crate::usage::UNKNOWN;

/// The events of one reply.
#[derive(Debug, Default)]
pub struct Ledger {
    context: ReplyContext,
    stage: Stage,
    open: Option<OpenBlock>,
    next: u32,
    events: Vec<StreamEvent>,
}

/// How far the reply has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Before,
    Within,
    Over,
}

/// Which block is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenBlock {
    Text,
    Thinking,
    ToolUse,
    Other,
}

/// The longest delta, in bytes.
const PIECE: usize = 64 << 10;

// === impl Ledger ===

impl Ledger {
    /// A reply of which nothing was said.
    pub fn new(context: ReplyContext) -> Self {
        Self { context, ..Self::default() }
    }

    /// What the request asked for.
    pub fn context(&self) -> &ReplyContext {
        &self.context
    }

    /// Whether the reply has begun.
    pub fn has_begun(&self) -> bool {
        self.stage != Stage::Before
    }

    /// Whether all of it was said.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// What was said since this was asked last.
    pub fn take(&mut self) -> Vec<StreamEvent> {
        std::mem::take(&mut self.events)
    }

    /// Begins the reply, once: with the upstream's id and model, where it names them. Whatever is said before begins it too.
    pub fn begin(&mut self, id: Option<&str>, model: Option<&str>, usage: Usage) {
        if self.stage != Stage::Before {
            return;
        }
        self.stage = Stage::Within;
        self.events.push(StreamEvent::MessageStart(MessageStart {
            id: self.context.message_id(id),
            model: model.filter(|it| !it.is_empty()).unwrap_or(&self.context.model).to_owned(),
            usage: Usage { input: usage.input.or(self.context.estimate), ..usage },
        }));
    }

    /// A piece of text: of the block that is open, if it is one of text.
    pub fn text(&mut self, piece: String) {
        if !piece.is_empty() && self.opens(OpenBlock::Text, || Block::Text) {
            self.deltas(piece, Delta::Text);
        }
    }

    /// A piece of thinking: of the block that is open, if it is one of thinking.
    pub fn thinking(&mut self, piece: String) {
        if !piece.is_empty() && self.opens(OpenBlock::Thinking, || Block::Thinking) {
            self.deltas(piece, Delta::Thinking);
        }
    }

    /// The signature of the thinking that is open; of none, it is nothing.
    pub fn signature(&mut self, signature: String) {
        if self.open == Some(OpenBlock::Thinking) {
            self.delta(Delta::Signature(signature));
        }
    }

    /// The signature of the thinking that is open, or of thinking without a text; it ends the block.
    pub fn signed(&mut self, signature: String) {
        if self.opens(OpenBlock::Thinking, || Block::Thinking) {
            self.delta(Delta::Signature(signature));
            self.close();
        }
    }

    /// A whole tool call, with its input as JSON.
    pub fn tool_use(&mut self, id: String, name: String, input: &str) {
        if self.block(OpenBlock::ToolUse, Block::ToolUse(ToolUse { id, name })) {
            for piece in pieces(input) {
                self.delta(Delta::InputJson(piece.to_owned()));
            }
            self.close();
        }
    }

    /// A whole block of another kind, with nothing to follow.
    pub fn whole(&mut self, block: Block) {
        if self.block(OpenBlock::Other, block) {
            self.close();
        }
    }

    /// Ends the block that is open, if one is.
    pub fn close(&mut self) {
        if self.open.take().is_some() {
            self.events.push(StreamEvent::BlockStop(self.next));
            self.next = self.next.saturating_add(1);
        }
    }

    /// Ends the reply, once. Whatever is said afterwards is nothing.
    pub fn finish(&mut self, stop_reason: &str, stop_sequence: Option<String>, usage: Usage) {
        if self.stage == Stage::Over {
            return;
        }
        self.begin(None, None, UNKNOWN);
        self.close();
        self.events.push(StreamEvent::MessageDelta(MessageDelta {
            stop_reason: Some(stop_reason.to_owned()),
            stop_sequence,
            usage,
        }));
        self.events.push(StreamEvent::MessageStop);
        self.stage = Stage::Over;
    }

    /// Makes sure that a block of this kind is open; whether anything may be said.
    fn opens(&mut self, kind: OpenBlock, block: impl FnOnce() -> Block) -> bool {
        self.open == Some(kind) || self.block(kind, block())
    }

    /// Begins a block, and ends the one before; whether anything may be said.
    fn block(&mut self, kind: OpenBlock, block: Block) -> bool {
        if self.stage == Stage::Over {
            return false;
        }
        self.begin(None, None, UNKNOWN);
        self.close();
        self.events.push(StreamEvent::BlockStart(BlockStart { index: self.next, block }));
        self.open = Some(kind);
        true
    }

    /// A text as one delta, or as several where it is long.
    fn deltas(&mut self, text: String, delta: fn(String) -> Delta) {
        if text.len() <= PIECE {
            self.delta(delta(text));
        } else {
            for piece in pieces(&text) {
                self.delta(delta(piece.to_owned()));
            }
        }
    }

    fn delta(&mut self, delta: Delta) {
        self.events.push(StreamEvent::BlockDelta(BlockDelta { index: self.next, delta }));
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use sallyport_guest_sdk::provider::Block;

    use super::{Ledger, pieces};
    use crate::golden::assert_well_formed;
    use crate::names::ReplyContext;
    use crate::usage::UNKNOWN;

    /// Anything that a provider may do with a ledger, in any order.
    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        Text(String),
        Thinking(String),
        Signature,
        Signed,
        ToolUse(String),
        Whole,
        Close,
        Finish,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Begin),
            any::<String>().prop_map(Step::Text),
            any::<String>().prop_map(Step::Thinking),
            Just(Step::Signature),
            Just(Step::Signed),
            any::<String>().prop_map(Step::ToolUse),
            Just(Step::Whole),
            Just(Step::Close),
            Just(Step::Finish),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_provider_says_is_well_formed_and_no_text_is_lost(steps in vec(step(), 0..40)) {
            let mut ledger = Ledger::new(ReplyContext::default());
            let (mut events, mut said, mut over) = (Vec::new(), String::new(), false);
            for step in steps {
                match step {
                    Step::Begin => ledger.begin(Some("1"), Some("m"), UNKNOWN),
                    Step::Text(text) => {
                        if !over { said.push_str(&text); }
                        ledger.text(text);
                    }
                    Step::Thinking(text) => ledger.thinking(text),
                    Step::Signature => ledger.signature("s".to_owned()),
                    Step::Signed => ledger.signed("s".to_owned()),
                    Step::ToolUse(input) => ledger.tool_use("toolu_1".into(), "look".into(), &input),
                    Step::Whole => ledger.whole(Block::RedactedThinking("d".to_owned())),
                    Step::Close => ledger.close(),
                    Step::Finish => {
                        over = true;
                        ledger.finish("end_turn", None, UNKNOWN);
                    }
                }
                events.extend(ledger.take());
                prop_assert_eq!(ledger.is_over(), over);
            }
            assert_well_formed(&events, over);
            prop_assert_eq!(crate::golden::text_of(&events), said);
        }
    }

    #[test]
    fn long_input_is_cut_between_characters() {
        let long = "é".repeat(100_000);
        let cut: Vec<&str> = pieces(&long).collect();
        assert_eq!(cut.len(), 4);
        assert_eq!(cut.concat(), long);
        assert!(pieces("").next().is_none());
    }
}
