//! The conversation, turn by turn. Chat Completions wants the answers to tool calls as messages of their own, right
//! after the turn that called; all order beyond that is the client's.

use std::borrow::Cow;

use sallyport_guest_codec::json::{Json, inside, joined, quoted};
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{Block, Invalid, Path, ToolResult, ToolUse};
use sallyport_guest_codec::names::NameLimits;
use sallyport_guest_codec::parts::{Attachments, Parts, plain_text};
use sallyport_guest_codec::turns::{Turns, text_and_rest};
use serde_json::value::RawValue;

use super::{Target, content};
use crate::chat::{CalledFunction, Function, Message, ToolCall, UserContent};
use crate::config::InlineSystem;

/// A conversation under translation.
pub(super) struct Conversation<'a> {
    messages: Vec<Message<'a>>,
    /// System messages that came between tool calls and their answers, where no upstream takes one.
    held: Vec<Message<'a>>,
    /// Tool calls of the last assistant turn without an answer so far.
    unanswered: usize,
    /// What answers of tools cannot hold.
    following: Parts<'a>,
    /// The model's turn under way.
    turn: ModelTurn<'a>,
    inline_system: InlineSystem,
    /// Whether the model wants its thinking back.
    thinks_back: bool,
    takes: Attachments,
    names: NameLimits,
}

/// A turn of the model.
#[derive(Default)]
struct ModelTurn<'a> {
    said: Vec<Json<'a>>,
    thought: Vec<Json<'a>>,
    calls: Vec<ToolCall<'a>>,
}

/// Marks the answer of a tool that failed: there is no field for it.
const FAILED: &str = "Error: ";

// === impl Conversation ===

impl<'a> Conversation<'a> {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Self {
            messages: Vec::new(),
            held: Vec::new(),
            unanswered: 0,
            following: Parts::new(target.wire.attachments),
            turn: ModelTurn::default(),
            inline_system: target.config.inline_system,
            thinks_back: target.facts.reasoning_content || target.wire.thinks_back,
            takes: target.wire.attachments,
            names: target.wire.names,
        }
    }

    /// The system prompt, which stands before everything else.
    pub(super) fn system_prompt(&mut self, raw: &'a RawValue, losses: &mut Losses) -> Result<(), Invalid> {
        let content = plain_text(raw, Path::root("system"), losses)?;
        if inside(&content).is_some_and(|it| !it.is_empty()) {
            self.messages.push(Message::System { content });
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<Message<'a>> {
        self.messages.append(&mut self.held);
        self.messages
    }
}

impl<'a> Turns<'a> for Conversation<'a> {
    fn takes(&self) -> Attachments {
        self.takes
    }

    /// Writes the `tool` message; what it cannot hold follows in a user message.
    fn answer(
        &mut self,
        result: &ToolResult<'a>,
        content: Parts<'a>,
        path: Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), Invalid> {
        let id = &result.tool_use_id;
        let how = "attachments of a tool's answer moved to the user's turn";
        let instead = "The answer is attached to the next user message.";
        let (mut content, following) = text_and_rest(id, content, instead, how, path, losses);
        self.following.append(following);
        if result.is_error {
            content = quoted(&format!("{FAILED}{}", inside(&content).unwrap_or_default()));
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.messages.push(Message::Tool { tool_call_id: self.names.call_id(id.clone()), content });
        Ok(())
    }

    fn said(&mut self, said: Parts<'a>, _: Path<'_>, _: &mut Losses) {
        let mut shown = std::mem::replace(&mut self.following, Parts::new(self.takes));
        shown.append(said);
        let only_answers = shown.is_empty() && matches!(self.messages.last(), Some(Message::Tool { .. }));
        if self.unanswered == 0 || !only_answers {
            self.messages.append(&mut self.held);
        }
        // No upstream takes a message without content, and it says nothing.
        if !shown.is_blank() {
            self.messages.push(Message::User { content: content::of_user(shown) });
        }
    }

    fn text(&mut self, text: Json<'a>) {
        self.turn.said.push(text);
    }

    fn call(&mut self, call: ToolUse<'a>, _: Path<'_>, _: &mut Losses) {
        self.turn.calls.push(tool_call(self.names, call));
    }

    fn thinking(&mut self, thinking: &Block<'a>) -> bool {
        if self.thinks_back {
            let text = thinking.thinking.filter(|it| inside(it).is_some());
            self.turn.thought.extend(text.map(Cow::Borrowed));
        }
        self.thinks_back
    }

    fn ended(&mut self) {
        self.messages.append(&mut self.held);
        let ModelTurn { said, thought, calls: tool_calls } = std::mem::take(&mut self.turn);
        let is_blank = said.iter().all(|it| inside(it).is_none_or(str::is_empty));
        let content = if is_blank { None } else { Some(joined(said)) };
        // A turn that called tools has to come back with what was thought before, be it nothing: it is refused without.
        let thinks = self.thinks_back && (!thought.is_empty() || !tool_calls.is_empty());
        let reasoning_content = thinks.then(|| joined(thought));
        self.unanswered = tool_calls.len();
        if content.is_some() || !tool_calls.is_empty() {
            self.messages.push(Message::Assistant { content, reasoning_content, tool_calls });
        }
    }

    fn system(&mut self, content: Json<'a>, path: Path<'_>, losses: &mut Losses) {
        let message = match self.inline_system {
            InlineSystem::System => Message::System { content },
            InlineSystem::Developer => Message::Developer { content },
            InlineSystem::User => {
                losses.add(path, "system message sent as a user message");
                Message::User { content: UserContent::Text(content) }
            }
        };
        if self.unanswered > 0 {
            losses.add(path, "system message moved behind the answers to the tool calls before it");
            self.held.push(message);
        } else {
            self.messages.push(message);
        }
    }
}

fn tool_call(names: NameLimits, call: ToolUse<'_>) -> ToolCall<'_> {
    let ToolUse { id, name, input } = call;
    let arguments = input.map_or("{}", RawValue::get);
    ToolCall {
        id: names.call_id(id),
        kind: Function::Function,
        function: CalledFunction { name: names.tool_name(name), arguments },
    }
}
