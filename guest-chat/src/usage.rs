//! Token counts as compatible servers report them, as Messages counts them.

use sallyport_guest_codec::usage::{Count, uncached};
use sallyport_guest_sdk::Usage;
use serde::Deserialize;

/// `usage` of a Chat Completions answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reported {
    prompt_tokens: Count,
    completion_tokens: Count,
    prompt_tokens_details: Option<Details>,
    /// Moonshot's place for it.
    cached_tokens: Count,
    cache_write_tokens: Count,
    /// `DeepSeek`'s place for it.
    prompt_cache_hit_tokens: Count,
}

#[expect(clippy::struct_field_names, reason = "the wire's names")]
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    /// Qwen's name for it.
    cache_creation_input_tokens: Count,
}

// === impl Reported ===

impl Reported {
    /// The counts, with the cached part of the prompt told apart.
    pub(crate) fn usage(&self) -> Usage {
        let details = self.prompt_tokens_details.as_ref();
        let written = details
            .and_then(|it| it.cache_write_tokens.0.or(it.cache_creation_input_tokens.0))
            .or(self.cache_write_tokens.0);
        let cached = details
            .and_then(|it| it.cached_tokens.0)
            .or(self.cached_tokens.0)
            .or(self.prompt_cache_hit_tokens.0);
        Usage {
            input: uncached(self.prompt_tokens.0, cached, written),
            output: self.completion_tokens.0,
            cache_read: cached,
            cache_write: written,
            cache_write_1h: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reported;
    use sallyport_guest_sdk::Usage;

    fn usage(json: &str) -> Usage {
        serde_json::from_str::<Reported>(json).unwrap().usage()
    }

    #[test]
    fn cached_tokens_are_told_apart_from_input() {
        let expected = Usage {
            input: Some(20),
            output: Some(5),
            cache_read: Some(80),
            cache_write: None,
            cache_write_1h: None,
        };
        for json in [
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":80,"audio_tokens":0}}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5,"cached_tokens":80}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5.0,"prompt_cache_hit_tokens":80,"prompt_tokens_details":null}"#,
        ] {
            assert_eq!(usage(json), expected);
        }
    }

    #[test]
    fn what_was_written_to_a_cache_is_told_apart_too() {
        let counted = usage(
            r#"{"prompt_tokens":2006,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":1500,"cache_write_tokens":400}}"#,
        );
        let told = (counted.input, counted.output, counted.cache_read, counted.cache_write);
        assert_eq!(told, (Some(106), Some(30), Some(1500), Some(400)));
    }

    #[test]
    fn what_is_not_reported_is_not_zero() {
        let nothing =
            Usage { input: None, output: None, cache_read: None, cache_write: None, cache_write_1h: None };
        assert_eq!(usage("{}"), nothing);
        assert_eq!(usage(r#"{"prompt_tokens":null,"completion_tokens":-1}"#), nothing);
    }
}
