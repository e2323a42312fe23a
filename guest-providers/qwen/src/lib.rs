//! Qwen on Alibaba Cloud Model Studio behind Anthropic Messages: Chat Completions with a few differences
//! (<https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-openai-chat-completions>,
//! <https://www.alibabacloud.com/help/en/model-studio/deep-thinking>), which are all that is here.

use sallyport_guest_chat::{Chat, Config, Forced, Switch, Vendor, Wire, refusal, refusal_as};
use sallyport_guest_codec::error::UpstreamError;
use sallyport_guest_sdk::provider::{Failure, ResponseHead};

/// What Model Studio does otherwise.
#[derive(Debug)]
pub struct Qwen;

/// The provider.
pub type Provider = Chat<Qwen>;

// === impl Qwen ===

impl Vendor for Qwen {
    type Config = Config;

    fn configure(config: Config) -> Result<(Self, Config), String> {
        Ok((Self, config))
    }

    fn wire(&self, model: &str) -> Wire {
        let is = |names: &[&str]| names.iter().any(|it| model.contains(it));
        let mut wire = Wire {
            top_k: true,
            // `tool_choice` knows `auto`, `none` and a name; while a model thinks, no name.
            forced: Forced::Named,
            forced_thinking: Forced::Nothing,
            // `parallel_tool_calls` is off by itself.
            parallel: false,
            switch: match () {
                () if is(&["qwq", "qvq", "thinking"]) => Switch::Always,
                () if is(&["coder", "instruct", "qwen2", "qwen-vl", "qwen-long", "qwen-max"]) => {
                    Switch::Effort
                }
                // Models by their size are the open ones: they think by themselves, and may not where the answer comes whole.
                () => Switch::EnableThinking {
                    off_when_whole: model.contains("qwen3-") && model.ends_with('b'),
                },
            },
            ..Wire::default()
        };
        wire.attachments.pdfs = false;
        wire
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        // <https://www.alibabacloud.com/help/en/model-studio/error-code>: an account in arrears is a 400 there.
        let error = UpstreamError::read(body);
        if error.code.as_deref() == Some("Arrearage") {
            refusal_as(402, head, body)
        } else {
            refusal(head, body)
        }
    }
}

sallyport_guest_sdk::export_provider!(Provider);

#[cfg(test)]
mod tests {
    use sallyport_guest_codec::golden::{Suite, refused, sent};
    use serde_json::{Value, json};

    use super::Provider;

    fn suite() -> Suite<Provider> {
        Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).with_paths()
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
    fn thinking_has_a_switch_and_a_budget() {
        let body = |thinking: Value, effort: Option<&str>, stream: bool| {
            let mut body =
                json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]});
            if !thinking.is_null() {
                body["thinking"] = thinking;
            }
            if let Some(effort) = effort {
                body["output_config"] = json!({"effort": effort});
            }
            body
        };
        let told = |model: &str, body: &Value| {
            let (sent, _) = sent::<Provider>(model, body);
            (sent.get("enable_thinking").cloned(), sent.get("thinking_budget").cloned())
        };
        let adaptive = || json!({"type": "adaptive"});
        let (on, off) = (Some(json!(true)), Some(json!(false)));
        assert_eq!(told("qwen-plus", &body(adaptive(), Some("low"), true)), (on.clone(), Some(json!(1024))));
        assert_eq!(told("qwen-plus", &body(adaptive(), Some("max"), true)), (on.clone(), None));
        let budget = json!({"type": "enabled", "budget_tokens": 5000});
        assert_eq!(told("qwen3.5-plus", &body(budget, None, true)), (on, Some(json!(5000))));
        assert_eq!(told("qwen3.5-plus", &body(json!({"type": "disabled"}), None, true)), (off.clone(), None));
        assert_eq!(told("qwen3-32b", &body(Value::Null, None, true)), (None, None));
        assert_eq!(told("qwen3-32b", &body(Value::Null, None, false)), (off, None));
        assert_eq!(told("qwen3-coder-plus", &body(adaptive(), None, true)), (None, None));
    }

    #[test]
    fn several_tools_may_be_called_at_once_unless_the_client_says_otherwise() {
        let body = |choice: Value| {
            json!({"model": "m", "top_k": 20, "tools": [{"name": "now", "input_schema": {}}], "tool_choice": choice,
                "messages": [{"role": "user", "content": "Hi"}]})
        };
        let (many, losses) = sent::<Provider>("qwen-plus", &body(json!({"type": "any"})));
        assert_eq!(
            (&many["parallel_tool_calls"], &many["tool_choice"], &many["top_k"]),
            (&json!(true), &json!("auto"), &json!(20))
        );
        assert_eq!(losses, ["tool_choice: left to the model: the upstream does not force this call"]);
        let (one, _) =
            sent::<Provider>("qwen-plus", &body(json!({"type": "auto", "disable_parallel_tool_use": true})));
        assert_eq!(one["parallel_tool_calls"], json!(false));
    }

    #[test]
    fn an_account_in_arrears_is_a_matter_of_billing() {
        let body = json!({"error": {"code": "Arrearage", "message": "Access denied.", "type": "Arrearage"}, "request_id": "x"});
        let told = refused::<Provider>(400, &body);
        assert_eq!(told, (402, "billing_error".to_owned(), "Access denied. [Arrearage]".to_owned()));
    }
}
