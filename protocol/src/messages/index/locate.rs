//! Where a piece of a text stands in the body: from offsets in what people read to offsets in escaped JSON.

use std::borrow::Cow;
use std::ops::Range;

use super::scan::{Malformed, Scanner, unquote};
use super::{Form, Span, Text};

/// A JSON string whose content is a part of a text.
#[derive(Debug, Clone)]
struct StringPiece {
    /// Its bytes in the text.
    text: Range<usize>,
    /// Its content in the body, without the quotes.
    inside: Range<usize>,
}

// === impl Text ===

impl Text {
    /// The text itself, unescaped. `body` is what it was found in.
    pub fn read(self, body: &[u8]) -> Cow<'_, str> {
        let raw = self.span.of(body);
        match self.form {
            Form::String => unquote(raw),
            // Escapes inside JSON would hide a text from whoever looks for it.
            form if memchr::memchr(b'\\', raw).is_some() => {
                render(raw, form).map_or_else(|_| String::from_utf8_lossy(raw), |(text, _)| Cow::Owned(text))
            }
            _ => String::from_utf8_lossy(raw),
        }
    }

    /// Where byte ranges of the text, as [`Text::read`] gives it, stand in the body. The ranges ascend and do not overlap. `None`
    /// where one of them cannot be replaced: it is empty, cuts a character, is not within one JSON string that is a value, or the
    /// upstream signed the text.
    pub fn locate(self, body: &[u8], ranges: &[Range<usize>]) -> Option<Vec<Span>> {
        if self.signed {
            return None;
        }
        let raw = self.span.of(body);
        let base = self.span.start as usize;
        let mut pieces = self.pieces(raw)?.into_iter().peekable();
        let mut spans = Vec::with_capacity(ranges.len());
        // The content of the piece at hand, as far as it was walked.
        let mut walk: Option<Walk<'_>> = None;
        let mut walked = 0;
        for range in ranges {
            while pieces.next_if(|piece| piece.text.end < range.end).is_some() {
                walk = None;
            }
            let StringPiece { text, inside } = pieces.peek()?;
            if range.is_empty() || range.start < text.start.max(walked) {
                return None;
            }
            let walk = match &mut walk {
                Some(walk) => walk,
                none => none.insert(Walk { raw: raw.get(inside.clone())?, read: 0, at: 0 }),
            };
            let from = walk.to(range.start - text.start)?;
            let to = walk.to(range.end - text.start)?;
            walked = range.end;
            let place = |at: usize| u32::try_from(base + inside.start + at).ok();
            spans.push(Span { start: place(from)?, end: place(to)? });
        }
        Some(spans)
    }

    /// The JSON strings that the text is made of, in its order.
    fn pieces(self, raw: &[u8]) -> Option<Vec<StringPiece>> {
        if self.form == Form::String {
            let inside = 1..raw.len().checked_sub(1)?;
            return Some(vec![StringPiece { text: 0..unquote(raw).len(), inside }]);
        }
        let (_, pieces) = render(raw, self.form).ok()?;
        if memchr::memchr(b'\\', raw).is_some() {
            return Some(pieces);
        }
        // Read as it stands: the text is the JSON itself.
        Some(pieces.into_iter().map(|piece| StringPiece { text: piece.inside.clone(), ..piece }).collect())
    }
}

// === private helpers ===

/// The content of a JSON string, walked once from its beginning.
struct Walk<'a> {
    raw: &'a [u8],
    /// Bytes of text so far.
    read: usize,
    /// Bytes of JSON so far.
    at: usize,
}

impl Walk<'_> {
    /// Where the text's byte `target` stands; `None` if it lies behind, beyond, or within a character.
    fn to(&mut self, target: usize) -> Option<usize> {
        while self.read < target {
            let (text, json) = self.step()?;
            self.read += text;
            self.at += json;
        }
        (self.read == target).then_some(self.at)
    }

    /// How long the next character is, as text and as JSON.
    fn step(&self) -> Option<(usize, usize)> {
        let rest = self.raw.get(self.at..)?;
        match rest.first()? {
            b'\\' if rest.get(1) == Some(&b'u') => {
                let digits = std::str::from_utf8(rest.get(2..6)?).ok()?;
                let unit = u32::from_str_radix(digits, 16).ok()?;
                // Half of a pair stands before its other half: the index was built on that.
                Some(char::from_u32(unit).map_or((4, 12), |char| (char.len_utf8(), 6)))
            }
            b'\\' => Some((1, 2)),
            byte => {
                let length = match byte {
                    0x00..=0x7f => 1,
                    0x80..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xff => 4,
                };
                Some((length, length))
            }
        }
    }
}

/// A value, or a member of an object, without escapes: its keys and values, one a line; and where its string values stand.
fn render(raw: &[u8], form: Form) -> Result<(String, Vec<StringPiece>), Malformed> {
    fn walk(
        scanner: &mut Scanner<'_>,
        out: &mut String,
        pieces: &mut Vec<StringPiece>,
    ) -> Result<(), Malformed> {
        match scanner.peek()? {
            b'"' => {
                let span = scanner.string()?;
                let start = out.len();
                out.push_str(&unquote(span.of(scanner.body())));
                let inside = span.start as usize + 1..span.end as usize - 1;
                pieces.push(StringPiece { text: start..out.len(), inside });
                out.push('\n');
            }
            b'{' => {
                let mut object = scanner.object()?;
                while let Some(key) = object.key(scanner)? {
                    out.push_str(&key);
                    out.push_str(": ");
                    walk(scanner, out, pieces)?;
                }
            }
            b'[' => {
                let mut array = scanner.array()?;
                while array.next(scanner)? {
                    walk(scanner, out, pieces)?;
                }
            }
            _ => {
                let span = scanner.skip()?;
                out.push_str(&String::from_utf8_lossy(span.of(scanner.body())));
                out.push('\n');
            }
        }
        Ok(())
    }
    let mut scanner = Scanner::new(raw)?;
    let (mut out, mut pieces) = (String::new(), Vec::new());
    if form == Form::Member {
        let key = scanner.string()?;
        scanner.colon()?;
        out.push_str(&unquote(key.of(raw)));
        out.push_str(": ");
    }
    walk(&mut scanner, &mut out, &mut pieces)?;
    Ok((out, pieces))
}
