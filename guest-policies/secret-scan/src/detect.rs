//! The detectors. At each place where the pass stops, formats are compared first, then what no shape can say.

use std::ops::Range;

use crate::anchors::{Anchors, PEM};
use crate::card::card;
use crate::formats::{
    AWS_SECRET_KEY, CREDIT_CARD, Check, DSN_PASSWORD, Format, Formats, GENERIC_SECRET, JWT, PRIVATE_KEY,
};
use crate::look::{drawn, opaque, random, within_word};
use crate::shape::Found;

/// A secret found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    /// The place of its rule.
    pub(crate) rule: usize,
    pub(crate) range: Range<usize>,
    /// A rule that knows the value's shape may still find it within.
    pub(crate) guessed: bool,
}

/// Everything that is looked for.
pub(crate) struct Detectors {
    pub(crate) formats: Formats,
    anchors: Anchors,
    /// Ends of names, in lower case and with `_`, whose values a format describes.
    named: Vec<(String, usize)>,
    /// The last two letters of all names that matter: most names are told apart by them.
    endings: Vec<[u8; 2]>,
    places: Places,
}

/// The places of the rules that are code.
struct Places {
    aws_secret_key: usize,
    private_key: usize,
    jwt: usize,
    dsn_password: usize,
    credit_card: usize,
    generic_secret: usize,
}

/// A pass over one text.
pub(crate) struct Pass<'a> {
    of: &'a Detectors,
    text: &'a str,
    /// Before here no token begins that consists of parts: the run it would stand in was looked at.
    no_jwt_before: usize,
}

/// What ends a PEM block.
const PEM_END: &str = "-----END ";

/// A longer value is no password and no key. The bound also keeps the pass linear in text made to slow it down.
const LONGEST_VALUE: usize = 512;

/// How far before a sign its name is looked for.
const NAME_REACH: usize = 80;

/// What an assigned name ends with for its value to count.
const SECRET_NAMES: [&str; 14] = [
    "secret",
    "secret_key",
    "secretkey",
    "token",
    "passwd",
    "password",
    "passphrase",
    "api_key",
    "apikey",
    "access_key",
    "accesskey",
    "private_key",
    "credential",
    "credentials",
];

/// Passwords of examples.
const NO_PASSWORDS: [&str; 12] = [
    "password", "passwd", "pass", "pwd", "secret", "changeme", "example", "user", "test", "root", "admin",
    "postgres",
];

// === impl Detectors ===

impl Detectors {
    pub(crate) fn new(formats: Formats) -> Self {
        let anchors = Anchors::new(&formats);
        let named = formats.list.iter().enumerate();
        let named = named.flat_map(|(at, format)| format.named.iter().map(move |name| (name.clone(), at)));
        let named: Vec<(String, usize)> = named.collect();
        let names = SECRET_NAMES.into_iter().chain(named.iter().map(|(name, _)| name.as_str()));
        let mut endings: Vec<[u8; 2]> =
            names.filter_map(|name| name.as_bytes().last_chunk().copied()).collect();
        endings.sort_unstable();
        endings.dedup();
        let place = |name| formats.rule(name).unwrap_or(usize::MAX);
        let places = Places {
            aws_secret_key: place(AWS_SECRET_KEY),
            private_key: place(PRIVATE_KEY),
            jwt: place(JWT),
            dsn_password: place(DSN_PASSWORD),
            credit_card: place(CREDIT_CARD),
            generic_secret: place(GENERIC_SECRET),
        };
        Self { formats, anchors, named, endings, places }
    }

    pub(crate) fn pass<'a>(&'a self, text: &'a str) -> Pass<'a> {
        Pass { of: self, text, no_jwt_before: 0 }
    }
}

// === impl Pass ===

impl Pass<'_> {
    /// The first place from `from` on where something may be found.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        self.of.anchors.next(self.text.as_bytes(), from)
    }

    /// The secret that the anchor at `at` begins or, for an assignment and an address, announces.
    pub(crate) fn at(&mut self, at: usize) -> Option<Match> {
        let (text, bytes) = (self.text, self.text.as_bytes());
        if let Some(found) = self.formatted(at) {
            return Some(found);
        }
        let places = &self.of.places;
        let sure = |rule: usize, range: Range<usize>| Match { rule, range, guessed: false };
        match bytes.get(at)? {
            b':' if bytes.get(at..)?.starts_with(b"://") => {
                Some(sure(places.dsn_password, password(text, at)?))
            }
            b'=' | b':' => self.assignment(at),
            b'-' => Some(sure(places.private_key, private_key(text, at)?)),
            b'0'..=b'9' => Some(sure(places.credit_card, card(bytes, at)?)),
            b'e' => Some(sure(self.of.places.jwt, self.jwt(at)?)),
            _ => None,
        }
    }

    /// The longest secret with a known format whose anchor stands at `at`.
    fn formatted(&self, at: usize) -> Option<Match> {
        let bytes = self.text.as_bytes();
        let mut longest: Option<(usize, Match)> = None;
        for number in self.of.anchors.formats(bytes.get(at..)?) {
            let Some(format) = self.of.formats.list.get(number) else { continue };
            let Some(found) = format.shape.around(bytes, at).filter(|found| self.holds(format, found)) else {
                continue;
            };
            let length = found.whole.len();
            if longest.as_ref().is_none_or(|(known, _)| length > *known) {
                longest = Some((length, matched(format, found)));
            }
        }
        longest.map(|(_, found)| found)
    }

    /// Whether what has the shape is a secret.
    fn holds(&self, format: &Format, found: &Found) -> bool {
        let bytes = self.text.as_bytes();
        let secret = bytes.get(found.secret.clone()).unwrap_or_default();
        let alone = !format.alone || !within_word(bytes, found.whole.start);
        alone
            && drawn(&format.shape.drawn(bytes, found.whole.start))
            && match format.check {
                None => true,
                Some(Check::Opaque) => opaque(secret),
                Some(Check::Basic) => holds_password(secret),
            }
    }

    /// Parts in base64url, parted by dots, the first of which is a JSON object: `{"` is `eyJ`. Signed, it has three and the
    /// second is an object too; encrypted, it has five.
    fn jwt(&mut self, at: usize) -> Option<Range<usize>> {
        if at < self.no_jwt_before {
            return None;
        }
        let bytes = self.text.as_bytes();
        let part = |from: usize| bytes.get(from..).map_or(0, run);
        let dot = |at: usize| bytes.get(at) == Some(&b'.');
        let header = at + part(at);
        // Whatever begins within this run ends with it.
        self.no_jwt_before = header;
        if header - at < 12 || !dot(header) {
            return None;
        }
        let claims = header + 1 + part(header + 1);
        if bytes.get(header + 1..)?.starts_with(b"ey") {
            let end = claims + 1 + part(claims + 1);
            return (dot(claims) && claims - header > 12 && end - claims > 20).then_some(at..end);
        }
        let (vector, sealed) = (claims + 1 + part(claims + 1), |from: usize| from + 1 + part(from + 1));
        let (text, tag) = (sealed(vector), sealed(sealed(vector)));
        let encrypted = dot(claims) && dot(vector) && dot(text) && (17..=23).contains(&(vector - claims));
        (encrypted && tag - text > 20).then_some(at..tag)
    }

    /// `api_key = "..."`, `"password": "..."`, `AWS_SECRET_ACCESS_KEY=...`: something random given to something secret.
    fn assignment(&self, at: usize) -> Option<Match> {
        let bytes = self.text.as_bytes();
        let before = bytes.get(at.saturating_sub(NAME_REACH)..at)?;
        let name = self.name(before).or_else(|| self.name(before_type(before)?))?;
        let mut start = at + 1;
        while matches!(bytes.get(start), Some(b' ' | b'\t' | b'=' | b'>')) {
            start += 1;
        }
        // A quote may itself be escaped: tool calls and their results carry JSON within strings.
        if bytes.get(start..)?.starts_with(b"\\\"") {
            start += 1;
        }
        let quote = bytes.get(start).filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
        start += usize::from(quote.is_some());
        let ends = |at: usize| {
            let next = bytes.get(at);
            match quote {
                Some(quote) => next == Some(quote) || next == Some(&b'\\'),
                None => next.is_none_or(|byte| {
                    byte.is_ascii_whitespace()
                        || matches!(byte, b'"' | b'\'' | b',' | b';' | b'&' | b'\\' | b'}')
                }),
            }
        };
        for (known, number) in &self.of.named {
            if !name.ends_with(known.as_bytes()) {
                continue;
            }
            let format = self.of.formats.list.get(*number)?;
            let found = format.shape.from(bytes, start).filter(|found| ends(found.whole.end));
            if let Some(found) = found.filter(|found| self.holds(format, found)) {
                return Some(matched(format, found));
            }
        }
        let value_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/_-=".contains(byte);
        let rest = bytes.get(start..)?.iter();
        let length = rest.take(LONGEST_VALUE + 1).take_while(|byte| value_byte(byte)).count();
        if length > LONGEST_VALUE || !ends(start + length) {
            return None;
        }
        let range = start..start + length;
        let value = bytes.get(range.clone())?;
        let of_aws = name.ends_with(b"secret_access_key") || name.ends_with(b"secretaccesskey");
        if length == 40 && of_aws {
            let real = !value.ends_with(b"EXAMPLEKEY") && drawn(&[value]);
            let rule = self.of.places.aws_secret_key;
            return real.then_some(Match { rule, range, guessed: false });
        }
        let secret = SECRET_NAMES.iter().any(|known| name.ends_with(known.as_bytes()));
        let rule = self.of.places.generic_secret;
        (secret && random(value)).then_some(Match { rule, range, guessed: true })
    }

    /// The name before the sign, in lower case and with `_`, if it may be one of a secret.
    fn name(&self, before: &[u8]) -> Option<Vec<u8>> {
        let name = assigned(before)?;
        let ending = name.last_chunk::<2>()?.map(|byte| byte.to_ascii_lowercase());
        if !self.of.endings.contains(&ending) {
            return None;
        }
        let mut name = name.to_ascii_lowercase();
        name.iter_mut().filter(|byte| **byte == b'-').for_each(|byte| *byte = b'_');
        let known = |known: &str| name.ends_with(known.as_bytes());
        let may_be =
            SECRET_NAMES.iter().any(|name| known(name)) || self.of.named.iter().any(|(name, _)| known(name));
        may_be.then_some(name)
    }
}

fn matched(format: &Format, found: Found) -> Match {
    // A token of which nothing but its size is known may be one that a better rule finds.
    Match { rule: format.rule, range: found.secret, guessed: format.check == Some(Check::Opaque) }
}

/// A PEM block of a private key, also one whose lines are escaped in JSON. The label alone, as code and prose quote it,
/// is none; nor is a block without its end: then it reaches to the end of the text.
fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    let label_and_rest = text.get(at..)?.strip_prefix(PEM)?;
    // A label is short. Without the bound, a text of nothing but labels would be read again at each.
    let near = label_and_rest.get(..label_and_rest.floor_char_boundary(48))?;
    let (label, _) = near.split_once("-----")?;
    let rest = label_and_rest.get(label.len() + 5..)?;
    let private = ["PRIVATE KEY", "PRIVATE KEY BLOCK", "Static key V1"];
    if !private.iter().any(|known| label.ends_with(known)) {
        return None;
    }
    let material = rest.bytes().take(400).filter(u8::is_ascii_alphanumeric).count();
    let quoted = rest.trim_start_matches(['\\', 'n', 'r', '\n', '\r', ' ', '\t']);
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+');
    let begins = quoted.bytes().take(64).take_while(|byte| base64(byte)).count() >= 24
        || ["Proc-Type:", "Version:", "Comment:"].iter().any(|header| quoted.starts_with(header));
    if material < 40 || !begins {
        return None;
    }
    let end = rest.find(PEM_END).and_then(|end| {
        let label = end + PEM_END.len();
        Some(label + rest.get(label..)?.find("-----")? + 5)
    });
    let begun = text.len() - rest.len();
    Some(at..end.map_or(text.len(), |end| begun + end))
}

/// The password of `scheme://user:password@host`.
fn password(text: &str, at: usize) -> Option<Range<usize>> {
    let scheme = text.get(..at)?.bytes().next_back()?;
    let start = at + 3;
    let rest = text.get(start..)?;
    let authority = rest.find(|char: char| {
        char.is_whitespace()
            || matches!(char, '/' | '"' | '\'' | '`' | '<' | '>' | '?' | '#' | '\\' | ',' | ')' | '|')
    });
    let authority = rest.get(..authority.unwrap_or(rest.len()))?;
    let (userinfo, host) = authority.rsplit_once('@')?;
    let (user, password) = userinfo.split_once(':')?;
    let range = start + user.len() + 1..start + userinfo.len();
    let found = scheme.is_ascii_alphanumeric() && !host.is_empty() && !of_example(user, password);
    found.then_some(range)
}

/// Whether a password is one of an example, or stands for one that is put in later.
fn of_example(user: &str, password: &str) -> bool {
    password.len() < 4
        || password == user
        || password.starts_with(['$', '{', '[', '<', '%', '*', ':'])
        || password.bytes().all(|byte| matches!(byte, b'x' | b'X' | b'*' | b'.'))
        || NO_PASSWORDS.iter().any(|known| password.eq_ignore_ascii_case(known))
}

/// Whether this is base64 of a name, a colon and a password.
fn holds_password(base64: &[u8]) -> bool {
    let mut decoded = Vec::with_capacity(base64.len());
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in base64.iter().take_while(|byte| **byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return false,
        };
        bits = (bits << 6 | u32::from(value)) & 0xFFFF;
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push(u8::try_from(bits >> held & 0xFF).unwrap_or(0));
        }
    }
    let visible = |char: char| !char.is_control();
    let Ok(text) = std::str::from_utf8(&decoded) else { return false };
    let known = |(user, password): (&str, &str)| {
        !user.is_empty() && text.chars().all(visible) && !of_example(user, password)
    };
    text.split_once(':').is_some_and(known)
}

/// `API_KEY: &str = ..`: what stands before the colon of a type.
fn before_type(before: &[u8]) -> Option<&[u8]> {
    let colon = before.iter().rposition(|byte| *byte == b':')?;
    let (name, of_type) = before.split_at_checked(colon)?;
    let is_type = |byte: &u8| byte.is_ascii_alphanumeric() || b": &'<>_".contains(byte);
    of_type.iter().all(is_type).then_some(name)
}

/// The name that is assigned to: what stands before the sign, without quotes, spaces and a type.
fn assigned(before: &[u8]) -> Option<&[u8]> {
    let end = before
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\' | b':' | b']'))?
        + 1;
    let name = before.get(..end)?;
    let length = name
        .iter()
        .rev()
        .take(64)
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        .count();
    name.get(end - length..).filter(|name| !name.is_empty())
}

/// How many bytes of base64url there are.
fn run(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')).count()
}
