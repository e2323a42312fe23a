//! Content blocks as the client writes them, and what each becomes: text, or a part that stands beside text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Invalid;
use crate::chat::{File, ImageUrl, Part, Url};
use crate::json::{Json, inside, is_array, is_object, joined, object, quoted, string};
use crate::ledger::Ledger;

/// How lost cache markers read, wherever they stood: one entry, counted.
pub(super) const CACHE: (&str, &str) = ("cache_control", "dropped: the upstream caches prompts by itself");
const DROPPED: &str = "dropped";

object! {
    /// Any content block: blocks of all types have few fields between them.
    Block {
        kind: &'a RawValue,
        text: &'a RawValue,
        id: &'a RawValue,
        name: &'a RawValue,
        input: &'a RawValue,
        tool_use_id: &'a RawValue,
        content: &'a RawValue,
        is_error: bool,
        source: &'a RawValue,
        title: &'a RawValue,
        context: &'a RawValue,
        citations: &'a RawValue,
        thinking: &'a RawValue,
        signature: &'a RawValue,
        tool_name: &'a RawValue,
        cache_control: &'a RawValue,
    }
}

object! {
    /// Where an image or a document comes from.
    Source {
        kind: &'a RawValue,
        media_type: &'a RawValue,
        data: &'a RawValue,
        url: &'a RawValue,
        content: &'a RawValue,
    }
}

/// `content`: blocks, or the string that stands for one text block.
pub(super) enum Content<'a> {
    Text(&'a RawValue),
    Blocks(Vec<Block<'a>>),
}

/// Text and what stands beside it, in order.
#[derive(Default)]
pub(super) struct Parts<'a> {
    parts: Vec<Part<'a>>,
}

/// Reads `content`.
pub(super) fn read<'a>(raw: &'a RawValue, path: &str) -> Result<Content<'a>, Invalid> {
    if is_array(raw) {
        let blocks = Vec::deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
            .map_err(|error| Invalid(format!("{path}: {error}")))?;
        Ok(Content::Blocks(blocks))
    } else if inside(raw).is_some() {
        Ok(Content::Text(raw))
    } else {
        Err(Invalid::expected(path, "a string or an array of blocks"))
    }
}

/// The type of a block.
pub(super) fn kind<'a>(block: &Block<'a>, path: impl Fn() -> String) -> Result<Cow<'a, str>, Invalid> {
    super::text_of(block.kind, || format!("{}.type", path()))
}

/// Records what every block may carry and no upstream takes.
pub(super) fn markers(block: &Block<'_>, path: impl Fn() -> String, losses: &mut Ledger) {
    if block.cache_control.is_some() {
        losses.add(CACHE.0, CACHE.1);
    }
    if let Some(citations) = block.citations
        && !matches!(citations.get(), "[]" | "{\"enabled\":false}")
    {
        losses.add(format!("{}.citations", path()), DROPPED);
    }
    if !block.unknown.is_empty() {
        losses.dropped(&path(), &block.unknown);
    }
}

/// The text of a text block.
pub(super) fn text<'a>(block: &Block<'a>, path: impl Fn() -> String) -> Result<&'a RawValue, Invalid> {
    let path = || format!("{}.text", path());
    let raw = block.text.ok_or_else(|| Invalid(format!("{}: Field required", path())))?;
    if inside(raw).is_some() { Ok(raw) } else { Err(Invalid::expected(&path(), "a string")) }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn push_text(&mut self, text: Json<'a>) {
        self.parts.push(Part::Text { text });
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
    }

    /// Takes in a block that any turn may hold: text, an image, a document, a search result. Others are lost.
    pub(super) fn block(
        &mut self,
        kind: &str,
        block: &Block<'a>,
        path: &dyn Fn() -> String,
        losses: &mut Ledger,
    ) -> Result<(), Invalid> {
        match kind {
            "text" => self.push_text(Cow::Borrowed(text(block, path)?)),
            "image" => self.image(&source(block, path)?, path, losses),
            "document" => self.document(block, path, losses)?,
            "search_result" => self.search_result(block, path, losses)?,
            "tool_reference" => {
                let name = super::text_of(block.tool_name, || format!("{}.tool_name", path()))?;
                self.push_text(quoted(&crate::json::escape(&format!("The tool {name} is available."))));
            }
            _ => losses.add(path(), dropped(kind)),
        }
        Ok(())
    }

    /// Whether there is nothing to read: no part, or none but empty texts.
    pub(super) fn is_blank(&self) -> bool {
        self.parts
            .iter()
            .all(|it| matches!(it, Part::Text { text } if inside(text).is_none_or(str::is_empty)))
    }

    /// All text as one string, and the parts that are not text.
    pub(super) fn split(self) -> (Json<'a>, Self) {
        let (mut texts, mut rest) = (Vec::new(), Self::default());
        for part in self.parts {
            match part {
                Part::Text { text } => texts.push(text),
                other => rest.parts.push(other),
            }
        }
        (joined(texts), rest)
    }

    /// The parts as a user message's content.
    pub(super) fn into_user_content(self) -> crate::chat::UserContent<'a> {
        if self.parts.iter().all(|it| matches!(it, Part::Text { .. })) {
            crate::chat::UserContent::Text(self.split().0)
        } else {
            crate::chat::UserContent::Parts(self.parts)
        }
    }

    fn image(&mut self, source: &Source<'a>, path: &dyn Fn() -> String, losses: &mut Ledger) {
        match source_kind(source).as_deref() {
            Some("base64") => match data_url(source, "image/png") {
                Some(url) => self.parts.push(Part::ImageUrl { image_url: ImageUrl { url } }),
                None => losses.add(format!("{}.source", path()), DROPPED),
            },
            Some("url") if source.url.is_some_and(|it| inside(it).is_some()) => {
                if let Some(url) = source.url {
                    self.parts
                        .push(Part::ImageUrl { image_url: ImageUrl { url: Url::Link(Cow::Borrowed(url)) } });
                }
            }
            _ => losses.add(path(), "image dropped: its source is not known to the upstream"),
        }
    }

    fn document(
        &mut self,
        block: &Block<'a>,
        path: &dyn Fn() -> String,
        losses: &mut Ledger,
    ) -> Result<(), Invalid> {
        let source = source(block, path)?;
        let title = block.title.and_then(inside);
        let media_type = source.media_type.and_then(string);
        match source_kind(&source).as_deref() {
            Some("text") => {
                let data = source.data.and_then(inside).unwrap_or_default();
                self.push_document(title, block.context.and_then(inside), data);
            }
            Some("base64") if media_type.as_deref().is_none_or(|it| it == "application/pdf") => {
                let Some(file_data) = data_url(&source, "application/pdf") else {
                    losses.add(format!("{}.source", path()), DROPPED);
                    return Ok(());
                };
                if let Some(context) = block.context.and_then(inside) {
                    self.push_text(quoted(context));
                }
                let filename = quoted(title.unwrap_or("document.pdf"));
                self.parts.push(Part::File { file: File { filename, file_data } });
            }
            Some("url") => {
                let url = source.url.and_then(inside).unwrap_or_default();
                self.push_document(title, block.context.and_then(inside), url);
                losses.add(format!("{}.source", path()), "document replaced by its address");
            }
            Some("content") => {
                let path = || format!("{}.source.content", path());
                let mut inner = Self::default();
                if let Some(raw) = source.content {
                    inner.content(raw, &path, losses)?;
                }
                let (text, rest) = inner.split();
                self.push_document(title, block.context.and_then(inside), inside(&text).unwrap_or_default());
                self.append(rest);
            }
            _ => losses.add(path(), "document dropped: its source is not known to the upstream"),
        }
        Ok(())
    }

    fn search_result(
        &mut self,
        block: &Block<'a>,
        path: &dyn Fn() -> String,
        losses: &mut Ledger,
    ) -> Result<(), Invalid> {
        let mut inner = Self::default();
        if let Some(raw) = block.content {
            inner.content(raw, &|| format!("{}.content", path()), losses)?;
        }
        let (text, rest) = inner.split();
        let title = block.title.and_then(inside);
        self.push_document(title, block.source.and_then(inside), inside(&text).unwrap_or_default());
        self.append(rest);
        losses.add(path(), "search result sent as text");
        Ok(())
    }

    /// Takes in nested content: a string or blocks.
    pub(super) fn content(
        &mut self,
        raw: &'a RawValue,
        path: &dyn Fn() -> String,
        losses: &mut Ledger,
    ) -> Result<(), Invalid> {
        match read(raw, &path())? {
            Content::Text(text) => self.push_text(Cow::Borrowed(text)),
            Content::Blocks(blocks) => {
                for (at, block) in blocks.iter().enumerate() {
                    let path = || format!("{}[{at}]", path());
                    markers(block, path, losses);
                    // Without the recursion of documents in documents: what they hold is text and images.
                    match &*kind(block, path)? {
                        "document" | "search_result" if block.content.is_some() || nests(block) => {
                            losses.add(path(), "dropped: a document inside a document");
                        }
                        kind => self.block(kind, block, &path, losses)?,
                    }
                }
            }
        }
        Ok(())
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

fn nests(block: &Block<'_>) -> bool {
    block.source.filter(|it| is_object(it)).is_some_and(|raw| {
        serde_json::from_str::<Source<'_>>(raw.get()).is_ok_and(|source| source.content.is_some())
    })
}

fn source<'a>(block: &Block<'a>, path: &dyn Fn() -> String) -> Result<Source<'a>, Invalid> {
    let path = || format!("{}.source", path());
    let raw = block.source.ok_or_else(|| Invalid(format!("{}: Field required", path())))?;
    serde_json::from_str(raw.get()).map_err(|error| Invalid(format!("{}: {error}", path())))
}

fn source_kind<'a>(source: &Source<'a>) -> Option<Cow<'a, str>> {
    source.kind.and_then(string)
}

fn data_url<'a>(source: &Source<'a>, otherwise: &'static str) -> Option<Url<'a>> {
    let media_type = source.media_type.and_then(string).unwrap_or(Cow::Borrowed(otherwise));
    Some(Url::Data { media_type, data: source.data.and_then(string)? })
}

/// How a block of this type was lost.
pub(super) fn dropped(kind: &str) -> &'static str {
    match kind {
        "thinking" => "thinking dropped",
        "redacted_thinking" => "redacted thinking dropped",
        "server_tool_use" => "call of a server tool dropped",
        "container_upload" => "container upload dropped",
        "compaction" => "compaction dropped",
        it if it.ends_with("_tool_result") => "result of a server tool dropped",
        _ => "block dropped: no counterpart",
    }
}
