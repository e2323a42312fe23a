//! The one table of errors: what each refusal is on the wire. Causes are logged where they happen and never sent.
//!
//! Statuses are those that Claude Code handles best (measured with 2.1.329): 400 and 422 are sent six times, 401, 409, 429 and
//! 5xx up to ten times, 403 shows a false "failed to authenticate", 402 and 451 once and clean.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sallyport_protocol::errors::{ErrorCode, RetryRule, Told};
use sallyport_protocol::messages::error::{self as wire, ErrorType};
use sallyport_protocol::messages::index::Malformed;

use super::bodies::Full;
use super::mark;
use crate::auth::AuthFault;
use crate::catalog::CatalogError;
use crate::causes::Causes;
use crate::clip::{TEXT, clip};
use crate::component::contract::RefusalKind;
use crate::component::{AdmitError, CompileError};
use crate::config::DenyStatus;
use crate::pipeline::{Refusal, RefusalCode};

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// A client that has to wait for longer is told not to.
const LONGEST_RETRY_MS: u32 = 60_000;
const CODE: HeaderName = HeaderName::from_static("x-sallyport-code");
const POLICY: HeaderName = HeaderName::from_static("x-sallyport-policy");

/// An error in the shape of the Messages API.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error_type: String,
    message: String,
    request_id: String,
    headers: HeaderMap,
}

// === impl ApiError ===

impl ApiError {
    fn new(status: StatusCode, error_type: &str, message: impl Into<String>, request_id: &str) -> Self {
        Self {
            status,
            error_type: error_type.to_owned(),
            // A client chooses the names in it.
            message: clip(&message.into(), TEXT).into_owned(),
            request_id: request_id.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// What a refused call is told.
    pub(super) fn refused(refusal: &Refusal, deny: DenyStatus, request_id: &str) -> Self {
        if let Refusal::OfBatch { refusal: of_request, .. } = refusal {
            let message = clip(&refusal.to_string(), TEXT).into_owned();
            return Self { message, ..Self::refused(of_request, deny, request_id) };
        }
        let code = refusal.code();
        let (status, kind) = table(refusal, &code, deny);
        let error_type = match refusal {
            Refusal::Failed(failure) | Refusal::Declined(failure) => failure.error_type.as_str(),
            _ => kind.as_str(),
        };
        let message = match refusal {
            Refusal::AuditUnavailable(_) => {
                "the audit trail is not available, so the gateway does not answer".to_owned()
            }
            other => other.to_string(),
        };
        let mut error = Self::new(status, error_type, message, request_id).with(CODE, code.as_str());
        match refusal {
            Refusal::Component { component, refusal, .. } => {
                error = error.with(POLICY, component);
                match (&refusal.kind, refusal.retry_after_ms) {
                    (RefusalKind::BudgetExceeded, after) => {
                        error = error.with(SHOULD_RETRY, "false");
                        if let Some(ms) = after {
                            error = error.retry_after(ms).with(
                                HeaderName::from_static("anthropic-ratelimit-unified-status"),
                                "rejected",
                            );
                        }
                    }
                    (RefusalKind::RateLimited, Some(ms)) => error = error.retry_after(ms),
                    // The same call would be refused again.
                    (_, _) => error = error.with(SHOULD_RETRY, "false"),
                }
            }
            Refusal::Undecided { component, .. } => error = error.with(POLICY, component),
            Refusal::NoUpstream { retry_after_ms } => error = error.retry_after(*retry_after_ms),
            Refusal::Failed(failure) | Refusal::Declined(failure) => {
                if let Some(ms) = failure.retry_after_ms {
                    error = error.retry_after(ms);
                }
                // Clients repeat errors of some of these statuses by themselves.
                if !failure.retryable {
                    error = error.with(SHOULD_RETRY, "false");
                }
            }
            _ => {}
        }
        match code {
            RefusalCode::Own(code) => error.retry(code),
            RefusalCode::Component(_) => error,
        }
    }

    /// An error of the gateway's own: everything but its words follows from the code.
    fn own(code: ErrorCode, message: impl Into<String>, request_id: &str) -> Self {
        Self::of_type(code, ErrorType::Api, message, request_id)
    }

    /// The same for a code that has answers of several types.
    fn of_type(code: ErrorCode, kind: ErrorType, message: impl Into<String>, request_id: &str) -> Self {
        let (status, kind) = fixed(code, kind);
        Self::new(status, kind.as_str(), message, request_id).with(CODE, code.as_str()).retry(code)
    }

    /// What a caller is told whose credential is refused.
    pub(super) fn unauthenticated(fault: &AuthFault, request_id: &str) -> Self {
        match fault {
            AuthFault::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorType::Api.as_str(),
                "the gateway cannot check credentials now",
                request_id,
            ),
            AuthFault::Issue(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorType::Api.as_str(),
                "the gateway could not issue a token",
                request_id,
            ),
            AuthFault::Ambiguous => Self::unreadable(
                "a request has one credential, in the header authorization or x-api-key",
                request_id,
            ),
            AuthFault::TierTooLow { needed, .. } => Self::own(
                ErrorCode::TierRequired,
                format!("the tenant asks for the tier {} at least", needed.as_str()),
                request_id,
            ),
            _ => Self::own(ErrorCode::InvalidToken, AuthFault::PUBLIC_MESSAGE, request_id)
                .with(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
        }
    }

    /// Headers that contradict the credential.
    pub(super) fn mismatch(header_name: &str, request_id: &str) -> Self {
        let message = format!("the header {header_name} does not match the credential");
        Self::own(ErrorCode::IdentityMismatch, message, request_id)
    }

    /// A credential that is good, but not for this.
    pub(super) fn scope(scope: &str, request_id: &str) -> Self {
        let message = format!("the credential does not have the scope {scope}");
        Self::own(ErrorCode::InsufficientScope, message, request_id)
    }

    /// A body that is longer than the gateway reads.
    pub(super) fn too_large(limit: usize, request_id: &str) -> Self {
        let message = format!("the request is larger than {limit} bytes");
        Self::own(ErrorCode::RequestTooLarge, message, request_id)
    }

    /// A body that comes too slowly to be waited for.
    pub(super) fn too_slow(request_id: &str) -> Self {
        Self::own(ErrorCode::BodyTooSlow, "the body of the request came too slowly", request_id)
    }

    /// Bodies hold as much memory as they may.
    pub(super) fn bodies_full(full: Full, request_id: &str) -> Self {
        let (kind, message) = match full {
            Full::User => (ErrorType::RateLimit, "your requests hold too much memory"),
            Full::Tenant => (ErrorType::RateLimit, "your tenant's requests hold too much memory"),
            Full::Everybody => (ErrorType::Overloaded, "the gateway holds as many requests as it can"),
        };
        Self::of_type(ErrorCode::BodiesFull, kind, message, request_id).retry_after(1000)
    }

    /// There is no room for an export.
    pub(super) fn telemetry_full(message: &str, wait: Duration, request_id: &str) -> Self {
        let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        Self::own(ErrorCode::TelemetryFull, message, request_id).retry_after(ms)
    }

    /// An export that is none.
    pub(super) fn telemetry_malformed(message: &str, request_id: &str) -> Self {
        Self::own(ErrorCode::TelemetryMalformed, message, request_id)
    }

    /// A request that cannot be read.
    pub(super) fn unreadable(message: &str, request_id: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorType::InvalidRequest.as_str(), message, request_id)
            .with(SHOULD_RETRY, "false")
    }

    pub(super) fn not_found(request_id: &str, message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorType::NotFound.as_str(), message, request_id)
    }

    /// What an administrator is told whose request was not done.
    pub(super) fn catalog(error: &CatalogError, request_id: &str) -> Self {
        let code = catalog_code(error);
        let (_, kind) = fixed(code, ErrorType::Api);
        // What is the gateway's own fault is told to its log, not to whoever asks.
        let message = if kind == ErrorType::Api { error.to_string() } else { Causes(error).to_string() };
        let told = Self::own(code, message, request_id);
        match error.retry_after() {
            Some(after) => told.retry_after(u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
            None => told.with(SHOULD_RETRY, "false"),
        }
    }

    /// A body of another kind.
    pub(super) fn media(wanted: &str, request_id: &str) -> Self {
        let message = format!("the body has to be {wanted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorType::InvalidRequest.as_str(), message, request_id)
            .with(SHOULD_RETRY, "false")
    }

    /// A cookie that came without a word on which page sent it, or from another site's.
    pub(super) fn other_origin(request_id: &str) -> Self {
        let message = "with a cookie, the header origin has to say that the request comes from the gateway's own address";
        Self::new(StatusCode::FORBIDDEN, ErrorType::Permission.as_str(), message, request_id)
            .with(SHOULD_RETRY, "false")
    }

    /// The same error with where a client learns how to sign in (RFC 9728, section 5.1).
    pub(super) fn resource_metadata(self, address: &str) -> Self {
        if self.status != StatusCode::UNAUTHORIZED {
            return self;
        }
        self.with(
            header::WWW_AUTHENTICATE,
            &format!("Bearer error=\"invalid_token\", resource_metadata=\"{address}\""),
        )
    }

    pub(super) fn wrong_method(request_id: &str) -> Self {
        let message = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorType::InvalidRequest.as_str(), message, request_id)
    }

    pub(super) fn audit_unavailable(request_id: &str) -> Self {
        let message = "the audit trail is not available, so the gateway does not answer";
        Self::own(ErrorCode::AuditUnavailable, message, request_id)
    }

    /// What the client is told about trying again. A code that has it come back later says when itself.
    fn retry(self, code: ErrorCode) -> Self {
        if code.retry() == RetryRule::No { self.with(SHOULD_RETRY, "false") } else { self }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// `retry-after` counts whole seconds (RFC 9110): rounded up, so that the retry succeeds.
    fn retry_after(self, ms: u32) -> Self {
        let told = self
            .with(header::RETRY_AFTER, &ms.div_ceil(1000).max(1).to_string())
            .with(RETRY_AFTER_MS, &ms.to_string());
        // The SDKs sleep for as long as they are told, without a word to anybody.
        if ms > LONGEST_RETRY_MS { told.with(SHOULD_RETRY, "false") } else { told }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, error_type, message, request_id, headers } = self;
        let mut response = Response::new(Body::from(wire::body(&error_type, &message, &request_id)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        mark(&mut response, &request_id);
        response
    }
}

/// What a client is told that came to a listener with TLS without it: the body of a 400.
pub(super) fn without_tls(request_id: &str) -> Vec<u8> {
    let said = "this address speaks TLS: the client's base URL has to begin with https://";
    wire::body(ErrorType::InvalidRequest.as_str(), said, request_id)
}

// === private helpers ===

/// Status and type of what a refused call is told.
fn table(refusal: &Refusal, code: &RefusalCode, deny: DenyStatus) -> (StatusCode, ErrorType) {
    let denied = match deny {
        DenyStatus::S403 => StatusCode::FORBIDDEN,
        DenyStatus::S400 => StatusCode::BAD_REQUEST,
        DenyStatus::S451 | DenyStatus::Answer => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
    };
    let told = match code {
        RefusalCode::Own(code) => code.told(),
        RefusalCode::Component(_) => Told::ByKind,
    };
    match (refusal, told) {
        (Refusal::Component { refusal, .. }, Told::ByKind) => match &refusal.kind {
            RefusalKind::Denied | RefusalKind::Other(_) => (denied, ErrorType::Permission),
            RefusalKind::NotEntitled => (StatusCode::BAD_REQUEST, ErrorType::InvalidRequest),
            RefusalKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit),
            RefusalKind::BudgetExceeded => (StatusCode::TOO_MANY_REQUESTS, ErrorType::Billing),
        },
        (Refusal::Failed(failure) | Refusal::Declined(failure), _) => {
            let status = StatusCode::from_u16(failure.status).ok().filter(|status| status.as_u16() >= 400);
            (status.unwrap_or(StatusCode::BAD_GATEWAY), ErrorType::Api)
        }
        (Refusal::Malformed(Malformed::Long), told) => answer(told, ErrorType::RequestTooLarge),
        (_, Told::Denial | Told::ByKind) => (denied, ErrorType::Permission),
        (_, told) => answer(told, ErrorType::Api),
    }
}

/// The answer of this type that goes with a code, or the usual one.
fn fixed(code: ErrorCode, kind: ErrorType) -> (StatusCode, ErrorType) {
    answer(code.told(), kind)
}

fn answer(told: Told, kind: ErrorType) -> (StatusCode, ErrorType) {
    told.answer(kind)
        .and_then(|(status, kind)| Some((StatusCode::from_u16(status).ok()?, kind)))
        .unwrap_or((StatusCode::BAD_GATEWAY, ErrorType::Api))
}

/// What an administrator's request is called that was not done. An administrator sees causes, but not those of the gateway's own parts.
pub(super) fn catalog_code(error: &CatalogError) -> ErrorCode {
    match error {
        CatalogError::NotFound => ErrorCode::NotFound,
        CatalogError::Forbidden(_) => ErrorCode::Forbidden,
        CatalogError::Invalid(_) | CatalogError::Unread(_) => ErrorCode::Invalid,
        CatalogError::Package(_) => ErrorCode::MalformedPackage,
        CatalogError::Trust(_) => ErrorCode::NotTrusted,
        CatalogError::Revoked(_) => ErrorCode::Revoked,
        CatalogError::OtherBytes(_) => ErrorCode::OtherBytes,
        CatalogError::Grants { .. } => ErrorCode::GrantNeeded,
        CatalogError::Admit(AdmitError::Compile(CompileError::QueueFull)) => ErrorCode::CompileQueueFull,
        CatalogError::Admit(AdmitError::Compile(CompileError::Spent { .. })) => ErrorCode::CompileTimeSpent,
        CatalogError::Admit(_) | CatalogError::Compiling | CatalogError::NotAdmitted(_) => {
            ErrorCode::NotAdmitted
        }
        CatalogError::QuotaBytes { .. } => ErrorCode::QuotaBytes,
        CatalogError::QuotaVersions { .. } => ErrorCode::QuotaVersions,
        CatalogError::QuotaUploads { .. } => ErrorCode::QuotaUploads,
        CatalogError::InUse(_) => ErrorCode::InUse,
        CatalogError::Step(_) => ErrorCode::NoSuchStep,
        CatalogError::Changed => ErrorCode::ChangedMeanwhile,
        CatalogError::NotYet => ErrorCode::NotInForceYet,
        CatalogError::Audit(_) => ErrorCode::AuditUnavailable,
        CatalogError::Db(_) => ErrorCode::DatabaseUnavailable,
        CatalogError::Stored(_) => ErrorCode::Unreadable,
    }
}
