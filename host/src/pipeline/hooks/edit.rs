//! What hooks change in a request, as byte ranges of it: everything else stays as it came.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sallyport_protocol::messages::index::{Index, Span};
use serde_json::Value;
use serde_json::value::RawValue;

use super::turn::{self, Answer};

/// Changes to one request.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// Ranges and what stands there instead.
    splices: Vec<(Span, String)>,
    /// Texts behind what a message says, by its number.
    added: BTreeMap<u32, Vec<String>>,
    /// Tool answers that were replaced.
    replaced: u32,
}

// === impl Edits ===

impl Edits {
    /// A text for the model, behind what a message says.
    pub(super) fn add(&mut self, message: u32, text: String) {
        self.added.entry(message).or_default().push(text);
    }

    /// Another answer of a tool: JSON.
    pub(super) fn replace(&mut self, answer: &Answer<'_>, body: &[u8], json: &str) {
        self.replaced += 1;
        let place = answer.content.and_then(|content| turn::place(content, body));
        self.splices.push(match place {
            Some(span) => (span, json.to_owned()),
            None => (at(answer.block.span.start + 1), format!(r#""content":{json},"#)),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.splices.is_empty() && self.added.is_empty()
    }

    /// How many texts were added, and how many answers replaced.
    pub(super) fn count(&self) -> (usize, u32) {
        (self.added.values().map(Vec::len).sum(), self.replaced)
    }

    /// The request as it leaves.
    pub(super) fn apply(self, index: &Index, body: &[u8]) -> Bytes {
        let Self { mut splices, added, .. } = self;
        for (message, texts) in added {
            let message = usize::try_from(message).ok().and_then(|message| index.messages.get(message));
            let blocks: Vec<String> = texts.iter().map(|text| text_block(text)).collect();
            if let Some(message) = message {
                append(message.content, &blocks.join(","), body, &mut splices);
            }
        }
        splices.sort_by_key(|(span, _)| span.start);
        let mut out = BytesMut::with_capacity(body.len());
        let mut from = 0;
        for (span, text) in splices {
            out.extend_from_slice(Span { start: from, end: span.start }.of(body));
            out.extend_from_slice(text.as_bytes());
            from = span.end;
        }
        out.extend_from_slice(body.get(from as usize..).unwrap_or_default());
        out.freeze()
    }
}

/// A tool's answer in the form that the API takes: text, or blocks.
pub(super) fn tool_content(json: &str) -> String {
    let is_content = match serde_json::from_str::<Value>(json) {
        Ok(Value::String(_)) => true,
        Ok(Value::Array(blocks)) => {
            !blocks.is_empty() && blocks.iter().all(|block| block.get("type").is_some_and(Value::is_string))
        }
        _ => false,
    };
    if is_content { json.to_owned() } else { quoted(json) }
}

/// What stands where a hook withheld a tool's answer.
pub(super) fn withheld(hook: &str, tool: &str, reason: &str) -> String {
    quoted(&format!("[{hook} withheld what the tool {tool} answered: {reason}]"))
}

/// What a tool answered, as hooks see it.
pub(super) fn output(content: Option<&RawValue>) -> String {
    content.map_or_else(String::new, sallyport_protocol::hooks::output)
}

// === private helpers ===

/// Appends blocks to a message's content, which is a string or a list of blocks.
fn append(content: Span, blocks: &str, body: &[u8], splices: &mut Vec<(Span, String)>) {
    match content.of(body) {
        [b'"', ..] => {
            splices.push((at(content.start), r#"[{"type":"text","text":"#.to_owned()));
            splices.push((at(content.end), format!("}},{blocks}]")));
        }
        [b'[', inside @ .., b']'] => {
            let comma = if inside.trim_ascii().is_empty() { "" } else { "," };
            splices.push((at(content.end - 1), format!("{comma}{blocks}")));
        }
        _ => {}
    }
}

fn at(offset: u32) -> Span {
    Span { start: offset, end: offset }
}

fn text_block(text: &str) -> String {
    format!(r#"{{"type":"text","text":{}}}"#, quoted(text))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(messages: &str, edit: impl FnOnce(&mut Edits, &Index, &[u8])) -> String {
        let body = format!(r#"{{ "model":"m", "messages":{messages}, "n":1.50 }}"#);
        let index = Index::parse(body.as_bytes()).unwrap();
        let mut edits = Edits::default();
        edit(&mut edits, &index, body.as_bytes());
        let out = edits.apply(&index, body.as_bytes());
        Index::parse(&out).unwrap();
        let out = String::from_utf8(out.to_vec()).unwrap();
        let inside = out.strip_prefix(r#"{ "model":"m", "messages":"#).unwrap();
        inside.strip_suffix(r#", "n":1.50 }"#).unwrap().to_owned()
    }

    #[test]
    fn a_text_is_added_behind_a_string_and_behind_blocks() {
        for (messages, expected) in [
            (
                r#"[{"role":"user","content":"h\u0069"}]"#,
                r#"[{"role":"user","content":[{"type":"text","text":"h\u0069"},{"type":"text","text":"a \"b\""}]}]"#,
            ),
            (
                r#"[{"role":"user","content":[ {"type":"text","text":"hi"} ]}]"#,
                r#"[{"role":"user","content":[ {"type":"text","text":"hi"} ,{"type":"text","text":"a \"b\""}]}]"#,
            ),
            (
                r#"[{"role":"user","content":[ ]}]"#,
                r#"[{"role":"user","content":[ {"type":"text","text":"a \"b\""}]}]"#,
            ),
            (r#"[{"role":"user","content":null}]"#, r#"[{"role":"user","content":null}]"#),
        ] {
            assert_eq!(edited(messages, |edits, _, _| edits.add(0, "a \"b\"".to_owned())), expected);
        }
    }

    #[test]
    fn an_answer_is_replaced_where_it_stands_or_put_in() {
        for (block, expected) in [
            (
                r#"{"type":"tool_result","content":"secret","tool_use_id":"a"}"#,
                r#"{"type":"tool_result","content":"x","tool_use_id":"a"}"#,
            ),
            (
                r#"{"tool_use_id":"a","type":"tool_result","content":null}"#,
                r#"{"tool_use_id":"a","type":"tool_result","content":"x"}"#,
            ),
            (
                r#"{"tool_use_id":"a","type":"tool_result"}"#,
                r#"{"content":"x","tool_use_id":"a","type":"tool_result"}"#,
            ),
        ] {
            let found =
                edited(&format!(r#"[{{"role":"user","content":[{block}]}}]"#), |edits, index, body| {
                    let answers = turn::answers(index, body).unwrap();
                    edits.replace(&answers[0], body, r#""x""#);
                    edits.add(0, "ctx".to_owned());
                });
            let expected =
                format!(r#"[{{"role":"user","content":[{expected},{{"type":"text","text":"ctx"}}]}}]"#);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_content_of_the_api_becomes_its_text() {
        assert_eq!(tool_content(r#""plain""#), r#""plain""#);
        assert_eq!(tool_content(r#"[{"type":"text","text":"a"}]"#), r#"[{"type":"text","text":"a"}]"#);
        assert_eq!(tool_content(r#"{"stdout":""}"#), r#""{\"stdout\":\"\"}""#);
        assert_eq!(tool_content("[]"), r#""[]""#);
        assert_eq!(tool_content("[1]"), r#""[1]""#);
    }
}
