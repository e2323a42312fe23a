//! Whether the gateway lives, and whether it can serve.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::Edge;
use crate::audit::Health;
use crate::component::Capacity;
use crate::pipeline::UpstreamState;
use crate::tls::TlsHealth;

/// How long the database may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Revocations older than this are said to be late.
const LATE: Duration = Duration::from_secs(5);

/// The endpoints, which every listener has.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/", get(alive)).route("/health", get(alive)).route("/ready", get(ready))
}

/// `GET /health`, `HEAD /`: the process answers.
async fn alive(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /ready`: the truth about database, keys, components and spool. 503 where calls would be refused.
async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    let condition = Condition::of(&edge).await;
    let workers = edge.components.worker_status();
    let answer = json!({
        "status": condition.status(),
        "database": match edge.audit.other_database() {
            Some(why) => format!("not the trail's: {why}").into(),
            None if condition.database => Value::from("ok"),
            None => Value::from("unreachable"),
        },
        "spool": said(&condition.spool),
        "components": { "live": condition.capacity.live, "limit": condition.capacity.limit },
        "workers": { "registered": workers.registered, "running": workers.running, "confined": workers.confined },
        "refused_credentials": condition.refused,
        "upstreams": condition.upstreams,
        "tls": condition.tls.as_ref().map(certificate),
        "revocations_age_ms": u64::try_from(condition.lag.as_millis()).unwrap_or(u64::MAX),
    });
    let mut response = super::json(&edge.request_id(), &answer);
    if condition.is_down() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// How the parts of the gateway do.
pub(super) struct Condition {
    database: bool,
    spool: Health,
    capacity: Capacity,
    /// Credentials that upstreams refuse.
    refused: Vec<String>,
    /// How upstreams do whose calls are watched.
    pub(super) upstreams: Vec<UpstreamState>,
    /// How long ago revocations were looked at.
    pub(super) lag: Duration,
    pub(super) tls: Option<TlsHealth>,
}

// === impl Condition ===

impl Condition {
    /// Looks at all of them.
    pub(super) async fn of(edge: &Edge) -> Self {
        Self {
            database: matches!(tokio::time::timeout(READY_TIMEOUT, edge.db.ping()).await, Ok(Ok(()))),
            spool: edge.audit.health(),
            capacity: edge.components.capacity(),
            refused: edge.pipeline.refused_credentials(),
            upstreams: edge.pipeline.upstreams(),
            lag: edge.auth.lag(),
            tls: edge.tls.as_ref().map(|tls| tls.health()),
        }
    }

    /// Whether calls are refused.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.spool, Health::Down(_)) || self.is_full()
    }

    /// Each part, and whether it is well.
    pub(super) fn parts(&self) -> [(&'static str, bool); 7] {
        [
            ("database", self.database),
            ("spool", self.spool == Health::Ok),
            ("components", !self.is_full()),
            ("revocations", self.lag <= LATE),
            ("upstream_credentials", self.refused.is_empty()),
            ("upstreams", self.upstreams.iter().all(|upstream| upstream.breaker == "closed")),
            ("certificate", self.tls.as_ref().is_none_or(|tls| tls.trouble.is_none())),
        ]
    }

    fn status(&self) -> &'static str {
        match self.parts().iter().all(|(_, well)| *well) {
            _ if self.is_down() => "down",
            true => "ready",
            false => "degraded",
        }
    }

    fn is_full(&self) -> bool {
        self.capacity.live >= self.capacity.limit
    }
}

// === private helpers ===

/// What is said of the certificate.
fn certificate(tls: &TlsHealth) -> Value {
    let state = tls.trouble.as_ref().map_or_else(|| "ok".to_owned(), |why| format!("degraded: {why}"));
    json!({ "state": state, "valid_until": tls.valid_until.date().to_string() })
}

fn said(health: &Health) -> Value {
    match health {
        Health::Ok => "ok".into(),
        Health::Degraded(why) => format!("degraded: {why}").into(),
        Health::Down(why) => format!("down: {why}").into(),
    }
}
