//! What is known of vendors' models besides their prices: data that ships with the product, dated, by patterns of names. A
//! provider is handed what concerns its call, and a route may say otherwise.

use serde::{Deserialize, Serialize};

use crate::glob;
use crate::strict_json::{self, StrictError};

/// The table that ships with the product, as JSON.
pub const DEFAULT: &str = include_str!("../model-facts.json");
/// The largest table accepted, in bytes.
const MAX_TABLE: usize = 1024 * 1024;

/// Facts of models: the first entry whose provider and model match counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactTable {
    /// Names this edition of the table: a date.
    pub version: String,
    /// The entries, most specific first.
    pub models: Vec<Known>,
}

/// What is known of one model or family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Provider tag; `*` for any.
    pub provider: String,
    /// The upstream's name of the model; `*` stands for any run of characters.
    pub model: String,
    /// What is known.
    pub facts: ModelFacts,
}

/// Facts of a model. What is not said is as with a plain server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelFacts {
    /// Which API it is asked by, where its provider speaks several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiStyle>,
    /// How it is told how much to reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningStyle>,
    /// The steps of effort that it knows, from the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efforts: Option<Vec<Effort>>,
    /// The one step that it takes where tools are offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort_with_tools: Option<Effort>,
    /// Whether it can be told to call one tool at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Whether it wants its thinking of earlier turns back, as `reasoning_content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<bool>,
    /// The most output tokens that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
}

/// Which API a model is asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiStyle {
    /// OpenAI's Chat Completions.
    ChatCompletions,
    /// OpenAI's Responses.
    Responses,
}

/// How a model is told how much to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningStyle {
    /// `max_completion_tokens` and `reasoning_effort`; no `temperature`, `top_p` or `stop`.
    Openai,
    /// `reasoning_effort` besides the usual options.
    Effort,
    /// Not at all.
    None,
}

/// A step of effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the steps of the wire")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

// === impl FactTable ===

impl FactTable {
    /// Reads a table.
    pub fn parse(json: &str) -> Result<Self, StrictError> {
        strict_json::parse(json.as_bytes(), MAX_TABLE)
    }

    /// The table that ships with the product. Errors: none, unless the file in the source tree is broken.
    pub fn shipped() -> Result<Self, StrictError> {
        Self::parse(DEFAULT)
    }

    /// What is known of `model` of `provider`; nothing where no entry matches.
    pub fn of(&self, provider: &str, model: &str) -> ModelFacts {
        let matches =
            |entry: &&Known| glob::matches(&entry.provider, provider) && glob::matches(&entry.model, model);
        self.models.iter().find(matches).map(|entry| entry.facts.clone()).unwrap_or_default()
    }
}

// === impl ModelFacts ===

impl ModelFacts {
    /// These, but for what `own` says.
    #[must_use]
    pub fn but(self, own: &Self) -> Self {
        Self {
            api: own.api.or(self.api),
            reasoning: own.reasoning.or(self.reasoning),
            efforts: own.efforts.clone().or(self.efforts),
            effort_with_tools: own.effort_with_tools.or(self.effort_with_tools),
            parallel_tool_calls: own.parallel_tool_calls.or(self.parallel_tool_calls),
            reasoning_content: own.reasoning_content.or(self.reasoning_content),
            max_output_tokens: own.max_output_tokens.or(self.max_output_tokens),
        }
    }

    /// As JSON for a guest; nothing where nothing is known.
    pub fn json(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        serde_json::to_string(self).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(model: &str) -> String {
        FactTable::shipped().unwrap().of("openai", model).json().unwrap_or_default()
    }

    #[test]
    fn the_newest_models_are_known_by_their_names() {
        let newest = r#"{"reasoning":"openai","efforts":["none","low","medium","high","xhigh"],"effort_with_tools":"none"}"#;
        for model in ["gpt-5.4", "gpt-5.6", "gpt-5.6-terra", "gpt-6.1-sol", "openai/gpt-6-luna"] {
            assert_eq!(told(model), newest, "{model}");
        }
        for model in ["o3-mini", "openai/o4-mini-2025-04-16", "o1"] {
            assert!(told(model).contains(r#""parallel_tool_calls":false"#), "{model}");
        }
        for model in ["deepseek-chat", "moonshotai/kimi-k2.5"] {
            assert_eq!(told(model), r#"{"reasoning_content":true}"#, "{model}");
        }
        for model in ["gpt-4o", "qwen3", "olmo-2", "deepseek-r1", "claude-opus-5"] {
            assert_eq!(told(model), "", "{model}");
        }
        assert_eq!(told("gpt-5-chat-latest"), r#"{"reasoning":"none"}"#);
    }

    #[test]
    fn no_entry_of_the_shipped_table_is_hidden_by_one_before_it() {
        let table = FactTable::shipped().unwrap();
        for entry in &table.models {
            let model = entry.model.replace('*', "");
            assert_eq!(table.of(&entry.provider, &model), entry.facts, "{}", entry.model);
        }
    }

    #[test]
    fn what_a_route_says_goes_before_what_is_known() {
        let known = FactTable::shipped().unwrap().of("openai", "gpt-5.6");
        let own: ModelFacts = serde_json::from_str(r#"{"effort_with_tools":"low"}"#).unwrap();
        let both = known.clone().but(&own);
        assert_eq!(both.effort_with_tools, Some(Effort::Low));
        assert_eq!(both.efforts, known.efforts);
        assert!(serde_json::from_str::<ModelFacts>(r#"{"efforts":["hard"]}"#).is_err());
        assert!(serde_json::from_str::<ModelFacts>(r#"{"effort":[]}"#).is_err());
    }
}
