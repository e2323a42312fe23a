//! The conversation as a list of items.

use sallyport_guest_chat::InlineSystem;
use sallyport_guest_codec::carry;
use sallyport_guest_codec::json::{Json, inside, quoted, string};
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{Block, Invalid, Path, ToolResult, ToolUse};
use sallyport_guest_codec::names::NameLimits;
use sallyport_guest_codec::parts::{Attachments, Media, Part, Parts, UNTITLED};
use sallyport_guest_codec::turns::Turns;
use serde_json::value::RawValue;

use crate::wire::{Address, Content, InputItem, InputPart, SummaryText, TypedItem};

/// A conversation under translation.
pub(super) struct Items<'a> {
    list: Vec<InputItem<'a>>,
    inline_system: InlineSystem,
    /// Whose reasoning goes back.
    vendor: &'static str,
    names: NameLimits,
}

/// Marks the answer of a tool that failed: there is no field for it.
const FAILED: &str = "Error: ";

// === impl Items ===

impl<'a> Items<'a> {
    pub(super) fn new(inline_system: InlineSystem, vendor: &'static str, names: NameLimits) -> Self {
        Self { list: Vec::new(), inline_system, vendor, names }
    }

    pub(super) fn finish(self) -> Vec<InputItem<'a>> {
        self.list
    }

    fn message(&mut self, role: &'static str, content: Content<'a>) {
        self.list.push(InputItem::Message { role, content });
    }
}

impl<'a> Turns<'a> for Items<'a> {
    /// Files and images are fetched from their address, and all of them may stand in the answer of a tool.
    fn takes(&self) -> Attachments {
        Attachments { pdfs: true, fetched_pdfs: true, fetched_images: true, cache_points: false }
    }

    fn answer(
        &mut self,
        result: &ToolResult<'a>,
        content: Parts<'a>,
        _: Path<'_>,
        _: &mut Losses,
    ) -> Result<(), Invalid> {
        let mut output = content_of(content);
        if result.is_error {
            output = failed(output);
        }
        let call_id = self.names.call_id(result.tool_use_id.clone());
        self.list.push(InputItem::Typed(TypedItem::FunctionCallOutput { call_id, output }));
        Ok(())
    }

    fn said(&mut self, said: Parts<'a>, _: Path<'_>, _: &mut Losses) {
        // A message without content is not taken, and says nothing.
        if !said.is_blank() {
            self.message("user", content_of(said));
        }
    }

    fn text(&mut self, text: Json<'a>) {
        if inside(&text).is_some_and(|it| !it.is_empty()) {
            self.message("assistant", Content::Text(text));
        }
    }

    fn call(&mut self, call: ToolUse<'a>, _: Path<'_>, _: &mut Losses) {
        self.list.push(InputItem::Typed(TypedItem::FunctionCall {
            call_id: self.names.call_id(call.id),
            name: self.names.tool_name(call.name),
            arguments: call.input.map_or("{}", RawValue::get),
        }));
    }

    /// Reasoning goes back if it is this vendor's own: its id and what is encrypted of it are the signature.
    fn thinking(&mut self, thinking: &Block<'a>) -> bool {
        let Some(signature) = thinking.signature.and_then(string) else { return false };
        let own = carry::own(self.vendor, &signature).and_then(|it| it.split_once('.'));
        let Some((id, encrypted)) = own.filter(|(id, encrypted)| !id.is_empty() && !encrypted.is_empty())
        else {
            return false;
        };
        let text = thinking.thinking.filter(|it| inside(it).is_some_and(|it| !it.is_empty()));
        self.list.push(InputItem::Typed(TypedItem::Reasoning {
            id: id.to_owned(),
            summary: text
                .map(|it| SummaryText::SummaryText { text: Json::Borrowed(it) })
                .into_iter()
                .collect(),
            encrypted_content: encrypted.to_owned(),
        }));
        true
    }

    fn system(&mut self, text: Json<'a>, path: Path<'_>, losses: &mut Losses) {
        let role = match self.inline_system {
            InlineSystem::System => "system",
            InlineSystem::Developer => "developer",
            InlineSystem::User => {
                losses.add(path, "system message sent as a user message");
                "user"
            }
        };
        self.message(role, Content::Text(text));
    }
}

// === private helpers ===

fn content_of(parts: Parts<'_>) -> Content<'_> {
    if parts.is_text() {
        return Content::Text(parts.split().0);
    }
    Content::Parts(parts.into_iter().filter_map(part).collect())
}

/// A part as it is sent; nothing of an empty text.
fn part(part: Part<'_>) -> Option<InputPart<'_>> {
    Some(match part {
        Part::Text(text) => {
            inside(&text).filter(|it| !it.is_empty())?;
            InputPart::InputText { text }
        }
        Part::Image(media) => InputPart::InputImage { detail: "auto", image_url: Address(media) },
        Part::Pdf { name, media: media @ Media::Data { .. } } => {
            InputPart::InputFile { filename: Some(name), file_data: Some(Address(media)), file_url: None }
        }
        Part::Pdf { name, media } => InputPart::InputFile {
            filename: Some(name).filter(|it| inside(it) != Some(UNTITLED)),
            file_data: None,
            file_url: Some(Address(media)),
        },
        Part::CachePoint => return None,
    })
}

fn failed(output: Content<'_>) -> Content<'_> {
    match output {
        Content::Text(text) => {
            Content::Text(quoted(&format!("{FAILED}{}", inside(&text).unwrap_or_default())))
        }
        Content::Parts(mut parts) => {
            parts.insert(0, InputPart::InputText { text: quoted(FAILED.trim_end()) });
            Content::Parts(parts)
        }
    }
}
