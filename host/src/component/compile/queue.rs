//! Whose turn it is to compile. The platform has a place of its own and waits for nobody but itself. Tenants share another
//! one: they take turns, each has a bounded line, and each pays for the time of its compilers from its own hourly budget.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::clock::Clock;
use crate::component::budget::HourlyBudget;

/// So many components of one tenant may wait for the compiler, besides the one that is being compiled.
pub(super) const MOST_WAITING: usize = 8;

/// Why a tenant's component is not compiled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// As many of this tenant wait as may.
    Full,
    /// The tenant used up its time.
    Spent {
        /// From when there is time again.
        retry_after: Duration,
    },
}

/// Who compiles, and who waits.
pub(super) struct Queue {
    platform: Semaphore,
    tenants: Arc<Tenants>,
}

/// Leave to compile. Dropped, it is the next one's turn.
#[derive(Debug)]
pub(super) enum CompilePermit<'a> {
    /// The platform's.
    Platform(#[expect(dead_code, reason = "held until the compiler is done")] SemaphorePermit<'a>),
    /// A tenant's.
    Tenant(#[expect(dead_code, reason = "held until the compiler is done")] Paid),
}

/// A tenant's turn: what passes until it is dropped is paid for by the tenant.
pub(super) struct Paid {
    tenants: Arc<Tenants>,
    tenant: TenantId,
    began: Duration,
    calls_the_next: bool,
}

struct Tenants {
    clock: Arc<dyn Clock>,
    /// Seconds of compiling that a tenant has in an hour.
    hourly: u32,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    /// Whose component is compiled.
    running: Option<TenantId>,
    /// The tenants that wait, each once; the first is the next.
    order: VecDeque<TenantId>,
    of: HashMap<TenantId, TenantQueue>,
}

struct TenantQueue {
    budget: HourlyBudget,
    waiting: VecDeque<oneshot::Sender<Result<Paid, Busy>>>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(hourly: u32, clock: Arc<dyn Clock>) -> Self {
        let tenants = Tenants { clock, hourly, lines: Mutex::default() };
        Self { platform: Semaphore::new(1), tenants: Arc::new(tenants) }
    }

    /// Waits for leave to compile for `owner`, a tenant, or for the platform.
    pub(super) async fn turn(&self, owner: Option<&TenantId>) -> Result<CompilePermit<'_>, Busy> {
        let Some(tenant) = owner else {
            // Nobody closes it.
            return self.platform.acquire().await.map(CompilePermit::Platform).map_err(|_| Busy::Full);
        };
        let turn = self.tenants.line_up(tenant)?;
        self.tenants.next();
        // The sender is never dropped without a word but with the queue itself.
        turn.await.unwrap_or(Err(Busy::Full)).map(CompilePermit::Tenant)
    }
}

// === impl Tenants ===

impl Tenants {
    fn line_up(&self, tenant: &TenantId) -> Result<oneshot::Receiver<Result<Paid, Busy>>, Busy> {
        let now = self.clock.monotonic();
        let mut lines = self.lock();
        // Who waits for nothing and owes nothing is not remembered.
        let running = lines.running.clone();
        lines.of.retain(|of, line| {
            running.as_ref() == Some(of) || !line.waiting.is_empty() || !line.budget.is_full(now)
        });
        let line = lines.of.entry(tenant.clone()).or_insert_with(|| TenantQueue {
            budget: HourlyBudget::full(self.hourly, now),
            waiting: VecDeque::new(),
        });
        line.waiting.retain(|waiting| !waiting.is_closed());
        line.budget.check(now).map_err(|retry_after| Busy::Spent { retry_after })?;
        if line.waiting.len() >= MOST_WAITING {
            return Err(Busy::Full);
        }
        let (waiting, turn) = oneshot::channel();
        line.waiting.push_back(waiting);
        if !lines.order.contains(tenant) {
            lines.order.push_back(tenant.clone());
        }
        Ok(turn)
    }

    /// Gives the place to whoever is next, if it is free.
    fn next(self: &Arc<Self>) {
        loop {
            let now = self.clock.monotonic();
            let mut lines = self.lock();
            if lines.running.is_some() {
                return;
            }
            let Some(tenant) = lines.order.pop_front() else { return };
            let Some(line) = lines.of.get_mut(&tenant) else { continue };
            let Some(waiting) = line.waiting.pop_front() else { continue };
            let allowed = line.budget.check(now);
            if !line.waiting.is_empty() {
                // One each: the others come first before this tenant's next.
                lines.order.push_back(tenant.clone());
            }
            lines.running = allowed.is_ok().then(|| tenant.clone());
            drop(lines);
            let told = match allowed {
                Ok(()) => Ok(Paid { tenants: Arc::clone(self), tenant, began: now, calls_the_next: true }),
                Err(retry_after) => Err(Busy::Spent { retry_after }),
            };
            // Who went away meanwhile is passed over. Its turn ends here, and this goes on with the next one.
            if let Err(Ok(unwanted)) = waiting.send(told) {
                unwanted.end();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Paid ===

impl Paid {
    /// The place is free, and what passed is paid.
    fn release(&self) {
        let now = self.tenants.clock.monotonic();
        let mut lines = self.tenants.lock();
        lines.running = None;
        if let Some(line) = lines.of.get_mut(&self.tenant) {
            line.budget.take(now.saturating_sub(self.began).as_secs_f64(), now);
        }
    }

    /// Ends it without calling the next one.
    fn end(mut self) {
        self.calls_the_next = false;
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.release();
        if self.calls_the_next {
            self.tenants.next();
        }
    }
}

impl std::fmt::Debug for Paid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Paid").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Queue").field("hourly", &self.tenants.hourly).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use time::OffsetDateTime;

    use super::*;
    use crate::clock::ManualClock;

    const HOURLY: u32 = 60;

    fn queue() -> (Queue, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(OffsetDateTime::UNIX_EPOCH));
        (Queue::new(HOURLY, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    /// Whose turn it is of those who wait.
    fn whose<'a, F: Future<Output = Result<CompilePermit<'a>, Busy>> + Unpin>(
        waiting: &mut Vec<(&'static str, F)>,
    ) -> Option<(&'static str, Result<CompilePermit<'a>, Busy>)> {
        let found = waiting.iter_mut().enumerate().find_map(|(at, (name, turn))| {
            let turn = turn.now_or_never()?;
            Some((at, *name, turn))
        });
        let (at, name, turn) = found?;
        drop(waiting.remove(at));
        Some((name, turn))
    }

    #[test]
    fn the_platform_waits_for_no_tenant() {
        let (queue, _clock) = queue();
        let acme = tenant("acme");
        let _compiling = queue.turn(Some(&acme)).now_or_never().unwrap().unwrap();
        let waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(queue.turn(Some(&acme)))).collect();
        let mut waiting = waiting;
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let platform = queue.turn(None).now_or_never().unwrap().unwrap();
        assert!(queue.turn(None).now_or_never().is_none(), "its own components come one at a time");
        drop(platform);
        assert!(queue.turn(None).now_or_never().is_some());
    }

    #[test]
    fn tenants_take_turns_however_many_components_one_of_them_has() {
        let (queue, _clock) = queue();
        let (acme, other, third) = (tenant("acme"), tenant("other"), tenant("third"));
        let mut turn = queue.turn(Some(&acme)).now_or_never().unwrap().unwrap();
        let mut waiting = Vec::new();
        for (name, of) in
            [("acme", &acme), ("acme", &acme), ("acme", &acme), ("other", &other), ("third", &third)]
        {
            waiting.push((name, Box::pin(queue.turn(Some(of)))));
            assert!(whose(&mut waiting).is_none());
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let (name, next) = whose(&mut waiting).unwrap();
            assert!(whose(&mut waiting).is_none(), "one at a time");
            order.push(name);
            turn = next.unwrap();
        }
        assert_eq!(order, ["acme", "other", "third", "acme", "acme"]);
    }

    #[test]
    fn a_line_is_as_long_as_it_may_be_and_who_leaves_makes_room() {
        let (queue, _clock) = queue();
        let acme = tenant("acme");
        let compiling = queue.turn(Some(&acme)).now_or_never().unwrap().unwrap();
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(queue.turn(Some(&acme)))).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert_eq!(queue.turn(Some(&acme)).now_or_never().unwrap().unwrap_err(), Busy::Full);
        assert!(
            queue.turn(Some(&tenant("other"))).now_or_never().is_none(),
            "others have lines of their own"
        );
        drop(waiting.remove(0));
        let mut late = Box::pin(queue.turn(Some(&acme)));
        assert!((&mut late).now_or_never().is_none());
        // Those who went away are passed over.
        drop(waiting);
        drop(compiling);
        assert!((&mut late).now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_turn_that_nobody_takes_any_more_goes_to_the_next() {
        let (queue, _clock) = queue();
        let (acme, other) = (tenant("acme"), tenant("other"));
        let compiling = queue.turn(Some(&acme)).now_or_never().unwrap().unwrap();
        let mut first = Box::pin(queue.turn(Some(&acme)));
        let mut second = Box::pin(queue.turn(Some(&other)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(compiling);
        // It was given the turn, and leaves without having seen it.
        drop(first);
        assert!((&mut second).now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_tenant_pays_for_its_own_compilers_and_for_no_others() {
        let (queue, clock) = queue();
        let (acme, other) = (tenant("acme"), tenant("other"));
        let slow = queue.turn(Some(&acme)).now_or_never().unwrap().unwrap();
        let mut waits = Box::pin(queue.turn(Some(&acme)));
        let mut others = Box::pin(queue.turn(Some(&other)));
        assert!((&mut waits).now_or_never().is_none() && (&mut others).now_or_never().is_none());
        clock.advance(Duration::from_secs(90));
        drop(slow);
        let retry_after = match (&mut waits).now_or_never().unwrap().unwrap_err() {
            Busy::Spent { retry_after } => retry_after,
            busy @ Busy::Full => panic!("{busy:?}"),
        };
        assert_eq!(
            retry_after,
            Duration::from_mins(31),
            "it has sixty seconds an hour, took ninety, and begins again with one"
        );
        assert!((&mut others).now_or_never().unwrap().is_ok(), "another tenant's time is its own");
        assert!(matches!(queue.turn(Some(&acme)).now_or_never(), Some(Err(Busy::Spent { .. }))));
        clock.advance(retry_after);
        assert!(matches!(queue.turn(Some(&acme)).now_or_never(), Some(Ok(_))));
    }
}
