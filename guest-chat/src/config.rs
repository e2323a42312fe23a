//! What an entry's `config` may say of the server behind a route.

use sallyport_guest_codec::offer::ServerTools;
use serde::Deserialize;

use crate::facts::Facts;

/// The configuration. Everything has a default that suits OpenAI itself and most compatible servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most output tokens that the models behind this route take; a larger `max_tokens` is lowered to it.
    pub max_output_tokens: Option<u64>,
    /// How the models are told how much to reason.
    pub reasoning: Reasoning,
    /// What becomes of tools that Anthropic's API runs itself and this upstream does not have.
    pub server_tools: ServerTools,
    /// What a system message in the middle of the conversation becomes.
    pub inline_system: InlineSystem,
}

/// Which API of OpenAI's is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Chat Completions, which every compatible server has.
    #[default]
    ChatCompletions,
    /// Responses.
    Responses,
}

/// How the upstream is told how much to reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// As the gateway's table of models says; `none` for those that it does not know.
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

// === impl Config ===

impl Config {
    /// The same, unless a value makes no sense: what is then wrong with it.
    pub fn checked(self) -> Result<Self, String> {
        if self.max_output_tokens == Some(0) {
            return Err("max_output_tokens: must be above 0".to_owned());
        }
        Ok(self)
    }
}

// === impl Reasoning ===

impl Reasoning {
    /// What it comes to for a model of which this is known.
    #[must_use]
    pub fn of(self, facts: &Facts) -> Self {
        match (self, facts.reasoning) {
            (Self::Auto, Some(known)) => known,
            (Self::Auto, None) => Self::None,
            (said, _) => said,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Reasoning};
    use crate::facts::Facts;

    #[test]
    fn what_the_configuration_says_goes_before_what_is_known() {
        let known = Facts { reasoning: Some(Reasoning::Openai), ..Facts::default() };
        assert_eq!(Reasoning::Auto.of(&known), Reasoning::Openai);
        assert_eq!(Reasoning::Auto.of(&Facts::default()), Reasoning::None);
        assert_eq!(Reasoning::Effort.of(&known), Reasoning::Effort);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"reasonning":"none"}"#).is_err());
    }
}
