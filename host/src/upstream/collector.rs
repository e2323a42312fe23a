//! What clients export on its way to the operator's collector: kept in memory until it is sent, once. Nobody waits for a collector; what it
//! does not take, or what there is no room for, is counted and gone.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method, Request, header};
use sallyport_protocol::otlp::{Encoding, Signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::address::AddressPolicy;
use super::client::{FetchLimits, HttpClient, Outbound};
use crate::causes::Causes;
use crate::config::{EgressAuth, ExposeSecret as _, TelemetrySettings};

/// Exports that wait.
const MOST_WAITING: usize = 4_096;
/// Bytes of exports that wait, and which part of it a tenant may have.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;
pub(super) const TENANT_PART: usize = 4;
/// Exports under way at once.
const AT_ONCE: usize = 4;
/// Longest answer of a collector; nobody reads it.
const LONGEST_ANSWER: usize = 64 * 1024;

/// The way to the collector.
pub struct Collector {
    client: HttpClient,
    waiting: mpsc::Sender<WaitingExport>,
    next: tokio::sync::Mutex<mpsc::Receiver<WaitingExport>>,
    held: Arc<Mutex<HeldExports>>,
    counts: ExportCounts,
    failing: AtomicBool,
}

/// One export, ready to be sent.
#[derive(Debug)]
pub struct Export {
    /// To where.
    pub to: Arc<TelemetrySettings>,
    /// What it is.
    pub signal: Signal,
    /// How it is written.
    pub encoding: Encoding,
    /// What is sent.
    pub body: Bytes,
    /// Whose it is.
    pub tenant: Arc<str>,
}

/// How many exports came to what end.
#[derive(Debug, Default)]
pub struct ExportCounts {
    /// Refused: no OTLP, too much, or no room.
    pub refused: AtomicU64,
    /// The collector took them.
    pub forwarded: AtomicU64,
    /// The collector did not take them.
    pub dropped: AtomicU64,
}

/// There is no room for an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many exports wait for the collector as may")]
pub struct CollectorFull;

#[derive(Debug, Default)]
struct HeldExports {
    total: usize,
    tenants: HashMap<Arc<str>, usize>,
}

/// An export and the room that it takes.
struct WaitingExport {
    export: Export,
    _room: ExportRoom,
}

struct ExportRoom {
    held: Arc<Mutex<HeldExports>>,
    tenant: Arc<str>,
    bytes: usize,
}

// === impl Collector ===

impl Collector {
    /// With connections of its own, to wherever the operator says.
    pub fn new(outbound: &Outbound) -> Arc<Self> {
        let (waiting, next) = mpsc::channel(MOST_WAITING);
        Arc::new(Self {
            client: outbound.client(AddressPolicy::Any),
            waiting,
            next: tokio::sync::Mutex::new(next),
            held: Arc::default(),
            counts: ExportCounts::default(),
            failing: AtomicBool::new(false),
        })
    }

    /// Takes an export that is sent when its turn comes.
    pub fn hand_over(&self, export: Export) -> Result<(), CollectorFull> {
        let room = ExportRoom::take(&self.held, &export).ok_or(CollectorFull)?;
        self.waiting.try_send(WaitingExport { export, _room: room }).map_err(|_| CollectorFull)
    }

    /// What came of exports so far.
    pub const fn counts(&self) -> &ExportCounts {
        &self.counts
    }

    /// How many bytes wait.
    pub fn held(&self) -> usize {
        lock(&self.held).total
    }

    /// Sends what waits until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let sending = join_all((0..AT_ONCE).map(|_| self.send_all()));
        tokio::select! {
            _ = sending => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn send_all(&self) {
        loop {
            let Some(waiting) = self.next.lock().await.recv().await else { return };
            match self.send(&waiting.export).await {
                Ok(()) => {
                    self.counts.forwarded.fetch_add(1, Ordering::Relaxed);
                    if self.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("the collector takes telemetry again");
                    }
                }
                Err(why) => {
                    self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!("the collector takes no telemetry, which is dropped: {why}");
                    }
                }
            }
        }
    }

    /// Boxed, since the future of an exchange is large and there are several.
    fn send<'a>(
        &'a self,
        export: &'a Export,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let Export { to, encoding, body, .. } = export;
            let request = request(export).ok_or("the request cannot be made")?.body(Bytes::clone(body));
            let mut request = request.map_err(|error| error.to_string())?;
            let headers = request.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
            let limits = FetchLimits { timeout: to.timeout, max_bytes: LONGEST_ANSWER };
            let answer =
                self.client.fetch(request, limits).await.map_err(|error| Causes(&error).to_string())?;
            if answer.status.is_success() { Ok(()) } else { Err(format!("it answers {}", answer.status)) }
        })
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Collector").field("counts", &self.counts).finish_non_exhaustive()
    }
}

// === impl ExportRoom ===

impl ExportRoom {
    fn take(held: &Arc<Mutex<HeldExports>>, export: &Export) -> Option<Self> {
        let bytes = export.body.len();
        let mut now = lock(held);
        let of_tenant = now.tenants.get(&export.tenant).copied().unwrap_or(0);
        if now.total + bytes > MOST_BYTES || of_tenant + bytes > MOST_BYTES / TENANT_PART {
            return None;
        }
        now.total += bytes;
        *now.tenants.entry(Arc::clone(&export.tenant)).or_default() += bytes;
        drop(now);
        Some(Self { held: Arc::clone(held), tenant: Arc::clone(&export.tenant), bytes })
    }
}

impl Drop for ExportRoom {
    fn drop(&mut self) {
        let mut now = lock(&self.held);
        now.total = now.total.saturating_sub(self.bytes);
        let of_tenant = now.tenants.get(&self.tenant).copied().unwrap_or(0);
        if of_tenant > self.bytes {
            now.tenants.insert(Arc::clone(&self.tenant), of_tenant - self.bytes);
        } else {
            now.tenants.remove(&self.tenant);
        }
    }
}

// === private helpers ===

fn request(export: &Export) -> Option<http::request::Builder> {
    let Export { to, signal, .. } = export;
    let endpoint = &to.collector;
    let url =
        format!("{}://{}{}", endpoint.scheme.as_str(), endpoint.authority, endpoint.join(signal.path()));
    let request = Request::builder().method(Method::POST).uri(url);
    let (name, value) = match &to.auth {
        EgressAuth::None => return Some(request),
        EgressAuth::Bearer(secret) => (header::AUTHORIZATION, format!("Bearer {}", secret.expose_secret())),
        EgressAuth::Header(name, secret) => {
            (HeaderName::from_bytes(name.as_bytes()).ok()?, secret.expose_secret().to_owned())
        }
    };
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(request.header(name, value))
}

fn lock(held: &Mutex<HeldExports>) -> MutexGuard<'_, HeldExports> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
