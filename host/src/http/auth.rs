//! The first tier of identity: a personal access token for a short-lived access token and the seven headers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{Edge, caller};
use crate::audit::Outcome;

/// `POST /v1/auth/cowork/pat`
pub(super) async fn exchange_pat(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Response {
    let request_id = edge.request_id();
    match exchange(&edge, &headers, &request_id).await {
        Ok(answer) => super::json(&request_id, &answer),
        Err(error) => error.into_response(),
    }
}

/// `GET /v1/auth/cowork/capabilities`
pub(super) async fn capabilities(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &edge.auth.capabilities())
}

/// `GET /.well-known/jwks.json`
pub(super) async fn jwks(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &edge.auth.jwks())
}

// === private helpers ===

async fn exchange(edge: &Edge, headers: &HeaderMap, request_id: &str) -> Result<Value, ApiError> {
    let pat = match caller::credential(headers) {
        Ok(pat) => pat,
        Err(fault) => return Err(caller::refused(edge, &fault, request_id).await),
    };
    let principal = match edge.auth.authenticate(pat).await {
        Ok(principal) => principal,
        Err(fault) => return Err(caller::refused(edge, &fault, request_id).await),
    };
    let version = edge.pipeline.policy_version(&principal.tenant);
    let issued = match edge.auth.exchange_pat(pat, &version).await {
        Ok(issued) => issued,
        Err(fault) => return Err(caller::refused(edge, &fault, request_id).await),
    };
    caller::row(edge, caller::who(edge, &principal), "token_issued", Outcome::Allowed, request_id).await?;
    let headers: Map<String, Value> =
        issued.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    Ok(json!({ "token": issued.token, "ttl": issued.ttl_seconds, "headers": headers }))
}
