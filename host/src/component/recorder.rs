//! What a guest was told besides its arguments, written down on the gateway's side as it happens, wherever the guest runs: the
//! time, and what counters answered. With it a decision can be replayed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::contract::{Bucket, Budget, Counters, Counting, Taken};
use super::ran::Ran;
use super::state::Scene;

/// Records what one guest is told.
pub(super) struct CallRecorder {
    now: Duration,
    ledger: Option<Arc<Ledger>>,
}

/// Counters that remember what they answered.
struct Ledger {
    counters: Arc<dyn Counters>,
    taken: Mutex<Vec<Taken>>,
}

// === impl CallRecorder ===

impl CallRecorder {
    /// Records what happens in `scene`, to a guest that can count or cannot.
    pub(super) fn of(scene: &mut Scene, counts: bool) -> Self {
        let mut ledger = None;
        if counts && let Some(counters) = scene.counters.take() {
            let remembers = Arc::new(Ledger { counters, taken: Mutex::default() });
            scene.counters = Some(Arc::clone(&remembers) as Arc<dyn Counters>);
            ledger = Some(remembers);
        }
        Self { now: scene.now, ledger }
    }

    /// Adds what the guest was told to what came of it.
    pub(super) fn add_to<T>(&self, ran: Ran<T>) -> Ran<T> {
        let taken =
            self.ledger.as_ref().map(|ledger| std::mem::take(&mut *ledger.taken())).unwrap_or_default();
        Ran { now: self.now, taken, ..ran }
    }
}

// === impl Ledger ===

impl Ledger {
    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There are no more entries than a guest has host calls. What could not be answered is none.
impl Counters for Ledger {
    fn take<'a>(&'a self, bucket: Bucket<'a>, cost: u32) -> Counting<'a, Result<u32, Duration>> {
        Box::pin(async move {
            let answer = self.counters.take(bucket, cost).await?;
            let Bucket { key, limit, window, .. } = bucket;
            let (key, window_ms) = (key.to_owned(), millis(window));
            self.taken().push(Taken::Take { key, cost, limit, window_ms, answer: answer.map_err(millis) });
            Ok(answer)
        })
    }

    fn correct<'a>(&'a self, bucket: Bucket<'a>, taken: u32, used: u32) -> Counting<'a, ()> {
        Box::pin(async move {
            self.counters.correct(bucket, taken, used).await?;
            let Bucket { key, limit, window, .. } = bucket;
            let (key, window_ms) = (key.to_owned(), millis(window));
            self.taken().push(Taken::Correct { key, taken, used, limit, window_ms });
            Ok(())
        })
    }

    fn reserve<'a>(
        &'a self,
        budget: Budget<'a>,
        micro: u64,
        cap: u64,
    ) -> Counting<'a, Result<u64, Duration>> {
        Box::pin(async move {
            let answer = self.counters.reserve(budget, micro, cap).await?;
            let Budget { key, window, .. } = budget;
            let (key, kept) = (key.to_owned(), answer.map_err(millis));
            self.taken().push(Taken::Reserve { key, micro, cap, window, answer: kept });
            Ok(answer)
        })
    }

    fn release<'a>(&'a self, budget: Budget<'a>, reserved: u64, spent: u64) -> Counting<'a, ()> {
        Box::pin(async move {
            self.counters.release(budget, reserved, spent).await?;
            let Budget { key, window, .. } = budget;
            self.taken().push(Taken::Release { key: key.to_owned(), reserved, spent, window });
            Ok(())
        })
    }
}

// === private helpers ===

/// As guests are told it.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
