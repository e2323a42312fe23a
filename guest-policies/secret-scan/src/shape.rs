//! How a secret looks: a small part of the language of regular expressions, which is matched without going back, so that a
//! text costs the same whatever it holds.
//!
//! A shape is a sequence of characters, each of which stands for itself, is escaped with a backslash or is a set in brackets;
//! `{n}`, `{n,m}` and `?` say how often the one before comes. Parentheses mark the part that is the secret, where not all of
//! it is.

use std::ops::Range;

/// Longer runs are no secret. The bound keeps the pass linear in texts that are made to slow it down.
const LONGEST_RUN: usize = 8_192;

/// A set of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set([u64; 4]);

/// One part of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Exactly this text.
    Text(Vec<u8>),
    /// So many bytes of a set. As many as there are, without going back.
    Run { of: Set, least: usize, most: usize },
}

/// How a secret looks.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    parts: Vec<Part>,
    /// What the pass stops at, if the shape holds a text that is long enough for it.
    anchor: Option<Anchor>,
    /// The parts that are the secret.
    secret: Range<usize>,
}

/// Three bytes of a shape.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    /// The part that holds them.
    part: usize,
    /// Where they begin in its text.
    offset: usize,
}

/// Where a shape was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// All of it.
    pub(crate) whole: Range<usize>,
    /// The part of it that is secret.
    pub(crate) secret: Range<usize>,
}

// === impl Set ===

impl Set {
    const NONE: Self = Self([0; 4]);

    pub(crate) fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte / 64)).is_some_and(|bits| bits >> (byte % 64) & 1 == 1)
    }

    fn add(&mut self, byte: u8) {
        if let Some(bits) = self.0.get_mut(usize::from(byte / 64)) {
            *bits |= 1 << (byte % 64);
        }
    }

    /// How many of `bytes` from the start on are of the set, up to `most`.
    pub(crate) fn run(&self, bytes: &[u8], most: usize) -> usize {
        bytes.iter().take(most).take_while(|byte| self.has(**byte)).count()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|byte| self.has(*byte))
    }
}

// === impl Shape ===

impl Shape {
    /// Reads a shape.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let (mut begins, mut ends) = (None, None);
        let mut rest = text.as_bytes();
        // Whether the next character may lengthen the text before it.
        let mut joins = false;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            let mut set = Set::NONE;
            match first {
                b'(' | b')' => {
                    let mark = if *first == b'(' { &mut begins } else { &mut ends };
                    if mark.replace(parts.len()).is_some() {
                        return Err("it marks more than one part as the secret".into());
                    }
                    joins = false;
                    continue;
                }
                b'[' => (set, rest) = set_of(rest)?,
                b'\\' => {
                    let (escaped, after) = rest.split_first().ok_or("it ends with a backslash")?;
                    set.add(*escaped);
                    rest = after;
                }
                b'{' | b'}' | b']' | b'?' | b'*' | b'+' | b'.' | b'|' | b'^' | b'$' => {
                    return Err(format!("{} cannot stand where it stands", char::from(*first)));
                }
                byte if byte.is_ascii_graphic() || *byte == b' ' => set.add(*byte),
                _ => return Err("it holds something else than visible ASCII".into()),
            }
            let (least, most, after) = times(rest)?;
            rest = after;
            let mut only = set.bytes();
            match (only.next(), only.next(), parts.last_mut()) {
                (Some(byte), None, Some(Part::Text(text))) if joins && (least, most) == (1, 1) => {
                    text.push(byte);
                }
                (Some(byte), None, _) if (least, most) == (1, 1) => parts.push(Part::Text(vec![byte])),
                (None, ..) => return Err("it holds an empty set".into()),
                _ => parts.push(Part::Run { of: set, least, most }),
            }
            joins = true;
        }
        let secret = match (begins, ends) {
            (None, None) => 0..parts.len(),
            (Some(begin), Some(end)) if begin < end => begin..end,
            _ => return Err("its parentheses do not match".into()),
        };
        let least: usize = parts.iter().map(Part::least).sum();
        if least < 8 {
            return Err("fewer than 8 characters are no secret".into());
        }
        let anchor = anchor_of(&parts);
        Ok(Self { parts, anchor, secret })
    }

    /// The three sets of bytes at which the pass has to stop for it.
    pub(crate) fn anchor(&self) -> Option<[Vec<u8>; 3]> {
        let Anchor { part, offset } = self.anchor?;
        let Part::Text(text) = self.parts.get(part)? else { return None };
        let third = match (text.get(offset + 2), self.parts.get(part + 1)) {
            (Some(third), _) => vec![*third],
            (None, Some(Part::Run { of, .. })) => of.bytes().collect(),
            _ => return None,
        };
        Some([vec![*text.get(offset)?], vec![*text.get(offset + 1)?], third])
    }

    /// The secret whose anchor stands at `at`.
    pub(crate) fn around(&self, bytes: &[u8], at: usize) -> Option<Found> {
        let Anchor { part, offset } = self.anchor?;
        let mut begin = at.checked_sub(offset)?;
        // Most of what stops here is told apart by the rest of the text.
        if let Some(Part::Text(text)) = self.parts.get(part)
            && !bytes.get(begin..)?.starts_with(text)
        {
            return None;
        }
        for part in self.parts.get(..part)?.iter().rev() {
            begin -= part.before(bytes.get(..begin)?)?;
        }
        self.from(bytes, begin)
    }

    /// The secret that begins at `at`.
    pub(crate) fn from(&self, bytes: &[u8], at: usize) -> Option<Found> {
        let (mut end, mut secret) = (at, at..at);
        for (number, part) in self.parts.iter().enumerate() {
            if number == self.secret.start {
                secret.start = end;
            }
            let last = number + 1 == self.parts.len();
            end += part.length(bytes.get(end..)?, last)?;
            if number + 1 == self.secret.end {
                secret.end = end;
            }
        }
        Some(Found { whole: at..end, secret })
    }

    /// How much of what was found was drawn, without the text that all secrets of the shape have.
    pub(crate) fn drawn<'a>(&self, bytes: &'a [u8], at: usize) -> Vec<&'a [u8]> {
        let mut end = at;
        let mut drawn = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let rest = bytes.get(end..).unwrap_or_default();
            let length = part.length(rest, number + 1 == self.parts.len()).unwrap_or(0);
            if matches!(part, Part::Run { .. }) {
                drawn.extend(rest.get(..length));
            }
            end += length;
        }
        drawn
    }

    /// A secret of this shape, each run as long as `length` says of its bounds, of bytes that `choose` takes.
    #[cfg(test)]
    pub(crate) fn example(
        &self,
        length: impl Fn(usize, usize) -> usize,
        mut choose: impl FnMut(&[u8]) -> u8,
    ) -> String {
        let mut made = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => made.extend_from_slice(text),
                Part::Run { of, least, most } => {
                    let from: Vec<u8> = of.bytes().collect();
                    made.extend((0..length(*least, *most)).map(|_| choose(&from)));
                }
            }
        }
        String::from_utf8(made).unwrap()
    }
}

// === impl Part ===

impl Part {
    fn least(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Run { least, .. } => *least,
        }
    }

    /// How long the part is that `bytes` begin with. A run that ends a shape goes no further than it may.
    fn length(&self, bytes: &[u8], last: bool) -> Option<usize> {
        match self {
            Self::Text(text) => bytes.starts_with(text).then_some(text.len()),
            Self::Run { of, least, most } => {
                let run = of.run(bytes, *most + usize::from(last));
                (*least..=*most).contains(&run).then_some(run)
            }
        }
    }

    /// How long the part is that `bytes` end with.
    fn before(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Text(text) => bytes.ends_with(text).then_some(text.len()),
            Self::Run { of, least, most } => {
                let run = bytes.iter().rev().take(*most).take_while(|byte| of.has(**byte)).count();
                (run >= *least).then_some(run)
            }
        }
    }
}

/// What follows a `[`, and the rest behind its `]`.
fn set_of(mut rest: &[u8]) -> Result<(Set, &[u8]), String> {
    let mut set = Set::NONE;
    loop {
        rest = match rest {
            [b']', rest @ ..] => return Ok((set, rest)),
            [b'\\', byte, rest @ ..] => {
                set.add(*byte);
                rest
            }
            [from, b'-', to, rest @ ..] if *to != b']' => {
                if from > to {
                    return Err("a range of its set is the wrong way round".into());
                }
                (*from..=*to).for_each(|byte| set.add(byte));
                rest
            }
            [byte, rest @ ..] if byte.is_ascii() => {
                set.add(*byte);
                rest
            }
            _ => return Err("a set does not end".into()),
        };
    }
}

/// `{n}`, `{n,m}`, `?` or nothing: the least, the most and the rest.
fn times(rest: &[u8]) -> Result<(usize, usize, &[u8]), String> {
    if let Some(rest) = rest.strip_prefix(b"?") {
        return Ok((0, 1, rest));
    }
    let Some(rest) = rest.strip_prefix(b"{") else { return Ok((1, 1, rest)) };
    let wrong = || "a count is not {n} or {n,m} with n up to m".to_owned();
    let end = rest.iter().position(|byte| *byte == b'}').ok_or_else(wrong)?;
    let (inner, rest) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
    let inner = std::str::from_utf8(inner).map_err(|_| wrong())?;
    let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
    let (least, most) = (least.parse().map_err(|_| wrong())?, most.parse::<usize>().map_err(|_| wrong())?);
    if least > most || most == 0 || most > LONGEST_RUN {
        return Err(format!("a count is beyond {LONGEST_RUN}, or its ends are the wrong way round"));
    }
    Ok((least, most, rest))
}

/// The three bytes that other texts hold least often, or two and the set behind them.
fn anchor_of(parts: &[Part]) -> Option<Anchor> {
    let mut best: Option<(u64, Anchor)> = None;
    let mut consider = |common: u64, part: usize, offset: usize| {
        if best.is_none_or(|(least, _)| common < least) {
            best = Some((common, Anchor { part, offset }));
        }
    };
    for (number, part) in parts.iter().enumerate() {
        let Part::Text(text) = part else { continue };
        for (offset, window) in text.windows(3).enumerate() {
            consider(window.iter().map(|byte| common(*byte)).product(), number, offset);
        }
        if let ([.., one, two], Some(Part::Run { of, least: 1.., .. })) =
            (text.as_slice(), parts.get(number + 1))
        {
            let next: u64 = of.bytes().map(common).sum();
            consider(common(*one) * common(*two) * next, number, text.len() - 2);
        }
    }
    best.map(|(_, anchor)| anchor)
}

/// How often a byte is met in prose and code, roughly, in a thousand.
fn common(byte: u8) -> u64 {
    match byte {
        b'e' | b't' => 90,
        b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 60,
        b'h' | b'l' | b'd' | b'c' | b'u' | b'm' | b'p' | b'=' | b':' | b' ' => 30,
        b'f' | b'g' | b'w' | b'y' | b'b' | b'v' | b'k' => 15,
        b'/' | b'0'..=b'9' => 10,
        b'_' | b'.' | b'-' => 20,
        b'x' | b'j' | b'q' | b'z' => 4,
        b'E' | b'T' | b'A' | b'O' | b'I' | b'N' | b'S' | b'R' | b'C' => 6,
        b'A'..=b'Z' => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(shape: &str, text: &str) -> Option<Range<usize>> {
        let shape = Shape::parse(shape).unwrap();
        (0..text.len()).find_map(|at| shape.from(text.as_bytes(), at)).map(|found| found.secret)
    }

    #[test]
    fn a_shape_is_found_from_its_first_byte_to_its_last() {
        assert_eq!(found("ab_[0-9]{8}", "x ab_12345678 y"), Some(2..13));
        assert_eq!(found("ab_[0-9]{8}", "x ab_123456789"), None);
        assert_eq!(found("ab_[0-9]{8,9}={0,2}", "x ab_123456789=="), Some(2..16));
        assert_eq!(found("key=([a-f]{8}=)", "key=abcdefab="), Some(4..13));
        assert_eq!(found("a\\.b?[\\]x-]{8}", "a.]x-]x-]x"), Some(0..10));
    }

    #[test]
    fn an_anchor_may_stand_within() {
        let shape = Shape::parse("[0-9]{3}Q~[a-z]{8}").unwrap();
        let text = b"12345Q~abcdefgh";
        assert_eq!(shape.around(text, 5).map(|found| found.whole), Some(2..15));
        let [first, second, third] = shape.anchor().unwrap();
        assert_eq!((first, second, third.len()), (vec![b'Q'], vec![b'~'], 26));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (shape, why) in [
            ("abc", "fewer than 8"),
            ("[a-z", "does not end"),
            ("[z-a]{9}", "wrong way"),
            ("[a-z]{9,3}", "wrong way"),
            ("[a-z]{9,100000}", "beyond"),
            ("[a-z]{x}", "count"),
            ("a*bcdefgh", "cannot stand"),
            ("((abcdefgh))", "more than one"),
            ("(abcdefgh", "do not match"),
            ("abcdefg\u{e9}", "visible ASCII"),
            ("abcdefgh\\", "backslash"),
            ("[]abcdefgh", "empty"),
        ] {
            let error = Shape::parse(shape).unwrap_err();
            assert!(error.contains(why), "{shape}: {error}");
        }
    }
}
