//! Moonshot AI (Kimi) behind Anthropic Messages: Chat Completions with a few differences (<https://platform.moonshot.ai/docs/api/chat>,
//! <https://platform.kimi.ai/docs/api/errors>), which are all that is here.

use sallyport_guest_chat::{Chat, Config, Forced, Limit, Switch, Vendor, Wire, refusal, refusal_as};
use sallyport_guest_codec::error::UpstreamError;
use sallyport_guest_codec::names::NameLimits;
use sallyport_guest_sdk::provider::{Failure, ResponseHead};

/// What Moonshot does otherwise.
#[derive(Debug)]
pub struct Moonshot;

/// The provider.
pub type Provider = Chat<Moonshot>;

/// Names of functions: `^[a-zA-Z_][a-zA-Z0-9-_]{2,63}$`, in the vendor's description of its API.
const NAMES: NameLimits = NameLimits { shortest: 3, tool_name: 64, call_id: 128, letter_first: true };

// === impl Moonshot ===

impl Vendor for Moonshot {
    type Config = Config;

    fn configure(config: Config) -> Result<(Self, Config), String> {
        Ok((Self, config))
    }

    fn wire(&self, model: &str) -> Wire {
        let is = |names: &[&str]| names.iter().any(|it| model.contains(it));
        let mut wire = Wire {
            // `max_tokens` is deprecated.
            limit: Limit::MaxCompletionTokens,
            most_stops: 5,
            names: NAMES,
            // `required` is not known, and a model that thinks is left the choice.
            forced: Forced::Named,
            forced_thinking: Forced::Nothing,
            // A schema that is not of the vendor's own flavour is refused where a tool is strict, which it is unless it says otherwise.
            says_loose: true,
            // From 2.5 on, sampling is the platform's.
            samples: !is(&["kimi-k2.", "kimi-k3"]),
            switch: match () {
                () if is(&["kimi-k2.5", "kimi-k2.6"]) => Switch::Thinking,
                () if is(&["kimi-k2.7", "kimi-k2-thinking"]) => Switch::Always,
                () => Switch::Effort,
            },
            // "thinking is enabled but reasoning_content is missing" is the answer to a call that comes back without.
            thinks_back: is(&["kimi"]),
            ..Wire::default()
        };
        if is(&["kimi-k3"]) {
            wire.forced = Forced::Nothing;
        }
        wire.attachments.pdfs = false;
        // Images are sent whole: "unsupported image url" is the answer to an address.
        wire.attachments.fetched_images = false;
        wire
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        let kind = UpstreamError::read(body).kind.unwrap_or_default();
        let mut failure = match (head.status, kind.as_str()) {
            (429, "engine_overloaded_error") => refusal_as(503, head, body),
            (429 | 403, "exceeded_current_quota_error") => refusal_as(402, head, body),
            _ => refusal(head, body),
        };
        // The type is the vendor's code; one that Anthropic has too says nothing more.
        if !kind.is_empty() && kind != failure.error_type && !matches!(head.status, 401 | 403) {
            failure.message.extend([" [", &*kind, "]"]);
        }
        failure
    }
}

sallyport_guest_sdk::export_provider!(Provider);

#[cfg(test)]
mod tests {
    use sallyport_guest_codec::golden::{Suite, asking, head, refused, run, sent};
    use sallyport_guest_sdk::provider::Input;
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

    fn tools() -> Value {
        json!([{"name": "LS", "input_schema": {"type": "object", "properties": {}}}])
    }

    #[test]
    fn a_short_name_of_a_tool_is_made_longer_and_comes_back_as_it_was() {
        let body = json!({"model": "m", "stream": true, "tools": tools(), "messages": [{"role": "user", "content": "Hi"}]});
        let (sent, _) = sent::<Provider>("kimi-k2.6", &body);
        let name = sent["tools"][0]["function"]["name"].as_str().expect("a name").to_owned();
        assert!(name.starts_with("LS_") && sent["tools"][0]["function"]["strict"] == json!(false), "{sent}");
        let call = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "LS:0", "function": {"name": name,
            "arguments": "{}"}}]}, "finish_reason": "tool_calls"}]});
        let stream = Input::Chunk(format!("data: {call}\n\ndata: [DONE]\n\n").into_bytes());
        let head = head(200, &[("content-type", "text/event-stream")]);
        let told = run::<Provider>("{}", asking("kimi-k2.6", &body), [head, stream, Input::End]);
        assert!(format!("{:?}", told.events).contains("name: \"LS\""), "{:?}", told.events);
    }

    #[test]
    fn thinking_is_switched_by_an_object_and_a_model_that_thinks_is_left_the_choice() {
        let body = |kind: &str| {
            json!({"model": "m", "temperature": 0.3, "thinking": {"type": kind}, "tools": tools(), "tool_choice": {"type": "tool", "name": "LS"},
                "messages": [{"role": "user", "content": "Hi"}]})
        };
        let (on, losses) = sent::<Provider>("kimi-k2.6", &body("adaptive"));
        assert_eq!((&on["thinking"], &on["tool_choice"]), (&json!({"type": "enabled"}), &json!("auto")));
        assert_eq!(on.get("temperature"), None);
        assert!(losses.iter().any(|it| it.starts_with("tool_choice: left to the model")), "{losses:?}");
        let (off, _) = sent::<Provider>("kimi-k2.6", &body("disabled"));
        assert_eq!(
            (&off["thinking"], &off["tool_choice"]["type"]),
            (&json!({"type": "disabled"}), &json!("function"))
        );
        let (always, losses) = sent::<Provider>("kimi-k2.7-code", &body("disabled"));
        assert_eq!(always.get("thinking"), None);
        assert!(losses.iter().any(|it| it.contains("always thinks")), "{losses:?}");
        let (older, _) = sent::<Provider>("moonshot-v1-32k", &body("disabled"));
        assert_eq!(older["temperature"], json!(0.3));
    }

    #[test]
    fn the_types_of_errors_say_what_their_status_does_not() {
        let error = |kind: &str| json!({"error": {"type": kind, "message": "why"}});
        for (status, kind, told) in [
            (429, "engine_overloaded_error", (529, "overloaded_error", "why [engine_overloaded_error]")),
            (
                429,
                "exceeded_current_quota_error",
                (402, "billing_error", "why [exceeded_current_quota_error]"),
            ),
            (429, "rate_limit_reached_error", (429, "rate_limit_error", "why [rate_limit_reached_error]")),
            (400, "content_filter", (400, "invalid_request_error", "why [content_filter]")),
            (400, "invalid_request_error", (400, "invalid_request_error", "why")),
        ] {
            let (got, error_type, message) = refused::<Provider>(status, &error(kind));
            assert_eq!((got, error_type.as_str(), message.as_str()), told, "{kind}");
        }
    }
}
