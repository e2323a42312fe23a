//! The conversation. Converse has two roles that take turns; answers of tools stand in the user's, with their images and documents.

use std::collections::BTreeSet;

use sallyport_guest_codec::carry;
use sallyport_guest_codec::json::{Json, inside, quoted, string};
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{Block as Given, Invalid, Path, ToolResult, ToolUse};
use sallyport_guest_codec::names::NameLimits;
use sallyport_guest_codec::parts::{Attachments, Media, Part, Parts};
use sallyport_guest_codec::turns::Turns;
use serde_json::value::RawValue;

use super::VENDOR;
use super::answer::{REDACTED, SIGNED};
use super::wire::{self, Block, CACHE_POINT, Document, Image, Message, Reasoning, Role, Source};

/// Names of tools and ids of calls have 64 characters at most
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html>).
pub(super) const NAMES: NameLimits =
    NameLimits { shortest: 1, tool_name: 64, call_id: 64, letter_first: false };
/// The longest name of a document.
const LONGEST_NAME: usize = 200;

/// A conversation under translation.
pub(super) struct Conversation<'a> {
    messages: Vec<Message<'a>>,
    /// Tools that the conversation calls: a request that holds calls has to offer tools.
    pub(super) called: BTreeSet<String>,
    documents: usize,
    caches: bool,
}

// === impl Conversation ===

impl<'a> Conversation<'a> {
    pub(super) fn new(caches: bool) -> Self {
        Self { messages: Vec::new(), called: BTreeSet::new(), documents: 0, caches }
    }

    pub(super) fn finish(self) -> Vec<Message<'a>> {
        self.messages
    }

    /// The turn that this role has now.
    fn turn(&mut self, role: Role) -> &mut Vec<Block<'a>> {
        if self.messages.last().is_none_or(|it| it.role != role) {
            self.messages.push(Message { role, content: Vec::new() });
        }
        let last = self.messages.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "there is one")]
        &mut self.messages[last].content
    }

    /// A part as it is sent; nothing of an empty text, which is refused.
    fn part(&mut self, part: Part<'a>, path: Path<'_>, losses: &mut Losses) -> Option<Block<'a>> {
        match part {
            Part::Text(text) => says(&text).then_some(Block::Text(text)),
            Part::Image(Media::Data { media_type, data }) => {
                let format = match &*media_type {
                    "image/png" => "png",
                    "image/jpeg" | "image/jpg" => "jpeg",
                    "image/gif" => "gif",
                    "image/webp" => "webp",
                    _ => {
                        losses.add(path, "image dropped: its type is not known to the upstream");
                        return None;
                    }
                };
                Some(Block::Image(Image { format, source: Source { bytes: data } }))
            }
            Part::Pdf { name, media: Media::Data { data, .. } } => {
                self.documents += 1;
                let name = neutral(&string(&name).unwrap_or_default(), self.documents);
                Some(Block::Document(Document { format: "pdf", name, source: Source { bytes: data } }))
            }
            // Addresses are not taken, so none comes.
            Part::Image(Media::Link(_)) | Part::Pdf { media: Media::Link(_), .. } => None,
            Part::CachePoint => Some(Block::CachePoint(CACHE_POINT)),
        }
    }
}

impl<'a> Turns<'a> for Conversation<'a> {
    fn takes(&self) -> Attachments {
        Attachments { pdfs: true, fetched_pdfs: false, fetched_images: false, cache_points: self.caches }
    }

    fn answer(
        &mut self,
        result: &ToolResult<'a>,
        content: Parts<'a>,
        path: Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), Invalid> {
        let mut blocks = Vec::new();
        for part in content {
            blocks.extend(self.part(part, path.field("content"), losses));
        }
        if blocks.is_empty() {
            // Something has to stand there, and a text has to say something.
            blocks.push(Block::Text(quoted("(no output)")));
        }
        let answer = wire::ToolResult {
            tool_use_id: NAMES.call_id(result.tool_use_id.clone()),
            content: blocks,
            status: result.is_error.then_some("error"),
        };
        self.turn(Role::User).push(Block::ToolResult(answer));
        Ok(())
    }

    fn said(&mut self, said: Parts<'a>, path: Path<'_>, losses: &mut Losses) {
        let mut blocks = Vec::new();
        for part in said {
            blocks.extend(self.part(part, path, losses));
        }
        if !blocks.is_empty() {
            self.turn(Role::User).extend(blocks);
        }
    }

    fn text(&mut self, text: Json<'a>) {
        if says(&text) {
            self.turn(Role::Assistant).push(Block::Text(text));
        }
    }

    fn call(&mut self, call: ToolUse<'a>, _: Path<'_>, _: &mut Losses) {
        let name = NAMES.tool_name(call.name);
        self.called.insert(name.clone().into_owned());
        let input = call.input.map_or_else(
            || Json::Owned(RawValue::from_string("{}".to_owned()).unwrap_or_default()),
            Json::Borrowed,
        );
        let call = wire::ToolUse { id: NAMES.call_id(call.id), name, input };
        self.turn(Role::Assistant).push(Block::ToolUse(call));
    }

    /// Reasoning goes back if a model of Bedrock signed it, or made it unreadable.
    fn thinking(&mut self, thinking: &Given<'a>) -> bool {
        let Some(signature) = thinking.signature.and_then(string) else { return false };
        let Some(own) = carry::own(VENDOR, &signature) else { return false };
        let block = if let Some(redacted) = own.strip_prefix(REDACTED) {
            Reasoning::RedactedContent(redacted.to_owned())
        } else if let (Some(signature), Some(text)) = (own.strip_prefix(SIGNED), thinking.thinking) {
            Reasoning::ReasoningText { text: Json::Borrowed(text), signature: signature.to_owned() }
        } else {
            return false;
        };
        self.turn(Role::Assistant).push(Block::ReasoningContent(block));
        true
    }

    fn cache_point(&mut self) {
        if let Some(last) = self.messages.last_mut().filter(|it| !it.content.is_empty()) {
            last.content.push(Block::CachePoint(CACHE_POINT));
        }
    }

    fn system(&mut self, text: Json<'a>, path: Path<'_>, losses: &mut Losses) {
        losses.add(path, "system message sent as a user message");
        self.turn(Role::User).push(Block::Text(text));
    }
}

// === private helpers ===

/// Whether a text says anything: one of white space alone is refused.
fn says(text: &RawValue) -> bool {
    string(text).is_some_and(|it| !it.trim().is_empty()) && inside(text).is_some()
}

/// The name of a document: letters, digits, hyphens, parentheses, brackets, and one space at a time. Two of a request may not share one.
fn neutral(title: &str, nth: usize) -> String {
    let mut name = String::new();
    for letter in title.chars().take(LONGEST_NAME - 12) {
        if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '(' | ')' | '[' | ']') {
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with(' ') {
            name.push(' ');
        }
    }
    let name = name.trim_end();
    let name = if name.is_empty() { "document" } else { name };
    if nth == 1 { name.to_owned() } else { format!("{name} ({nth})") }
}

#[cfg(test)]
mod tests {
    use super::neutral;

    #[test]
    fn a_documents_name_holds_what_may_stand_in_one() {
        assert_eq!(neutral("Report_2026.pdf", 1), "Report 2026 pdf");
        assert_eq!(neutral("a  b\tc [x] (1)-é", 2), "a b c [x] (1)- (2)");
        assert_eq!(neutral("é", 3), "document (3)");
        assert!(neutral(&"x".repeat(500), 1024).len() <= 200);
    }
}
