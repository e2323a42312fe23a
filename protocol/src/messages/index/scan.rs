//! A cursor over JSON text: strict about structure, fast over strings, and it builds nothing. Grammar: RFC 8259.

use std::borrow::Cow;

use super::Span;

/// Deepest nesting that is read. Real requests stay below 30.
pub const MAX_DEPTH: u32 = 128;

/// Why a request is refused before anybody looks at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    Utf8,
    /// Not JSON.
    #[error("the body is not valid JSON at byte {at}")]
    Json {
        /// Where reading stopped.
        at: usize,
    },
    /// Nested too deep.
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// A key that matters stands twice in one object: readers differ in which one they believe.
    #[error("the key \"{0}\" stands twice in one object")]
    Twice(&'static str),
    /// A key that equals one that matters but for case or for the form of its letters: readers differ in whether it is that key.
    #[error("a key is spelt almost like \"{0}\", and some readers would take it for that key")]
    Folded(&'static str),
    /// A value of a type that this key does not have.
    #[error("the value of \"{key}\" is not {expected}")]
    Type {
        /// Which key.
        key: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// More of something than is read.
    #[error("the request has more than {most} {what}")]
    Many {
        /// Of what.
        what: &'static str,
        /// How many are read.
        most: usize,
    },
    /// A key that must be there is not.
    #[error("\"{0}\" is missing")]
    Missing(&'static str),
    /// More than 4 GiB.
    #[error("the body is too long")]
    Long,
}

/// The cursor.
pub(super) struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    depth: u32,
}

/// An object being read.
pub(super) struct Object {
    first: bool,
}

/// An array being read.
pub(super) struct Array {
    first: bool,
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Malformed> {
        if u32::try_from(body.len()).is_err() {
            return Err(Malformed::Long);
        }
        std::str::from_utf8(body).map_err(|_| Malformed::Utf8)?;
        Ok(Self { body, at: 0, depth: 0 })
    }

    /// Behind a message of the request, at `at`: everything before was read already, in these very bytes.
    pub(super) fn behind_a_message(body: &'a [u8], at: u32) -> Result<Self, Malformed> {
        if u32::try_from(body.len()).is_err() {
            return Err(Malformed::Long);
        }
        let at = at as usize;
        std::str::from_utf8(body.get(at..).unwrap_or_default()).map_err(|_| Malformed::Utf8)?;
        // Within the list of messages, within the request.
        Ok(Self { body, at, depth: 2 })
    }

    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Where the cursor stands.
    pub(super) fn at(&self) -> u32 {
        position(self.at)
    }

    /// The first byte of the next value.
    pub(super) fn peek(&mut self) -> Result<u8, Malformed> {
        self.blanks();
        self.body.get(self.at).copied().ok_or_else(|| self.bad())
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.blanks();
        if self.at == self.body.len() { Ok(()) } else { Err(self.bad()) }
    }

    pub(super) fn object(&mut self) -> Result<Object, Malformed> {
        self.open(b'{')?;
        Ok(Object { first: true })
    }

    pub(super) fn array(&mut self) -> Result<Array, Malformed> {
        self.open(b'[')?;
        Ok(Array { first: true })
    }

    /// A string; its span includes the quotes.
    pub(super) fn string(&mut self) -> Result<Span, Malformed> {
        self.blanks();
        let start = self.at;
        self.take(b'"')?;
        loop {
            let rest = self.body.get(self.at..).unwrap_or_default();
            let Some(length) = memchr::memchr2(b'"', b'\\', rest) else { return Err(self.bad()) };
            // The smallest byte tells, without a branch for each: this runs over a whole conversation.
            let smallest =
                rest.get(..length).unwrap_or_default().iter().fold(u8::MAX, |least, byte| least.min(*byte));
            if smallest < 0x20 {
                return Err(self.bad());
            }
            self.at += length;
            if self.body.get(self.at) == Some(&b'"') {
                self.at += 1;
                return Ok(Span { start: position(start), end: position(self.at) });
            }
            self.escape()?;
        }
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        let span = self.skip()?;
        match span.of(self.body) {
            b"true" => Ok(true),
            b"false" | b"null" => Ok(false),
            _ => Err(Malformed::Json { at: span.start as usize }),
        }
    }

    /// A number of tokens, in any spelling of JSON.
    pub(super) fn count(&mut self, key: &'static str) -> Result<u32, Malformed> {
        let span = self.skip()?;
        super::number::whole(span.of(self.body))
            .ok_or(Malformed::Type { key, expected: super::number::EXPECTED })
    }

    /// The colon behind a key.
    pub(super) fn colon(&mut self) -> Result<(), Malformed> {
        self.blanks();
        self.take(b':')
    }

    /// Passes over one value of any kind.
    pub(super) fn skip(&mut self) -> Result<Span, Malformed> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => return self.string(),
            b'{' => {
                let mut object = self.object()?;
                while object.has_key(self)? {
                    self.skip()?;
                }
            }
            b'[' => {
                let mut array = self.array()?;
                while array.next(self)? {
                    self.skip()?;
                }
            }
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        Ok(Span { start: position(start), end: position(self.at) })
    }

    fn open(&mut self, bracket: u8) -> Result<(), Malformed> {
        self.blanks();
        self.take(bracket)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Malformed::Depth) } else { Ok(()) }
    }

    /// Whether another element follows; takes the comma, or the closing bracket.
    fn another(&mut self, first: &mut bool, close: u8) -> Result<bool, Malformed> {
        let next = self.peek()?;
        if next == close {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.take(b',')?;
            if self.peek()? == close {
                return Err(self.bad());
            }
        }
        Ok(true)
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.body.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.unit(self.at)? {
                // Half of a pair has no meaning in UTF-8; readers differ in what they make of it.
                0xDC00..=0xDFFF => return Err(self.bad()),
                0xD800..=0xDBFF => {
                    if self.body.get(self.at + 6..self.at + 8) != Some(b"\\u")
                        || !(0xDC00..=0xDFFF).contains(&self.unit(self.at + 6)?)
                    {
                        return Err(self.bad());
                    }
                    self.at += 12;
                }
                _ => self.at += 6,
            },
            _ => return Err(self.bad()),
        }
        Ok(())
    }

    /// The code unit of `\uXXXX` at `at`.
    fn unit(&self, at: usize) -> Result<u32, Malformed> {
        let digits = self.body.get(at + 2..at + 6).ok_or_else(|| self.bad())?;
        digits.iter().try_fold(0, |unit, digit| {
            char::from(*digit).to_digit(16).map(|digit| unit * 16 + digit).ok_or_else(|| self.bad())
        })
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.body.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.body.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.bad()),
        }
        if self.body.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.body.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.body.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += length;
        if length == 0 { Err(self.bad()) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if self.body.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.bad())
    }

    fn take(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.body.get(self.at) == Some(&byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.bad())
    }

    fn blanks(&mut self) {
        while matches!(self.body.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn bad(&self) -> Malformed {
        Malformed::Json { at: self.at }
    }
}

// === impl Object ===

impl Object {
    /// One of which a member was read.
    pub(super) fn begun() -> Self {
        Self { first: false }
    }

    /// The next key, unescaped; the cursor stands before its value. `None` at the end.
    pub(super) fn key<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<Option<Cow<'a, str>>, Malformed> {
        Ok(self.member(scanner)?.map(|(_, key)| key))
    }

    /// The next key, and where it begins.
    pub(super) fn member<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
    ) -> Result<Option<(u32, Cow<'a, str>)>, Malformed> {
        let Some(span) = self.next_key(scanner)? else { return Ok(None) };
        Ok(Some((span.start, unquote(span.of(scanner.body)))))
    }

    fn has_key(&mut self, scanner: &mut Scanner<'_>) -> Result<bool, Malformed> {
        Ok(self.next_key(scanner)?.is_some())
    }

    fn next_key(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<Span>, Malformed> {
        if !scanner.another(&mut self.first, b'}')? {
            return Ok(None);
        }
        let key = scanner.string()?;
        scanner.colon()?;
        Ok(Some(key))
    }
}

// === impl Array ===

impl Array {
    /// One of which an element was read.
    pub(super) fn begun() -> Self {
        Self { first: false }
    }

    /// Whether there is another element; the cursor stands before it.
    pub(super) fn next(&mut self, scanner: &mut Scanner<'_>) -> Result<bool, Malformed> {
        scanner.another(&mut self.first, b']')
    }
}

// === private helpers ===

/// The text of a JSON string that was read before; empty for any other value.
pub(super) fn unquote(raw: &[u8]) -> Cow<'_, str> {
    let inside = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or_default();
    if memchr::memchr(b'\\', inside).is_none() {
        return std::str::from_utf8(inside).map_or(Cow::Borrowed(""), Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).map_or(Cow::Borrowed(""), Cow::Owned)
}

/// A body is shorter than 4 GiB: `Scanner::new` saw to it.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
