//! Whether the gateway lives, and whether it can serve.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::Edge;
use crate::audit::Health;

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Revocations older than this are said to be late.
const LATE: Duration = Duration::from_secs(5);

/// `GET /health`, `HEAD /`: the process answers.
pub(super) async fn alive(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /ready`: the truth about database, keys, components and spool. 503 where calls would be refused.
pub(super) async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    let database = matches!(tokio::time::timeout(PATIENCE, edge.db.ping()).await, Ok(Ok(())));
    let spool = edge.audit.health();
    let capacity = edge.components.capacity();
    let roll = edge.components.roll();
    let lag = edge.auth.lag();
    let refused = edge.pipeline.refused_credentials();
    let down = matches!(spool, Health::Down(_)) || capacity.live >= capacity.limit;
    let degraded = down || !database || spool != Health::Ok || lag > LATE || !refused.is_empty();
    let status = match (down, degraded) {
        (true, _) => "down",
        (false, true) => "degraded",
        (false, false) => "ready",
    };
    let answer = json!({
        "status": status,
        "database": if database { "ok" } else { "unreachable" },
        "spool": said(&spool),
        "components": { "live": capacity.live, "limit": capacity.limit },
        "workers": { "hired": roll.hired, "running": roll.running, "confined": roll.confined },
        "refused_credentials": refused,
        "revocations_age_ms": u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
    });
    let mut response = super::json(&edge.request_id(), &answer);
    if down {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn said(health: &Health) -> Value {
    match health {
        Health::Ok => "ok".into(),
        Health::Degraded(why) => format!("degraded: {why}").into(),
        Health::Down(why) => format!("down: {why}").into(),
    }
}
