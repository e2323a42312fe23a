//! What a request says about the turn it belongs to: the prompts of the user, and the tools that answered. Found by the index,
//! read only where a hook wants to know.

use std::borrow::Cow;
use std::collections::HashMap;

use sallyport_protocol::messages::index::{Index, Malformed, Origin, Role, Span, ToolBlock};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How Claude Code marks what it adds to a prompt by itself.
const REMINDER: (&str, &str) = ("<system-reminder>", "</system-reminder>");

/// What stands between two turns of the model: the user's words and the operator's there. Or what a client has put into the model's
/// mouth at the end of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    /// Its first message.
    pub(super) first: u32,
    /// Its last message.
    last: u32,
    /// The last message of the user in it: what hooks add stands there.
    pub(super) message: Option<u32>,
    /// All of its texts, as the model reads them: one after the other, with nothing between.
    pub(super) text: String,
    /// Those that are one reminder from end to end.
    pub(super) reminders: String,
    /// There is nothing in it but reminders and the operator's words: a client repeats those at many places.
    pub(super) repeats: bool,
}

/// A tool's answer.
#[derive(Debug)]
pub(super) struct ToolAnswer<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) is_error: bool,
    /// The value of `content`, as it stands there.
    pub(super) content: Option<&'a RawValue>,
    pub(super) block: ToolBlock,
}

/// A tool call that the model made in an earlier turn.
#[derive(Debug, Deserialize)]
pub(super) struct Used<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResultBlock<'a> {
    #[serde(borrow)]
    tool_use_id: Cow<'a, str>,
    is_error: Option<bool>,
    #[serde(borrow, default, deserialize_with = "present")]
    content: Option<&'a RawValue>,
}

/// Every prompt of the conversation in order, and the beginning of an answer that the client wrote itself.
pub(super) fn prompts(index: &Index, body: &[u8]) -> Vec<Prompt> {
    let mut prompts: Vec<Prompt> = Vec::new();
    let mut speaker = Role::Assistant;
    let mut texts = index.texts.iter().filter(|text| text.message.is_some()).peekable();
    let last = index.message_count.saturating_sub(1);
    for (number, message) in (0..).zip(&index.messages) {
        let is_model = message.role == Role::Assistant;
        let begins = is_model || speaker == Role::Assistant || prompts.is_empty();
        speaker = message.role;
        if begins {
            prompts.push(Prompt {
                first: number,
                last: number,
                message: None,
                text: String::new(),
                reminders: String::new(),
                repeats: true,
            });
        }
        let Some(prompt) = prompts.last_mut() else { continue };
        prompt.last = number;
        if message.role == Role::User {
            prompt.message = Some(number);
        }
        while let Some(text) = texts.next_if(|text| text.message == Some(number)) {
            // What tools answered has an event of its own; ids and signatures are nobody's words.
            let said = !text.answer && !matches!(text.origin, Origin::ToolInput | Origin::Parameter);
            if !said || (is_model && number != last) {
                continue;
            }
            let read = text.read(body);
            if is_reminder(&read) {
                prompt.reminders.push_str(&read);
            } else if message.role == Role::User && !read.trim().is_empty() {
                prompt.repeats = false;
            }
            prompt.text.push_str(&read);
        }
    }
    prompts.retain(|prompt| !prompt.text.trim().is_empty());
    prompts
}

/// The last message of the user; the operator may speak after it.
pub(super) fn last_of_user(index: &Index) -> Option<u32> {
    let (position, _) = index
        .messages
        .iter()
        .enumerate()
        .rev()
        .find(|(_, message)| message.role != Role::System)
        .filter(|(_, message)| message.role == Role::User)?;
    u32::try_from(position).ok()
}

/// The first message of the user.
pub(super) fn first_of_user(index: &Index) -> Option<u32> {
    let position = index.messages.iter().position(|message| message.role == Role::User)?;
    u32::try_from(position).ok()
}

/// Every tool's answer, in order. Errors: a block that cannot be read, and so not be judged.
pub(super) fn answers<'a>(index: &Index, body: &'a [u8]) -> Result<Vec<ToolAnswer<'a>>, Malformed> {
    let results = index.tool_blocks.iter().filter(|block| block.is_result);
    results
        .map(|block| {
            let ResultBlock { tool_use_id, is_error, content } = read(block.span, body)?;
            let is_error = is_error.unwrap_or(false);
            Ok(ToolAnswer { id: tool_use_id, is_error, content, block: *block })
        })
        .collect()
}

/// The calls of tools by their ids. Of two with one id the later counts.
pub(super) fn calls<'a>(index: &Index, body: &'a [u8]) -> HashMap<Cow<'a, str>, Used<'a>> {
    let calls = index.tool_blocks.iter().filter(|block| !block.is_result);
    let read = calls.filter_map(|block| read::<Used<'a>>(block.span, body).ok());
    read.map(|used| (used.id.clone(), used)).collect()
}

// === private helpers ===

fn read<'a, T: Deserialize<'a>>(span: Span, body: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(span.of(body)).map_err(|_| Malformed::Json { at: span.start as usize })
}

/// `null` is something that stands there, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Prompt {
    /// Whether `message` is a part of it.
    pub(super) fn covers(&self, message: u32) -> bool {
        (self.first..=self.last).contains(&message)
    }
}

fn is_reminder(text: &str) -> bool {
    let text = text.trim();
    let inside = text.strip_prefix(REMINDER.0).and_then(|text| text.strip_suffix(REMINDER.1));
    // One reminder from end to end: what stands between two of them is the user's.
    inside.is_some_and(|inside| !inside.contains(REMINDER.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexed(messages: &str) -> (Index, String) {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
        (Index::parse(body.as_bytes()).unwrap(), body)
    }

    #[test]
    fn a_prompt_is_all_that_stands_between_two_turns_of_the_model() {
        let (index, body) = indexed(
            r#"[{"role":"user","content":[{"type":"text","text":"<system-reminder>\nctx</system-reminder>"},
                {"type":"text","text":"Do"},{"type":"text","text":"it"},
                {"type":"document","source":{"type":"text","data":" now"}},{"type":"news","x":"!"}]},
               {"role":"system","content":" be brief"},
               {"role":"assistant","content":"ok"},
               {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"out"}]},
               {"role":"assistant","content":"so"},
               {"role":"user","content":[{"type":"tool_result","tool_use_id":"b","content":"out"},
                {"type":"text","text":"<system-reminder>todo</system-reminder>"}]},
               {"role":"assistant","content":"Sure: "}]"#,
        );
        let prompts = prompts(&index, body.as_bytes());
        let found: Vec<_> =
            prompts.iter().map(|it| (it.first, it.message, it.text.as_str(), it.repeats)).collect();
        let first =
            "<system-reminder>\nctx</system-reminder>Doit now{\"type\":\"news\",\"x\":\"!\"} be brief";
        assert_eq!(
            found,
            [
                (0, Some(0), first, false),
                (5, Some(5), "<system-reminder>todo</system-reminder>", true),
                (6, None, "Sure: ", true),
            ]
        );
        assert!(prompts[0].reminders.contains("ctx") && prompts[0].covers(1) && !prompts[0].covers(2));
        assert_eq!(last_of_user(&index), None);
    }

    #[test]
    fn what_stands_between_two_reminders_is_the_users() {
        let text = "<system-reminder>a</system-reminder> steal it <system-reminder>b</system-reminder>";
        assert!(!is_reminder(text));
        assert!(is_reminder("  <system-reminder>a</system-reminder>\n"));
        assert!(!is_reminder("<system-reminder>a"));
    }

    #[test]
    fn the_operator_may_speak_after_the_user_but_the_model_may_not() {
        let (index, _) = indexed(r#"[{"role":"user","content":"a"},{"role":"system","content":"b"}]"#);
        assert_eq!(last_of_user(&index), Some(0));
        let (index, _) = indexed(r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#);
        assert_eq!(last_of_user(&index), None);
    }

    #[test]
    fn answers_are_joined_with_their_calls() {
        let (index, body) = indexed(
            r#"[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"Bash","input":{"c":1}}]},
               {"role":"user","content":[{"tool_use_id":"a","type":"tool_result","content":null,"is_error":true}]}]"#,
        );
        let answers = answers(&index, body.as_bytes()).unwrap();
        assert!(answers[0].is_error);
        let content = answers[0].content.unwrap();
        assert_eq!(content.get(), "null");
        let calls = calls(&index, body.as_bytes());
        let used = &calls["a"];
        assert_eq!((used.name.as_ref(), used.input.unwrap().get()), ("Bash", r#"{"c":1}"#));
    }

    #[test]
    fn a_block_that_says_two_things_is_refused() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","tool_use_id":"b"}]}]}"#;
        assert_eq!(Index::parse(body.as_bytes()), Err(Malformed::Twice("tool_use_id")));
    }
}
