//! What hooks change in a request, as byte ranges of it: everything else stays as it came.

use std::collections::BTreeMap;

use bytes::Bytes;
use sallyport_protocol::messages::index::{Index, Span};
use sallyport_protocol::messages::splice::{Misplaced, Splice, Splices, text_block};
use serde_json::Value;
use serde_json::value::RawValue;

use super::turn::ToolAnswer;

/// Changes to one request.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// Ranges and what stands there instead.
    splices: Vec<Splice>,
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
    pub(super) fn replace(&mut self, answer: &ToolAnswer<'_>, body: &[u8], json: &str) {
        self.replaced += 1;
        let place = answer.content.and_then(|content| Span::of_part(body, content.get().as_bytes()));
        self.splices.push(match place {
            Some(span) => Splice { span, with: json.as_bytes().to_vec() },
            None => insertion(answer.block.span.start + 1, format!(r#""content":{json},"#)),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.splices.is_empty() && self.added.is_empty()
    }

    /// How many texts were added, and how many answers replaced.
    pub(super) fn count(&self) -> (usize, u32) {
        (self.added.values().map(Vec::len).sum(), self.replaced)
    }

    /// The request as it leaves. Errors: two changes share a byte, which no reading of a request gives.
    pub(super) fn apply(self, index: &Index, body: &[u8]) -> Result<Bytes, Misplaced> {
        let Self { mut splices, added, .. } = self;
        for (message, texts) in added {
            let message = usize::try_from(message).ok().and_then(|message| index.messages.get(message));
            let blocks: Vec<Vec<u8>> = texts.iter().map(|text| text_block(text)).collect();
            if let Some(message) = message {
                append(message.content, &blocks.join(&b','), body, &mut splices);
            }
        }
        Ok(Splices::from_unsorted(splices)?.apply(body)?.into())
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
fn append(content: Span, blocks: &[u8], body: &[u8], splices: &mut Vec<Splice>) {
    match content.of(body) {
        [b'"', ..] => {
            splices.push(insertion(content.start, r#"[{"type":"text","text":"#));
            splices.push(insertion(content.end, [b"},", blocks, b"]"].concat()));
        }
        [b'[', inside @ .., b']'] => {
            let comma: &[u8] = if inside.trim_ascii().is_empty() { b"" } else { b"," };
            splices.push(insertion(content.end - 1, [comma, blocks].concat()));
        }
        _ => {}
    }
}

fn insertion(at: u32, with: impl Into<Vec<u8>>) -> Splice {
    Splice { span: Span::at(at), with: with.into() }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::turn;
    use super::*;

    fn edited(messages: &str, edit: impl FnOnce(&mut Edits, &Index, &[u8])) -> String {
        let body = format!(r#"{{ "model":"m", "messages":{messages}, "n":1.50 }}"#);
        let index = Index::parse(body.as_bytes()).unwrap();
        let mut edits = Edits::default();
        edit(&mut edits, &index, body.as_bytes());
        let out = edits.apply(&index, body.as_bytes()).unwrap();
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
