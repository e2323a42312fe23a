//! Cuts a byte stream into server-sent events without changing or, where an event lies whole in one chunk,
//! copying a byte. It stands on the path of every forwarded stream. Grammar: WHATWG HTML, section 9.2.6
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memchr2_iter};

use super::event::{self, EventKind};

/// The size of one event that a splitter accepts unless told otherwise: 8 MiB.
pub const DEFAULT_LIMIT: usize = 8 * 1024 * 1024;

/// Why a stream cannot be cut any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event is larger than the limit. The splitter stays in this state.
    #[error("a server-sent event is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Cuts chunks into events. The bytes of the events handed out, and the rest, are together exactly the bytes
/// pushed, and where the cuts fall does not depend on how the stream was chunked.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// The start of an event that began in an earlier chunk.
    held: BytesMut,
    chunk: Bytes,
    /// Up to where `chunk` was searched; all before it belongs to the open event.
    at: usize,
    place: LinePosition,
    /// No event was handed out yet: a byte order mark may lead.
    first: bool,
    failed: bool,
}

/// Where in its line a splitter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePosition {
    /// At the start of a line.
    Start,
    /// Inside a line.
    Inside,
    /// After a carriage return, so that a line feed now belongs to it.
    AfterReturn,
    /// After a carriage return that ended a blank line: the event ends after an eventual line feed.
    Ending,
}

/// What is left when a stream has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the stream ended with an event.
    Nothing,
    /// A last event, complete only now (its blank line ended in a lone carriage return).
    Event(RawEvent),
    /// The start of an event that was cut off. Clients ignore it.
    Partial(Bytes),
}

/// One event as it came over the wire: its lines and the blank line that ends it. A block of comments alone,
/// or an extra blank line, is handed out the same way, with no name and no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// The exact bytes, blank line included.
    pub bytes: Bytes,
    /// Where the first line starts: 3 where a byte order mark leads the stream.
    start: usize,
}

// === impl Splitter ===

impl Default for Splitter {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Splitter {
    /// A splitter that refuses an event of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            held: BytesMut::new(),
            chunk: Bytes::new(),
            at: 0,
            place: LinePosition::Start,
            first: true,
            failed: false,
        }
    }

    /// Adds the next chunk of the stream. Take all events before the next push: what is left of a chunk is
    /// copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
            self.at = 0;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next complete event; `None` until more is pushed. Errors: [`SseError::TooLarge`], then for good.
    pub fn next_event(&mut self) -> Result<Option<RawEvent>, SseError> {
        if self.failed {
            return Err(SseError::TooLarge { limit: self.limit });
        }
        let end = self.search();
        if self.held.len() + end.unwrap_or(self.chunk.len()) > self.limit {
            self.failed = true;
            self.held = BytesMut::new();
            self.chunk = Bytes::new();
            return Err(SseError::TooLarge { limit: self.limit });
        }
        if let Some(end) = end {
            return Ok(Some(self.take(end)));
        }
        self.held.extend_from_slice(&self.chunk);
        self.chunk = Bytes::new();
        self.at = 0;
        Ok(None)
    }

    /// What is left at the end of the stream. Call it after `next_event` has answered `None`.
    pub fn finish(mut self) -> Rest {
        self.held.extend_from_slice(&self.chunk);
        if self.held.is_empty() {
            return Rest::Nothing;
        }
        if self.place == LinePosition::Ending {
            self.chunk = Bytes::new();
            return Rest::Event(self.take(0));
        }
        Rest::Partial(self.held.freeze())
    }

    /// How many bytes of an unfinished event are held.
    pub fn pending(&self) -> usize {
        self.held.len() + self.chunk.len()
    }

    /// Where the open event ends in `chunk`, if it does.
    fn search(&mut self) -> Option<usize> {
        loop {
            let rest = self.chunk.get(self.at..)?;
            let first = *rest.first()?;
            match self.place {
                LinePosition::Ending => {
                    self.place = LinePosition::Start;
                    self.at += usize::from(first == b'\n');
                    return Some(self.at);
                }
                LinePosition::AfterReturn => {
                    self.place = LinePosition::Start;
                    self.at += usize::from(first == b'\n');
                    continue;
                }
                LinePosition::Start | LinePosition::Inside => {}
            }
            let Some(line) = memchr2(b'\n', b'\r', rest) else {
                self.place = LinePosition::Inside;
                self.at = self.chunk.len();
                return None;
            };
            let blank = self.place == LinePosition::Start && line == 0;
            let feed = rest.get(line) == Some(&b'\n');
            self.at += line + 1;
            self.place = match (feed, blank) {
                (true, _) => LinePosition::Start,
                (false, true) => LinePosition::Ending,
                (false, false) => LinePosition::AfterReturn,
            };
            if feed && blank {
                return Some(self.at);
            }
        }
    }

    fn take(&mut self, end: usize) -> RawEvent {
        let part = self.chunk.split_to(end.min(self.chunk.len()));
        self.at = 0;
        let bytes = if self.held.is_empty() {
            part
        } else {
            self.held.extend_from_slice(&part);
            std::mem::take(&mut self.held).freeze()
        };
        let start = if self.first && bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        self.first = false;
        RawEvent { bytes, start }
    }
}

// === impl RawEvent ===

impl RawEvent {
    /// The event's name: its last `event` field. `None` where it has none, where it is empty or not UTF-8.
    pub fn name(&self) -> Option<&str> {
        let name = self.name_bytes()?;
        std::str::from_utf8(name).ok()
    }

    /// The event's data: its `data` fields joined by line feeds; borrowed where there is only one. Empty
    /// where there is none.
    pub fn data(&self) -> Cow<'_, [u8]> {
        let mut data: Option<Cow<'_, [u8]>> = None;
        for (field, value) in self.fields() {
            if field != b"data" {
                continue;
            }
            match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(joined) => {
                    let joined = joined.to_mut();
                    joined.push(b'\n');
                    joined.extend_from_slice(value);
                }
            }
        }
        data.unwrap_or_default()
    }

    /// What kind of Messages event it is, without parsing its JSON; see [`event::quick_kind`].
    pub fn kind(&self) -> EventKind {
        if let Some((name, data)) = self.plain() {
            return event::quick_kind(Some(name), data);
        }
        let mut name: &[u8] = b"";
        let mut data: &[u8] = b"";
        for (field, value) in self.fields() {
            match field {
                b"event" => name = value,
                // Only JSON that a vendor spreads over lines has a second one; it is joined then.
                b"data" if data.is_empty() => data = value,
                b"data" => return event::quick_kind(self.name_bytes(), &self.data()),
                _ => {}
            }
        }
        event::quick_kind((!name.is_empty()).then_some(name), data)
    }

    /// Whether there is a `data` field: a block without one is never shown to the client's program.
    pub fn has_data(&self) -> bool {
        self.fields().any(|(field, _)| field == b"data")
    }

    /// Name and data of an event in the form that nearly all have: `event: <name>`, one `data: ` line,
    /// nothing else.
    fn plain(&self) -> Option<(&[u8], &[u8])> {
        let rest = self.bytes.strip_prefix(b"event: ")?;
        let (name, rest) = rest.split_at_checked(memchr2(b'\n', b'\r', rest)?)?;
        let rest = rest.strip_prefix(b"\ndata: ")?;
        let (data, end) = rest.split_at_checked(memchr2(b'\n', b'\r', rest)?)?;
        (end == b"\n\n" && !name.is_empty()).then_some((name, data))
    }

    fn name_bytes(&self) -> Option<&[u8]> {
        let (_, name) = self.fields().filter(|(field, _)| *field == b"event").last()?;
        (!name.is_empty()).then_some(name)
    }

    /// The fields in order: name and value, without the one space that may follow the colon. Comments have an
    /// empty name.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let bytes = self.bytes.get(self.start..).unwrap_or_default();
        let mut from = 0;
        memchr2_iter(b'\n', b'\r', bytes).filter_map(move |end| {
            let line = bytes.get(from..end).unwrap_or_default();
            from = end + 1;
            if line.is_empty() {
                return None;
            }
            match memchr::memchr(b':', line) {
                Some(colon) => {
                    let value = line.get(colon + 1..).unwrap_or_default();
                    Some((line.get(..colon).unwrap_or_default(), value.strip_prefix(b" ").unwrap_or(value)))
                }
                None => Some((line, &[][..])),
            }
        })
    }
}

#[cfg(test)]
mod tests;
