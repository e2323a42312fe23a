//! The thin edge: the only module that names axum. It reads requests, asks who calls, hands over to the pipeline, and writes
//! what came of it.

mod admin;
mod answer;
mod auth;
mod caller;
mod error;
mod health;
mod hooks;
mod messages;
mod models;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::audit::Audit;
use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::clock::{Clock, Entropy};
use crate::component::Components;
use crate::config::{Config, DenyStatus};
use crate::db::Db;
use crate::limits::Limit;
use crate::pipeline::Pipeline;

pub(crate) use self::serve::serve;

use self::error::ApiError;

/// What handlers work with.
pub(crate) struct Edge {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) components: Arc<Components>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) settings: arc_swap::ArcSwap<Settings>,
    /// Failures of callers that nobody knows, so that they cannot fill the trail.
    pub(crate) strangers: Strangers,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Longest request body.
    pub(crate) body_limit: usize,
    /// How a denial is told.
    pub(crate) deny: DenyStatus,
    /// How long a client may take for the head of a request; read once.
    pub(crate) head_timeout: Duration,
}

pub(crate) use self::caller::Strangers;

// === impl Settings ===

impl Settings {
    /// What the configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        let server = &config.server;
        Self { body_limit: server.body_limit, deny: config.deny_status, head_timeout: server.head_timeout }
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// All endpoints.
pub(crate) fn router(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/hooks/{event}", post(hooks::report))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/", get(health::alive))
        .route("/health", get(health::alive))
        .route("/ready", get(health::ready))
        .route("/v1/auth/cowork/pat", post(auth::exchange_pat))
        .route("/v1/cowork/auth/pat", post(auth::exchange_pat))
        .route("/v1/auth/cowork/capabilities", get(auth::capabilities))
        .route("/v1/cowork/capabilities", get(auth::capabilities))
        .route("/.well-known/jwks.json", get(auth::jwks))
        .merge(admin::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
}

/// The limits of the edge.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "edge";
    vec![
        Limit::count(PART, "connections", count(serve::CONNECTIONS), "a further one waits until one closes"),
        Limit::count(PART, "HTTP/2 streams of a connection", serve::STREAMS.into(), "the client waits"),
        Limit::bytes(PART, "head of a request", serve::HEAD_BYTES, "431, or the connection is closed"),
        Limit::time(PART, "running answers when the gateway is told to end", serve::DRAIN, "they are cut"),
        Limit::bytes(PART, "body of a reported event", hooks::LONGEST_REPORT, "413"),
        Limit::bytes(PART, "JSON of an administrator", admin::MAX_JSON, "413"),
        Limit::count(PART, "models of one page", count(models::LARGEST_PAGE), "the page is as long as this"),
    ]
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

// === impl Edge ===

impl Edge {
    /// A fresh id for one HTTP request.
    pub(crate) fn request_id(&self) -> String {
        let mut bytes = [0; 12];
        self.entropy.fill(&mut bytes);
        format!("req_{}", sallyport_protocol::canonical::hex(&bytes))
    }
}

// === private helpers ===

async fn nothing_here(State(edge): State<Arc<Edge>>) -> Response {
    ApiError::not_found(&edge.request_id(), "there is nothing at this path").into_response()
}

async fn wrong_method(State(edge): State<Arc<Edge>>) -> Response {
    ApiError::wrong_method(&edge.request_id()).into_response()
}

/// Reads a body of at most `limit` bytes.
async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    request_id: &str,
) -> Result<Bytes, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(ApiError::unreadable(
            "the gateway takes bodies without content encoding only",
            request_id,
        ));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(ApiError::too_large(limit, request_id));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit, request_id)),
        Err(_) => Err(ApiError::unreadable("the body broke off", request_id)),
    }
}

/// A JSON answer of the gateway's own.
fn json(request_id: &str, value: &serde_json::Value) -> Response {
    json_text(request_id, value.to_string())
}

/// The same of text that is JSON.
fn json_text(request_id: &str, text: String) -> Response {
    let bytes = Bytes::from(text);
    let mut response = bytes.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    mark(&mut response, request_id);
    response
}

/// Every answer names its request, unless the upstream named it before.
fn mark(response: &mut Response, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(value);
    }
}
