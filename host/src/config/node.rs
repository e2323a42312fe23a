//! Reads a parsed document key by key, each after its description, and notes every mismatch with its path, where a derived
//! deserialiser would stop at the first one.

use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
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

    /// As a mapping whose keys are those of `block`; other keys are errors.
    pub(super) fn section(&self, block: &ConfigBlock) -> Section<'a> {
        let entries = match self.value {
            Value::Object(entries) => Some(entries),
            Value::Null => None,
            _ => {
                self.mismatch("a mapping");
                None
            }
        };
        let known = |name: &str| block.keys.iter().any(|key| key.name == name);
        for name in entries.into_iter().flat_map(Map::keys).filter(|name| !known(name)) {
            let names: Vec<_> = block.keys.iter().map(|key| key.name).collect();
            let message = format!("unknown key; known here are {}", names.join(", "));
            self.problems.error(join(&self.path, name), message);
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

    /// As a whole number within the range of its key.
    pub(super) fn number(&self, key: &ConfigKey) -> Option<u64> {
        let Form::Number(least, most) = key.form else { return None };
        let number = self.value.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.error(format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    /// As one of a few words.
    pub(super) fn choice<T: Word>(&self) -> Option<T> {
        let word = match self.value {
            Value::String(word) => word.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let found = T::ALL.iter().find(|value| value.word() == word).copied();
        if found.is_none() {
            let names: Vec<_> = T::ALL.iter().map(|value| value.word()).collect();
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
    pub(super) fn get(&self, key: &ConfigKey) -> Option<Node<'a>> {
        let value = self.entries?.get(key.name).filter(|value| !value.is_null())?;
        Some(Node { value, path: join(&self.path, key.name), problems: self.problems })
    }

    /// The value of a key that has to be there.
    pub(super) fn required(&self, key: &ConfigKey) -> Option<Node<'a>> {
        let node = self.get(key);
        if node.is_none() {
            self.missing(key);
        }
        node
    }

    /// Notes that a key has to be there.
    pub(super) fn missing(&self, key: &ConfigKey) {
        self.problems.error(join(&self.path, key.name), "is missing");
    }

    /// The mapping behind a key; without any keys if there is none.
    pub(super) fn block(&self, key: &ConfigKey) -> Section<'a> {
        match (self.get(key), key.form) {
            (Some(node), Form::Mapping(block)) => node.section(block),
            _ => Section { entries: None, path: join(&self.path, key.name), problems: self.problems },
        }
    }

    /// The items of the list behind a key; none if there is no list.
    pub(super) fn items(&self, key: &ConfigKey) -> Vec<Node<'a>> {
        self.get(key).map_or_else(Vec::new, |node| node.items())
    }

    /// Text.
    pub(super) fn text(&self, key: &ConfigKey) -> Option<String> {
        self.get(key)?.text().map(ToOwned::to_owned)
    }

    /// `true` or `false`; what the key's description says if it is absent.
    pub(super) fn flag(&self, key: &ConfigKey) -> bool {
        let usual = matches!(key.absent, Absent::Flag(true));
        self.get(key).and_then(|node| node.flag()).unwrap_or(usual)
    }

    /// A whole number within the range of the key's description, or its default. A number that the type cannot hold is noted: what is
    /// returned for it is never used.
    pub(super) fn number<T: TryFrom<u64> + Default>(&self, key: &ConfigKey) -> T {
        let usual = if let Absent::Number(usual) = key.absent { usual } else { 0 };
        let number = self.get(key).and_then(|node| node.number(key)).unwrap_or(usual);
        T::try_from(number).unwrap_or_else(|_| {
            self.problems.error(join(&self.path, key.name), "is more than this machine can count");
            T::default()
        })
    }

    /// A number of milliseconds.
    pub(super) fn millis(&self, key: &ConfigKey) -> Duration {
        Duration::from_millis(self.number(key))
    }

    /// A number of seconds.
    pub(super) fn seconds(&self, key: &ConfigKey) -> Duration {
        Duration::from_secs(self.number(key))
    }

    /// One of a few words; the usual one if the key is absent.
    pub(super) fn choice<T: Word + Default>(&self, key: &ConfigKey) -> T {
        self.get(key).and_then(|node| node.choice()).unwrap_or_default()
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
