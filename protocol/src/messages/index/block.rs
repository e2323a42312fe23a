//! The blocks that messages are made of, and the sources of images and documents.

use super::keys::Keys;
use super::reader::{Place, Reader};
use super::scan::{Malformed, unquote};
use super::{Form, Origin, Span, Text, ToolBlock, blob};

/// What known blocks may hold.
const BLOCK: [&str; 22] = [
    "type",
    "text",
    "content",
    "id",
    "name",
    "input",
    "tool_use_id",
    "is_error",
    "cache_control",
    "thinking",
    "signature",
    "data",
    "source",
    "title",
    "context",
    "citations",
    "caller",
    "tool",
    "tool_changes",
    "tool_name",
    "server_name",
    "file_id",
];
const SOURCE: [&str; 6] = ["type", "media_type", "data", "url", "file_id", "content"];
/// Media types that stand in most requests with an image or a document.
const MEDIA: [&str; 6] =
    ["image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain"];

/// One member of a block.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: &'static str,
    /// Its key and its value.
    member: Span,
    value: Span,
}

// === impl Reader ===

impl Reader<'_> {
    /// One block. Members are read as they come; what they are is clear once the type is, which may stand last.
    pub(super) fn block(&mut self, place: Place) -> Result<(), Malformed> {
        let start = self.scanner.at();
        let texts = self.index.texts.len();
        let unknown = self.index.unknown.names().len();
        let mut fields = [None::<Field>; BLOCK.len()];
        let mut slots = fields.iter_mut();
        // Fields that the index does not know: counted first, named when the type is clear.
        let mut odd: Vec<(String, Span)> = Vec::new();
        let mut keys = Keys::new(&BLOCK);
        let mut object = self.scanner.object()?;
        while let Some((from, key)) = object.member(&mut self.scanner)? {
            let known = keys.check(&key)?;
            self.scanner.peek()?;
            let at = self.scanner.at();
            match known {
                Some("content") => {
                    let inside = Place { origin: Origin::ToolOutput, answer: true, ..place };
                    self.content(inside, "content.content")?;
                }
                Some("source") => self.source(from, place)?,
                Some("tool" | "tool_changes") => self.named_tools()?,
                Some(_) => drop(self.scanner.skip()?),
                None => {
                    self.scanner.skip()?;
                    let member = Span { start: from, end: self.scanner.at() };
                    odd.push((key.into_owned(), member));
                }
            }
            if let Some(name) = known
                && let Some(slot) = slots.next()
            {
                let end = self.scanner.at();
                *slot =
                    Some(Field { name, member: Span { start: from, end }, value: Span { start: at, end } });
            }
        }
        let span = Span { start, end: self.scanner.at() };
        let fields = fields.into_iter().flatten();
        let value_of = |name: &str| fields.clone().find(|field| field.name == name).map(|field| field.value);
        let body = self.scanner.body();
        let kind = value_of("type").map(|value| unquote(value.of(body)));
        let kind = kind.as_deref().unwrap_or_default();
        let whole = match kind {
            "tool_use" | "server_tool_use" | "mcp_tool_use" => Some(Origin::ToolInput),
            "search_result" => Some(Origin::Document),
            "tool_addition" | "tool_removal" | "tool_reference" => Some(Origin::Tool),
            "container_upload" => Some(Origin::Link),
            "compaction" => Some(place.origin),
            "text" | "thinking" | "redacted_thinking" | "image" | "document" | "tool_result"
            | "mcp_tool_result" => None,
            answer if answer.ends_with("_tool_result") => Some(Origin::ToolOutput),
            _ => {
                self.index.unknown.note("content.type=", kind);
                Some(Origin::Other)
            }
        };
        // What a tool answers may look like a block of a tool; it is none.
        if let (Some(message), Origin::User, "tool_use" | "tool_result") = (place.message, place.origin, kind)
        {
            self.index.tool_blocks.push(ToolBlock { is_result: kind == "tool_result", span, message });
        }
        if let Some(origin) = whole {
            if kind == "tool_use"
                && let Some(id) = value_of("id")
            {
                self.called(id);
            }
            if kind == "tool_reference"
                && let Some(name) = value_of("tool_name")
            {
                self.name(unquote(name.of(body)).into_owned())?;
            }
            // All of it is one text: keys, ids and names as well. What stands in a call and in an answer is the tool's matter.
            if matches!(origin, Origin::ToolInput | Origin::ToolOutput | Origin::Document) {
                self.index.unknown.truncate(unknown);
            }
            // Of a block of an unknown type its fields are not known either.
            for (name, _) in odd.iter().filter(|_| origin != Origin::Other) {
                self.index.unknown.note(&format!("content.{kind}."), name);
            }
            self.index.texts.truncate(texts);
            let answer = place.answer || origin == Origin::ToolOutput;
            return self.push(Text::new(Place { origin, answer, ..place }, Form::Value, span));
        }
        for field in fields {
            self.field(kind, field, place, texts)?;
        }
        for (name, member) in odd {
            self.index.unknown.note(&format!("content.{kind}."), &name);
            self.push(Text::new(Place { origin: Origin::Other, ..place }, Form::Member, member))?;
        }
        Ok(())
    }

    /// A member of a block of a known type, whose texts begin at `first`.
    fn field(&mut self, kind: &str, field: Field, place: Place, first: usize) -> Result<(), Malformed> {
        let Field { name, member, value } = field;
        let raw = value.of(self.scanner.body());
        let is_string = raw.starts_with(b"\"");
        let nothing = matches!(raw, b"null" | b"true" | b"false");
        let said = |origin| {
            let form = if is_string { Form::String } else { Form::Value };
            Text::new(Place { origin, ..place }, form, value)
        };
        let beside = |origin| Text::new(Place { origin, ..place }, Form::Member, member);
        let signed = |text| Text { signed: true, ..text };
        match (kind, name) {
            // Read already.
            (_, "type")
            | ("image" | "document", "source")
            | ("tool_result" | "mcp_tool_result", "content") => Ok(()),
            ("text", "text") if is_string => self.push(said(place.origin)),
            ("thinking", "thinking") if is_string => self.push(signed(said(place.origin))),
            ("thinking", "signature") | ("redacted_thinking", "data") => {
                if nothing || raw == b"\"\"" || blob::is_base64(raw) {
                    return Ok(());
                }
                self.push(signed(beside(Origin::Parameter)))
            }
            ("document", "title" | "context") => {
                if nothing {
                    Ok(())
                } else {
                    self.push(said(Origin::Document))
                }
            }
            ("tool_result" | "mcp_tool_result", "tool_use_id") => {
                if self.was_called(raw) {
                    return Ok(());
                }
                self.push(beside(Origin::Parameter))
            }
            ("tool_result" | "mcp_tool_result", "is_error") if nothing => Ok(()),
            (_, "cache_control") | ("document", "citations") if blob::is_setting(raw) => Ok(()),
            (_, "cache_control") => self.push(beside(Origin::Parameter)),
            ("text" | "document", "citations") => {
                if nothing || raw == b"[]" {
                    Ok(())
                } else {
                    self.push(beside(Origin::Document))
                }
            }
            _ => {
                self.index.unknown.note(&format!("content.{kind}."), name);
                // What stands in it was taken for a part of another block.
                let mut own = self.index.texts.split_off(first);
                own.retain(|text| text.span.start < member.start || text.span.end > member.end);
                self.index.texts.append(&mut own);
                self.push(beside(Origin::Other))
            }
        }
    }

    /// The source of an image or of a document: text is read, base64 is not.
    fn source(&mut self, from: u32, place: Place) -> Result<(), Malformed> {
        if self.scanner.peek()? != b'{' {
            // The address of a search result; whatever else it is, it is shown.
            self.scanner.skip()?;
            let span = Span { start: from, end: self.scanner.at() };
            return self.push(Text::new(Place { origin: Origin::Link, ..place }, Form::Member, span));
        }
        let document = Place { origin: Origin::Document, ..place };
        let mut object = self.scanner.object()?;
        let mut keys = Keys::new(&SOURCE);
        let [mut kind, mut data] = [None::<Span>; 2];
        while let Some((from, key)) = object.member(&mut self.scanner)? {
            let known = keys.check(&key)?;
            if known == Some("content") {
                self.content(document, "source.content")?;
                continue;
            }
            let value = self.scanner.skip()?;
            let member = Span { start: from, end: value.end };
            let raw = value.of(self.scanner.body());
            let text = |origin| Text::new(Place { origin, ..place }, Form::Member, member);
            match known {
                Some("type") => kind = Some(value),
                Some("data") => data = Some(value),
                Some("media_type") if MEDIA.contains(&unquote(raw).as_ref()) => {}
                Some("media_type") => self.push(text(Origin::Parameter))?,
                Some(_) => self.push(text(Origin::Link))?,
                None => {
                    self.index.unknown.note("source.", &key);
                    self.push(text(Origin::Other))?;
                }
            }
        }
        let body = self.scanner.body();
        let stands = kind;
        let kind = kind.map(|span| unquote(span.of(body))).unwrap_or_default();
        if !matches!(kind.as_ref(), "text" | "base64" | "url" | "file" | "content") {
            self.index.unknown.note("source.type=", &kind);
            // Whatever the client put there instead travels too.
            if let Some(span) = stands {
                let form = if span.of(body).starts_with(b"\"") { Form::String } else { Form::Value };
                self.push(Text::new(Place { origin: Origin::Other, ..place }, form, span))?;
            }
        }
        match data {
            Some(data) if kind != "text" && blob::is_base64(data.of(body)) => Ok(()),
            Some(data) => {
                let form = if data.of(body).starts_with(b"\"") { Form::String } else { Form::Value };
                self.push(Text::new(document, form, data))
            }
            None => Ok(()),
        }
    }
}
