//! Reads answers of HTTP/1.1: where a head ends and what it says of the body, and the body as it is framed. Bytes in, bytes out, no
//! I/O. What may be read in two ways is refused, since whoever reads it the other way sees another answer.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Longest head of an answer.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// Most headers of an answer.
pub(crate) const MOST_HEADERS: usize = 128;
/// Heads without an answer, such as `100 Continue`, before the answer's own.
pub(crate) const MOST_INTERIM: u8 = 16;
/// The line before a chunk: its length, and extensions that mean nothing here.
const CHUNK_LINE: usize = 1024;
/// Digits of a chunk's length. More would not fit 64 bits.
const CHUNK_DIGITS: usize = 15;
/// Extensions of all chunks of a body, and its trailers: both are skipped.
pub(crate) const SKIPPED_BYTES: usize = 16 * 1024;

/// Why an answer is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// No head of HTTP/1.0 or HTTP/1.1.
    #[error("it does not begin with a head of HTTP/1.1")]
    Head,
    /// Longer, or of more headers, than anybody needs.
    #[error("its head is too large")]
    HeadTooLarge,
    /// Heads that announce an answer, and no answer.
    #[error("it is announced again and again")]
    Interim,
    /// `101`, which nobody asked for.
    #[error("it changes the protocol")]
    Upgrade,
    /// A length that is no number, or two that differ.
    #[error("its length is not one number")]
    Length,
    /// A length and an encoding: two readers would end the body at two places.
    #[error("it has both a length and an encoding")]
    LengthAndEncoding,
    /// An encoding that was not asked for.
    #[error("its transfer encoding is not `chunked`")]
    Encoding,
    /// A chunk without a length, or with one that is none.
    #[error("the length of a chunk cannot be read")]
    ChunkLength,
    /// A chunk is not followed by a line break.
    #[error("a chunk is longer than it said")]
    ChunkEnd,
    /// Extensions or trailers without end.
    #[error("there is too much beside its chunks")]
    Skipped,
    /// A line after the last chunk that is none.
    #[error("its trailers cannot be read")]
    Trailer,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Framing,
    /// Another request may be sent on the same connection, once the body is over.
    pub(crate) reusable: bool,
}

/// Reads the head of one answer, from bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Heads {
    /// The request was a `HEAD`: what the head says of a body is about one that does not come.
    bodiless: bool,
    /// Bytes of the buffer that were looked at and hold no line's end, or not the head's.
    seen: usize,
    interim: u8,
}

/// How the body of an answer ends, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes more.
    Length(u64),
    /// With its last chunk.
    Chunked { at: Chunk, skipped: usize },
    /// With the connection.
    UntilClose,
}

/// What a body in chunks goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// The line that says how long the next chunk is.
    Line,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line break after them.
    End,
    /// A trailer, or the empty line that ends the body.
    Trailer,
    /// Nothing.
    Nothing,
}

// === impl Heads ===

impl Heads {
    /// The head of the answer to a request; `bodiless` if that is one for a head alone.
    pub(crate) fn new(bodiless: bool) -> Self {
        Self { bodiless, seen: 0, interim: 0 }
    }

    /// Takes the answer's head from the buffer once all of it is there; heads that announce it are skipped.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, Malformed> {
        loop {
            // Each line is looked at again with the next one, and no more often than there are lines.
            let news = buffer.get(self.seen..).unwrap_or_default();
            if memchr::memchr(b'\n', news).is_none() {
                self.seen = buffer.len();
                return if self.seen > HEAD_BYTES { Err(Malformed::HeadTooLarge) } else { Ok(None) };
            }
            let Some((head, interim)) = self.parse(buffer)? else {
                self.seen = buffer.len();
                return if self.seen > HEAD_BYTES { Err(Malformed::HeadTooLarge) } else { Ok(None) };
            };
            self.seen = 0;
            if !interim {
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err(Malformed::Interim);
            }
        }
    }

    /// The next head, and whether it only announces one.
    fn parse(&self, buffer: &mut BytesMut) -> Result<Option<(Head, bool)>, Malformed> {
        // The library skips empty lines before a head; nothing of an answer stands there.
        if !matches!(buffer.first(), None | Some(b'H')) {
            return Err(Malformed::Head);
        }
        let mut fields = [const { std::mem::MaybeUninit::uninit() }; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length > HEAD_BYTES => {
                return Err(Malformed::HeadTooLarge);
            }
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadTooLarge),
            Err(_) => return Err(Malformed::Head),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
        let current = parsed.version == Some(1);
        let start = buffer.as_ptr() as usize;
        let places: Vec<_> = parsed
            .headers
            .iter()
            .map(|field| {
                let at = (field.value.as_ptr() as usize).saturating_sub(start);
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Head)?;
                Ok((name, at..at + field.value.len()))
            })
            .collect::<Result<_, _>>()?;
        let bytes = buffer.split_to(length).freeze();
        let mut headers = HeaderMap::with_capacity(places.len());
        for (name, place) in places {
            let value = HeaderValue::from_maybe_shared(bytes.slice(place)).map_err(|_| Malformed::Head)?;
            headers.append(name, value);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Malformed::Upgrade);
        }
        let body = self.framing(status, current, &headers)?;
        let reusable = current && body != Framing::UntilClose && !closes(&headers);
        Ok(Some((Head { status, headers, body, reusable }, status.is_informational())))
    }

    /// RFC 9112 section 6.3, without its leniences.
    fn framing(&self, status: StatusCode, current: bool, headers: &HeaderMap) -> Result<Framing, Malformed> {
        let length = length(headers)?;
        let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let chunked = match (encodings.next(), encodings.next()) {
            (None, _) => false,
            (Some(only), None) if current && only.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
            _ => return Err(Malformed::Encoding),
        };
        if chunked && length.is_some() {
            return Err(Malformed::LengthAndEncoding);
        }
        let empty = status.is_informational() || matches!(status.as_u16(), 204 | 304);
        Ok(match length {
            _ if self.bodiless || empty => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if chunked => Framing::Chunked { at: Chunk::Line, skipped: 0 },
            None => Framing::UntilClose,
        })
    }
}

// === impl Framing ===

impl Framing {
    /// Takes from the buffer what belongs to the body, in one piece and without its framing; what follows the body stays. The bytes
    /// are moved together where they are: no copy but that.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Bytes, Malformed> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= here as u64;
                Ok(buffer.split_to(here).freeze())
            }
            Self::UntilClose => Ok(buffer.split().freeze()),
            Self::Chunked { at, skipped } => chunks(at, skipped, buffer),
        }
    }

    /// Whether nothing more belongs to the body.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked { at: Chunk::Nothing, .. })
    }

    /// Whether the body may end with the connection.
    pub(crate) fn may_end(&self) -> bool {
        self.is_over() || *self == Self::UntilClose
    }
}

// === private helpers ===

/// `content-length`: one number, however often it is said.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut all = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or(Malformed::Length)?;
        if all.is_some_and(|earlier| earlier != length) {
            return Err(Malformed::Length);
        }
        all = Some(length);
    }
    Ok(all)
}

/// Whether the upstream closes the connection after this answer.
fn closes(headers: &HeaderMap) -> bool {
    let mut options =
        headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|it| *it == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn chunks(at: &mut Chunk, skipped: &mut usize, buffer: &mut BytesMut) -> Result<Bytes, Malformed> {
    // The payload so far stands before `to`, what is to be read from `from` on.
    let (mut from, mut to) = (0, 0);
    loop {
        let rest = buffer.get(from..).unwrap_or_default();
        match at {
            Chunk::Line => {
                let Some(line) = line(rest, CHUNK_LINE).map_err(|()| Malformed::ChunkLength)? else { break };
                let (length, extension) = chunk_line(line).ok_or(Malformed::ChunkLength)?;
                skip(skipped, extension)?;
                from += line.len() + 2;
                *at = if length == 0 { Chunk::Trailer } else { Chunk::Data(length) };
            }
            Chunk::Data(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                if here == 0 {
                    break;
                }
                if from != to {
                    buffer.copy_within(from..from + here, to);
                }
                (from, to) = (from + here, to + here);
                *left -= here as u64;
                if *left == 0 {
                    *at = Chunk::End;
                }
            }
            Chunk::End => match rest {
                [b'\r', b'\n', ..] => {
                    from += 2;
                    *at = Chunk::Line;
                }
                [] | [b'\r'] => break,
                _ => return Err(Malformed::ChunkEnd),
            },
            Chunk::Trailer => {
                let Some(line) = line(rest, SKIPPED_BYTES).map_err(|()| Malformed::Trailer)? else { break };
                from += line.len() + 2;
                if line.is_empty() {
                    *at = Chunk::Nothing;
                } else {
                    trailer(line)?;
                    skip(skipped, line.len() + 2)?;
                }
            }
            Chunk::Nothing => break,
        }
    }
    let mut payload = buffer.split_to(from);
    payload.truncate(to);
    Ok(payload.freeze())
}

/// The line at the start of these bytes without its end, which is a return and a line feed; `None` if more of it is to come. An
/// error if it is longer than `most`, or ends in another way.
fn line(bytes: &[u8], most: usize) -> Result<Option<&[u8]>, ()> {
    let near = bytes.get(..most).unwrap_or(bytes);
    match memchr::memchr(b'\n', near) {
        Some(end) => match near.get(..end).and_then(|line| line.strip_suffix(b"\r")) {
            Some(line) if line.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)) => {
                Ok(Some(line))
            }
            _ => Err(()),
        },
        None if bytes.len() >= most => Err(()),
        None => Ok(None),
    }
}

/// What a chunk's line says: its length, and how many bytes stand there besides.
fn chunk_line(line: &[u8]) -> Option<(u64, usize)> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at_checked(digits)?;
    if digits.is_empty() || digits.len() > CHUNK_DIGITS {
        return None;
    }
    // Servers that write the length ahead of the chunk leave room for longer ones.
    if !matches!(extension.trim_ascii_start(), [] | [b';', ..]) {
        return None;
    }
    let length = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((length, extension.len()))
}

/// A trailer means nothing here, but it has to be one: what follows the body is another matter.
fn trailer(line: &[u8]) -> Result<(), Malformed> {
    let colon = memchr::memchr(b':', line).and_then(|at| line.get(..at));
    let is_name = colon.is_some_and(|name| HeaderName::from_bytes(name).is_ok());
    if is_name { Ok(()) } else { Err(Malformed::Trailer) }
}

/// Counts bytes that are read and mean nothing.
fn skip(skipped: &mut usize, bytes: usize) -> Result<(), Malformed> {
    *skipped += bytes;
    if *skipped > SKIPPED_BYTES { Err(Malformed::Skipped) } else { Ok(()) }
}
