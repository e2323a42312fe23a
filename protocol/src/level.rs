//! What providers carry of the Messages API, level by level, as the corpus of `component test --conformance` showed: for the providers that
//! ship a table that a test compares with the corpus, and which routing stands on.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::ApiStyle;
use crate::glob;
use crate::strict_json::{self, StrictError};

/// The table of the providers that ship, as JSON.
pub const DEFAULT: &str = include_str!("../levels.json");
/// The largest table accepted, in bytes.
const MAX_TABLE: usize = 1024 * 1024;

/// A part of the API that a provider carries, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Texts, the system prompt, options.
    Text,
    /// Tools, their calls and answers.
    Tools,
    /// Images.
    Images,
    /// Documents.
    Documents,
    /// Thinking, asked for and shown.
    Thinking,
    /// Marks of prompt caches.
    Cache,
    /// `count_tokens`
    Count,
    /// The upstream's errors.
    Errors,
}

/// What became of a level, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carriage {
    /// All of it arrived.
    Carried,
    /// Something stands in for it, and is named: an estimate.
    Approximated,
    /// It did not arrive, and the component says so in the call's losses.
    Lost,
    /// The request was refused, by name.
    Refused,
    /// It could not be tried.
    Untested,
    /// It did not arrive and nobody was told, or something else did.
    Failed,
}

/// What was shown of a provider. What is not said was not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Levels(BTreeMap<Level, Carriage>);

/// What was shown of providers: the first entry that matches counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelTable {
    /// Names this edition of the table: a date.
    pub version: String,
    /// The entries, most specific first.
    pub providers: Vec<ShownLevels>,
}

/// What was shown of one provider, or of one kind of its models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShownLevels {
    /// Its component: `sallyport/openai`.
    pub component: String,
    /// The upstream's name of the model; `*` stands for any run of characters. Not said: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which API the model is asked by. Not said: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiStyle>,
    /// What was shown.
    pub levels: Levels,
}

// === impl Level ===

impl Level {
    /// Every level, in the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::Text,
        Self::Tools,
        Self::Images,
        Self::Documents,
        Self::Thinking,
        Self::Cache,
        Self::Count,
        Self::Errors,
    ];

    /// As it stands in tables and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Tools => "tools",
            Self::Images => "images",
            Self::Documents => "documents",
            Self::Thinking => "thinking",
            Self::Cache => "cache",
            Self::Count => "count",
            Self::Errors => "errors",
        }
    }

    /// Whether a request that needs this level can go where it is carried like this. Without its tools, images or documents a request is
    /// another one. What else is lost by name is on the row, and `lossless` refuses it. What could not be tried, since the corpus does not
    /// have the upstream's wire, speaks neither way.
    pub fn is_served(self, carriage: Carriage) -> bool {
        match (self, carriage) {
            // No request needs it.
            (Self::Errors, _) | (_, Carriage::Carried | Carriage::Approximated | Carriage::Untested) => true,
            (Self::Tools | Self::Images | Self::Documents, _) => false,
            (_, carriage) => carriage != Carriage::Failed,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Carriage ===

impl Carriage {
    /// As it stands in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Approximated => "approximated",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Untested => "untested",
            Self::Failed => "failed",
        }
    }
}

// === impl Levels ===

impl Levels {
    /// What became of a level.
    pub fn of(&self, level: Level) -> Carriage {
        self.0.get(&level).copied().unwrap_or(Carriage::Untested)
    }

    /// The levels that no request can rely on.
    pub fn missing(&self) -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| !level.is_served(self.of(*level)))
    }
}

impl FromIterator<(Level, Carriage)> for Levels {
    fn from_iter<I: IntoIterator<Item = (Level, Carriage)>>(levels: I) -> Self {
        Self(levels.into_iter().collect())
    }
}

// === impl LevelTable ===

impl LevelTable {
    /// Reads a table.
    pub fn parse(json: &str) -> Result<Self, StrictError> {
        strict_json::parse(json.as_bytes(), MAX_TABLE)
    }

    /// The table of the providers that ship. Errors: none, unless the file in the source tree is broken.
    pub fn shipped() -> Result<Self, StrictError> {
        Self::parse(DEFAULT)
    }

    /// The entries of one component.
    pub fn of(&self, component: &str) -> Vec<ShownLevels> {
        self.providers.iter().filter(|it| it.component == component).cloned().collect()
    }
}

/// What was shown of a component for a model that is asked by `api`; `None` where nothing was.
pub fn shown<'a>(entries: &'a [ShownLevels], model: &str, api: Option<ApiStyle>) -> Option<&'a Levels> {
    let fits = |entry: &&ShownLevels| {
        entry.model.as_ref().is_none_or(|pattern| glob::matches(pattern, model))
            && (entry.api.is_none() || entry.api == api)
    };
    entries.iter().find(fits).map(|entry| &entry.levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_fits_model_and_api_says_what_is_missing() {
        let table = LevelTable::shipped().unwrap();
        let missing = |provider: &str, model: &str, api| {
            let entries = table.of(&format!("sallyport/{provider}"));
            let levels = shown(&entries, model, api).unwrap();
            levels.missing().map(Level::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(missing("anthropic", "claude-opus-5-5", None), "");
        assert_eq!(missing("bedrock", "eu.anthropic.claude-opus-4-5-v1:0", None), "");
        assert_eq!(missing("bedrock", "amazon.nova-pro-v1:0", None), "images");
        assert_eq!(missing("moonshot", "kimi-k2", None), "images documents");
        assert_eq!(missing("openai", "gpt-5", Some(ApiStyle::Responses)), "");
        let entries = table.of("sallyport/openai");
        let text = |api| shown(&entries, "gpt-5", api).unwrap().of(Level::Text);
        assert_eq!((text(Some(ApiStyle::Responses)), text(None)), (Carriage::Lost, Carriage::Carried));
        assert_eq!(shown(&table.of("acme/own"), "x", None), None);
    }

    #[test]
    fn what_failed_serves_nobody_who_needs_it_and_what_could_not_be_tried_speaks_neither_way() {
        let levels = [
            (Level::Text, Carriage::Failed),
            (Level::Tools, Carriage::Lost),
            (Level::Images, Carriage::Refused),
            (Level::Thinking, Carriage::Lost),
            (Level::Cache, Carriage::Refused),
            (Level::Errors, Carriage::Failed),
        ];
        let levels: Levels = levels.into_iter().collect();
        assert_eq!(levels.missing().collect::<Vec<_>>(), [Level::Text, Level::Tools, Level::Images]);
        assert_eq!(Levels::default().missing().count(), 0);
    }
}
