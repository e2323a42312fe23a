//! What goes wrong upstream, as failures of the Messages API. The upstream's own words are kept.

use sallyport_guest_sdk::provider::{Failure, ResponseHead};
use serde::Deserialize;
use serde_json::Value;

use crate::context;
use crate::headers;
use crate::sse::TooLong;

/// The most of an error's body that is read.
pub(crate) const MOST: usize = 64 * 1024;
/// The longest message passed on, in bytes.
const LONGEST: usize = 4096;

/// What callers are told whose upstream refuses the gateway: nothing that they could do about it.
const REFUSED: &str = "the gateway's credential was refused by the upstream";

/// What an error body says, in whichever of the shapes in use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) message: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    status: Option<u16>,
}

/// A failure on its way out of a decoder.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) Failure);

/// The upstream answered with something that is no answer.
pub(crate) fn garbage(message: impl Into<String>) -> Failure {
    Failure::new(502, "api_error", message).retryable()
}

/// The client's request cannot be translated.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(400, "invalid_request_error", message)
}

/// The upstream answered with a status that is no success.
pub(crate) fn status(head: &ResponseHead, body: &[u8]) -> Failure {
    let said = said(body);
    let message = match said.message.clone() {
        Some(message) => message,
        None => match std::str::from_utf8(body).map(str::trim) {
            Ok(text) if !text.is_empty() && text.len() <= 512 && !text.starts_with('<') => text.to_owned(),
            _ => format!("the upstream answered with status {}", head.status),
        },
    };
    let retry_after_ms = headers::retry_after_ms(head);
    Failure { retry_after_ms, ..map(head.status, &said, message) }
}

/// An `error` object in the middle of a stream, or in an answer whose status was success.
pub(crate) fn object(error: &Said) -> Failure {
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

/// Reads an error from a body; empty if there is none in it.
pub(crate) fn said(body: &[u8]) -> Said {
    serde_json::from_slice::<Value>(body).map(|it| Said::parse(&it)).unwrap_or_default()
}

fn map(status: u16, said: &Said, message: String) -> Failure {
    let is = |what: &str| said.code.as_deref() == Some(what) || said.kind.as_deref() == Some(what);
    let (status, error_type, retryable) = match status {
        429 | 403 if is("insufficient_quota") || is("billing_hard_limit_reached") => {
            (402, "billing_error", true)
        }
        400 | 422 => (400, "invalid_request_error", false),
        401 | 403 => return Failure::new(502, "api_error", REFUSED),
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
        let full = context::full(&message).or_else(|| {
            (said.code.as_deref() == Some("context_length_exceeded")).then(context::Full::default)
        });
        if let Some(full) = full {
            message = full.told(&message);
        }
    }
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
        message.truncate(end);
    }
    Failure { retryable, ..Failure::new(status, error_type, message) }
}

// === impl Said ===

impl Said {
    /// Whether there is an error at all.
    pub(crate) fn is_empty(&self) -> bool {
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
        Self { message, code: text("code"), kind: text("type"), status }
    }
}

// === impl Wrong ===

impl From<TooLong> for Wrong {
    fn from(_: TooLong) -> Self {
        Self(garbage("the upstream sent an event larger than 1 MiB"))
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

#[cfg(test)]
mod tests;
