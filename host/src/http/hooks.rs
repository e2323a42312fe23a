//! `POST /v1/hooks/{event}`: Claude Code's HTTP hooks. Any answer but a 200 leaves the client to go on, so refusals are rows.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use sallyport_protocol::hooks::Report;
use sallyport_protocol::package::HookEvent;

use super::error::ApiError;
use super::{BodyLimits, Edge, TRACE_ID, caller};
use crate::pipeline::Reporter;

/// Longest report.
pub(super) const LONGEST_REPORT: usize = 1024 * 1024;

/// `POST /v1/hooks/{event}`
pub(super) async fn report(
    State(edge): State<Arc<Edge>>,
    Path(event): Path<String>,
    request: Request,
) -> Response {
    let request_id = edge.request_id();
    match answer(&edge, &event, request, &request_id).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

// === private helpers ===

/// Who calls comes first: a stranger learns nothing about events and bodies.
async fn answer(edge: &Edge, event: &str, request: Request, request_id: &str) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let principal = caller::caller(edge, &head, request_id).await?;
    let Some(event) = HookEvent::parse(event) else {
        return Err(ApiError::not_found(request_id, "there is no such event"));
    };
    let limits = edge.settings.load().bodies;
    let limits = BodyLimits { each: limits.each.min(LONGEST_REPORT), ..limits };
    let owner = (principal.tenant.shared(), principal.user.shared());
    let bytes = edge.bodies.read(&head.headers, body, owner, &limits, request_id).await?;
    let raw = String::from_utf8(Bytes::clone(&bytes).into())
        .map_err(|_| ApiError::unreadable("the report is not UTF-8", request_id))?;
    let reporter = Reporter { principal, headers: head.headers, raw, request_id: request_id.to_owned() };
    let report = match Report::parse(event, &bytes) {
        Ok(report) => report,
        Err(error) => {
            let refused = edge.pipeline.refuse_report(&reporter, event, &error).await;
            refused.map_err(|_| ApiError::audit_unavailable(request_id))?;
            return Err(ApiError::unreadable(&error.to_string(), request_id));
        }
    };
    let reported = edge.pipeline.report(reporter, report).await;
    let reported = reported.map_err(|_| ApiError::audit_unavailable(request_id))?;
    let mut response = super::json_text(request_id, reported.answer.to_json(event));
    if let Ok(trace) = HeaderValue::from_str(reported.trace.as_str()) {
        response.headers_mut().insert(TRACE_ID, trace);
    }
    Ok(response)
}
