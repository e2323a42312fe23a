//! The thin edge: the only module that names axum. It reads requests, asks who calls, hands over to the pipeline, and writes
//! what came of it.

mod admin;
mod answer;
mod auth;
mod bodies;
mod caller;
mod claude_code;
mod connections;
mod device_link;
mod error;
mod health;
mod hooks;
mod linger;
mod listen;
mod messages;
mod metrics;
mod models;
mod oauth;
mod otlp;
mod pages;
mod provider_sign_in;
mod scim;
mod secure;
mod serve;
mod sign_in;
mod spending;
mod stored;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;

use crate::audit::Audit;
use crate::auth::{Auth, ClientDocuments, IdentityServers};
use crate::catalog::Catalog;
use crate::clock::{Clock, Entropy};
use crate::component::Components;
use crate::config::{Config, DenyStatus};
use crate::db::Db;
use crate::limits::Limit;
use crate::pipeline::Pipeline;
use crate::tls::Tls;
use crate::upstream::Collector;

pub(crate) use self::admin::{markdown as admin_reference, openapi as admin_openapi};
pub(crate) use self::listen::{HttpListener, Surface};
pub(crate) use self::serve::serve;
pub(crate) use self::threads::ServingThreads;

use self::error::ApiError;

/// What handlers work with.
pub(crate) struct Edge {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) auth: Arc<Auth>,
    /// Asks identity providers at which people sign in.
    pub(crate) identity_servers: Arc<dyn IdentityServers>,
    /// Fetches what OAuth clients say of themselves.
    pub(crate) client_documents: Arc<dyn ClientDocuments>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) components: Arc<Components>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) db: Db,
    /// The certificate, where a listener speaks TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) settings: arc_swap::ArcSwap<HttpSettings>,
    /// What is counted of listeners.
    pub(crate) counts: Counts,
    /// What bodies of requests hold in memory.
    pub(crate) bodies: Arc<Bodies>,
    /// Failures of callers that nobody knows, so that they cannot fill the trail.
    pub(crate) unauthenticated_rows: UnauthenticatedRowLimiter,
    /// What users spent, as they were told last.
    pub(crate) spending: Spending,
    /// The way of telemetry to the collector.
    pub(crate) collector: Arc<Collector>,
    /// What was exported this minute.
    pub(crate) export_rates: ExportRates,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpSettings {
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
pub(crate) use self::caller::UnauthenticatedRowLimiter;
pub(crate) use self::connections::ConnectionLimits;
pub(crate) use self::metrics::Counts;
pub(crate) use self::otlp::ExportRates;
pub(crate) use self::spending::Spending;

// === impl HttpSettings ===

impl HttpSettings {
    /// What the configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        let server = &config.server;
        Self {
            bodies: BodyLimits {
                each: server.body_limit,
                total: server.body_memory,
                grace: server.head_timeout,
            },
            deny: config.deny.status,
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

/// The endpoints of a listener.
fn router(edge: Arc<Edge>, surface: Surface) -> Router {
    let endpoints = match surface {
        Surface::Whole => clients().merge(admin::routes()),
        Surface::Clients => clients(),
        Surface::Administration => admin::routes(),
        Surface::Metrics => metrics::routes(),
    };
    endpoints
        .merge(health::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
}

/// The endpoints of clients.
fn clients() -> Router<Arc<Edge>> {
    Router::new()
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/hooks/{event}", post(hooks::report))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/auth/cowork/pat", post(auth::exchange_pat))
        .route("/v1/cowork/auth/pat", post(auth::exchange_pat))
        .route("/v1/auth/cowork/mtls", post(auth::exchange_certificate))
        .route("/v1/cowork/auth/mtls", post(auth::exchange_certificate))
        .route("/v1/cowork/whoami", get(auth::whoami))
        .route("/v1/cowork/pubkey", get(auth::manifest_key))
        .route("/v1/auth/cowork/capabilities", get(auth::capabilities))
        .route("/v1/cowork/capabilities", get(auth::capabilities))
        .route("/.well-known/jwks.json", get(auth::jwks))
        .merge(stored::routes())
        .merge(sign_in::routes())
        .merge(provider_sign_in::routes())
        .merge(device_link::routes())
        .merge(oauth::routes())
        .merge(scim::routes())
        .merge(claude_code::routes())
        .merge(otlp::routes())
}

/// The limits of the edge.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "edge";
    let own = vec![
        Limit::count(PART, "speed of a body, bytes per second", bodies::MIN_BYTES_PER_SECOND, "408"),
        Limit::count(PART, "HTTP/2 streams of a connection", serve::STREAMS.into(), "the client waits"),
        Limit::time(
            PART,
            "handshake of a connection with TLS",
            secure::HANDSHAKE,
            "the connection is closed",
        ),
        Limit::bytes(PART, "head of a request", serve::HEAD_BYTES, "431, or the connection is closed"),
        Limit::time(PART, "running answers when the gateway is told to end", serve::DRAIN, "they are cut"),
        Limit::bytes(
            PART,
            "what a client still sends after it was refused",
            linger::MOST,
            "the connection is reset",
        ),
        Limit::time(
            PART,
            "reading what a client still sends after it was refused",
            linger::LONGEST,
            "the connection is reset",
        ),
        Limit::bytes(PART, "body of a reported event", hooks::LONGEST_REPORT, "413"),
        Limit::bytes(PART, "form of a page, or of an OAuth client", pages::LONGEST_FORM, "400"),
        Limit::bytes(PART, "body of an exchange for a token", auth::LONGEST_EXCHANGE, "400"),
        Limit::bytes(PART, "JSON of an administrator", admin::MAX_JSON, "413"),
        Limit::bytes(PART, "body of a SCIM request", scim::LONGEST_RESOURCE, "413"),
        Limit::count(
            PART,
            "resources of one SCIM page",
            scim::LARGEST_SCIM_PAGE.unsigned_abs(),
            "the page is as long as this",
        ),
        Limit::count(PART, "members of a SCIM group", count(scim::MOST_MEMBERS), "400 `tooMany`"),
        Limit::count(
            PART,
            "batches or files of one page",
            count(stored::LARGEST_LIST),
            "the page is as long as this",
        ),
        Limit::count(PART, "models of one page", count(models::LARGEST_PAGE), "the page is as long as this"),
    ];
    [own, listen::limits(PART)].concat()
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
        path if ["/v1/skills", "/v1/complete", "/v1/organizations"]
            .iter()
            .any(|api| path.starts_with(api)) =>
        {
            "the gateway does not offer this part of the API: it has /v1/messages, /v1/messages/count_tokens, /v1/messages/batches, /v1/files and /v1/models"
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

/// An answer that is for its caller alone, and only now.
fn keep_out_of_caches(response: &mut Response) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Every answer names its request, unless the upstream named it before.
fn mark(response: &mut Response, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(value);
    }
}
