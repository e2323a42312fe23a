//! JSON as another reader has it: every member in its order, repeated ones too, so that each reader's rule can be applied.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value that forgets nothing but how numbers and strings were spelled.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number that fits 64 bits.
    Whole(u64),
    /// Any other number.
    Number(f64),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Tree>),
    /// An object: its members as they came.
    Object(Vec<(String, Tree)>),
}

// === impl Tree ===

impl Tree {
    /// What `serde_json` makes of these bytes; `None` where it refuses them.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The member with this key, as most readers have it: the last one wins.
    pub fn last(&self, key: &str) -> Option<&Self> {
        self.members().iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The member with this key as Go's `encoding/json` has it: the last one wins, and letters count without their case.
    pub fn folded(&self, key: &str) -> Option<&Self> {
        self.members().iter().rev().find(|(name, _)| fold(name) == fold(key)).map(|(_, value)| value)
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The elements of an array; none of anything else.
    pub fn elements(&self) -> &[Self] {
        if let Self::Array(elements) = self { elements } else { &[] }
    }

    /// The members of an object; none of anything else.
    pub fn members(&self) -> &[(String, Self)] {
        if let Self::Object(members) = self { members } else { &[] }
    }

    /// Whether an object, here or below, has two members that some reader takes for one.
    pub fn is_ambiguous(&self) -> bool {
        let members = self.members();
        let twice = members
            .iter()
            .enumerate()
            .any(|(at, (name, _))| members.iter().take(at).any(|(earlier, _)| fold(earlier) == fold(name)));
        twice
            || members.iter().any(|(_, value)| value.is_ambiguous())
            || self.elements().iter().any(Self::is_ambiguous)
    }
}

/// A key as readers have it that fold: lower case, and the two letters outside ASCII that fold to one within.
pub fn fold(key: &str) -> String {
    let plain = |letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other,
    };
    key.chars().map(plain).flat_map(char::to_lowercase).collect()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Tree;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("json")
            }

            fn visit_unit<E: Error>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Whole(value))
            }

            #[expect(
                clippy::cast_precision_loss,
                reason = "a negative number is told from others, not counted with"
            )]
            fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
                Ok(u64::try_from(value).map_or(Tree::Number(value as f64), Tree::Whole))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Number(value))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::String(value.to_owned()))
            }

            fn visit_string<E: Error>(self, value: String) -> Result<Tree, E> {
                Ok(Tree::String(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = from.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::Array(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Tree, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = from.next_entry()? {
                    members.push(member);
                }
                Ok(Tree::Object(members))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
