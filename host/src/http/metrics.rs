//! Figures about the gateway as Prometheus reads them: connections, requests, and whether its parts are well. They name no tenant, no
//! user and no model, so that whoever reaches their listener learns nothing of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::Edge;
use super::health::Condition;
use crate::pipeline::UpstreamState;
use crate::tls::ListenerName;

/// The text format of Prometheus.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// First digits of a status, as a label says them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is counted of each listener.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    public: Arc<ListenerCounts>,
    admin: Arc<ListenerCounts>,
    metrics: Arc<ListenerCounts>,
}

/// What is counted of one listener.
#[derive(Debug, Default)]
pub(super) struct ListenerCounts {
    open: AtomicU64,
    taken: AtomicU64,
    turned_away: AtomicU64,
    failed_handshakes: AtomicU64,
    answers: [AtomicU64; CLASSES.len()],
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<ListenerCounts>);

/// The endpoint, which the listener of figures has.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/metrics", get(figures))
}

/// `GET /metrics`
async fn figures(State(edge): State<Arc<Edge>>) -> Response {
    let mut response = text(&edge, &Condition::of(&edge).await).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
    response
}

// === impl Counts ===

impl Counts {
    /// Those of one listener.
    pub(super) fn of(&self, listener: ListenerName) -> &Arc<ListenerCounts> {
        match listener {
            ListenerName::Public => &self.public,
            ListenerName::Admin => &self.admin,
            ListenerName::Metrics => &self.metrics,
        }
    }

    fn each(&self) -> [(&'static str, &ListenerCounts); 3] {
        [("public", &self.public), ("admin", &self.admin), ("metrics", &self.metrics)]
    }
}

// === impl ListenerCounts ===

impl ListenerCounts {
    /// A connection is taken; it counts as open until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> OpenConnection {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// A connection is closed before a byte of it was read.
    pub(super) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended before it was encrypted.
    pub(super) fn fail_handshake(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// The head of an answer is there.
    pub(super) fn answer(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.answers.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl OpenConnection ===

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

// === private helpers ===

/// One family of figures: its name, its kind, what it means, and a line for each of its labels.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    about: &'a str,
    lines: Vec<(String, f64)>,
}

fn text(edge: &Edge, condition: &Condition) -> String {
    let mut out = String::new();
    for family in families(edge, condition) {
        let Family { name, kind, about, lines } = family;
        let head = format!("# HELP {name} {about}\n# TYPE {name} {kind}\n");
        let lines = lines.into_iter().map(|(labels, value)| format!("{name}{labels} {value}\n"));
        out.extend(std::iter::once(head).chain(lines));
    }
    out
}

fn families<'a>(edge: &Edge, condition: &Condition) -> Vec<Family<'a>> {
    let gauge = |name, about, lines| Family { name, kind: "gauge", about, lines };
    let one = |name, about, value: f64| gauge(name, about, vec![(String::new(), value)]);
    let listeners = edge.counts.each();
    let by_listener = |value: &dyn Fn(&ListenerCounts) -> &AtomicU64| {
        let line = |(name, counts): &(&str, &ListenerCounts)| {
            (format!("{{listener=\"{name}\"}}"), number(value(counts).load(Ordering::Relaxed)))
        };
        listeners.iter().map(line).collect::<Vec<_>>()
    };
    let counter = |name, about, lines| Family { name, kind: "counter", about, lines };
    let mut answers = Vec::new();
    for (name, counts) in &listeners {
        for (class, count) in CLASSES.iter().zip(&counts.answers) {
            let labels = format!("{{listener=\"{name}\",status=\"{class}\"}}");
            answers.push((labels, number(count.load(Ordering::Relaxed))));
        }
    }
    let capacity = edge.components.capacity();
    let workers = edge.components.worker_status();
    let count = |value: usize| number(u64::try_from(value).unwrap_or(u64::MAX));
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let part = |(name, well): (&str, bool)| (format!("{{part=\"{name}\"}}"), f64::from(u8::from(well)));
    let mut families = vec![
        gauge("sallyport_info", "The version that runs.", vec![(version, 1.0)]),
        one(
            "sallyport_ready",
            "1 where calls are served, 0 where they are refused.",
            f64::from(u8::from(!condition.is_down())),
        ),
        gauge(
            "sallyport_part_ok",
            "1 where a part is well.",
            condition.parts().into_iter().map(part).collect(),
        ),
        gauge("sallyport_connections", "Connections that are open.", by_listener(&|it| &it.open)),
        counter("sallyport_connections_total", "Connections that were taken.", by_listener(&|it| &it.taken)),
        counter(
            "sallyport_connections_turned_away_total",
            "Connections that were closed before a byte was read: there was no place, or the address may not come in clear.",
            by_listener(&|it| &it.turned_away),
        ),
        counter(
            "sallyport_handshakes_failed_total",
            "Connections that ended before they were encrypted.",
            by_listener(&|it| &it.failed_handshakes),
        ),
        counter("sallyport_answers_total", "Answers, by the first digit of their status.", answers),
        one(
            "sallyport_request_body_bytes",
            "Memory that bodies of requests hold.",
            count(edge.bodies.total()),
        ),
        one("sallyport_components_live", "Instances of components that run.", f64::from(capacity.live)),
        one("sallyport_components_limit", "Instances of components that may run.", f64::from(capacity.limit)),
        one("sallyport_workers_running", "Worker processes that run.", count(workers.running)),
        one(
            "sallyport_revocations_age_seconds",
            "How long ago revocations were last looked at.",
            condition.lag.as_secs_f64(),
        ),
    ];
    let exports = edge.collector.counts();
    let ends =
        [("refused", &exports.refused), ("forwarded", &exports.forwarded), ("dropped", &exports.dropped)];
    families.push(counter(
        "sallyport_telemetry_exports_total",
        "Exports of telemetry, by what came of them.",
        ends.map(|(end, count)| (format!("{{outcome=\"{end}\"}}"), number(count.load(Ordering::Relaxed))))
            .into(),
    ));
    families.push(one(
        "sallyport_telemetry_waiting_bytes",
        "Memory of telemetry that waits for the collector.",
        count(edge.collector.held()),
    ));
    let states = ["closed", "half_open", "open"];
    let mut breakers = Vec::new();
    for UpstreamState { upstream, credential, breaker, .. } in &condition.upstreams {
        for state in states {
            let labels = format!("{{upstream={upstream:?},credential={credential:?},state=\"{state}\"}}");
            breakers.push((labels, f64::from(u8::from(state == *breaker))));
        }
    }
    families.push(gauge(
        "sallyport_upstream_breaker",
        "1 for the state in which the circuit breaker of an upstream is.",
        breakers,
    ));
    if let Some(tls) = &condition.tls {
        families.push(one(
            "sallyport_certificate_valid_until_seconds",
            "When the gateway's certificate ends, in seconds since 1970.",
            number(u64::try_from(tls.valid_until.unix_timestamp()).unwrap_or(0)),
        ));
    }
    families
}

/// Prometheus counts in floating point: what is lost beyond 2^53 nobody misses.
#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
fn number(value: u64) -> f64 {
    value as f64
}
