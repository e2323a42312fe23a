//! What an entry's `config` may say of the server behind a route.

use serde::Deserialize;

/// The configuration. Everything has a default that suits OpenAI itself and most compatible servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most output tokens that the models behind this route take; a larger `max_tokens` is lowered to it.
    pub max_output_tokens: Option<u64>,
    /// How the models are told how much to reason.
    pub reasoning: Reasoning,
    /// What a system message in the middle of the conversation becomes.
    pub inline_system: InlineSystem,
}

/// How the upstream is told how much to reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// By the model's name: `o*` and `gpt-5*` as `openai`, `gpt-oss*` as `effort`, others as `none`.
    #[default]
    Auto,
    /// `max_completion_tokens` and `reasoning_effort`; no `temperature`, `top_p` or `stop`.
    Openai,
    /// `reasoning_effort` besides the usual options.
    Effort,
    /// Not at all.
    None,
}

/// What a system message in the middle of the conversation becomes. Chat templates of some open models refuse one
/// that is not the first message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InlineSystem {
    /// A system message in the same place.
    #[default]
    System,
    /// A developer message in the same place.
    Developer,
    /// A user message in the same place; recorded as a loss.
    User,
}

// === impl Reasoning ===

impl Reasoning {
    /// What it comes to for this model.
    pub(crate) fn of(self, model: &str) -> Self {
        if self != Self::Auto {
            return self;
        }
        let name = bare(model);
        if is_o_series(model) || (name.starts_with("gpt-5") && !name.contains("-chat")) {
            Self::Openai
        } else if name.starts_with("gpt-oss") {
            Self::Effort
        } else {
            Self::None
        }
    }
}

/// Whether the model is one of `o1`, `o3-mini`, `o4-mini`..., which take fewer options still.
pub(crate) fn is_o_series(model: &str) -> bool {
    let mut name = bare(model).bytes();
    name.next() == Some(b'o') && name.next().is_some_and(|it| it.is_ascii_digit())
}

/// The name without the vendor that a router puts before it.
fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::{Config, Reasoning};

    #[test]
    fn reasoning_models_are_known_by_name() {
        for (model, expected) in [
            ("o3-mini", Reasoning::Openai),
            ("openai/o4-mini-2025-04-16", Reasoning::Openai),
            ("gpt-5.1-codex", Reasoning::Openai),
            ("gpt-5-chat-latest", Reasoning::None),
            ("gpt-oss:20b", Reasoning::Effort),
            ("gpt-4o", Reasoning::None),
            ("olmo-2", Reasoning::None),
            ("qwen3", Reasoning::None),
        ] {
            assert_eq!(Reasoning::Auto.of(model), expected, "{model}");
        }
        assert_eq!(Reasoning::Effort.of("qwen3"), Reasoning::Effort);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"reasonning":"none"}"#).is_err());
    }
}
