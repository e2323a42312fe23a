//! Counters for policies: the generic cell rate algorithm (ITU-T I.371) over buckets in memory, exact on one node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::component::contract::Counters;

/// Buckets beyond this are swept of those that are full again.
const SWEEP_AT: usize = 100_000;

/// Buckets of one gateway.
pub struct LocalCounters {
    clock: Arc<dyn Clock>,
    /// When each bucket would be full again, by tenant, component and key.
    full_at: Mutex<HashMap<String, Duration>>,
}

// === impl LocalCounters ===

impl LocalCounters {
    /// Empty.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, full_at: Mutex::new(HashMap::new()) }
    }
}

impl Counters for LocalCounters {
    fn take(
        &self,
        tenant: &str,
        component: &str,
        key: &str,
        cost: u32,
        limit: u32,
        window: Duration,
    ) -> Result<u32, Duration> {
        if limit == 0 || window.is_zero() {
            return Err(window);
        }
        let now = self.clock.monotonic();
        let name = format!("{tenant}\0{component}\0{key}");
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let full_at = buckets.get(&name).copied().unwrap_or(now).max(now);
        let after = full_at + share(window, cost, limit);
        let latest = now + window;
        let Some(spare) = latest.checked_sub(after) else { return Err(after.saturating_sub(latest)) };
        buckets.insert(name, after);
        drop(buckets);
        let left = spare.as_nanos() * u128::from(limit) / window.as_nanos();
        Ok(u32::try_from(left).unwrap_or(limit))
    }
}

impl std::fmt::Debug for LocalCounters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LocalCounters").finish_non_exhaustive()
    }
}

/// The part of `window` that `cost` of `limit` takes to refill.
fn share(window: Duration, cost: u32, limit: u32) -> Duration {
    let nanos = window.as_nanos() * u128::from(cost) / u128::from(limit);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::*;
    use crate::clock::ManualClock;

    fn counters() -> (Arc<ManualClock>, LocalCounters) {
        let clock = Arc::new(ManualClock::new(OffsetDateTime::UNIX_EPOCH));
        (Arc::clone(&clock), LocalCounters::new(clock))
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_bucket_gives_its_limit_and_then_says_when_there_is_more() {
        let (clock, counters) = counters();
        for left in [2, 1, 0] {
            assert_eq!(counters.take("t", "c", "k", 1, 3, MINUTE), Ok(left));
        }
        assert_eq!(counters.take("t", "c", "k", 1, 3, MINUTE), Err(MINUTE / 3));
        clock.advance(MINUTE / 3);
        assert_eq!(counters.take("t", "c", "k", 1, 3, MINUTE), Ok(0));
    }

    #[test]
    fn tenants_and_components_have_buckets_of_their_own() {
        let (_, counters) = counters();
        assert!(counters.take("t", "c", "k", 1, 1, MINUTE).is_ok());
        assert!(counters.take("t", "c", "k", 1, 1, MINUTE).is_err());
        assert!(counters.take("u", "c", "k", 1, 1, MINUTE).is_ok());
        assert!(counters.take("t", "d", "k", 1, 1, MINUTE).is_ok());
    }

    proptest! {
        #[test]
        fn no_sequence_takes_more_than_a_limit_and_what_refilled(
            steps in prop::collection::vec((1_u32..5, 0_u64..2_000), 1..200)
        ) {
            let (clock, counters) = counters();
            let (limit, window) = (10_u32, Duration::from_secs(1));
            let (mut taken, mut passed) = (0_u64, 0_u64);
            for (cost, wait) in steps {
                if counters.take("t", "c", "k", cost, limit, window).is_ok() {
                    taken += u64::from(cost);
                }
                let may = u64::from(limit) + passed * u64::from(limit) / 1_000;
                prop_assert!(taken <= may, "{taken} of {may}");
                clock.advance(Duration::from_millis(wait));
                passed += wait;
            }
        }
    }
}
