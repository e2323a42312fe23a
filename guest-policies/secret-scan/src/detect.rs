//! The detectors. A pass over the text stops at anchors, pairs of bytes with which a secret may begin, and only there is
//! anything compared.

use std::ops::Range;

use crate::rules::{Alphabet, Rule, SHAPES, Shape};

/// A secret found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) rule: Rule,
    pub(crate) range: Range<usize>,
}

/// Which pairs of bytes may begin a secret: one bit for each. Built by `configure`, so it comes with the snapshot.
pub(crate) struct Anchors(Vec<u64>);

/// The label of every PEM block.
const PEM: &str = "-----BEGIN ";

/// What ends it.
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

// === impl Anchors ===

impl Anchors {
    pub(crate) fn new() -> Self {
        let mut pairs = Self(vec![0; 1024]);
        for shape in SHAPES {
            pairs.add_start(shape.prefix);
        }
        for start in [PEM, "eyJ", "://"] {
            pairs.add_start(start);
        }
        for second in 0..=u8::MAX {
            pairs.add(b'=', second);
            // `key: value`, `"key":"value"`: what follows a colon is a space or a quote, or the value of a Java property.
            if !matches!(second, b'/' | b':' | b'\n') {
                pairs.add(b':', second);
            }
        }
        // Card numbers begin with 2 to 6 and go on with digits.
        for first in b'2'..=b'6' {
            for second in b'0'..=b'9' {
                pairs.add(first, second);
            }
        }
        pairs
    }

    /// The first anchor from `from` on.
    pub(crate) fn next(&self, text: &[u8], from: usize) -> Option<usize> {
        let rest = text.get(from..)?;
        rest.windows(2)
            .position(|pair| matches!(pair, [first, second] if self.has(*first, *second)))
            .map(|at| at + from)
    }

    fn has(&self, first: u8, second: u8) -> bool {
        let pair = usize::from(u16::from_be_bytes([first, second]));
        self.0.get(pair / 64).is_some_and(|bits| bits >> (pair % 64) & 1 == 1)
    }

    fn add(&mut self, first: u8, second: u8) {
        let pair = usize::from(u16::from_be_bytes([first, second]));
        if let Some(bits) = self.0.get_mut(pair / 64) {
            *bits |= 1 << (pair % 64);
        }
    }

    fn add_start(&mut self, start: &str) {
        if let [first, second, ..] = start.as_bytes() {
            self.add(*first, *second);
        }
    }
}

/// The secret that the anchor at `at` begins or, for an assignment and an address, announces.
pub(crate) fn at(text: &str, at: usize) -> Option<Match> {
    let bytes = text.as_bytes();
    match bytes.get(at)? {
        b':' if bytes.get(at..)?.starts_with(b"://") => password(text, at),
        b'=' | b':' => assignment(text, at),
        b'-' => private_key(text, at),
        b'0'..=b'9' => card(bytes, at),
        b'e' => jwt(bytes, at),
        _ => SHAPES.iter().find_map(|shape| key(bytes, at, shape)),
    }
}

fn key(bytes: &[u8], at: usize, shape: &Shape) -> Option<Match> {
    let rest = bytes.get(at..)?.strip_prefix(shape.prefix.as_bytes())?;
    let most = rest.len().min(shape.length.end() + 1);
    let length = run(rest.get(..most)?, shape.alphabet);
    let body = rest.get(..length)?;
    let fits = shape.length.contains(&length) && varied(body) && !body.ends_with(b"EXAMPLE");
    let stands = !shape.alone || !within_word(bytes, at);
    (fits && stands).then(|| Match { rule: shape.rule, range: at..at + shape.prefix.len() + length })
}

/// A PEM block of a private key, also one whose lines are escaped in JSON. The label alone, as code and prose quote it,
/// is none; nor is a block without its end: then it reaches to the end of the text.
fn private_key(text: &str, at: usize) -> Option<Match> {
    let label_and_rest = text.get(at..)?.strip_prefix(PEM)?;
    let (label, rest) = label_and_rest.split_once("-----")?;
    if label.len() > 40 || !(label.ends_with("PRIVATE KEY") || label.ends_with("PRIVATE KEY BLOCK")) {
        return None;
    }
    let material = rest.bytes().take(400).filter(u8::is_ascii_alphanumeric).count();
    let quoted = rest.trim_start_matches(['\\', 'n', 'r', '\n', '\r', ' ', '\t']);
    let begins = run(quoted.as_bytes(), Alphabet::Path) >= 24 || quoted.starts_with("Proc-Type:");
    if material < 40 || !begins {
        return None;
    }
    let end = rest.find(PEM_END).and_then(|end| {
        let label = end + PEM_END.len();
        Some(label + rest.get(label..)?.find("-----")? + 5)
    });
    let begun = text.len() - rest.len();
    Some(Match { rule: Rule::PrivateKey, range: at..end.map_or(text.len(), |end| begun + end) })
}

/// Three parts in base64url, the first two of which are JSON objects: `{"` is `eyJ`.
fn jwt(bytes: &[u8], at: usize) -> Option<Match> {
    if within_word(bytes, at) {
        return None;
    }
    let mut end = at;
    for (part, least) in [(0, 12), (1, 12), (2, 20)] {
        if part > 0 {
            if bytes.get(end) != Some(&b'.') {
                return None;
            }
            end += 1;
        }
        let rest = bytes.get(end..)?;
        let length = run(rest, Alphabet::Url);
        if length < least || (part < 2 && !rest.starts_with(b"ey")) {
            return None;
        }
        end += length;
    }
    Some(Match { rule: Rule::Jwt, range: at..end })
}

/// The password of `scheme://user:password@host`.
fn password(text: &str, at: usize) -> Option<Match> {
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
    let placeholder = password.len() < 4
        || password == user
        || password.starts_with(['$', '{', '[', '<', '%', '*', ':'])
        || password.bytes().all(|byte| matches!(byte, b'x' | b'X' | b'*' | b'.'))
        || NO_PASSWORDS.iter().any(|known| password.eq_ignore_ascii_case(known));
    let range = start + user.len() + 1..start + userinfo.len();
    let found = scheme.is_ascii_alphanumeric() && !host.is_empty() && !placeholder;
    found.then_some(Match { rule: Rule::DsnPassword, range })
}

/// 13 to 19 digits of an issuer, in one piece or in groups, whose check digit is right.
fn card(bytes: &[u8], at: usize) -> Option<Match> {
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    if before.is_some_and(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b'+' | b'#')
    }) {
        return None;
    }
    let (mut digits, mut end, mut separator) = (Vec::with_capacity(19), at, None);
    for (offset, byte) in bytes.get(at..)?.iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits.len() < 20 => {
                digits.push(u32::from(byte - b'0'));
                end = at + offset + 1;
            }
            // Groups are of four (American Express: 4, 6, 5) and parted by the same sign everywhere.
            b' ' | b'-'
                if matches!(digits.len(), 4 | 8 | 10 | 12) && separator.is_none_or(|known| known == byte) =>
            {
                separator = Some(byte);
            }
            _ => break,
        }
    }
    let after =
        bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/'));
    let fraction = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
    let varied = digits.iter().any(|digit| Some(digit) != digits.get(1));
    let found = !after && !fraction && varied && issued(&digits) && luhn(&digits);
    found.then_some(Match { rule: Rule::CreditCard, range: at..end })
}

fn issued(digits: &[u32]) -> bool {
    let first = |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + digit);
    match digits.len() {
        15 => matches!(first(2), 34 | 37),
        13 | 19 => first(1) == 4,
        16 => {
            first(1) == 4
                || matches!(first(2), 51..=55 | 65)
                || matches!(first(4), 2221..=2720 | 3528..=3589 | 6011)
        }
        _ => false,
    }
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// `api_key = "..."`, `"password": "..."`, `AWS_SECRET_ACCESS_KEY=...`: something random given to something secret.
fn assignment(text: &str, at: usize) -> Option<Match> {
    let bytes = text.as_bytes();
    let before = bytes.get(at.saturating_sub(NAME_REACH)..at)?;
    let name = secret_name(before).or_else(|| secret_name(before_type(before)?))?;
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
    let rest = bytes.get(start..)?;
    let length = rest
        .iter()
        .take(LONGEST_VALUE + 1)
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"+/_-=".contains(byte))
        .count();
    let (value, next) = (rest.get(..length)?, rest.get(length));
    let ended = match quote {
        Some(quote) => next == Some(quote) || next == Some(&b'\\'),
        None => next.is_none_or(|byte| {
            byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b',' | b';' | b'&' | b'\\' | b'}')
        }),
    };
    if !ended || length > LONGEST_VALUE {
        return None;
    }
    let rule = if length == 40 && (name.ends_with(b"secret_access_key") || name.ends_with(b"secretaccesskey"))
    {
        if value.ends_with(b"EXAMPLEKEY") || !varied(value) {
            return None;
        }
        Rule::AwsSecretKey
    } else {
        random(value).then_some(Rule::GenericSecret)?
    };
    Some(Match { rule, range: start..start + length })
}

/// The name before the sign in lower case, if it is one of a secret.
fn secret_name(before: &[u8]) -> Option<Vec<u8>> {
    let name = assigned(before)?.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|known| name.ends_with(known.as_bytes())).then_some(name)
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

/// Whether this was drawn by a machine: a long run that mixes digits and letters and spreads over its alphabet. A path, a
/// date, a version, words in snake case and a UUID are not.
fn random(value: &[u8]) -> bool {
    let longest = value.split(|byte| matches!(byte, b'-' | b'_' | b'/')).max_by_key(|part| part.len());
    let Some(longest) = longest.filter(|part| part.len() >= 16) else { return false };
    let changes = longest
        .windows(2)
        .filter(|pair| matches!(pair, [first, second] if first.is_ascii_digit() != second.is_ascii_digit()))
        .count();
    changes >= 4 && entropy(value) >= 3.2
}

/// Bits a byte.
fn entropy(value: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for byte in value {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let total: f32 = counts.iter().map(|count| f32::from(*count)).sum();
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f32::from(*count) / total)
        .map(|part| -part * part.log2())
        .sum()
}

/// Whether a key is more than filling such as `xxxx` or `1234`: a drawn one has more than eight different characters.
fn varied(body: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in body {
        if let Some(seen) = seen.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    }
    seen.iter().filter(|seen| **seen).count() > 8
}

/// Whether the byte before belongs to the same word. After a backslash it is the `n` of a line end, not a letter.
fn within_word(bytes: &[u8], at: usize) -> bool {
    match bytes.get(..at) {
        Some([.., b'\\', b'n' | b'r' | b't']) => false,
        Some([.., last]) => last.is_ascii_alphanumeric() || matches!(last, b'_' | b'-'),
        _ => false,
    }
}

fn run(bytes: &[u8], alphabet: Alphabet) -> usize {
    bytes.iter().take_while(|byte| alphabet.has(**byte)).count()
}
