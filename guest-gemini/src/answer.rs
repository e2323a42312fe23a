//! The shapes of an answer, whole or in pieces, which are the same (<https://ai.google.dev/api/generate-content#response-body>), and
//! what they mean to Messages.

use sallyport_guest_codec::json::Str;
use sallyport_guest_codec::usage::{Count, uncached};
use sallyport_guest_sdk::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;

/// `GenerateContentResponse`
#[expect(clippy::struct_field_names, reason = "the wire's names")]
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Response<'a> {
    #[serde(borrow)]
    pub(crate) candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow)]
    pub(crate) prompt_feedback: Option<Feedback<'a>>,
    pub(crate) usage_metadata: Option<Reported>,
    #[serde(borrow)]
    pub(crate) model_version: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) response_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) error: Option<&'a RawValue>,
}

/// One of the answers; only one is ever asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Candidate<'a> {
    pub(crate) index: Option<u64>,
    #[serde(borrow)]
    pub(crate) content: Option<CandidateContent<'a>>,
    #[serde(borrow)]
    pub(crate) finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) finish_message: Option<Str<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CandidateContent<'a> {
    #[serde(borrow)]
    pub(crate) parts: Option<Vec<CandidatePart<'a>>>,
}

/// A piece of text or thinking, or a whole function call.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CandidatePart<'a> {
    #[serde(borrow)]
    pub(crate) text: Option<Str<'a>>,
    pub(crate) thought: Option<bool>,
    #[serde(borrow)]
    pub(crate) thought_signature: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) function_call: Option<CandidateCall<'a>>,
    #[serde(borrow)]
    pub(crate) inline_data: Option<CandidateBlob<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CandidateCall<'a> {
    #[serde(borrow)]
    pub(crate) id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) name: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) args: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CandidateBlob<'a> {
    #[serde(borrow)]
    pub(crate) mime_type: Option<Str<'a>>,
}

/// `promptFeedback`: why there is no candidate.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Feedback<'a> {
    #[serde(borrow)]
    pub(crate) block_reason: Option<Str<'a>>,
}

/// `usageMetadata`: the prompt's count holds what came from a cache, the candidates' not what was thought.
#[expect(clippy::struct_field_names, reason = "the wire's names")]
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Reported {
    prompt_token_count: Count,
    tool_use_prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
}

/// The answer of `countTokens`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counted {
    pub(crate) total_tokens: u32,
}

/// What a reason to stop means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The reply is whole, or as long as it was allowed to be.
    Whole(&'static str),
    /// The model or a filter withheld it.
    Withheld,
    /// It is none: what the model made of it cannot be read.
    Broken,
}

/// `finishReason`: <https://ai.google.dev/api/generate-content#FinishReason>. One that this version does not know ends a reply that
/// says something, and is an error where there is none.
pub(crate) fn stop(reason: &str, called: bool, said: bool) -> Stop {
    match reason {
        "STOP" if called => Stop::Whole("tool_use"),
        "STOP" => Stop::Whole("end_turn"),
        "MAX_TOKENS" => Stop::Whole("max_tokens"),
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "ESCALATION"
        | "MODEL_ARMOR"
        | "PUP_LIMITED_DISABLED" => Stop::Withheld,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MALFORMED_RESPONSE"
        | "MISSING_THOUGHT_SIGNATURE" => Stop::Broken,
        _ if called => Stop::Whole("tool_use"),
        _ if said => Stop::Whole("end_turn"),
        _ => Stop::Broken,
    }
}

// === impl Reported ===

impl Reported {
    /// The counts as Messages has them.
    pub(crate) fn usage(&self) -> Usage {
        let sum = |a: Count, b: Count| match (a.0, b.0) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or_default().saturating_add(b.unwrap_or_default())),
        };
        let cached = self.cached_content_token_count.0;
        Usage {
            input: uncached(sum(self.prompt_token_count, self.tool_use_prompt_token_count), cached, None),
            output: sum(self.candidates_token_count, self.thoughts_token_count),
            cache_read: cached,
            cache_write: None,
            cache_write_1h: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reported, Stop, stop};

    #[test]
    fn what_was_cached_is_no_input_and_what_was_thought_is_output() {
        let usage = |json: &str| {
            let usage = serde_json::from_str::<Reported>(json).unwrap().usage();
            (usage.input, usage.output, usage.cache_read)
        };
        let all = r#"{"promptTokenCount":2006,"cachedContentTokenCount":1500,"candidatesTokenCount":30,"thoughtsTokenCount":12,"totalTokenCount":2048}"#;
        assert_eq!(usage(all), (Some(506), Some(42), Some(1500)));
        assert_eq!(usage(r#"{"promptTokenCount":7,"toolUsePromptTokenCount":3}"#), (Some(10), None, None));
        assert_eq!(usage("{}"), (None, None, None));
    }

    #[test]
    fn a_reason_that_nobody_knows_ends_a_reply_and_makes_none() {
        assert_eq!(stop("NEWER", false, true), Stop::Whole("end_turn"));
        assert_eq!(stop("NEWER", true, true), Stop::Whole("tool_use"));
        assert_eq!(stop("OTHER", false, false), Stop::Broken);
    }
}
