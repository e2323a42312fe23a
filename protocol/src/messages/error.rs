//! Errors as Anthropic clients know them: the closed set of types, the JSON body and the SSE event.
//! Shapes: <https://docs.claude.com/en/api/errors>.

use super::json;

/// The error types of the Messages API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The request is malformed or asks for what is not offered (400).
    InvalidRequest,
    /// The credential is missing, wrong or expired (401).
    Authentication,
    /// A budget or an account is exhausted (402, or 429 for a spend cap).
    Billing,
    /// The caller may not do this (403, or 451 for a policy).
    Permission,
    /// No such resource (404).
    NotFound,
    /// The body is too large (413).
    RequestTooLarge,
    /// Too many requests or tokens (429).
    RateLimit,
    /// The upstream did not answer in time (504).
    Timeout,
    /// Something failed that is not the caller's doing (500, 502, 503).
    Api,
    /// Too much load (529).
    Overloaded,
}

// === impl ErrorType ===

impl ErrorType {
    /// Every type.
    pub const ALL: [Self; 10] = [
        Self::InvalidRequest,
        Self::Authentication,
        Self::Billing,
        Self::Permission,
        Self::NotFound,
        Self::RequestTooLarge,
        Self::RateLimit,
        Self::Timeout,
        Self::Api,
        Self::Overloaded,
    ];

    /// The type as it stands in `error.type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Billing => "billing_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RequestTooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Timeout => "timeout_error",
            Self::Api => "api_error",
            Self::Overloaded => "overloaded_error",
        }
    }

    /// The type with this name, if it is one of the set.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The JSON body of an error: `{"type":"error","error":{"type":..,"message":..},"request_id":..}`.
pub fn body(error_type: &str, message: &str, request_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + error_type.len() + message.len() + request_id.len());
    write(&mut out, error_type, message, Some(request_id));
    out
}

/// The same error as an SSE event, for a stream that has begun: `event: error`, then the body as its data.
pub fn sse_error(error_type: &str, message: &str, request_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(120 + error_type.len() + message.len() + request_id.len());
    out.extend_from_slice(b"event: error\ndata: ");
    write(&mut out, error_type, message, Some(request_id));
    out.extend_from_slice(b"\n\n");
    out
}

pub(super) fn write(out: &mut Vec<u8>, error_type: &str, message: &str, request_id: Option<&str>) {
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":{\"type\":");
    json::string(out, error_type);
    out.extend_from_slice(b",\"message\":");
    json::string(out, message);
    out.push(b'}');
    if let Some(request_id) = request_id {
        out.extend_from_slice(b",\"request_id\":");
        json::string(out, request_id);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_has_the_shape_clients_match_on() {
        let body = body(ErrorType::Permission.as_str(), "model \"x\"\nis blocked", "req_1");
        insta::assert_snapshot!(String::from_utf8(body).unwrap(), @r#"{"type":"error","error":{"type":"permission_error","message":"model \"x\"\nis blocked"},"request_id":"req_1"}"#);
    }

    #[test]
    fn an_error_in_a_stream_is_one_event_whatever_the_message_says() {
        let event = sse_error("api_error", "a\n\nevent: message_stop\ndata: {}\r\n\r\n", "req_1");
        let text = String::from_utf8(event).unwrap();
        assert_eq!(text.matches('\n').count(), 3);
        assert!(!text.contains('\r'));
        assert!(text.starts_with("event: error\ndata: {\"type\":\"error\","));
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for kind in ErrorType::ALL {
            assert_eq!(ErrorType::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(ErrorType::parse("refusal"), None);
    }
}
