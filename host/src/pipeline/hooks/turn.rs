//! What a request says about the turn it belongs to: the prompts of the user, and the tools that answered. Found by the index,
//! read only where a hook wants to know.

use std::borrow::Cow;

use sallyport_protocol::messages::index::{Index, Malformed, Origin, Role, Span, ToolBlock};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How Claude Code marks what it adds to a prompt by itself.
const REMINDER: (&str, &str) = ("<system-reminder>", "</system-reminder>");

/// What the user wrote in one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) message: u32,
    /// Its texts, reminders left out.
    pub(super) text: String,
    /// The reminders.
    pub(super) reminders: String,
}

/// A tool's answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
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

/// Every message in which the user wrote something, in order.
pub(super) fn prompts(index: &Index, body: &[u8]) -> Vec<Prompt> {
    let mut prompts: Vec<Prompt> = Vec::new();
    for text in index.texts.iter().filter(|text| text.origin == Origin::User) {
        let Some(message) = text.message else { continue };
        let read = text.read(body);
        if prompts.last().is_none_or(|prompt| prompt.message != message) {
            prompts.push(Prompt { message, text: String::new(), reminders: String::new() });
        }
        let Some(prompt) = prompts.last_mut() else { continue };
        let place = if is_reminder(&read) { &mut prompt.reminders } else { &mut prompt.text };
        if !place.is_empty() {
            place.push('\n');
        }
        place.push_str(&read);
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
pub(super) fn answers<'a>(index: &Index, body: &'a [u8]) -> Result<Vec<Answer<'a>>, Malformed> {
    let results = index.tool_blocks.iter().filter(|block| block.is_result);
    results
        .map(|block| {
            let ResultBlock { tool_use_id, is_error, content } = read(block.span, body)?;
            let is_error = is_error.unwrap_or(false);
            Ok(Answer { id: tool_use_id, is_error, content, block: *block })
        })
        .collect()
}

/// The call that `id` names.
pub(super) fn used<'a>(index: &Index, body: &'a [u8], id: &str) -> Option<Used<'a>> {
    let calls = index.tool_blocks.iter().rev().filter(|block| !block.is_result);
    calls.filter_map(|block| read::<Used<'a>>(block.span, body).ok()).find(|used| used.id == id)
}

/// Where a value of `body` stands.
pub(super) fn place(value: &RawValue, body: &[u8]) -> Option<Span> {
    let start = value.get().as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let end = start.checked_add(value.get().len()).filter(|end| *end <= body.len())?;
    Some(Span { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
}

// === private helpers ===

fn read<'a, T: Deserialize<'a>>(span: Span, body: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(span.of(body)).map_err(|_| Malformed::Json { at: span.start as usize })
}

/// `null` is something that stands there, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
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
    fn a_prompt_is_what_the_user_wrote_without_reminders() {
        let (index, body) = indexed(
            r#"[{"role":"user","content":[{"type":"text","text":"<system-reminder>\nctx</system-reminder>"},
                {"type":"text","text":"Do"},{"type":"text","text":"it"}]},
               {"role":"system","content":"be brief"},
               {"role":"assistant","content":"ok"},
               {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"out"}]}]"#,
        );
        let prompts = prompts(&index, body.as_bytes());
        assert_eq!(prompts.len(), 1);
        assert_eq!(prompts[0].text, "Do\nit");
        assert!(prompts[0].reminders.contains("ctx"));
        assert_eq!(last_of_user(&index), Some(3));
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
        assert_eq!(place(content, body.as_bytes()).unwrap().of(body.as_bytes()), b"null");
        let used = used(&index, body.as_bytes(), "a").unwrap();
        assert_eq!((used.name.as_ref(), used.input.unwrap().get()), ("Bash", r#"{"c":1}"#));
    }

    #[test]
    fn a_block_that_says_two_things_is_refused() {
        let (index, body) = indexed(
            r#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","tool_use_id":"b"}]}]"#,
        );
        assert!(answers(&index, body.as_bytes()).is_err());
    }
}
