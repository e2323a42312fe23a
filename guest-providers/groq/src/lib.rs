//! Groq behind Anthropic Messages: Chat Completions with a few differences (<https://console.groq.com/docs/openai>,
//! <https://console.groq.com/docs/api-reference#chat-create>), which are all that is here.

use sallyport_guest_chat::{Chat, Config, Limit, Switch, Vendor, Wire, refusal, refusal_as};
use sallyport_guest_sdk::provider::{Failure, ResponseHead};

/// What Groq does otherwise.
#[derive(Debug)]
pub struct Groq;

/// The provider.
pub type Provider = Chat<Groq>;

/// "Flex tier capacity exceeded": <https://console.groq.com/docs/errors>.
const NO_CAPACITY: u16 = 498;

// === impl Groq ===

impl Vendor for Groq {
    type Config = Config;

    fn configure(config: Config) -> Result<(Self, Config), String> {
        Ok((Self, config))
    }

    fn wire(&self, model: &str) -> Wire {
        // A stream counts its tokens in `x_groq` unasked, and `stream_options` is no parameter.
        let mut wire = Wire { limit: Limit::MaxCompletionTokens, asks_for_usage: false, ..Wire::default() };
        // Parts of a message are texts and images.
        wire.attachments.pdfs = false;
        // <https://console.groq.com/docs/reasoning>: Qwen's models think within the text unless they are told where, and of all steps of
        // effort the older ones know `none` alone; gpt-oss has a field of its own anyway and refuses to be told.
        if model.contains("qwen3") {
            wire.reasoning_format = Some("parsed");
            if !model.contains("qwen3.8") {
                wire.switch = Switch::EffortNone;
            }
        }
        wire
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        if head.status == NO_CAPACITY { refusal_as(503, head, body) } else { refusal(head, body) }
    }
}

sallyport_guest_sdk::export_provider!(Provider);

#[cfg(test)]
mod tests {
    use sallyport_guest_codec::golden::{Suite, refused, sent};
    use serde_json::json;

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
    fn the_limit_has_its_newer_name_and_documents_are_lost() {
        let pdf = json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}});
        let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [pdf, {"type": "text", "text": "?"}]}]});
        let (sent, losses) = sent::<Provider>("llama-3.3-70b-versatile", &body);
        assert_eq!((&sent["max_completion_tokens"], sent.get("max_tokens")), (&json!(9), None));
        assert_eq!(losses, ["messages[0].content[0]: document dropped: the upstream takes none"]);
    }

    #[test]
    fn thinking_is_switched_as_each_model_knows_it() {
        let body = |kind: &str| json!({"model": "m", "thinking": {"type": kind}, "messages": [{"role": "user", "content": "Hi"}]});
        let (off, _) = sent::<Provider>("qwen/qwen3-32b", &body("disabled"));
        assert_eq!((&off["reasoning_effort"], &off["reasoning_format"]), (&json!("none"), &json!("parsed")));
        let (on, _) = sent::<Provider>("qwen/qwen3-32b", &body("adaptive"));
        assert_eq!((on.get("reasoning_effort"), &on["reasoning_format"]), (None, &json!("parsed")));
        let (other, _) = sent::<Provider>("openai/gpt-oss-120b", &body("adaptive"));
        assert_eq!(other.get("reasoning_format"), None);
    }

    #[test]
    fn capacity_that_is_used_up_is_overload() {
        let body = json!({"error": {"message": "Flex tier capacity exceeded.", "type": "capacity_exceeded"}});
        let (status, kind, _) = refused::<Provider>(498, &body);
        assert_eq!((status, kind.as_str()), (529, "overloaded_error"));
    }
}
