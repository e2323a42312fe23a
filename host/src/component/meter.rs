//! Guest time: how long a guest has really run, and what happens when it runs too long.
//!
//! Only time in which the guest's future is being polled counts. The first poll is measured by the wall, which is cheap, and
//! never counts for more than [`FIRST`], nor against the deadline; a guest that was still running at a tick is measured by its
//! thread's CPU time from there on, so that neither waiting for a turn nor a busy machine counts against it. The engine's epoch
//! moves every [`TICK`]; at a tick a guest over its deadline is stopped, and one that has run for long enough yields, then goes
//! on in the slow lane.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;

use super::fault::Stop;
use super::lane::{LaneGuest, SlowLane, Turn};

/// How often running guests are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// A guest that a tick meets after less than this goes on: it was met by chance.
const SPARED: Duration = Duration::from_millis(1);

/// The most that a poll measured by the wall counts for: less than any deadline, since the wall proves nothing.
const FIRST: Duration = Duration::from_millis(4);

/// A guest that takes this much of the slow lane belongs there. One that was only met by a tick on a busy machine does not.
const SLOW: Duration = Duration::from_millis(2);

/// The guest time of one store.
#[derive(Debug)]
pub(crate) struct Meter {
    /// What the wall is measured from.
    origin: Instant,
    /// Measured by CPU time, not by the wall: the guest is in the slow lane.
    exact: AtomicBool,
    /// Nanoseconds before the current poll.
    used: AtomicU64,
    /// Value of `used` when the deadline was set.
    granted_at: AtomicU64,
    /// Value of `used` when the guest entered the slow lane.
    exact_from: AtomicU64,
    /// The clock when the current poll began.
    entered: AtomicU64,
    /// Value of `used` at which the guest is stopped.
    until: AtomicU64,
    /// What the deadline is called when it passes.
    limit: AtomicU64,
    /// The guest yielded at a tick.
    yielded: AtomicBool,
    /// The guest was stopped at its deadline.
    stopped: AtomicBool,
}

/// A guest at work, and its meter.
struct Metered<G> {
    meter: Arc<Meter>,
    guest: G,
}

/// The same up to its first tick.
struct UntilTick<'a, G>(&'a mut Metered<G>);

// === impl Meter ===

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            exact: AtomicBool::new(false),
            used: AtomicU64::new(0),
            granted_at: AtomicU64::new(0),
            exact_from: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            until: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            yielded: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Gives the guest `limit` from now on, but no more than `total` since it began.
    pub(crate) fn grant(&self, limit: Duration, total: Duration) {
        let (limit, total) = (nanos(limit), nanos(total));
        let used = self.used.load(Ordering::Relaxed);
        self.granted_at.store(used, Ordering::Relaxed);
        let per_call = used.saturating_add(limit);
        self.until.store(per_call.min(total), Ordering::Relaxed);
        self.limit.store(if per_call <= total { limit } else { total }, Ordering::Relaxed);
    }

    /// Guest time so far, outside of a poll.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// What the engine does with the guest at a tick.
    pub(crate) fn tick(&self) -> Result<UpdateDeadline, Stop> {
        let now = self.since_entered();
        if now < nanos(SPARED) {
            return Ok(UpdateDeadline::Continue(1));
        }
        if self.exact.load(Ordering::Relaxed) {
            let used = self.used.load(Ordering::Relaxed).saturating_add(now);
            if used >= self.until.load(Ordering::Relaxed) {
                self.stopped.store(true, Ordering::Relaxed);
                return Err(Stop::Deadline(Duration::from_nanos(self.limit.load(Ordering::Relaxed))));
            }
        }
        self.yielded.store(true, Ordering::Relaxed);
        Ok(UpdateDeadline::Yield(1))
    }

    /// Runs a guest until it is done, metered; nothing if the gateway is closing. `slow`: it is known not to finish within a
    /// tick, and begins in the slow lane.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        lane: &SlowLane,
        slow: bool,
        guest: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut guest = Metered { meter: Arc::clone(self), guest: Box::pin(guest) };
        self.exact.store(false, Ordering::Relaxed);
        if !slow && let Some(value) = UntilTick(&mut guest).await {
            return Some(value);
        }
        self.enter_lane();
        loop {
            guest = match lane.run(guest).await? {
                Turn::Done(value) => return Some(value),
                Turn::Waits(guest) => guest,
            };
            // What it waits for comes to the runtime's threads; it goes on here up to its next tick.
            if let Some(value) = UntilTick(&mut guest).await {
                return Some(value);
            }
        }
    }

    /// From here on CPU time counts. What the wall measured so far may have been another's turn, so the deadline moves by it.
    fn enter_lane(&self) {
        let used = self.used.load(Ordering::Relaxed);
        let by_the_wall = used.saturating_sub(self.granted_at.load(Ordering::Relaxed));
        self.until.fetch_add(by_the_wall, Ordering::Relaxed);
        self.exact_from.store(used, Ordering::Relaxed);
        self.exact.store(true, Ordering::Relaxed);
    }

    /// Runs a guest until it is done, metered, where nothing else waits for this thread.
    pub(crate) async fn run_alone<T>(self: &Arc<Self>, guest: impl Future<Output = T>) -> T {
        self.exact.store(true, Ordering::Relaxed);
        Metered { meter: Arc::clone(self), guest: pin!(guest) }.await
    }

    /// Whether the guest belongs in the slow lane.
    pub(crate) fn was_slow(&self) -> bool {
        let before = self.exact_from.load(Ordering::Relaxed);
        let there = self.used.load(Ordering::Relaxed).saturating_sub(before);
        self.exact.load(Ordering::Relaxed) && there >= nanos(SLOW)
    }

    fn since_entered(&self) -> u64 {
        let passed = self.clock().saturating_sub(self.entered.load(Ordering::Relaxed));
        if self.exact.load(Ordering::Relaxed) { passed } else { passed.min(nanos(FIRST)) }
    }

    fn clock(&self) -> u64 {
        if self.exact.load(Ordering::Relaxed) { thread_nanos() } else { nanos(self.origin.elapsed()) }
    }
}

// === impl Metered ===

impl<G: Future + Unpin> Future for Metered<G> {
    type Output = G::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<G::Output> {
        let Self { meter, guest } = &mut *self;
        meter.entered.store(meter.clock(), Ordering::Relaxed);
        let polled = Pin::new(guest).poll(context);
        meter.used.fetch_add(meter.since_entered(), Ordering::Relaxed);
        polled
    }
}

impl<G: Future + Unpin> LaneGuest for Metered<G> {
    fn ticked(&self) -> bool {
        self.meter.yielded.swap(false, Ordering::Relaxed)
    }

    fn overran(&self) -> Option<Duration> {
        self.meter.stopped.load(Ordering::Relaxed).then(|| self.meter.used())
    }
}

// === impl UntilTick ===

impl<G: Future + Unpin> Future for UntilTick<'_, G> {
    type Output = Option<G::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<G::Output>> {
        match Pin::new(&mut *self.0).poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.0.ticked() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

// === private helpers ===

fn thread_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(5);
    const TOTAL: Duration = Duration::from_millis(200);

    fn until(meter: &Meter) -> Duration {
        Duration::from_nanos(meter.until.load(Ordering::Relaxed))
    }

    #[test]
    fn what_the_wall_measured_does_not_count_against_the_deadline() {
        let meter = Meter::new();
        meter.grant(LIMIT, TOTAL);
        meter.used.fetch_add(nanos(FIRST), Ordering::Relaxed);
        meter.enter_lane();
        assert_eq!(until(&meter).checked_sub(meter.used()), Some(LIMIT));
        assert!(!meter.was_slow(), "and it was not slow because others had its turn");
    }

    #[test]
    fn what_an_earlier_call_took_does_not_move_the_deadline_of_this_one() {
        let meter = Meter::new();
        meter.grant(LIMIT, TOTAL);
        meter.used.fetch_add(nanos(FIRST), Ordering::Relaxed);
        meter.grant(LIMIT, TOTAL);
        meter.enter_lane();
        assert_eq!(until(&meter).checked_sub(meter.used()), Some(LIMIT));
    }
}
