//! Counters for policies, in memory and exact on one node: buckets by the generic cell rate algorithm (ITU-T I.371), and budgets by
//! the day and the month.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::{Date, OffsetDateTime};

use crate::clock::Clock;
use crate::component::contract::{Budget, Counters, Window};

/// Buckets beyond this are swept of those that are full again.
const SWEEP_AT: usize = 100_000;

/// How long the money of a window that is over is kept: a call that began in it may still end.
const LATE: Duration = Duration::from_hours(24);

/// Buckets and budgets of one gateway.
pub struct LocalCounters {
    clock: Arc<dyn Clock>,
    /// When each bucket would be full again, by tenant, component and key.
    full_at: Mutex<HashMap<String, Duration>>,
    /// Money, by tenant, component, key and window.
    money: Mutex<HashMap<String, Money>>,
}

/// Microdollars of one window.
#[derive(Debug, Clone, Copy)]
struct Money {
    reserved: u64,
    spent: u64,
    /// When the window is over, since 1970.
    until: Duration,
}

// === impl LocalCounters ===

impl LocalCounters {
    /// Empty.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, full_at: Mutex::default(), money: Mutex::default() }
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

    fn reserve(&self, budget: &Budget<'_>, micro: u64, cap: u64) -> Result<u64, Duration> {
        self.with_money(budget, |money| {
            let left = cap.checked_sub(money.reserved.saturating_add(money.spent));
            let Some(left) = left.and_then(|left| left.checked_sub(micro)) else {
                return Err(money.until.saturating_sub(budget.at));
            };
            money.reserved = money.reserved.saturating_add(micro);
            Ok(left)
        })
    }

    fn release(&self, budget: &Budget<'_>, reserved: u64, spent: u64) {
        self.with_money(budget, |money| {
            money.reserved = money.reserved.saturating_sub(reserved);
            money.spent = money.spent.saturating_add(spent);
        });
    }
}

impl LocalCounters {
    fn with_money<T>(&self, budget: &Budget<'_>, change: impl FnOnce(&mut Money) -> T) -> T {
        let Budget { tenant, component, key, window, at } = *budget;
        let until = end_of(window, at);
        let name = format!("{tenant}\0{component}\0{key}\0{window:?}\0{}", until.as_secs());
        let mut all = self.money.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SWEEP_AT {
            all.retain(|_, money| money.until + LATE > at);
        }
        change(all.entry(name).or_insert(Money { reserved: 0, spent: 0, until }))
    }
}

impl std::fmt::Debug for LocalCounters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LocalCounters").finish_non_exhaustive()
    }
}

/// When the day or the month of `at` is over, since 1970 in UTC.
fn end_of(window: Window, at: Duration) -> Duration {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    let day = OffsetDateTime::from_unix_timestamp(seconds).map_or(Date::MAX, OffsetDateTime::date);
    let next = match window {
        Window::Day => day.next_day(),
        Window::Month => day.replace_day(day.month().length(day.year())).ok().and_then(Date::next_day),
    };
    let midnight = next.unwrap_or(Date::MAX).midnight().assume_utc().unix_timestamp();
    Duration::from_secs(u64::try_from(midnight).unwrap_or(0))
}

/// The part of `window` that `cost` of `limit` takes to refill.
fn share(window: Duration, cost: u32, limit: u32) -> Duration {
    let nanos = window.as_nanos() * u128::from(cost) / u128::from(limit);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

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

    fn budget(key: &str, window: Window, at: OffsetDateTime) -> Budget<'_> {
        let at = Duration::from_secs(u64::try_from(at.unix_timestamp()).unwrap());
        Budget { tenant: "t", component: "c", key, window, at }
    }

    #[test]
    fn what_is_reserved_and_what_is_spent_stay_under_the_cap_together() {
        let (_, counters) = counters();
        let noon = budget("k", Window::Day, datetime!(2026-11-21 12:00 UTC));
        assert_eq!(counters.reserve(&noon, 60, 100), Ok(40));
        assert_eq!(counters.reserve(&noon, 41, 100), Err(Duration::from_hours(12)), "until midnight");
        counters.release(&noon, 60, 10);
        assert_eq!(counters.reserve(&noon, 90, 100), Ok(0));
        counters.release(&noon, 90, 95);
        assert_eq!(
            counters.reserve(&noon, 0, 100),
            Err(Duration::from_hours(12)),
            "more was spent than reserved"
        );
        assert_eq!(
            counters.reserve(&Budget { tenant: "u", ..noon }, 100, 100),
            Ok(0),
            "another tenant's purse"
        );
    }

    #[test]
    fn a_call_pays_out_of_the_day_on_which_it_began() {
        let (_, counters) = counters();
        let late = budget("k", Window::Day, datetime!(2026-11-30 23:59:59 UTC));
        let early = budget("k", Window::Day, datetime!(2026-12-01 00:00 UTC));
        assert_eq!(counters.reserve(&late, 100, 100), Ok(0));
        assert_eq!(counters.reserve(&early, 100, 100), Ok(0), "a new day");
        counters.release(&late, 100, 0);
        assert_eq!(counters.reserve(&early, 1, 100), Err(Duration::from_hours(24)));
        assert_eq!(counters.reserve(&late, 100, 100), Ok(0));
    }

    #[test]
    fn a_month_ends_with_its_last_day() {
        let ends = |at: OffsetDateTime| {
            let at = Duration::from_secs(u64::try_from(at.unix_timestamp()).unwrap());
            let end = end_of(Window::Month, at).as_secs();
            OffsetDateTime::from_unix_timestamp(i64::try_from(end).unwrap()).unwrap()
        };
        assert_eq!(ends(datetime!(2028-02-29 23:00 UTC)), datetime!(2028-03-01 00:00 UTC));
        assert_eq!(ends(datetime!(2026-12-31 00:00 UTC)), datetime!(2027-01-01 00:00 UTC));
        assert_eq!(ends(datetime!(2026-01-01 00:00 UTC)), datetime!(2026-02-01 00:00 UTC));
    }

    #[test]
    fn threads_that_race_for_a_budget_never_overspend_it() {
        let (_, counters) = counters();
        let noon = datetime!(2026-11-21 12:00 UTC);
        let won: usize = std::thread::scope(|scope| {
            let race = || {
                (0..500)
                    .filter(|_| counters.reserve(&budget("k", Window::Month, noon), 7, 1_000).is_ok())
                    .count()
            };
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(won, 1_000 / 7);
    }

    proptest! {
        #[test]
        fn no_interleaving_exceeds_a_cap_by_more_than_was_spent_beyond_its_reservation(
            steps in prop::collection::vec((1_u64..50, 0_u64..60, any::<bool>()), 1..200)
        ) {
            let (_, counters) = counters();
            let (cap, noon) = (200, budget("k", Window::Day, datetime!(2026-11-21 12:00 UTC)));
            let (mut open, mut spent, mut beyond) = (Vec::new(), 0_u64, 0_u64);
            for (micro, cost, ends) in steps {
                if ends && let Some(reserved) = open.pop() {
                    counters.release(&noon, reserved, cost);
                    spent += cost;
                    beyond += cost.saturating_sub(reserved);
                } else if counters.reserve(&noon, micro, cap).is_ok() {
                    open.push(micro);
                }
                prop_assert!(spent + open.iter().sum::<u64>() <= cap + beyond);
            }
        }

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
