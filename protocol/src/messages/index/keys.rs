//! The keys that the index knows, each at most once in an object, and spelt in one way only.
//!
//! Readers of JSON differ in two points. Of a key that stands twice most take the last value, some the first. And some compare keys
//! without regard to case: Go's `encoding/json` takes `Messages` and `me\u{17f}\u{17f}ages` for `messages`. Whatever could be read
//! in two ways is refused, so that the gateway judges what the upstream reads.

use std::borrow::Cow;

use super::scan::Malformed;

/// The known keys of one object that were seen.
pub(super) struct Keys {
    known: &'static [&'static str],
    seen: u64,
}

// === impl Keys ===

impl Keys {
    /// At most 64 of them.
    pub(super) const fn new(known: &'static [&'static str]) -> Self {
        assert!(known.len() <= 64, "there is one bit for each");
        Self { known, seen: 0 }
    }

    /// The same in the middle of an object, with what [`Keys::seen`] said there.
    pub(super) const fn resumed(known: &'static [&'static str], seen: u64) -> Self {
        Self { seen, ..Self::new(known) }
    }

    /// Which of them were seen.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// The known key that `key` is. Errors: it stands here for the second time, or is spelt almost like a known one.
    pub(super) fn check(&mut self, key: &str) -> Result<Option<&'static str>, Malformed> {
        if let Some((place, known)) = self.known.iter().enumerate().find(|(_, known)| **known == key) {
            let bit = 1_u64.checked_shl(u32::try_from(place).unwrap_or(0)).unwrap_or(0);
            if self.seen & bit != 0 {
                return Err(Malformed::Twice(known));
            }
            self.seen |= bit;
            return Ok(Some(known));
        }
        match self.known.iter().find(|known| folds_to(key, known)) {
            Some(known) => Err(Malformed::Folded(known)),
            None => Ok(None),
        }
    }

    /// Whether `known` was there.
    pub(super) fn has(&self, known: &str) -> bool {
        self.known
            .iter()
            .enumerate()
            .filter(|(place, _)| {
                self.seen & 1_u64.checked_shl(u32::try_from(*place).unwrap_or(0)).unwrap_or(0) != 0
            })
            .any(|(_, seen)| *seen == known)
    }
}

/// Whether a reader that folds case, or takes letters of another form for the plain ones, would take `key` for `known`, which is
/// lower-case ASCII.
pub fn folds_to(key: &str, known: &str) -> bool {
    // No letter that folds to an ASCII one is longer than three bytes.
    if key.len() < known.len() || key.len() > known.len().saturating_mul(3) {
        return false;
    }
    key.chars().map(folded).eq(known.chars())
}

/// `text` as such a reader compares it.
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.chars().all(|char| folded(char) == char) {
        text.into()
    } else {
        text.chars().map(folded).collect()
    }
}

fn folded(char: char) -> char {
    match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        // Full-width forms of the printable ASCII characters, which compatibility normalisation makes plain.
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(char) - 0xfee0).map_or(char, |plain| plain.to_ascii_lowercase())
        }
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_key_is_taken_once_and_its_doubles_never() {
        let mut keys = Keys::new(&["messages", "model"]);
        assert_eq!(keys.check("model"), Ok(Some("model")));
        assert!(keys.has("model") && !keys.has("messages"));
        assert_eq!(keys.check("model"), Err(Malformed::Twice("model")));
        for double in ["Messages", "MESSAGES", "me\u{17f}\u{17f}ages", "\u{ff4d}essages", "messageS"] {
            assert_eq!(keys.check(double), Err(Malformed::Folded("messages")), "{double}");
        }
        for other in ["message", "messages ", "mes\u{2c}sages", "mod\u{e9}l", ""] {
            assert_eq!(keys.check(other), Ok(None), "{other}");
        }
        assert!(folds_to("to\u{212a}ens", "tokens"));
        assert_eq!(fold("To\u{212a}en\u{17f}"), "tokens");
    }
}
