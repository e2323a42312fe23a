//! Azure OpenAI behind Anthropic Messages: Chat Completions of a deployment
//! (<https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference>), or the one address for all of them
//! (<https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle>). The rest is as with OpenAI.

use sallyport_guest_chat::{Chat, Config, InlineSystem, Reasoning, ServerTools, Vendor};
use sallyport_guest_sdk::provider::Failure;
use serde::Deserialize;

/// What Azure does otherwise.
#[derive(Debug)]
pub struct Azure {
    api_version: String,
}

/// The provider.
pub type Provider = Chat<Azure>;

/// The configuration: that of every provider of this wire, and the version of the API.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureConfig {
    /// A dated version, or `v1` for the address without one. Without it, the last dated version that is no preview.
    pub api_version: Option<String>,
    /// See [`Config::max_output_tokens`].
    pub max_output_tokens: Option<u64>,
    /// See [`Config::reasoning`].
    pub reasoning: Reasoning,
    /// See [`Config::server_tools`].
    pub server_tools: ServerTools,
    /// See [`Config::inline_system`].
    pub inline_system: InlineSystem,
}

/// The last dated version that is no preview; what came later has no date.
const API_VERSION: &str = "2024-10-21";
/// The address without a version.
const UNDATED: &str = "v1";

// === impl Azure ===

impl Vendor for Azure {
    type Config = AzureConfig;

    fn configure(config: AzureConfig) -> Result<(Self, Config), String> {
        let AzureConfig { api_version, max_output_tokens, reasoning, server_tools, inline_system } = config;
        let api_version = api_version.unwrap_or_else(|| API_VERSION.to_owned());
        if !is_plain(&api_version) {
            return Err("api_version: letters, digits and hyphens".to_owned());
        }
        Ok((Self { api_version }, Config { max_output_tokens, reasoning, server_tools, inline_system }))
    }

    fn path(&self, deployment: &str) -> Result<String, Failure> {
        if self.api_version == UNDATED {
            return Ok("/openai/v1/chat/completions".to_owned());
        }
        // It becomes part of a path, so it holds nothing that means something there.
        if !is_plain(deployment) {
            let message = "model: no name of a deployment";
            return Err(Failure::new(400, "invalid_request_error", message));
        }
        Ok(format!("/openai/deployments/{deployment}/chat/completions?api-version={}", self.api_version))
    }
}

// === private helpers ===

fn is_plain(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(plain)
}

sallyport_guest_sdk::export_provider!(Provider);

#[cfg(test)]
mod tests {
    use sallyport_guest_codec::golden::{Suite, asking, refused, run, sent};
    use sallyport_guest_sdk::testing;
    use serde_json::json;

    use super::Provider;

    fn suite() -> Suite<Provider> {
        Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).with_paths()
    }

    fn path(config: &str, deployment: &str) -> Option<String> {
        let hi = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        run::<Provider>(config, asking(deployment, &hi), []).request.map(|it| it.path)
    }

    #[test]
    fn each_case_comes_out_as_recorded() {
        suite().check_outcomes();
    }

    #[test]
    fn a_stream_comes_out_the_same_at_every_byte_split_and_cut_anywhere_it_is_whole_or_a_failure() {
        suite().check_splits();
        suite().check_cuts();
    }

    #[test]
    fn the_deployment_and_the_version_stand_in_the_path() {
        let dated = "/openai/deployments/my-gpt/chat/completions?api-version=";
        assert_eq!(path("{}", "my-gpt"), Some(format!("{dated}2024-10-21")));
        assert_eq!(
            path(r#"{"api_version":"2025-01-01-preview"}"#, "my-gpt"),
            Some(format!("{dated}2025-01-01-preview"))
        );
        assert_eq!(path(r#"{"api_version":"v1"}"#, "my-gpt").as_deref(), Some("/openai/v1/chat/completions"));
        for odd in ["", "a/b", "..", "a?b", "a b"] {
            assert_eq!(path("{}", odd), None, "{odd}");
        }
        assert!(testing::begin::<Provider>(r#"{"api_version":"1&x=2"}"#, asking("m", &json!({}))).is_err());
        assert!(testing::begin::<Provider>(r#"{"apiversion":"v1"}"#, asking("m", &json!({}))).is_err());
    }

    #[test]
    fn a_prompt_that_a_filter_refuses_is_told_with_the_upstreams_code() {
        let body = json!({"error": {"message": "The response was filtered.", "type": null, "param": "prompt", "code": "content_filter", "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"jailbreak": {"filtered": true, "detected": true}}}}});
        let told = refused::<Provider>(400, &body);
        let message = "The response was filtered. [content_filter]".to_owned();
        assert_eq!(told, (400, "invalid_request_error".to_owned(), message));
    }

    #[test]
    fn a_model_is_asked_as_the_route_says() {
        let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!(sent::<Provider>("my-gpt", &body).0["max_tokens"], json!(9));
        let told = run::<Provider>(r#"{"reasoning":"openai"}"#, asking("my-gpt", &body), []);
        assert_eq!(told.sent.expect("a request is sent")["max_completion_tokens"], json!(9));
    }
}
