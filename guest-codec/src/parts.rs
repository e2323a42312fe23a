//! What turns are made of, besides tool calls and thinking: text, images and documents, read from content blocks in order. What an
//! upstream's wire has no place for becomes text, or a loss; the provider only writes the parts down.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{Json, escape, inside, joined, quoted};
use crate::losses::Losses;
use crate::messages::{Block, BlockType, Content, Invalid, Path, Source, SourceKind, required_text};

/// How lost cache markers read, wherever they stood: one entry, counted.
pub const CACHE: (&str, &str) = ("cache_control", "dropped: the upstream caches prompts by itself");
/// The name of a PDF without a title.
pub const UNTITLED: &str = "document.pdf";
const DROPPED: &str = "dropped";
const NO_COUNTERPART: &str = "block dropped: no counterpart";

/// A part of a turn.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    /// Text: a JSON string.
    Text(Json<'a>),
    /// An image.
    Image(Media<'a>),
    /// A PDF.
    Pdf {
        /// Its title, or a name for it: a JSON string.
        name: Json<'a>,
        /// Where it is, or all of it.
        media: Media<'a>,
    },
    /// A cache marker of the client's at the part before; only where the upstream takes such markers.
    CachePoint,
}

/// Where an attachment is, or all of it. The data is that of the client's body: attachments are most of what makes a request large.
#[derive(Debug, Clone)]
pub enum Media<'a> {
    /// Its address: a JSON string.
    Link(Json<'a>),
    /// All of it.
    Data {
        /// `image/png`, `application/pdf`, ...
        media_type: Cow<'a, str>,
        /// In base64.
        data: Cow<'a, str>,
    },
}

/// Which attachments an upstream takes; others are lost, but for a document's address, which the model is told.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of an upstream, and none follows from another"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachments {
    /// PDFs that the client sends.
    pub pdfs: bool,
    /// PDFs that it gives the address of.
    pub fetched_pdfs: bool,
    /// Images that it gives the address of.
    pub fetched_images: bool,
    /// Markers of what is to be cached.
    pub cache_points: bool,
}

/// Text and what stands beside it, in order.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    takes: Attachments,
    parts: Vec<Part<'a>>,
}

/// Records what every block may carry and no upstream takes.
pub fn markers(block: &Block<'_>, path: Path<'_>, losses: &mut Losses) {
    if block.cache_control.is_some() {
        losses.add(CACHE.0, CACHE.1);
    }
    if block.has_citations() {
        losses.add(path.field("citations"), DROPPED);
    }
    losses.dropped(path, &block.unknown);
}

/// The same, of a block whose cache marker may be taken: whether it has one that is.
pub fn marks(block: &Block<'_>, takes: Attachments, path: Path<'_>, losses: &mut Losses) -> bool {
    if !takes.cache_points {
        markers(block, path, losses);
        return false;
    }
    if block.has_citations() {
        losses.add(path.field("citations"), DROPPED);
    }
    losses.dropped(path, &block.unknown);
    block.cache_control.is_some()
}

/// How a block of this type was lost.
pub fn dropped(kind: &BlockType<'_>) -> &'static str {
    match kind {
        BlockType::Thinking => "thinking dropped",
        BlockType::RedactedThinking => "redacted thinking dropped",
        BlockType::Other(kind) => match &**kind {
            "server_tool_use" => "call of a server tool dropped",
            "container_upload" => "container upload dropped",
            "compaction" => "compaction dropped",
            it if it.ends_with("_tool_result") => "result of a server tool dropped",
            _ => NO_COUNTERPART,
        },
        _ => NO_COUNTERPART,
    }
}

/// Content that holds text only, that of system prompts, as one JSON string. What is no text is a loss of `path`.
pub fn plain_text<'a>(raw: &'a RawValue, path: Path<'_>, losses: &mut Losses) -> Result<Json<'a>, Invalid> {
    let mut parts = Parts::default();
    parts.content(raw, path, losses)?;
    let (text, rest) = parts.split();
    if !rest.is_empty() {
        losses.add(path, "what is not text dropped from a system message");
    }
    Ok(text)
}

// === impl Attachments ===

impl Default for Attachments {
    /// Those that OpenAI takes.
    fn default() -> Self {
        Self { pdfs: true, fetched_pdfs: false, fetched_images: true, cache_points: false }
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// No part yet, for an upstream that takes these attachments.
    pub fn new(takes: Attachments) -> Self {
        Self { takes, parts: Vec::new() }
    }

    /// Which attachments are taken.
    pub fn takes(&self) -> Attachments {
        self.takes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether there is nothing to read: no part, or none but empty texts.
    pub fn is_blank(&self) -> bool {
        self.parts.iter().all(|it| matches!(it, Part::Text(text) if inside(text).is_none_or(str::is_empty)))
    }

    /// Whether there is nothing but text.
    pub fn is_text(&self) -> bool {
        self.parts.iter().all(|it| matches!(it, Part::Text(_)))
    }

    /// Adds a text: a JSON string.
    pub fn push_text(&mut self, text: Json<'a>) {
        self.parts.push(Part::Text(text));
    }

    /// Adds a cache marker.
    pub fn push_cache_point(&mut self) {
        self.parts.push(Part::CachePoint);
    }

    /// Adds what stands in `other`.
    pub fn append(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
    }

    /// Takes in a block that any turn may hold: text, an image, a document, a search result. Others are lost.
    pub fn block(
        &mut self,
        kind: &BlockType<'_>,
        block: &Block<'a>,
        path: Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), Invalid> {
        match kind {
            BlockType::Text => self.push_text(Cow::Borrowed(block.text(path)?)),
            BlockType::Image => self.image(&block.source(path)?, path, losses),
            BlockType::Document => self.document(block, path, losses)?,
            BlockType::SearchResult => self.search_result(block, path, losses)?,
            BlockType::ToolReference => {
                let name = required_text(block.tool_name, path.field("tool_name"))?;
                self.push_text(quoted(&escape(&format!("The tool {name} is available."))));
            }
            _ => losses.add(path, dropped(kind)),
        }
        Ok(())
    }

    /// Takes in nested content: a string or blocks.
    pub fn content(&mut self, raw: &'a RawValue, path: Path<'_>, losses: &mut Losses) -> Result<(), Invalid> {
        match Content::read(raw, path)? {
            Content::Text(text) => self.push_text(Cow::Borrowed(text)),
            Content::Blocks(blocks) => {
                for (at, block) in blocks.iter().enumerate() {
                    let path = path.index(at);
                    markers(block, path, losses);
                    // Without the recursion of documents in documents: what they hold is text and images.
                    match &block.block_type(path)? {
                        BlockType::Document | BlockType::SearchResult
                            if block.content.is_some() || block.has_nested_source() =>
                        {
                            losses.add(path, "dropped: a document inside a document");
                        }
                        kind => self.block(kind, block, path, losses)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// All text as one string, and the parts that are not text.
    pub fn split(self) -> (Json<'a>, Self) {
        let (mut texts, mut rest) = (Vec::new(), Self::new(self.takes));
        for part in self.parts {
            match part {
                Part::Text(text) => texts.push(text),
                other => rest.parts.push(other),
            }
        }
        (joined(texts), rest)
    }

    fn image(&mut self, source: &Source<'a>, path: Path<'_>, losses: &mut Losses) {
        let media = match source.source_kind() {
            SourceKind::Base64 => {
                let Some(media) = data(source, "image/png") else {
                    losses.add(path.field("source"), DROPPED);
                    return;
                };
                Some(media)
            }
            SourceKind::Url if !self.takes.fetched_images => {
                losses.add(path, "image dropped: the upstream fetches none");
                return;
            }
            SourceKind::Url => source.url().map(|url| Media::Link(Cow::Borrowed(url))),
            _ => None,
        };
        match media {
            Some(media) => self.parts.push(Part::Image(media)),
            None => losses.add(path, "image dropped: its source is not known to the upstream"),
        }
    }

    fn document(&mut self, block: &Block<'a>, path: Path<'_>, losses: &mut Losses) -> Result<(), Invalid> {
        let source = block.source(path)?;
        let title = block.title.and_then(inside);
        let context = block.context.and_then(inside);
        match source.source_kind() {
            SourceKind::Text => {
                self.push_document(title, context, source.data.and_then(inside).unwrap_or_default());
            }
            SourceKind::Base64 if !self.takes.pdfs => {
                losses.add(path, "document dropped: the upstream takes none");
            }
            SourceKind::Base64 if source.media_type().is_none_or(|it| it == "application/pdf") => {
                match data(&source, "application/pdf") {
                    Some(media) => self.push_pdf(title, context, media),
                    None => losses.add(path.field("source"), DROPPED),
                }
            }
            SourceKind::Url => {
                if let Some(url) = source.url().filter(|_| self.takes.fetched_pdfs) {
                    self.push_pdf(title, context, Media::Link(Cow::Borrowed(url)));
                } else {
                    let url = source.url.and_then(inside).unwrap_or_default();
                    self.push_document(title, context, url);
                    losses.add(path.field("source"), "document replaced by its address");
                }
            }
            SourceKind::Content => {
                let mut inner = Self::new(self.takes);
                if let Some(raw) = source.content {
                    inner.content(raw, path.field("source").field("content"), losses)?;
                }
                let (text, rest) = inner.split();
                self.push_document(title, context, inside(&text).unwrap_or_default());
                self.append(rest);
            }
            _ => losses.add(path, "document dropped: its source is not known to the upstream"),
        }
        Ok(())
    }

    fn search_result(
        &mut self,
        block: &Block<'a>,
        path: Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), Invalid> {
        let mut inner = Self::new(self.takes);
        if let Some(raw) = block.content {
            inner.content(raw, path.field("content"), losses)?;
        }
        let (text, rest) = inner.split();
        let title = block.title.and_then(inside);
        self.push_document(title, block.source.and_then(inside), inside(&text).unwrap_or_default());
        self.append(rest);
        losses.add(path, "search result sent as text");
        Ok(())
    }

    fn push_pdf(&mut self, title: Option<&str>, context: Option<&str>, media: Media<'a>) {
        if let Some(context) = context {
            self.push_text(quoted(context));
        }
        self.parts.push(Part::Pdf { name: quoted(title.unwrap_or(UNTITLED)), media });
    }

    fn push_document(&mut self, title: Option<&str>, context: Option<&str>, text: &str) {
        let mut document = String::with_capacity(text.len() + 64);
        document.push_str("<document");
        for (name, value) in [("title", title), ("context", context)] {
            if let Some(value) = value {
                for piece in [" ", name, "=\\\"", value, "\\\""] {
                    document.push_str(piece);
                }
            }
        }
        document.push_str(">\\n");
        document.push_str(text);
        document.push_str("\\n</document>");
        self.push_text(quoted(&document));
    }
}

impl<'a> IntoIterator for Parts<'a> {
    type Item = Part<'a>;
    type IntoIter = std::vec::IntoIter<Part<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.into_iter()
    }
}

// === private helpers ===

fn data<'a>(source: &Source<'a>, otherwise: &'static str) -> Option<Media<'a>> {
    let media_type = source.media_type().unwrap_or(Cow::Borrowed(otherwise));
    Some(Media::Data { media_type, data: source.data()? })
}

#[cfg(test)]
mod tests {
    use super::{Attachments, Media, Part, Parts};
    use crate::losses::Losses;
    use crate::messages::Path;
    use serde_json::value::RawValue;

    fn read(takes: Attachments, content: &str) -> (Vec<String>, Vec<String>) {
        let raw = RawValue::from_string(content.to_owned()).unwrap();
        let (mut parts, mut losses) = (Parts::new(takes), Losses::default());
        parts.content(&raw, Path::root("content"), &mut losses).unwrap();
        let media = |media: Media<'_>| match media {
            Media::Link(link) => link.get().to_owned(),
            Media::Data { media_type, data } => format!("{media_type} {data}"),
        };
        let parts = parts.into_iter().map(|part| match part {
            Part::Text(text) => text.get().to_owned(),
            Part::Image(image) => format!("image {}", media(image)),
            Part::Pdf { name, media: pdf } => format!("pdf {} {}", name.get(), media(pdf)),
            Part::CachePoint => "point".to_owned(),
        });
        let losses = losses.into_losses().into_iter().map(|it| format!("{}: {}", it.field, it.how));
        (parts.collect(), losses.collect())
    }

    #[test]
    fn a_linked_document_is_a_part_where_the_upstream_fetches_it_and_else_its_address() {
        let told = Attachments::default();
        let linked = r#"[{"type":"document","title":"T","source":{"type":"url","url":"https://h/a.pdf"}}]"#;
        assert_eq!(
            read(Attachments { fetched_pdfs: true, ..told }, linked),
            (vec![r#"pdf "T" "https://h/a.pdf""#.to_owned()], Vec::new())
        );
        let (told, lost) = read(told, linked);
        assert_eq!(told, [r#""<document title=\"T\">\nhttps://h/a.pdf\n</document>""#]);
        assert_eq!(lost, ["content[0].source: document replaced by its address"]);
    }

    #[test]
    fn what_an_upstream_does_not_take_is_lost_and_named() {
        let none =
            Attachments { pdfs: false, fetched_pdfs: false, fetched_images: false, cache_points: false };
        let both = r#"[{"type":"image","source":{"type":"url","url":"https://h/a.png"}},
            {"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBERi0="}}]"#;
        let (parts, lost) = read(none, both);
        assert!(parts.is_empty());
        let image = "content[0]: image dropped: the upstream fetches none";
        assert_eq!(lost, [image, "content[1]: document dropped: the upstream takes none"]);
    }

    #[test]
    fn attachments_keep_their_place_between_the_texts() {
        let mixed = r#"[{"type":"text","text":"a"},{"type":"image","source":{"type":"base64","media_type":"image/gif","data":"R0"}},
            {"type":"text","text":"b"},{"type":"mystery"}]"#;
        let (parts, lost) = read(Attachments::default(), mixed);
        assert_eq!(parts, [r#""a""#, "image image/gif R0", r#""b""#]);
        assert_eq!(lost, ["content[3]: block dropped: no counterpart"]);
    }
}
