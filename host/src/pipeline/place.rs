//! Where in a request something stands, in words for the user who has to take it out: which message, which tool's answer. It is
//! looked up when a call is refused, and costs other calls nothing.

use std::borrow::Cow;
use std::collections::HashMap;

use sallyport_protocol::messages::index::Span;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest name of a tool or a field that is repeated.
const LONGEST_NAME: usize = 64;

/// The parts of a request that a place may be in.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow, default)]
    messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    system: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_use_id: Option<Cow<'a, str>>,
}

/// What holds the byte at `at`: `your prompt (message 3 of 3)`, `the answer of the tool Read (message 2 of 5)`.
pub(super) fn place_of(body: &[u8], at: usize) -> String {
    let outline =
        std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str::<Outline<'_>>(text).ok());
    let Some(outline) = outline else { return "the request".to_owned() };
    let holds = |value: &RawValue| holds(body, value, at);
    if outline.system.is_some_and(holds) {
        return "the system prompt".to_owned();
    }
    if let Some(tool) = outline.tools.iter().find(|tool| holds(tool)) {
        let name = serde_json::from_str::<Block<'_>>(tool.get()).ok().and_then(|tool| tool.name);
        return format!("the description of the tool {}", shown(name.as_deref()));
    }
    let Some(number) = outline.messages.iter().position(|message| holds(message)) else {
        return "a parameter of the request".to_owned();
    };
    let spoken = outline
        .messages
        .get(number)
        .map_or_else(|| "the text".to_owned(), |message| said_in(message, body, at, &outline.messages));
    format!("{spoken} (message {} of {})", number + 1, outline.messages.len())
}

/// Which part of a message holds the byte.
fn said_in(message: &RawValue, body: &[u8], at: usize, all: &[&RawValue]) -> String {
    let Ok(message) = serde_json::from_str::<Message<'_>>(message.get()) else {
        return "the text".to_owned();
    };
    let blocks = serde_json::from_str::<Vec<&RawValue>>(message.content.get()).unwrap_or_default();
    let block = blocks.into_iter().find(|block| holds(body, block, at));
    let block = block.and_then(|block| serde_json::from_str::<Block<'_>>(block.get()).ok());
    let kind = block.as_ref().map_or("text", |block| block.kind.as_ref());
    match (message.role.as_ref(), kind) {
        (_, "tool_result") => {
            let id = block.as_ref().and_then(|block| block.tool_use_id.as_deref());
            format!("the answer of the tool {}", shown(id.and_then(|id| called(all, id)).as_deref()))
        }
        (_, "tool_use" | "server_tool_use" | "mcp_tool_use") => {
            let name = block.as_ref().and_then(|block| block.name.as_deref());
            format!("the input of the tool {}", shown(name))
        }
        (_, "document") => "a document".to_owned(),
        (_, "image") => "an image".to_owned(),
        ("assistant", _) => "the model's answer".to_owned(),
        ("system", _) => "the system prompt".to_owned(),
        _ => "your prompt".to_owned(),
    }
}

/// The name of the tool that was called under `id`.
fn called(messages: &[&RawValue], id: &str) -> Option<String> {
    let mut names: HashMap<String, String> = HashMap::new();
    for message in messages {
        let Ok(message) = serde_json::from_str::<Message<'_>>(message.get()) else { continue };
        let blocks = serde_json::from_str::<Vec<Block<'_>>>(message.content.get()).unwrap_or_default();
        for block in blocks {
            if let (Some(id), Some(name)) = (block.id, block.name) {
                names.insert(id.into_owned(), name.into_owned());
            }
        }
    }
    names.remove(id)
}

/// Whether a value that was read from the body holds its byte at `at`.
fn holds(body: &[u8], value: &RawValue, at: usize) -> bool {
    let span = Span::of_part(body, value.get().as_bytes());
    span.is_some_and(|span| (span.start as usize..span.end as usize).contains(&at))
}

/// A name as it may stand in a message: the client chose it.
fn shown(name: Option<&str>) -> String {
    let name = name.filter(|name| !name.is_empty()).unwrap_or("without a name");
    name.chars().filter(|char| !char.is_control()).take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(body: &str, word: &str) -> String {
        place_of(body.as_bytes(), body.find(word).unwrap())
    }

    #[test]
    fn a_place_is_told_as_its_user_knows_it() {
        let body = r#"{"model":"m","metadata":{"x":"ZERO"},"system":[{"type":"text","text":"ONE"}],
            "tools":[{"name":"Read","description":"TWO"}],"messages":[
            {"role":"user","content":"THREE"},
            {"role":"assistant","content":[{"type":"text","text":"FOUR"},
                {"type":"tool_use","id":"t1","name":"Read","input":{"path":"FIVE"}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"SIX"}]},
                {"type":"text","text":"SEVEN"},{"type":"document","source":{"type":"text","data":"EIGHT"}}]}]}"#;
        for (word, said) in [
            ("ZERO", "a parameter of the request"),
            ("ONE", "the system prompt"),
            ("TWO", "the description of the tool Read"),
            ("THREE", "your prompt (message 1 of 3)"),
            ("FOUR", "the model's answer (message 2 of 3)"),
            ("FIVE", "the input of the tool Read (message 2 of 3)"),
            ("SIX", "the answer of the tool Read (message 3 of 3)"),
            ("SEVEN", "your prompt (message 3 of 3)"),
            ("EIGHT", "a document (message 3 of 3)"),
        ] {
            assert_eq!(place(body, word), said);
        }
    }

    #[test]
    fn a_name_that_a_client_made_up_is_clipped_and_harmless() {
        let name = format!("\\u001b[31m{}", "a".repeat(500));
        let body = format!(r#"{{"tools":[{{"name":"{name}","description":"HERE"}}],"messages":[]}}"#);
        let said = place(&body, "HERE");
        assert!(said.len() < 120 && !said.contains('\u{1b}'), "{said}");
        assert_eq!(place_of(b"{\"messages\":7}", 3), "the request");
        assert_eq!(place_of(b"\xff", 0), "the request");
    }
}
