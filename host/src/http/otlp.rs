//! `POST /v1/metrics`, `/v1/logs` and `/v1/traces`: telemetry of clients (OTLP over HTTP), which goes to the operator's collector with what
//! the credential says of who exports. No row is left but that of a refused credential: figures count the rest.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use sallyport_protocol::otlp::{self, Encoding, Signal};

use super::bodies::BodyOwner;
use super::error::ApiError;
use super::{BodyLimits, Edge, caller, mark};
use crate::auth::Principal;
use crate::config::TelemetrySettings;
use crate::upstream::Export;

const MINUTE: Duration = Duration::from_mins(1);
/// Users that are told apart in a minute.
const MOST_USERS: usize = 20_000;

/// How much was exported this minute, by user and by tenant.
#[derive(Debug, Default)]
pub(crate) struct ExportRates(Mutex<ExportedBytes>);

#[derive(Debug, Default)]
struct ExportedBytes {
    minute: u64,
    users: HashMap<BodyOwner, u64>,
    tenants: HashMap<Arc<str>, u64>,
}

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route(Signal::Metrics.path(), post(metrics))
        .route(Signal::Logs.path(), post(logs))
        .route(Signal::Traces.path(), post(traces))
}

/// `POST /v1/metrics`
async fn metrics(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    answer(&edge, Signal::Metrics, request).await
}

/// `POST /v1/logs`
async fn logs(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    answer(&edge, Signal::Logs, request).await
}

/// `POST /v1/traces`
async fn traces(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    answer(&edge, Signal::Traces, request).await
}

// === impl ExportRates ===

impl ExportRates {
    /// Counts bytes; how long to wait where there were too many already. What is refused counts for nothing.
    fn take(
        &self,
        owner: &BodyOwner,
        bytes: u64,
        to: &TelemetrySettings,
        now: Duration,
    ) -> Result<(), Duration> {
        let minute = now.as_secs() / MINUTE.as_secs();
        let wait = || (MINUTE * u32::try_from(minute + 1).unwrap_or(u32::MAX)).saturating_sub(now);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.minute != minute {
            *counts = ExportedBytes { minute, ..ExportedBytes::default() };
        }
        let user = counts.users.get(owner).copied().unwrap_or(0).saturating_add(bytes);
        let tenant = counts.tenants.get(&owner.0).copied().unwrap_or(0).saturating_add(bytes);
        let unknown = counts.users.len() >= MOST_USERS && !counts.users.contains_key(owner);
        if unknown || user > to.user_bytes_per_minute || tenant > to.tenant_bytes_per_minute {
            return Err(wait());
        }
        counts.users.insert(owner.clone(), user);
        counts.tenants.insert(Arc::clone(&owner.0), tenant);
        Ok(())
    }
}

// === private helpers ===

async fn answer(edge: &Edge, signal: Signal, request: Request) -> Response {
    let request_id = edge.request_id();
    match taken(edge, signal, request, &request_id).await {
        Ok(encoding) => {
            let mut response = Bytes::from_static(encoding.taken().as_bytes()).into_response();
            let media_type = HeaderValue::from_static(encoding.media_type());
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            mark(&mut response, &request_id);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Who exports comes first: a stranger learns nothing about whether telemetry is taken.
async fn taken(
    edge: &Edge,
    signal: Signal,
    request: Request,
    request_id: &str,
) -> Result<Encoding, ApiError> {
    let (head, body) = request.into_parts();
    let principal = caller::caller(edge, &head, request_id).await?;
    let Some(to) = edge.pipeline.config().telemetry.clone() else {
        return Err(ApiError::not_found(
            request_id,
            "the gateway takes no telemetry: no collector is configured",
        ));
    };
    let refused = |error: ApiError| {
        edge.collector.counts().refused.fetch_add(1, Ordering::Relaxed);
        error
    };
    let media_type = head.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let Some(encoding) = media_type.and_then(Encoding::parse) else {
        let wanted = "application/json or application/x-protobuf";
        return Err(refused(ApiError::media(wanted, request_id)));
    };
    let limits = edge.settings.load().bodies;
    let limits = BodyLimits { each: limits.each.min(to.max_bytes), ..limits };
    let owner = (principal.tenant.shared(), principal.user.shared());
    let body =
        edge.bodies.read(&head.headers, body, owner.clone(), &limits, request_id).await.map_err(refused)?;
    let (bytes, now) = (u64::try_from(body.len()).unwrap_or(u64::MAX), edge.clock.monotonic());
    edge.export_rates
        .take(&owner, bytes, &to, now)
        .map_err(|wait| refused(ApiError::telemetry_full("too much telemetry", wait, request_id)))?;
    let stamped = otlp::stamp(signal, encoding, &body, &proven(&principal))
        .map_err(|error| refused(ApiError::telemetry_malformed(&error.to_string(), request_id)))?;
    // What was read has its room back while the rest waits in another.
    drop(body);
    let export = Export { to, signal, encoding, body: stamped.into(), tenant: owner.0 };
    edge.collector.hand_over(export).map_err(|full| {
        refused(ApiError::telemetry_full(&full.to_string(), Duration::from_secs(5), request_id))
    })?;
    Ok(encoding)
}

/// What the credential says of who exports.
fn proven(principal: &Principal) -> Vec<(&'static str, &str)> {
    let (user, tenant) = (principal.user.as_str(), principal.tenant.as_str());
    let mut all = vec![
        ("user.id", user),
        ("tenant.id", tenant),
        ("sallyport.user.id", user),
        ("sallyport.tenant.id", tenant),
        ("sallyport.session.id", principal.session.as_str()),
        ("sallyport.client.id", principal.client.as_str()),
    ];
    if let Some(department) = principal.department.as_deref() {
        all.extend([("department", department), ("sallyport.department", department)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EgressAuth, Endpoint};

    #[test]
    fn a_user_and_a_tenant_export_so_much_in_a_minute_and_wait_for_its_end() {
        let to = TelemetrySettings {
            collector: Endpoint::parse("https://c.example").unwrap(),
            auth: EgressAuth::None,
            max_bytes: 100,
            user_bytes_per_minute: 100,
            tenant_bytes_per_minute: 150,
            timeout: MINUTE,
            point_clients: false,
        };
        let rates = ExportRates::default();
        let take = |user: &str, bytes, seconds| {
            rates.take(&("acme".into(), user.into()), bytes, &to, Duration::from_secs(seconds))
        };
        assert_eq!(take("u1", 100, 70), Ok(()));
        assert_eq!(take("u1", 1, 80), Err(Duration::from_secs(40)), "its own share is used up");
        assert_eq!(take("u2", 51, 80), Err(Duration::from_secs(40)), "the tenant's is");
        assert_eq!(take("u2", 50, 80), Ok(()), "what was refused did not count");
        assert_eq!(rates.take(&("other".into(), "u1".into()), 100, &to, Duration::from_secs(80)), Ok(()));
        assert_eq!(take("u1", 100, 120), Ok(()));
    }
}
