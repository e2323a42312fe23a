//! What goes wrong upstream, as failures of the Messages API: <https://docs.claude.com/en/api/errors>. The upstream's own words are kept.

mod context;

use sallyport_guest_sdk::provider::{Failure, ResponseHead};
use serde::Deserialize;
use serde_json::Value;

use crate::event_stream::EventStreamError;
use crate::headers;
use crate::messages::Invalid;
use crate::sse::TooLong;

pub use self::context::{FullContext, full_context};

/// The most of an error's body that is worth reading.
pub const LIMIT: usize = 64 * 1024;
/// The longest message passed on, in bytes.
const LONGEST: usize = 4096;

/// What callers are told whose upstream refuses the gateway: nothing that they could do about it.
const REFUSED: &str = "the gateway's credential was refused by the upstream";

/// What an error body says, in whichever of the shapes in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamError {
    /// What people read.
    pub message: Option<String>,
    /// A code as text: `context_length_exceeded`.
    pub code: Option<String>,
    /// The type: `invalid_request_error`.
    pub kind: Option<String>,
    /// A code that is an HTTP status.
    pub status: Option<u16>,
}

/// The upstream answered with something that is no answer: an `api_error`, which a retry may mend.
pub fn garbage(message: impl Into<String>) -> Failure {
    Failure::new(502, "api_error", message).retryable()
}

/// The upstream refuses the gateway's credential, whatever the status that it says so with.
pub fn refused() -> Failure {
    Failure::new(502, "api_error", REFUSED)
}

/// The client's request cannot be translated: an `invalid_request_error`.
pub fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(400, "invalid_request_error", message)
}

/// The upstream answered with a status that is no success.
pub fn of_answer(head: &ResponseHead, body: &[u8]) -> Failure {
    let error = UpstreamError::read(body);
    let message = match error.message.clone() {
        Some(message) => message,
        None => match std::str::from_utf8(body).map(str::trim) {
            Ok(text) if !text.is_empty() && text.len() <= 512 && !text.starts_with('<') => text.to_owned(),
            _ => format!("the upstream answered with status {}", head.status),
        },
    };
    let retry_after_ms = headers::retry_after_ms(head);
    Failure { retry_after_ms, ..map(head.status, &error, message) }
}

/// An `error` object in the middle of a stream, or in an answer whose status was success.
pub fn of_object(error: &UpstreamError) -> Failure {
    let message = error.message.clone().unwrap_or_else(|| "the upstream reported an error".to_owned());
    let code = error.code.as_deref().or(error.kind.as_deref()).unwrap_or_default();
    let status = error.status.unwrap_or(match code {
        "rate_limit_exceeded" | "rate_limit_error" | "insufficient_quota" => 429,
        "invalid_request_error" | "context_length_exceeded" | "BadRequestError" => 400,
        "overloaded_error" | "server_overloaded" => 503,
        _ => 502,
    });
    map(status, error, message)
}

fn map(status: u16, error: &UpstreamError, message: String) -> Failure {
    let is = |what: &str| error.code.as_deref() == Some(what) || error.kind.as_deref() == Some(what);
    let (status, error_type, retryable) = match status {
        429 | 403 if is("insufficient_quota") || is("billing_hard_limit_reached") => {
            (402, "billing_error", true)
        }
        400 | 422 => (400, "invalid_request_error", false),
        401 | 403 => return refused(),
        402 => (402, "billing_error", true),
        404 => (404, "not_found_error", false),
        408 | 504 => (504, "timeout_error", true),
        413 => (413, "request_too_large", false),
        429 => (429, "rate_limit_error", true),
        503 | 529 => (529, "overloaded_error", true),
        status @ 500..=599 => (status, "api_error", true),
        status @ 405..=499 => (status, "invalid_request_error", false),
        // A redirect, or a success that was none.
        _ => (502, "api_error", false),
    };
    let mut message = message;
    if matches!(status, 400 | 413) {
        let full = full_context(&message).or_else(|| {
            (error.code.as_deref() == Some("context_length_exceeded")).then(FullContext::default)
        });
        if let Some(full) = full {
            message = full.message(&message);
        }
    }
    message.truncate(message.floor_char_boundary(LONGEST));
    if let Some(code) = error.code.as_deref().filter(|it| is_code(it) && !message.contains(*it)) {
        message.extend([" [", code, "]"]);
    }
    Failure { retryable, ..Failure::new(status, error_type, message) }
}

/// Whether a text is a code as vendors write them: a word, not a sentence.
fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.'))
}

// === impl UpstreamError ===

impl UpstreamError {
    /// Reads an error from a body; empty if there is none in it.
    pub fn read(body: &[u8]) -> Self {
        serde_json::from_slice::<Value>(body).map(|it| Self::parse(&it)).unwrap_or_default()
    }

    /// Whether there is no error at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `{"error": {...}}`, `{"error": "..."}`, `{"object": "error", ...}`, `{"detail": ...}`, `{"message": ...}`, or a
    /// list of one of these.
    fn parse(value: &Value) -> Self {
        let value = value.as_array().and_then(|it| it.first()).unwrap_or(value);
        let error = match value.get("error") {
            Some(Value::String(message)) => {
                return Self { message: Some(message.clone()), ..Self::default() };
            }
            Some(error @ Value::Object(_)) => error,
            _ => value,
        };
        let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
        let detail = || match error.get("detail")? {
            Value::String(detail) => Some(detail.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        let status = error
            .get("code")
            .or_else(|| error.get("status_code"))
            .and_then(|it| u16::deserialize(it).ok())
            .filter(|it| (400..600).contains(it));
        let message = text("message").or_else(detail).filter(|it| !it.is_empty());
        // Google's `code` is the status, and its `status` the code.
        Self { message, code: text("code").or_else(|| text("status")), kind: text("type"), status }
    }
}

// === failures of this crate's readers ===

impl From<TooLong> for Failure {
    fn from(_: TooLong) -> Self {
        garbage("the upstream sent an event larger than 1 MiB")
    }
}

impl From<EventStreamError> for Failure {
    fn from(error: EventStreamError) -> Self {
        garbage(match error {
            EventStreamError::Length => "the upstream sent an event larger than 1 MiB",
            EventStreamError::Checksum | EventStreamError::Headers => "the upstream sent a damaged event",
            EventStreamError::Cut => "the upstream's stream ended in the middle of an event",
        })
    }
}

impl From<Invalid> for Failure {
    fn from(Invalid(message): Invalid) -> Self {
        invalid(message)
    }
}

#[cfg(test)]
mod tests;
