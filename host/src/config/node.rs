//! Reads a parsed document key by key and notes every mismatch with its path, where a derived deserialiser would stop at
//! the first one.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::report::Problems;

/// A value and where it stands.
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    problems: &'a Problems,
}

/// A mapping all of whose keys are known.
pub(super) struct Section<'a> {
    entries: Option<&'a Map<String, Value>>,
    path: String,
    problems: &'a Problems,
}

/// Parses YAML into a tree. Booleans are `true` and `false` alone (`mode: off` is a word); a key that stands twice is an
/// error.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| format!("not valid YAML: {error}"))
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The document itself.
    pub(super) fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self { value, path: String::new(), problems }
    }

    /// The tree below.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// Notes that this value cannot stay.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.problems.error(self.path.clone(), message);
    }

    /// Notes that something below this value cannot stay.
    pub(super) fn error_below(&self, below: &str, message: impl Into<String>) {
        self.problems.error(format!("{}{below}", self.path), message);
    }

    /// Notes that something is wrong with a key that stands, or should stand, beside this value.
    pub(super) fn error_beside(&self, key: &str, message: impl Into<String>) {
        let parent = self.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        self.problems.error(join(parent, key), message);
    }

    /// Notes that this value deserves a second look.
    pub(super) fn warn(&self, message: impl Into<String>) {
        self.problems.warn(self.path.clone(), message);
    }

    /// As a mapping whose keys are among `known`; other keys are errors.
    pub(super) fn section(&self, known: &[&str]) -> Section<'a> {
        let entries = match self.value {
            Value::Object(entries) => Some(entries),
            Value::Null => None,
            _ => {
                self.mismatch("a mapping");
                None
            }
        };
        for key in entries.into_iter().flat_map(Map::keys).filter(|key| !known.contains(&key.as_str())) {
            self.problems
                .error(join(&self.path, key), format!("unknown key; known here are {}", known.join(", ")));
        }
        Section { entries, path: self.path.clone(), problems: self.problems }
    }

    /// As a list.
    pub(super) fn items(&self) -> Vec<Node<'a>> {
        let Value::Array(items) = self.value else {
            self.mismatch("a list");
            return Vec::new();
        };
        let node = |(position, value)| Node {
            value,
            path: format!("{}[{position}]", self.path),
            problems: self.problems,
        };
        items.iter().enumerate().map(node).collect()
    }

    /// As text that is not empty.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) if text.trim().is_empty() => {
                self.error("must not be empty");
                None
            }
            Value::String(text) => Some(text),
            _ => {
                self.mismatch("text (quote it if it looks like a number)");
                None
            }
        }
    }

    /// As `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.mismatch("true or false");
        }
        flag
    }

    /// As a whole number within `range`.
    pub(super) fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            self.error(format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// As one of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let word = match self.value {
            Value::String(word) => word.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let found = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.error(format!("must be one of {}", names.join(", ")));
        }
        found
    }

    /// As text that `parse` understands.
    pub(super) fn parsed<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        parse(self.text()?).map_err(|error| self.error(error.to_string())).ok()
    }

    fn mismatch(&self, expected: &str) {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        self.error(format!("must be {expected}, not {found}"));
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The value of a key; none if the key is missing or has nothing behind it.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.entries?.get(key).filter(|value| !value.is_null())?;
        Some(Node { value, path: join(&self.path, key), problems: self.problems })
    }

    /// The value of a key that has to be there.
    pub(super) fn required(&self, key: &str) -> Option<Node<'a>> {
        let node = self.get(key);
        if node.is_none() {
            self.problems.error(join(&self.path, key), "is missing");
        }
        node
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
