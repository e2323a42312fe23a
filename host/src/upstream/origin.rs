//! Upstreams by scheme and authority, and the connections that are kept to each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::rt::Executor as _;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

use super::h1::H1Connection;
use super::h2::Sender;
use crate::config::Scheme;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_mins(1);
/// Connections that are kept to one upstream while nobody uses them.
pub(super) const MOST_IDLE: usize = 256;

/// Every upstream that was asked for something.
#[derive(Debug, Default)]
pub(super) struct Origins {
    http: Mutex<HashMap<String, Arc<Origin>>>,
    https: Mutex<HashMap<String, Arc<Origin>>>,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Origin {
    kept: Mutex<OriginConnections>,
}

#[derive(Debug, Default)]
struct OriginConnections {
    /// Connections of HTTP/1.1 that nobody uses, the latest at the end.
    idle: Vec<IdleConnection>,
    /// The connection of HTTP/2.
    shared: Option<Sender>,
    /// Somebody looks for connections that were idle for too long.
    swept: bool,
}

/// A connection of HTTP/1.1 that nobody uses.
#[derive(Debug)]
struct IdleConnection {
    since: Instant,
    /// Where its events come to. On another thread each of them would be handed over.
    runtime: runtime::Id,
    connection: H1Connection,
}

// === impl Origins ===

impl Origins {
    /// The upstream at this address.
    pub(super) fn of(&self, scheme: Scheme, authority: &str) -> Arc<Origin> {
        let by_authority = match scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        let mut origins = by_authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origins.get(authority) {
            return Arc::clone(origin);
        }
        // Routes come and go with the configuration; who is gone from there has nothing kept here.
        origins.retain(|_, origin| Arc::strong_count(origin) > 1 || !origin.is_bare());
        Arc::clone(origins.entry(authority.to_owned()).or_default())
    }
}

// === impl Origin ===

impl Origin {
    /// A kept connection of HTTP/1.1 of this thread's runtime that the upstream did not close.
    pub(super) fn take(&self) -> Option<H1Connection> {
        let (now, runtime) = (Instant::now(), Handle::current().id());
        loop {
            let IdleConnection { since, connection, .. } = {
                let mut kept = self.lock();
                let place = kept.idle.iter().rposition(|it| it.runtime == runtime)?;
                kept.idle.remove(place)
            };
            if now.duration_since(since) < IDLE && connection.is_live() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next call on this thread.
    pub(super) fn keep(self: &Arc<Self>, connection: H1Connection) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut kept = self.lock();
        if kept.idle.len() >= MOST_IDLE {
            return;
        }
        kept.idle.push(IdleConnection { since: Instant::now(), runtime: runtime.id(), connection });
        if !std::mem::replace(&mut kept.swept, true) {
            drop(kept);
            TokioExecutor::new().execute(sweep(Arc::downgrade(self)));
        }
    }

    /// The connection of HTTP/2, if there is one.
    pub(super) fn shared(&self) -> Option<Sender> {
        let mut kept = self.lock();
        kept.shared.take_if(|sender| sender.is_closed());
        kept.shared.clone()
    }

    /// Shares this connection of HTTP/2, unless there is one already; the one to use.
    pub(super) fn share(&self, sender: Sender) -> Sender {
        let mut kept = self.lock();
        kept.shared.take_if(|earlier| earlier.is_closed());
        kept.shared.get_or_insert(sender).clone()
    }

    /// Forgets the connection of HTTP/2: it takes no requests any more.
    pub(super) fn forget_shared(&self) {
        self.lock().shared = None;
    }

    fn is_bare(&self) -> bool {
        let kept = self.lock();
        kept.idle.is_empty() && kept.shared.is_none()
    }

    /// Drops what was idle for too long; when the next one will have been. Nothing more to look for: `None`.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut kept = self.lock();
        let fresh = kept.idle.partition_point(|it| now.duration_since(it.since) >= IDLE);
        kept.idle.drain(..fresh);
        let next = kept.idle.first().map(|it| it.since + IDLE);
        kept.swept = next.is_some();
        next
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OriginConnections> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that were idle for too long, until none is kept.
async fn sweep(origin: Weak<Origin>) {
    let mut next = Instant::now() + IDLE;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(origin) = origin.upgrade() else { return };
        let Some(later) = origin.expire(Instant::now()) else { return };
        next = later;
    }
}
