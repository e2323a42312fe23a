//! What an entry's `config` may say.

use sallyport_guest_codec::offer::ServerTools;
use serde::Deserialize;

/// The configuration. All but `api` is for Converse: Claude is given the client's request as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which API is asked.
    pub api: Api,
    /// The most output tokens that the models behind this route take; a larger `max_tokens` is lowered to it.
    pub max_output_tokens: Option<u64>,
    /// What becomes of tools that Anthropic's API runs itself and this upstream does not have.
    pub server_tools: ServerTools,
}

/// Which API is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Claude by `InvokeModel`, which takes its own requests, and every other model by Converse.
    #[default]
    Auto,
    /// `InvokeModel`: a Claude behind an id that does not say so.
    InvokeModel,
    /// Converse: another model behind an id that names Claude.
    Converse,
}

// === impl Config ===

impl Config {
    /// Whether a model is asked by Converse.
    pub(crate) fn converses(&self, model: &str) -> bool {
        match self.api {
            Api::Auto => !(model.contains("claude") || model.contains("anthropic.")),
            Api::InvokeModel => false,
            Api::Converse => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Api, Config};

    #[test]
    fn claude_is_asked_in_its_own_words_and_others_by_converse() {
        let auto = Config::default();
        for id in ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-v2", "claude-renamed"] {
            assert!(!auto.converses(id), "{id}");
        }
        for id in
            ["amazon.nova-pro-v1:0", "us.amazon.nova-2-lite-v1:0", "openai.gpt-oss-120b-1:0", "mistral.x"]
        {
            assert!(auto.converses(id), "{id}");
        }
        assert!(Config { api: Api::Converse, ..Config::default() }.converses("anthropic.claude-v2"));
        assert!(!Config { api: Api::InvokeModel, ..Config::default() }.converses("abc123"));
    }
}
