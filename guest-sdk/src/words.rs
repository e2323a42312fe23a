//! Words that are looked for in texts and in JSON, however they are written there: escaped, under a key that stands twice, or with
//! other white space between them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Words to look for. Case matters; any run of white space is one space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

/// Goes through a JSON value, and forgets nothing of it: of two equal keys a map would keep one.
struct Seek<'a>(&'a Words);

// === impl Words ===

impl Words {
    /// No word at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words as written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a text, as it stands, holds one of the words.
    pub fn stand_in(&self, text: &str) -> bool {
        let spaced = spaced(text);
        self.0.iter().any(|word| spaced.contains(word.as_str()))
    }

    /// Whether a text holds one of the words, as it stands or, where it is JSON, in one of its strings and keys unescaped.
    pub fn found_in(&self, text: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        if self.stand_in(text) {
            return true;
        }
        let mut json = serde_json::Deserializer::from_str(text);
        match Seek(self).deserialize(&mut json) {
            Ok(found) => found,
            // Cut off, too deep or no JSON at all: what its escapes stand for is looked at all the same.
            Err(_) => text.contains('\\') && self.stand_in(&unescaped(text)),
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        if words.iter().any(|word| word.trim().is_empty()) {
            return Err(D::Error::custom("an empty text is in everything"));
        }
        Ok(Self(words.iter().map(|word| spaced(word).into_owned()).collect()))
    }
}

// === impl Seek ===

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = bool;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.0.stand_in(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(here) = items.next_element_seed(Seek(self.0))? {
            found |= here;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(key) = entries.next_key_seed(Seek(self.0))? {
            found |= key;
            found |= entries.next_value_seed(Seek(self.0))?;
        }
        Ok(found)
    }
}

// === private helpers ===

/// The same with one space for each run of white space.
fn spaced(text: &str) -> Cow<'_, str> {
    let mut before = 'x';
    let plain = text.chars().all(|char| {
        let fine = !char.is_whitespace() || (char == ' ' && !before.is_whitespace());
        before = char;
        fine
    });
    if plain {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_whitespace() {
            true if out.ends_with(' ') => {}
            true => out.push(' '),
            false => out.push(char),
        }
    }
    Cow::Owned(out)
}

/// The same with what its JSON escapes stand for. What is no escape stays.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        let unicode = after
            .strip_prefix('u')
            .and_then(|hex| char::from_u32(u32::from_str_radix(hex.get(..4)?, 16).ok()?).zip(hex.get(4..)));
        rest = match (unicode, chars.next()) {
            (Some((char, rest)), _) => {
                out.push(char);
                rest
            }
            (None, Some('n' | 'r' | 't' | 'b' | 'f')) => {
                out.push(' ');
                chars.as_str()
            }
            (None, Some(char)) => {
                out.push(char);
                chars.as_str()
            }
            (None, None) => "",
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Words {
        serde_json::from_value(serde_json::json!(words)).unwrap()
    }

    #[test]
    fn a_word_is_found_however_it_is_written() {
        let words = words(&["rm -rf"]);
        for text in [
            "rm -rf /",
            "rm   -rf /",
            "rm\t-rf /",
            r#"{"command":"rm -rf /"}"#,
            r#"{"command":"\u0072m -rf /"}"#,
            r#"{"command":"rm\t\t-rf /"}"#,
            r#"{"command":"rm \n-rf"}"#,
            r#"{"command":"\u0072m -rf /","command":"ls"}"#,
            r#"{"command":"ls","command":"\u0072m -rf /"}"#,
            r#"{"\u0072m -rf":1}"#,
            r#"[{"steps":[{"do":"rm\u0020-rf /"}]}]"#,
            r#"{"command":"\u0072m -rf"#,
        ] {
            assert!(words.found_in(text), "{text}");
        }
        let deep = format!(r#"{}"\u0072m -rf"{}"#, "[".repeat(400), "]".repeat(400));
        assert!(words.found_in(&deep));
        for text in ["", "rm", r#"{"command":"ls -rf","n":[1,2.5,true,null,-3]}"#, "rm-rf", "Rm -rf"] {
            assert!(!words.found_in(text), "{text}");
        }
    }

    #[test]
    fn an_empty_word_is_refused() {
        for list in [r#"[""]"#, r#"["a"," "]"#] {
            assert!(serde_json::from_str::<Words>(list).is_err(), "{list}");
        }
    }
}
