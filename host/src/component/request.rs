//! A client's request in the words of the contract: what policies, predicates and scanners see of it, whether it comes in now, was
//! recorded, or stands in a sample.

use sallyport_protocol::messages::index::{Index, Origin, Text};
use serde_json::json;

use super::contract::scanner::TextKind;
use super::contract::{Attribute, BodyView, Segment, SegmentKind};

/// The attribute of a call that names what the gateway does not know of the request.
pub const UNKNOWN: &str = "unknown";
/// The attribute of a call that holds its query string and the headers that travel.
pub const HEAD: &str = "request.head";

/// A client's body that is read again: of a sample, or of a call that was recorded.
#[derive(Debug)]
pub struct RecordedBody {
    pub(super) bytes: Vec<u8>,
    pub(super) index: Option<Index>,
    /// What stands beside it.
    head: Option<String>,
}

/// Where a text comes from, in the words of scanners.
pub fn text_kind(origin: Origin) -> TextKind {
    match origin {
        Origin::System => TextKind::System,
        Origin::User => TextKind::User,
        Origin::Assistant => TextKind::Assistant,
        Origin::ToolInput => TextKind::ToolInput,
        Origin::ToolOutput => TextKind::ToolOutput,
        Origin::Document => TextKind::Document,
        Origin::Tool => TextKind::Tool,
        Origin::Link => TextKind::Link,
        Origin::Parameter => TextKind::Parameter,
        Origin::Other => TextKind::Other,
    }
}

/// The attribute about what is not known of a request, if there is any.
pub fn unknown_of(index: Option<&Index>) -> Vec<Attribute> {
    let unknown = index.map(|index| index.unknown.names()).filter(|names| !names.is_empty());
    let attribute = |names| Attribute { name: UNKNOWN.to_owned(), value: json!(names).to_string() };
    unknown.map(attribute).into_iter().collect()
}

/// The texts of a body as policies see them, and `head`, which stands beside it.
pub fn segments<'t>(texts: impl Iterator<Item = &'t Text>, body: &[u8], head: Option<&str>) -> Vec<Segment> {
    let segment = |text: &Text| Segment {
        kind: segment_kind(text.origin),
        text: text.read(body).into_owned(),
        offset: text.span.start,
        len: text.span.len(),
    };
    let beside = head.map(|head| Segment {
        kind: SegmentKind::Head,
        text: head.to_owned(),
        offset: u32::try_from(body.len()).unwrap_or(u32::MAX),
        len: 0,
    });
    texts.map(segment).chain(beside).collect()
}

// === impl RecordedBody ===

impl RecordedBody {
    /// The body of these exact bytes, in a call of which these are the attributes.
    pub fn of(bytes: Vec<u8>, attributes: &[Attribute]) -> Self {
        let index = Index::parse(&bytes).ok();
        let head = attributes.iter().find(|attribute| attribute.name == HEAD).map(|head| head.value.clone());
        Self { bytes, index, head }
    }

    /// Its texts in order, each with where it comes from, as scanners are given them.
    pub fn texts_to_scan(&self) -> impl Iterator<Item = (TextKind, String)> {
        let units = self.index.iter().flat_map(Index::units);
        let units = units.map(|unit| (text_kind(unit.origin()), unit.read(&self.bytes).into_owned()));
        units.chain(self.head.iter().map(|head| (TextKind::Head, head.clone())))
    }
}

impl BodyView for RecordedBody {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn texts(&self) -> Vec<Segment> {
        let texts = self.index.iter().flat_map(|index| &index.texts);
        segments(texts, &self.bytes, self.head.as_deref())
    }
}

// === private helpers ===

fn segment_kind(origin: Origin) -> SegmentKind {
    match origin {
        Origin::System => SegmentKind::System,
        Origin::User => SegmentKind::User,
        Origin::Assistant => SegmentKind::Assistant,
        Origin::ToolInput => SegmentKind::ToolInput,
        Origin::ToolOutput => SegmentKind::ToolOutput,
        Origin::Document => SegmentKind::Document,
        Origin::Tool => SegmentKind::Tool,
        Origin::Link => SegmentKind::Link,
        Origin::Parameter => SegmentKind::Parameter,
        Origin::Other => SegmentKind::Other,
    }
}
