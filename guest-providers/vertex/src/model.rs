//! Which model is asked. Its name becomes part of a path, so it holds nothing that means something there.

use sallyport_guest_codec::error;
use sallyport_guest_sdk::provider::Failure;

/// A model, by the name of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Model<'a> {
    /// Claude: `claude-sonnet-4-5@20250929`.
    Claude(&'a str),
    /// What stands in the path of a Gemini model, or of an endpoint that one was tuned for.
    Gemini(String),
}

// === impl Model ===

impl<'a> Model<'a> {
    /// Reads `claude-..`, `gemini-..`, `publisher/model`, `publishers/publisher/models/model` or `endpoints/number`.
    pub(crate) fn read(name: &'a str) -> Result<Self, Failure> {
        let odd = || error::invalid("model: no name of a model that Vertex AI serves");
        if let Some(endpoint) = name.strip_prefix("endpoints/") {
            let number = !endpoint.is_empty() && endpoint.bytes().all(|it| it.is_ascii_digit());
            return if number { Ok(Self::Gemini(name.to_owned())) } else { Err(odd()) };
        }
        let (publisher, model) = match name.split_once('/') {
            None if name.starts_with("claude") => ("anthropic", name),
            None => ("google", name),
            Some(("publishers", rest)) => rest.split_once("/models/").ok_or_else(odd)?,
            Some(parts) => parts,
        };
        if !is_plain(model) {
            return Err(odd());
        }
        match publisher {
            "anthropic" => Ok(Self::Claude(model)),
            "google" => Ok(Self::Gemini(format!("publishers/google/models/{model}"))),
            _ => Err(error::invalid("model: of Vertex AI, only models of anthropic and google are asked")),
        }
    }
}

/// A version stands behind an `@`.
fn is_plain(name: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.' | b'@');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::Model;

    #[test]
    fn a_models_name_says_its_publisher() {
        let gemini = |name: &str| Ok(Model::Gemini(format!("publishers/google/models/{name}")));
        for (name, read) in [
            ("claude-opus-4-5@20251101", Ok(Model::Claude("claude-opus-4-5@20251101"))),
            ("anthropic/claude-opus-4-5", Ok(Model::Claude("claude-opus-4-5"))),
            ("publishers/anthropic/models/claude-x", Ok(Model::Claude("claude-x"))),
            ("gemini-3-flash", gemini("gemini-3-flash")),
            ("google/gemini-3-flash", gemini("gemini-3-flash")),
            ("publishers/google/models/gemini-3-flash", gemini("gemini-3-flash")),
            ("endpoints/42", Ok(Model::Gemini("endpoints/42".to_owned()))),
        ] {
            assert_eq!(Model::read(name), read, "{name}");
        }
    }

    #[test]
    fn a_name_that_means_something_else_in_a_path_is_refused() {
        for name in [
            "",
            "..",
            "claude-x/..",
            "claude-x:rawPredict",
            "claude-x?a",
            "claude x",
            "endpoints/a",
            "endpoints/",
            "publishers/google/gemini",
            "publishers/google/models/a/b",
            "mistralai/mistral-large",
            "meta/llama-4",
        ] {
            let failure = Model::read(name).unwrap_err();
            assert_eq!(
                (failure.status, failure.error_type.as_str()),
                (400, "invalid_request_error"),
                "{name}"
            );
        }
    }
}
