//! What a row says besides its columns: an object of JSON that is written field by field while a call runs.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::rows::core;
use crate::clip::{self, NAME, clip};

/// What most rows of a call have, and some more.
const USUAL: usize = 24;
/// Where something stands that is no object.
const VALUE: &str = "value";

/// Fields in the order of their names, each once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowFields(Vec<(Cow<'static, str>, Value)>);

// === impl RowFields ===

impl RowFields {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::with_capacity(USUAL))
    }

    /// Says `value` under `name`, whatever stood there before.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.place(&name) {
            Ok(at) => {
                if let Some((_, before)) = self.0.get_mut(at) {
                    *before = value;
                }
            }
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Says nothing under `name`.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.place(name) {
            self.0.remove(at);
        }
    }

    /// What is said under `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.place(name).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The names that are there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// Whether no text within is longer than `limit`, and no name longer than one may be.
    pub(super) fn are_short(&self, limit: usize) -> bool {
        self.0
            .iter()
            .all(|(name, value)| matches!(clip(name, NAME), Cow::Borrowed(_)) && clip::is_short(value, limit))
    }

    /// The same with every text clipped to `limit`, and every name to what one may be.
    pub(super) fn clipped(self, limit: usize) -> Self {
        let clipped = |(name, mut value): (Cow<'static, str>, Value)| {
            clip::clip_all(&mut value, limit);
            let short = match clip(&name, NAME) {
                Cow::Owned(short) => Some(Cow::Owned(short)),
                Cow::Borrowed(_) => None,
            };
            (short.unwrap_or(name), value)
        };
        self.0.into_iter().map(clipped).collect()
    }

    /// What is kept where all of it is too much.
    pub(super) fn core(&self) -> Self {
        let mut kept: Self = self.0.iter().map(|(name, value)| (name.clone(), core(name, value))).collect();
        kept.set("clipped", true);
        kept
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

impl FromIterator<(Cow<'static, str>, Value)> for RowFields {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, Value)>>(fields: I) -> Self {
        let mut all = Self::default();
        for (name, value) in fields {
            all.set(name, value);
        }
        all
    }
}

impl From<Value> for RowFields {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect()
            }
            other => std::iter::once((Cow::Borrowed(VALUE), other)).collect(),
        }
    }
}

impl Serialize for RowFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for RowFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_the_object_that_a_map_would_be() {
        let mut fields = RowFields::new();
        for (name, value) in
            [("status", json!(200)), ("agent", json!("a")), ("status", json!(529)), ("reason", json!("r"))]
        {
            fields.set(name, value);
        }
        fields.remove("reason");
        fields.remove("nothing");
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"agent":"a","status":529}"#);
        assert_eq!((fields.get("agent"), fields.get("reason")), (Some(&json!("a")), None));
        let read: RowFields = serde_json::from_str(r#"{"status":529,"agent":"a"}"#).unwrap();
        assert_eq!(read, fields);
    }

    #[test]
    fn what_is_no_object_stands_under_a_name() {
        assert_eq!(serde_json::to_string(&RowFields::from(json!([1]))).unwrap(), r#"{"value":[1]}"#);
    }

    #[test]
    fn long_names_and_texts_are_clipped_and_found_to_be() {
        let long = "y".repeat(5_000);
        let fields = RowFields::from(json!({ long.clone(): 1, "b": [long] }));
        assert!(!fields.are_short(NAME));
        let clipped = fields.clipped(NAME);
        assert!(clipped.are_short(NAME));
        assert_eq!(clipped.names().count(), 2);
    }
}
