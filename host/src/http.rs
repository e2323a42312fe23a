//! The thin edge: the only module that names axum. It reads requests, asks who calls, hands over to the pipeline, and writes
//! what came of it.

mod admin;
mod answer;
mod auth;
mod bodies;
mod caller;
mod connections;
mod error;
mod health;
mod hooks;
mod messages;
mod models;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;

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
    /// What bodies of requests hold in memory.
    pub(crate) bodies: Arc<Bodies>,
    /// Failures of callers that nobody knows, so that they cannot fill the trail.
    pub(crate) strangers: Strangers,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// What bodies of requests may hold.
    pub(crate) bodies: BodyLimits,
    /// How a denial is told.
    pub(crate) deny: DenyStatus,
    /// How long a client may take for the head of a request; read once.
    pub(crate) head_timeout: Duration,
    /// How long a connection may be idle; read once.
    pub(crate) idle_timeout: Duration,
    /// How many connections there may be; read once.
    pub(crate) connections: ConnectionLimits,
}

pub(crate) use self::bodies::{Bodies, BodyLimits};
pub(crate) use self::caller::Strangers;
pub(crate) use self::connections::ConnectionLimits;

// === impl Settings ===

impl Settings {
    /// What the configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        let server = &config.server;
        Self {
            bodies: BodyLimits {
                each: server.body_limit,
                total: server.body_memory,
                grace: server.head_timeout,
            },
            deny: config.deny_status,
            head_timeout: server.head_timeout,
            idle_timeout: server.idle_timeout,
            connections: ConnectionLimits {
                total: server.max_connections,
                per_address: server.max_connections_per_address,
            },
        }
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// All endpoints.
fn router(edge: Arc<Edge>) -> Router {
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
        Limit::count(PART, "speed of a body, bytes per second", bodies::MIN_BYTES_PER_SECOND, "408"),
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

async fn nothing_here(State(edge): State<Arc<Edge>>, uri: Uri) -> Response {
    let said = match uri.path() {
        path if path.starts_with("/v1/v1/") => {
            "there is nothing at this path: /v1 stands twice, so the client's base URL must end without /v1"
        }
        path if path == "/messages" || path.starts_with("/messages/") || path == "/models" => {
            "there is nothing at this path: /v1 is missing, so the client's base URL must end with /v1"
        }
        path if ["/v1/messages/batches", "/v1/files", "/v1/skills", "/v1/complete", "/v1/organizations"]
            .iter()
            .any(|api| path.starts_with(api)) =>
        {
            "the gateway does not offer this part of the API: it has /v1/messages, /v1/messages/count_tokens and /v1/models"
        }
        _ => "there is nothing at this path",
    };
    ApiError::not_found(&edge.request_id(), said).into_response()
}

async fn wrong_method(State(edge): State<Arc<Edge>>) -> Response {
    ApiError::wrong_method(&edge.request_id()).into_response()
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
