//! The conversation, turn by turn. Chat Completions wants the answers to tool calls as messages of their own, right
//! after the turn that called; all order beyond that is the client's.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::content::{self, Block, Content, Parts};
use super::{Invalid, Target, text_of};
use crate::chat::{CalledFunction, Function, Message, ToolCall};
use crate::config::InlineSystem;
use crate::json::{Json, inside, is_object, joined, quoted};
use crate::ledger::Ledger;
use crate::names::{call_id, tool_name};

/// A conversation under translation.
pub(super) struct Conversation<'a, 'l> {
    messages: Vec<Message<'a>>,
    /// System messages that came between tool calls and their answers, where no upstream takes one.
    held: Vec<Message<'a>>,
    /// Tool calls of the last assistant turn without an answer so far.
    unanswered: usize,
    inline_system: InlineSystem,
    /// Whether the model wants its thinking back.
    thinks_back: bool,
    losses: &'l mut Ledger,
}

/// Marks the answer of a tool that failed: there is no field for it.
const FAILED: &str = "Error: ";

// === impl Conversation ===

impl<'a, 'l> Conversation<'a, 'l> {
    pub(super) fn new(target: &Target<'_>, losses: &'l mut Ledger) -> Self {
        Self {
            messages: Vec::new(),
            held: Vec::new(),
            unanswered: 0,
            inline_system: target.config.inline_system,
            thinks_back: target.facts.reasoning_content,
            losses,
        }
    }

    /// The system prompt, which stands before everything else.
    pub(super) fn system_prompt(&mut self, raw: &'a RawValue) -> Result<(), Invalid> {
        let content = self.plain_text(raw, "system")?;
        if inside(&content).is_some_and(|it| !it.is_empty()) {
            self.messages.push(Message::System { content });
        }
        Ok(())
    }

    /// One turn; answers the effort that it sets for what follows.
    pub(super) fn message(
        &mut self,
        at: usize,
        last: bool,
        message: super::Message<'a>,
    ) -> Result<Option<&'a RawValue>, Invalid> {
        let path = format!("messages[{at}]");
        self.losses.dropped(&path, &message.unknown);
        let effort = message.output_config.and_then(|it| {
            self.losses.dropped(&format!("{path}.output_config"), &it.unknown);
            it.effort
        });
        let content = message.content.ok_or_else(|| Invalid(format!("{path}.content: Field required")))?;
        match &*text_of(message.role, || format!("{path}.role"))? {
            "user" => self.user(content, &format!("{path}.content"))?,
            "assistant" => {
                self.assistant(content, &format!("{path}.content"))?;
                if last {
                    self.losses.add(path, "prefill sent as a finished turn");
                }
            }
            "system" => self.system(content, &path)?,
            other => {
                return Err(Invalid(format!(
                    "{path}.role: {other:?} is not one of \"user\", \"assistant\", \"system\""
                )));
            }
        }
        Ok(effort)
    }

    pub(super) fn finish(mut self) -> Vec<Message<'a>> {
        self.messages.append(&mut self.held);
        self.messages
    }

    fn user(&mut self, content: &'a RawValue, path: &str) -> Result<(), Invalid> {
        let mut said = Parts::default();
        let mut shown = Parts::default();
        match content::read(content, path)? {
            Content::Text(text) => said.push_text(Cow::Borrowed(text)),
            Content::Blocks(blocks) => {
                for (at, block) in blocks.iter().enumerate() {
                    let path = || format!("{path}[{at}]");
                    content::markers(block, path, self.losses);
                    match &*content::kind(block, path)? {
                        "tool_result" => shown.append(self.tool_result(block, &path)?),
                        kind => said.block(kind, block, &path, self.losses)?,
                    }
                }
            }
        }
        shown.append(said);
        let only_answers = shown.is_empty() && matches!(self.messages.last(), Some(Message::Tool { .. }));
        if self.unanswered == 0 || !only_answers {
            self.messages.append(&mut self.held);
        }
        // No upstream takes a message without content, and it says nothing.
        if !shown.is_blank() {
            self.messages.push(Message::User { content: shown.into_user_content() });
        }
        Ok(())
    }

    /// Writes the `tool` message; what it cannot hold is returned, for the user message that follows.
    fn tool_result(&mut self, block: &Block<'a>, path: &dyn Fn() -> String) -> Result<Parts<'a>, Invalid> {
        let id = text_of(block.tool_use_id, || format!("{}.tool_use_id", path()))?;
        let mut parts = Parts::default();
        if let Some(content) = block.content {
            parts.content(content, &|| format!("{}.content", path()), self.losses)?;
        }
        let (mut content, rest) = parts.split();
        let mut following = Parts::default();
        if !rest.is_empty() {
            self.losses.add(
                format!("{}.content", path()),
                "attachments of a tool's answer moved to the user's turn",
            );
            let id = crate::json::escape(&id);
            following.push_text(quoted(&format!("Attachments of the answer to tool call {id}:")));
            following.append(rest);
            if inside(&content).is_none_or(str::is_empty) {
                content = quoted("The answer is attached to the next user message.");
            }
        }
        if block.is_error == Some(true) {
            content = quoted(&format!("{FAILED}{}", inside(&content).unwrap_or_default()));
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.messages.push(Message::Tool { tool_call_id: call_id(id), content });
        Ok(following)
    }

    fn assistant(&mut self, content: &'a RawValue, path: &str) -> Result<(), Invalid> {
        let mut said = Parts::default();
        let mut thought = Vec::new();
        let mut tool_calls = Vec::new();
        match content::read(content, path)? {
            Content::Text(text) => said.push_text(Cow::Borrowed(text)),
            Content::Blocks(blocks) => {
                for (at, block) in blocks.iter().enumerate() {
                    let path = || format!("{path}[{at}]");
                    match &*content::kind(block, path)? {
                        "tool_use" => {
                            content::markers(block, path, self.losses);
                            tool_calls.push(tool_use(block, &path)?);
                        }
                        // What is dropped whole is one loss, not one for each of its fields.
                        "text" => {
                            content::markers(block, path, self.losses);
                            said.push_text(Cow::Borrowed(content::text(block, path)?));
                        }
                        "thinking" if self.thinks_back => {
                            thought
                                .extend(block.thinking.filter(|it| inside(it).is_some()).map(Cow::Borrowed));
                        }
                        kind => self.losses.add(path(), content::dropped(kind)),
                    }
                }
            }
        }
        self.messages.append(&mut self.held);
        let content = if said.is_blank() { None } else { Some(said.split().0) };
        // A turn that called tools has to come back with what was thought before, be it nothing: it is refused without.
        let thinks = self.thinks_back && (!thought.is_empty() || !tool_calls.is_empty());
        let reasoning_content = thinks.then(|| joined(thought));
        self.unanswered = tool_calls.len();
        if content.is_some() || !tool_calls.is_empty() {
            self.messages.push(Message::Assistant { content, reasoning_content, tool_calls });
        }
        Ok(())
    }

    fn system(&mut self, content: &'a RawValue, path: &str) -> Result<(), Invalid> {
        let content = self.plain_text(content, &format!("{path}.content"))?;
        // A turn that only sets options says nothing to the model.
        if inside(&content).is_none_or(str::is_empty) {
            return Ok(());
        }
        let message = match self.inline_system {
            InlineSystem::System => Message::System { content },
            InlineSystem::Developer => Message::Developer { content },
            InlineSystem::User => {
                self.losses.add(path, "system message sent as a user message");
                Message::User { content: crate::chat::UserContent::Text(content) }
            }
        };
        if self.unanswered > 0 {
            self.losses.add(path, "system message moved behind the answers to the tool calls before it");
            self.held.push(message);
        } else {
            self.messages.push(message);
        }
        Ok(())
    }

    /// Content that holds text only: that of system messages.
    fn plain_text(&mut self, raw: &'a RawValue, path: &str) -> Result<Json<'a>, Invalid> {
        let mut parts = Parts::default();
        parts.content(raw, &|| path.to_owned(), self.losses)?;
        let (text, rest) = parts.split();
        if !rest.is_empty() {
            self.losses.add(path, "what is not text dropped from a system message");
        }
        Ok(text)
    }
}

fn tool_use<'a>(block: &Block<'a>, path: &dyn Fn() -> String) -> Result<ToolCall<'a>, Invalid> {
    let id = text_of(block.id, || format!("{}.id", path()))?;
    let name = text_of(block.name, || format!("{}.name", path()))?;
    let arguments = match block.input {
        None => "{}",
        Some(input) if is_object(input) => input.get(),
        Some(_) => return Err(Invalid::expected(&format!("{}.input", path()), "an object")),
    };
    Ok(ToolCall {
        id: call_id(id),
        kind: Function::Function,
        function: CalledFunction { name: tool_name(name), arguments },
    })
}
