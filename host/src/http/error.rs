//! The one table of errors: what each refusal is on the wire. Causes are logged where they happen and never sent.
//!
//! Statuses are those that Claude Code handles best (measured with 2.1.329): 400 and 422 are sent six times, 401, 409, 429 and
//! 5xx up to ten times, 403 shows a false "failed to authenticate", 402 and 451 once and clean.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sallyport_protocol::messages::error::{self as wire, ErrorType};
use sallyport_protocol::messages::index::Malformed;

use super::bodies::Full;
use super::mark;
use crate::auth::AuthFault;
use crate::catalog::CatalogError;
use crate::component::contract::RefusalKind;
use crate::component::{AdmitError, CompileError};
use crate::config::DenyStatus;
use crate::pipeline::Refusal;

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
            message: message.into(),
            request_id: request_id.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// What a refused call is told.
    pub(super) fn refused(refusal: &Refusal, deny: DenyStatus, request_id: &str) -> Self {
        let (status, kind) = table(refusal, deny);
        let error_type = match refusal {
            Refusal::Failed(failure) => failure.error_type.as_str(),
            _ => kind.as_str(),
        };
        let message = match refusal {
            Refusal::AuditUnavailable(_) => {
                "the audit trail is not available, so the gateway does not answer".to_owned()
            }
            other => other.to_string(),
        };
        let mut error = Self::new(status, error_type, message, request_id).with(CODE, refusal.code());
        match refusal {
            Refusal::Component { component, refusal, .. } => {
                error = error.with(POLICY, component);
                match (refusal.kind, refusal.retry_after_ms) {
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
            Refusal::Undecided { component, .. } => {
                error = error.with(POLICY, component).with(SHOULD_RETRY, "false");
            }
            Refusal::Malformed(_)
            | Refusal::NoRoute { .. }
            | Refusal::Unknown { .. }
            | Refusal::Lossy { .. }
            | Refusal::Credential
            | Refusal::TooLarge { .. } => {
                error = error.with(SHOULD_RETRY, "false");
            }
            Refusal::Failed(failure) => {
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
        error
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
            _ => Self::new(
                StatusCode::UNAUTHORIZED,
                ErrorType::Authentication.as_str(),
                AuthFault::PUBLIC_MESSAGE,
                request_id,
            )
            .with(SHOULD_RETRY, "false")
            .with(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")
            .with(CODE, "invalid_token"),
        }
    }

    /// Headers that contradict the credential.
    pub(super) fn mismatch(header_name: &str, request_id: &str) -> Self {
        let message = format!("the header {header_name} does not match the credential");
        Self::new(StatusCode::FORBIDDEN, ErrorType::Permission.as_str(), message, request_id)
            .with(SHOULD_RETRY, "false")
            .with(CODE, "identity_mismatch")
    }

    /// A credential that is good, but not for this.
    pub(super) fn scope(scope: &str, request_id: &str) -> Self {
        let message = format!("the credential does not have the scope {scope}");
        Self::new(StatusCode::FORBIDDEN, ErrorType::Permission.as_str(), message, request_id)
            .with(SHOULD_RETRY, "false")
            .with(CODE, "insufficient_scope")
    }

    /// A body that is longer than the gateway reads.
    pub(super) fn too_large(limit: usize, request_id: &str) -> Self {
        let message = format!("the request is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorType::RequestTooLarge.as_str(), message, request_id)
            .with(SHOULD_RETRY, "false")
            .with(CODE, "request_too_large")
    }

    /// A body that comes too slowly to be waited for.
    pub(super) fn too_slow(request_id: &str) -> Self {
        let message = "the body of the request came too slowly";
        Self::new(StatusCode::REQUEST_TIMEOUT, ErrorType::InvalidRequest.as_str(), message, request_id)
            .with(header::CONNECTION, "close")
            .with(CODE, "body_too_slow")
    }

    /// Bodies hold as much memory as they may.
    pub(super) fn bodies_full(full: Full, request_id: &str) -> Self {
        let (status, kind, message) = match full {
            Full::User => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit, "your requests hold too much memory")
            }
            Full::Tenant => (
                StatusCode::TOO_MANY_REQUESTS,
                ErrorType::RateLimit,
                "your tenant's requests hold too much memory",
            ),
            Full::Everybody => {
                (overloaded(), ErrorType::Overloaded, "the gateway holds as many requests as it can")
            }
        };
        Self::new(status, kind.as_str(), message, request_id).retry_after(1000).with(CODE, "bodies_full")
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
        let (status, kind, code) = catalog_table(error);
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let (Some(source), false) = (cause, kind == ErrorType::Api) {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        let told = Self::new(status, kind.as_str(), message, request_id).with(CODE, code);
        match error.retry_after() {
            Some(after) => told.retry_after(u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
            None => told.with(SHOULD_RETRY, "false"),
        }
    }

    pub(super) fn wrong_method(request_id: &str) -> Self {
        let message = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorType::InvalidRequest.as_str(), message, request_id)
    }

    pub(super) fn audit_unavailable(request_id: &str) -> Self {
        let message = "the audit trail is not available, so the gateway does not answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorType::Api.as_str(), message, request_id)
            .with(CODE, "audit_unavailable")
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

// === private helpers ===

/// The table.
fn table(refusal: &Refusal, deny: DenyStatus) -> (StatusCode, ErrorType) {
    let denied = match deny {
        DenyStatus::S403 => StatusCode::FORBIDDEN,
        DenyStatus::S400 => StatusCode::BAD_REQUEST,
        DenyStatus::S451 | DenyStatus::Answer => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
    };
    match refusal {
        Refusal::Malformed(Malformed::Long | Malformed::Many { .. }) | Refusal::TooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, ErrorType::RequestTooLarge)
        }
        Refusal::Malformed(_) | Refusal::Unknown { .. } | Refusal::Lossy { .. } => {
            (StatusCode::BAD_REQUEST, ErrorType::InvalidRequest)
        }
        Refusal::NoRoute { .. } => (StatusCode::NOT_FOUND, ErrorType::NotFound),
        Refusal::Component { refusal, .. } => match refusal.kind {
            RefusalKind::Denied => (denied, ErrorType::Permission),
            RefusalKind::NotEntitled => (StatusCode::BAD_REQUEST, ErrorType::InvalidRequest),
            RefusalKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit),
            RefusalKind::BudgetExceeded => (StatusCode::TOO_MANY_REQUESTS, ErrorType::Billing),
        },
        Refusal::Undecided { .. } => (denied, ErrorType::Permission),
        Refusal::Overloaded => (overloaded(), ErrorType::Overloaded),
        Refusal::AuditUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorType::Api),
        Refusal::NoProvider { .. }
        | Refusal::Credential
        | Refusal::ProviderFault { .. }
        | Refusal::ProviderBroke { .. }
        | Refusal::BadAnswer { .. }
        | Refusal::Unreadable { .. }
        | Refusal::ToolCallTooLarge { .. } => (StatusCode::BAD_GATEWAY, ErrorType::Api),
        Refusal::Failed(failure) => {
            let status = StatusCode::from_u16(failure.status).ok().filter(|status| status.as_u16() >= 400);
            (status.unwrap_or(StatusCode::BAD_GATEWAY), ErrorType::Api)
        }
    }
}

/// The table of the catalog. An administrator sees causes, but not those of the gateway's own parts.
pub(super) fn catalog_table(error: &CatalogError) -> (StatusCode, ErrorType, &'static str) {
    let invalid = ErrorType::InvalidRequest;
    match error {
        CatalogError::NotFound => (StatusCode::NOT_FOUND, ErrorType::NotFound, "not_found"),
        CatalogError::Forbidden(_) => (StatusCode::FORBIDDEN, ErrorType::Permission, "forbidden"),
        CatalogError::Invalid(_) => (StatusCode::BAD_REQUEST, invalid, "invalid"),
        CatalogError::Package(_) => (StatusCode::BAD_REQUEST, invalid, "malformed_package"),
        CatalogError::Trust(_) => (StatusCode::UNPROCESSABLE_ENTITY, invalid, "not_trusted"),
        CatalogError::Revoked(_) => (StatusCode::UNPROCESSABLE_ENTITY, invalid, "revoked"),
        CatalogError::OtherBytes(_) => (StatusCode::CONFLICT, invalid, "other_bytes"),
        CatalogError::Grants { .. } => (StatusCode::CONFLICT, invalid, "grant_needed"),
        CatalogError::Admit(AdmitError::Compile(CompileError::QueueFull)) => {
            (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit, "compile_queue_full")
        }
        CatalogError::Admit(AdmitError::Compile(CompileError::Spent { .. })) => {
            (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit, "compile_time_spent")
        }
        CatalogError::Admit(_) | CatalogError::Compiling | CatalogError::NotAdmitted(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, invalid, "not_admitted")
        }
        CatalogError::QuotaBytes { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, ErrorType::RequestTooLarge, "quota_bytes")
        }
        CatalogError::QuotaVersions { .. } => (StatusCode::CONFLICT, invalid, "quota_versions"),
        CatalogError::QuotaUploads { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit, "quota_uploads")
        }
        CatalogError::InUse(_) => (StatusCode::CONFLICT, invalid, "in_use"),
        CatalogError::Step(_) => (StatusCode::CONFLICT, invalid, "no_such_step"),
        CatalogError::Changed => (StatusCode::CONFLICT, invalid, "changed_meanwhile"),
        CatalogError::NotYet => (StatusCode::SERVICE_UNAVAILABLE, ErrorType::Api, "not_in_force_yet"),
        CatalogError::Audit(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorType::Api, "audit_unavailable"),
        CatalogError::Db(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorType::Api, "database_unavailable"),
        CatalogError::Stored(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorType::Api, "unreadable"),
    }
}

/// 529 is the API's own status for overload.
fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}
