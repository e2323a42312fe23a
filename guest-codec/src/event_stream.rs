//! `application/vnd.amazon.eventstream`, from bytes that come in any pieces: the framing of streams of Amazon Bedrock and of other
//! services of AWS.
//!
//! Source of every number below: <https://smithy.io/2.0/aws/amazon-eventstream.html>. A message is a prelude of twelve bytes (its whole
//! length, the length of its headers, and the CRC-32 of these eight bytes), its headers, its payload, and the CRC-32 of all before it;
//! numbers are big endian. A header is the length of its name in one byte, its name, the type of its value in one byte, and its value.

use std::borrow::Cow;

/// Collects bytes into messages.
#[derive(Debug, Default)]
pub struct EventStream {
    /// What was read and is not a whole message yet.
    buffer: Vec<u8>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMessage<'a> {
    headers: &'a [u8],
    /// Its payload: JSON in the streams of Bedrock.
    pub payload: &'a [u8],
}

/// Why bytes are no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventStreamError {
    /// A message says of itself that it is longer than [`LONGEST`], or shorter than its own frame.
    Length,
    /// A checksum does not fit: bytes were changed or lost.
    Checksum,
    /// The headers are cut off, or one has a type that there is not.
    Headers,
    /// The body ended within a message.
    Cut,
}

/// The longest message that is taken. The specification allows more; streams of models are made of messages of a few kilobytes.
pub const LONGEST: usize = 1 << 20;

/// Bytes of the prelude.
const PRELUDE: usize = 12;
/// Bytes of a message besides its headers and its payload.
const FRAME: usize = PRELUDE + 4;

// === impl EventStream ===

impl EventStream {
    /// Takes in a chunk and hands out each message that it completes.
    pub fn push<E: From<EventStreamError>>(
        &mut self,
        chunk: &[u8],
        mut message: impl FnMut(EventMessage<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.extend_from_slice(chunk);
        let mut at = 0;
        while let Some(length) = whole(self.buffer.get(at..).unwrap_or_default())? {
            let bytes = self.buffer.get(at..at.saturating_add(length)).unwrap_or_default();
            message(parse(bytes)?)?;
            at = at.saturating_add(length);
        }
        self.buffer.drain(..at);
        Ok(())
    }

    /// The body is complete.
    pub fn end(&self) -> Result<(), EventStreamError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(EventStreamError::Cut) }
    }
}

// === impl EventMessage ===

impl<'a> EventMessage<'a> {
    /// The value of the first header with this name, if it is a string: `:message-type` is `event`, `exception` or `error`;
    /// `:event-type` and `:exception-type` name the member; `:error-code` and `:error-message` say what an `error` is about.
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.headers;
        while !rest.is_empty() {
            let (found, value, tail) = header(rest)?;
            if found == name.as_bytes() {
                return value.map(String::from_utf8_lossy);
            }
            rest = tail;
        }
        None
    }

    /// What the message is about: its `:event-type`, or `:exception-type`, or `:error-code`.
    pub fn name(&self) -> Cow<'a, str> {
        [":event-type", ":exception-type", ":error-code"]
            .into_iter()
            .find_map(|name| self.header(name))
            .unwrap_or_default()
    }

    /// Whether it says that the stream failed.
    pub fn is_exception(&self) -> bool {
        self.header(":message-type").is_some_and(|kind| kind != "event")
    }
}

// === private helpers ===

/// The length of the message that `bytes` begin with, once all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>, EventStreamError> {
    let Some(prelude) = bytes.first_chunk::<PRELUDE>() else { return Ok(None) };
    let (total, headers) = (number(prelude, 0), number(prelude, 4));
    if crc32fast::hash(prelude.get(..8).unwrap_or_default()) != number32(prelude, 8) {
        return Err(EventStreamError::Checksum);
    }
    if total > LONGEST || total < FRAME.saturating_add(headers) {
        return Err(EventStreamError::Length);
    }
    Ok((bytes.len() >= total).then_some(total))
}

/// One whole message.
fn parse(bytes: &[u8]) -> Result<EventMessage<'_>, EventStreamError> {
    let (signed, sum) = bytes.split_last_chunk::<4>().ok_or(EventStreamError::Length)?;
    if crc32fast::hash(signed) != u32::from_be_bytes(*sum) {
        return Err(EventStreamError::Checksum);
    }
    let (prelude, rest) = signed.split_first_chunk::<PRELUDE>().ok_or(EventStreamError::Length)?;
    let (headers, payload) = rest.split_at_checked(number(prelude, 4)).ok_or(EventStreamError::Length)?;
    let mut left = headers;
    while !left.is_empty() {
        let (_, _, tail) = header(left).ok_or(EventStreamError::Headers)?;
        left = tail;
    }
    Ok(EventMessage { headers, payload })
}

/// A header: its name, its value where that is a string, and what follows it.
type Header<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let (&kind, rest) = rest.split_first()?;
    let (size, rest) = match kind {
        // true, false
        0 | 1 => (0, rest),
        // byte
        2 => (1, rest),
        // short
        3 => (2, rest),
        // integer
        4 => (4, rest),
        // long, timestamp
        5 | 8 => (8, rest),
        // UUID
        9 => (16, rest),
        // byte array, string
        6 | 7 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    Some((name, (kind == 7).then_some(value), rest))
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|it| it.first_chunk::<4>());
    found.map_or(0, |it| u32::from_be_bytes(*it))
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(number32(bytes, at)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
