//! A conversation, turn by turn, for every upstream: what its wire has no place for is recorded here as lost, and the provider only writes
//! down what is left, a [`Turns`]. Answers of tools come before what else a user's turn says; all other order is the client's.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{Json, escape, inside, quoted};
use crate::losses::Losses;
use crate::messages::{Block, BlockType, Content, Invalid, Message, Path, Role, ToolResult, ToolUse};
use crate::parts::{self, Attachments, Parts, plain_text};

/// What writes a conversation down.
pub trait Turns<'a> {
    /// Which attachments the upstream takes.
    fn takes(&self) -> Attachments;

    /// The answer of a tool, within a user's turn.
    fn answer(
        &mut self,
        result: &ToolResult<'a>,
        content: Parts<'a>,
        path: Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), Invalid>;

    /// What else a user's turn says, after all its answers: nothing, where it only answers.
    fn said(&mut self, said: Parts<'a>, path: Path<'_>, losses: &mut Losses);

    /// Text of the model's turn: a JSON string.
    fn text(&mut self, text: Json<'a>);

    /// A tool call of the model's turn.
    fn call(&mut self, call: ToolUse<'a>, path: Path<'_>, losses: &mut Losses);

    /// Thinking of the model's turn. Whether it is carried over; otherwise it is recorded as lost.
    fn thinking(&mut self, _thinking: &Block<'a>) -> bool {
        false
    }

    /// Thinking that only its upstream can read. Whether it is carried over; otherwise it is recorded as lost.
    fn redacted(&mut self, _thinking: &Block<'a>) -> bool {
        false
    }

    /// A cache marker of the client's at what was given last within a turn of the model, or at an answer of a tool. Asked only where the
    /// upstream takes such markers.
    fn cache_point(&mut self) {}

    /// The model's turn is complete.
    fn ended(&mut self) {}

    /// A system message amid the conversation: a JSON string that says something.
    fn system(&mut self, text: Json<'a>, path: Path<'_>, losses: &mut Losses);
}

/// Gives the conversation to `turns`. Answers the effort that holds for the turn asked for: `effort`, unless a turn sets another.
pub fn walk<'a>(
    messages: &[Message<'a>],
    turns: &mut impl Turns<'a>,
    mut effort: Option<&'a RawValue>,
    losses: &mut Losses,
) -> Result<Option<&'a RawValue>, Invalid> {
    let root = Path::root("messages");
    let last = messages.len().saturating_sub(1);
    for (at, message) in messages.iter().enumerate() {
        let path = root.index(at);
        losses.dropped(path, &message.unknown);
        let content = message.content(path)?;
        if let Some(config) = &message.output_config {
            losses.dropped(path.field("output_config"), &config.unknown);
            // The newest effort is the one that applies.
            effort = config.effort.or(effort);
        }
        match message.role(path)? {
            Role::User => user(content, path.field("content"), turns, losses)?,
            Role::Assistant => {
                model(content, path.field("content"), turns, losses)?;
                if at == last {
                    losses.add(path, "prefill sent as a finished turn");
                }
            }
            Role::System => {
                let text = plain_text(content, path.field("content"), losses)?;
                // A turn that only sets options says nothing to the model.
                if inside(&text).is_some_and(|it| !it.is_empty()) {
                    turns.system(text, path, losses);
                }
            }
        }
    }
    Ok(effort)
}

/// What a tool answered as one text, and what that cannot hold behind a line that says whose it is. `how` is the loss that this is, and
/// `instead` the text where there is none.
pub fn text_and_rest<'a>(
    id: &str,
    content: Parts<'a>,
    instead: &str,
    how: &'static str,
    path: Path<'_>,
    losses: &mut Losses,
) -> (Json<'a>, Parts<'a>) {
    let takes = content.takes();
    let (mut text, rest) = content.split();
    let mut following = Parts::new(takes);
    if !rest.is_empty() {
        losses.add(path.field("content"), how);
        let id = escape(id);
        following.push_text(quoted(&format!("Attachments of the answer to tool call {id}:")));
        following.append(rest);
        if inside(&text).is_none_or(str::is_empty) {
            text = quoted(instead);
        }
    }
    (text, following)
}

// === private helpers ===

fn user<'a>(
    content: &'a RawValue,
    path: Path<'_>,
    turns: &mut impl Turns<'a>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let takes = turns.takes();
    let mut said = Parts::new(takes);
    match Content::read(content, path)? {
        Content::Text(text) => said.push_text(Cow::Borrowed(text)),
        Content::Blocks(blocks) => {
            for (at, block) in blocks.iter().enumerate() {
                let path = path.index(at);
                let marked = parts::marks(block, takes, path, losses);
                match &block.block_type(path)? {
                    BlockType::ToolResult => {
                        let result = block.tool_result(path)?;
                        let mut answered = Parts::new(takes);
                        if let Some(content) = result.content {
                            answered.content(content, path.field("content"), losses)?;
                        }
                        turns.answer(&result, answered, path, losses)?;
                        if marked {
                            turns.cache_point();
                        }
                    }
                    kind => {
                        said.block(kind, block, path, losses)?;
                        if marked {
                            said.push_cache_point();
                        }
                    }
                }
            }
        }
    }
    turns.said(said, path, losses);
    Ok(())
}

fn model<'a>(
    content: &'a RawValue,
    path: Path<'_>,
    turns: &mut impl Turns<'a>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let takes = turns.takes();
    match Content::read(content, path)? {
        Content::Text(text) => turns.text(Cow::Borrowed(text)),
        Content::Blocks(blocks) => {
            for (at, block) in blocks.iter().enumerate() {
                let path = path.index(at);
                let marked = match &block.block_type(path)? {
                    BlockType::ToolUse => {
                        let marked = parts::marks(block, takes, path, losses);
                        turns.call(block.tool_use(path)?, path, losses);
                        marked
                    }
                    BlockType::Text => {
                        let marked = parts::marks(block, takes, path, losses);
                        turns.text(Cow::Borrowed(block.text(path)?));
                        marked
                    }
                    BlockType::Thinking if turns.thinking(block) => false,
                    BlockType::RedactedThinking if turns.redacted(block) => false,
                    // What is dropped whole is one loss, not one for each of its fields.
                    kind => {
                        losses.add(path, parts::dropped(kind));
                        false
                    }
                };
                if marked {
                    turns.cache_point();
                }
            }
        }
    }
    turns.ended();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Turns, text_and_rest, walk};
    use crate::json::{Json, inside, string};
    use crate::losses::Losses;
    use crate::messages::{Block, Invalid, Path, Request, ToolResult, ToolUse};
    use crate::parts::{Attachments, Part, Parts};

    #[derive(Default)]
    struct Written {
        marks: bool,
        lines: Vec<String>,
    }

    impl Written {
        fn parts(&mut self, what: &str, parts: Parts<'_>) {
            let parts: Vec<&str> = parts
                .into_iter()
                .map(|it| match it {
                    Part::Text(_) => "text",
                    Part::Image(_) => "image",
                    Part::Pdf { .. } => "pdf",
                    Part::CachePoint => "point",
                })
                .collect();
            self.lines.push(format!("{what} {}", parts.join(",")));
        }
    }

    impl<'a> Turns<'a> for Written {
        fn takes(&self) -> Attachments {
            Attachments { cache_points: self.marks, ..Attachments::default() }
        }
        fn answer(
            &mut self,
            result: &ToolResult<'a>,
            content: Parts<'a>,
            _: Path<'_>,
            _: &mut Losses,
        ) -> Result<(), Invalid> {
            self.parts(&format!("answer {}", result.tool_use_id), content);
            Ok(())
        }
        fn said(&mut self, said: Parts<'a>, _: Path<'_>, _: &mut Losses) {
            self.parts("said", said);
        }
        fn text(&mut self, text: Json<'a>) {
            self.lines.push(format!("text {}", text.get()));
        }
        fn call(&mut self, call: ToolUse<'a>, _: Path<'_>, _: &mut Losses) {
            self.lines.push(format!("call {}", call.name));
        }
        fn thinking(&mut self, thinking: &Block<'a>) -> bool {
            thinking.signature.and_then(string).is_some_and(|it| it == "own")
        }
        fn cache_point(&mut self) {
            self.lines.push("point".to_owned());
        }
        fn ended(&mut self) {
            self.lines.push("ended".to_owned());
        }
        fn system(&mut self, text: Json<'a>, _: Path<'_>, _: &mut Losses) {
            self.lines.push(format!("system {}", text.get()));
        }
    }

    const BODY: &str = r#"{"messages":[
        {"role":"user","content":[{"type":"text","text":"a"},{"type":"tool_result","tool_use_id":"c1","content":"x","cache_control":{}},
            {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="},"cache_control":{}}]},
        {"role":"system","content":"Be brief.","output_config":{"effort":"low"}},
        {"role":"system","content":"","output_config":{"effort":"high"}},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"own"},{"type":"thinking","thinking":"hm","signature":"x"},
            {"type":"redacted_thinking","data":"x"},{"type":"text","text":"b","cache_control":{}},{"type":"tool_use","id":"c2","name":"look","input":{}}]}]}"#;

    fn written(marks: bool) -> (Vec<String>, Vec<String>, String) {
        let body = Request::read(BODY).unwrap();
        let mut turns = Written { marks, ..Written::default() };
        let mut losses = Losses::default();
        let effort = walk(&body.messages.unwrap(), &mut turns, None, &mut losses).unwrap();
        let losses = losses.into_losses().into_iter().map(|it| format!("{}: {}", it.field, it.how)).collect();
        (turns.lines, losses, effort.and_then(inside).unwrap_or_default().to_owned())
    }

    #[test]
    fn a_conversation_is_given_turn_by_turn_and_what_is_left_out_is_a_loss() {
        let (lines, losses, effort) = written(false);
        assert_eq!(
            lines,
            ["answer c1 text", "said text,image", "system \"Be brief.\"", "text \"b\"", "call look", "ended"]
        );
        assert_eq!(
            losses,
            [
                "cache_control: dropped: the upstream caches prompts by itself (3 times)",
                "messages[3].content[1]: thinking dropped",
                "messages[3].content[2]: redacted thinking dropped",
                "messages[3]: prefill sent as a finished turn",
            ]
        );
        assert_eq!(effort, "high");
    }

    #[test]
    fn markers_are_given_where_they_are_taken() {
        let (lines, losses, _) = written(true);
        assert_eq!(
            lines,
            [
                "answer c1 text",
                "point",
                "said text,image,point",
                "system \"Be brief.\"",
                "text \"b\"",
                "point",
                "call look",
                "ended"
            ]
        );
        assert!(losses.iter().all(|it| !it.starts_with("cache_control")), "{losses:?}");
    }

    #[test]
    fn what_an_answer_cannot_hold_follows_it_under_its_id() {
        let raw = r#"[{"type":"image","source":{"type":"url","url":"https://a.example/b.png"}}]"#.to_owned();
        let raw = serde_json::value::RawValue::from_string(raw).unwrap();
        let mut losses = Losses::default();
        let mut parts = Parts::default();
        parts.content(&raw, Path::root("x"), &mut losses).unwrap();
        let (text, rest) = text_and_rest("c\"1", parts, "Attached.", "moved", Path::root("x"), &mut losses);
        assert_eq!(text.get(), "\"Attached.\"");
        let rest: Vec<Part<'_>> = rest.into_iter().collect();
        assert!(
            matches!(&rest[..], [Part::Text(line), Part::Image(_)] if line.get() == r#""Attachments of the answer to tool call c\"1:""#)
        );
        assert_eq!(losses.into_losses()[0].how, "moved");
    }
}
