//! Who may hold a connection: places in all, for each address and for each network, and what is known of each connection. A caller
//! who says nothing must not keep others out, so the oldest connection that has shown no credential makes room for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Extensions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A network holds at most so many times what one address of it may hold.
const ADDRESSES_PER_NETWORK: usize = 4;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// In all. Half of them are kept for connections on which a credential was accepted.
    pub(crate) total: usize,
    /// From one address: an IPv4 address, or a /64 of IPv6. Its network (/24, /48) may hold four times as many. Loopback is exempt,
    /// since a reverse proxy on this machine speaks for everybody, and so are proxies that the configuration names.
    pub(crate) per_address: usize,
}

/// All connections of one listener.
#[derive(Debug)]
pub(super) struct Connections {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    count: usize,
    /// Those on which no credential was accepted yet, oldest first.
    unproven: BTreeMap<u64, CancellationToken>,
    by_address: HashMap<CountedAddress, usize>,
    by_network: HashMap<CountedAddress, usize>,
}

/// The part of an address that is counted: one host, or one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CountedAddress {
    V4(u32),
    V6(u64),
}

/// One connection, as its requests and its deadline see it.
#[derive(Debug)]
pub(crate) struct Connection {
    all: Arc<Connections>,
    number: u64,
    source: Option<(CountedAddress, CountedAddress)>,
    evicted: CancellationToken,
    proven: AtomicBool,
    began: Instant,
    active: AtomicUsize,
    /// Whether a request came yet.
    asked: AtomicBool,
    /// When the last request ended, in milliseconds since `began`.
    idle_since_ms: AtomicU64,
}

/// A request that is being answered; dropped with the last byte of its answer.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<Connection>);

// === impl Connections ===

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default() })
    }

    /// Takes a place for a connection that is counted for an address, or for none. `None`: the address or its network holds too many, or
    /// every place belongs to a caller who is known. Where too many are unknown, the oldest of them is told to go.
    pub(super) fn enter(self: &Arc<Self>, counted: Option<IpAddr>, now: Instant) -> Option<Arc<Connection>> {
        let source = counted.and_then(sources);
        let mut open = self.lock();
        if let Some((address, network)) = source {
            let held =
                |counts: &HashMap<CountedAddress, usize>, source| counts.get(&source).copied().unwrap_or(0);
            let per_network = self.limits.per_address.saturating_mul(ADDRESSES_PER_NETWORK);
            if held(&open.by_address, address) >= self.limits.per_address
                || held(&open.by_network, network) >= per_network
            {
                return None;
            }
        }
        let full = open.count >= self.limits.total;
        if full || open.unproven.len() >= self.limits.total.div_ceil(2) {
            match open.unproven.pop_first() {
                Some((_, oldest)) => oldest.cancel(),
                None if full => return None,
                None => {}
            }
        }
        if let Some((address, network)) = source {
            *open.by_address.entry(address).or_default() += 1;
            *open.by_network.entry(network).or_default() += 1;
        }
        open.count += 1;
        let number = open.next;
        open.next += 1;
        let evicted = CancellationToken::new();
        open.unproven.insert(number, evicted.clone());
        drop(open);
        Some(Arc::new(Connection {
            all: Arc::clone(self),
            number,
            source,
            evicted,
            proven: AtomicBool::new(false),
            began: now,
            active: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            idle_since_ms: AtomicU64::new(0),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// A credential was accepted: this connection no longer makes room for others.
    pub(super) fn prove(&self) {
        if !self.proven.swap(true, Ordering::Relaxed) {
            self.all.lock().unproven.remove(&self.number);
        }
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.asked.store(true, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// Resolves when this connection has to go: no request came within `head` of its beginning, none is being answered since
    /// `idle`, or its place is needed.
    pub(super) async fn overdue(&self, head: Duration, idle: Duration) {
        tokio::select! {
            () = self.evicted.cancelled() => {}
            () = self.silent(head, idle) => {}
        }
    }

    async fn silent(&self, head: Duration, idle: Duration) {
        loop {
            let limit = if self.asked.load(Ordering::Relaxed) { idle } else { head };
            let since = if self.active.load(Ordering::Relaxed) > 0 {
                self.began.elapsed()
            } else {
                Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed))
            };
            let Some(rest) = (since + limit).checked_sub(self.began.elapsed()) else { return };
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.count = open.count.saturating_sub(1);
        open.unproven.remove(&self.number);
        if let Some((address, network)) = self.source {
            give_back(&mut open.by_address, address);
            give_back(&mut open.by_network, network);
        }
    }
}

// === impl ActiveRequest ===

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let ms = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since_ms.store(ms, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes that a credential was accepted on the connection that these extensions of a request name.
pub(super) fn prove(extensions: &Extensions) {
    if let Some(connection) = extensions.get::<Arc<Connection>>() {
        connection.prove();
    }
}

// === private helpers ===

fn give_back(counts: &mut HashMap<CountedAddress, usize>, source: CountedAddress) {
    if let Some(count) = counts.get_mut(&source) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

/// The host and the network that a connection is counted for; nothing for this machine itself.
fn sources(peer: IpAddr) -> Option<(CountedAddress, CountedAddress)> {
    let peer = peer.to_canonical();
    if peer.is_loopback() {
        return None;
    }
    Some(match peer {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            (CountedAddress::V4(bits), CountedAddress::V4(bits & 0xffff_ff00))
        }
        IpAddr::V6(address) => {
            let high = u64::try_from(u128::from(address) >> 64).unwrap_or(u64::MAX);
            (CountedAddress::V6(high), CountedAddress::V6(high & 0xffff_ffff_ffff_0000))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    fn enter(all: &Arc<Connections>, peer: &str) -> Option<Arc<Connection>> {
        all.enter(Some(peer.parse().unwrap()), Instant::now())
    }

    #[test]
    fn strangers_make_room_for_each_other_and_never_take_the_half_that_is_kept() {
        let all = Connections::new(ConnectionLimits { total: 4, per_address: 100 });
        let known = enter(&all, LOOPBACK).unwrap();
        known.prove();
        let first = enter(&all, LOOPBACK).unwrap();
        let second = enter(&all, LOOPBACK).unwrap();
        assert!(!first.evicted.is_cancelled());
        let third = enter(&all, LOOPBACK).unwrap();
        assert!(first.evicted.is_cancelled(), "the oldest stranger goes");
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        assert!(!known.evicted.is_cancelled());
    }

    #[test]
    fn a_gateway_full_of_known_callers_takes_nobody_until_one_leaves() {
        let all = Connections::new(ConnectionLimits { total: 2, per_address: 100 });
        let known: Vec<_> = (0..2).map(|_| enter(&all, LOOPBACK).unwrap()).collect();
        for connection in &known {
            connection.prove();
        }
        assert!(enter(&all, LOOPBACK).is_none());
        drop(known);
        assert!(enter(&all, LOOPBACK).is_some());
    }

    #[test]
    fn an_address_and_its_network_hold_so_many_and_get_them_back() {
        let all = Connections::new(ConnectionLimits { total: 1000, per_address: 2 });
        let mut held: Vec<_> = ["192.0.2.1", "192.0.2.1"].map(|peer| enter(&all, peer).unwrap()).into();
        assert!(enter(&all, "192.0.2.1").is_none());
        assert!(enter(&all, "::ffff:192.0.2.1").is_none(), "the same host in the other notation");
        for host in 2..5 {
            for _ in 0..2 {
                held.push(enter(&all, &format!("192.0.2.{host}")).unwrap());
            }
        }
        assert!(enter(&all, "192.0.2.200").is_none(), "its network is full");
        assert!(all.enter(None, Instant::now()).is_some(), "who is exempt is counted for nobody");
        assert!(enter(&all, "192.0.3.200").is_some());
        assert!(enter(&all, "2001:db8::1").is_some());
        drop(held);
        assert!(enter(&all, "192.0.2.1").is_some());
        assert!(all.lock().by_network.len() <= 2, "what nobody holds is forgotten");
    }

    #[tokio::test]
    async fn a_connection_is_overdue_without_a_request_or_idle_after_one() {
        let all = Connections::new(ConnectionLimits { total: 4, per_address: 4 });
        let (head, idle) = (Duration::from_millis(20), Duration::from_millis(40));
        let silent = enter(&all, LOOPBACK).unwrap();
        silent.overdue(head, idle).await;
        let asked = enter(&all, LOOPBACK).unwrap();
        let request = asked.begin();
        let busy = tokio::time::timeout(Duration::from_millis(200), asked.overdue(head, idle)).await;
        assert!(busy.is_err(), "a request is being answered");
        drop(request);
        asked.overdue(head, idle).await;
    }
}
