//! Counters for policies, in the memory of one gateway, which count all its calls and those of no other: buckets by the generic cell rate algorithm (ITU-T I.371), and budgets by
//! the day and the month.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::{Date, OffsetDateTime};

use crate::clock::Clock;
use crate::component::contract::{Bucket, Budget, InstantCounters, Window};

/// Buckets beyond this are swept of those that are full again.
const SWEEP_AT: usize = 100_000;

/// Calls in progress that one bucket remembers. Those beyond it get nothing back.
const MOST_OPEN: usize = 4_096;

/// How long the money of a window that is over is kept: a call that began in it may still end.
const LATE: Duration = Duration::from_hours(24);

/// Buckets and budgets of one gateway.
pub struct LocalCounters {
    clock: Arc<dyn Clock>,
    /// By tenant, component and key.
    buckets: Mutex<HashMap<String, Filling>>,
    /// Money, by tenant, component, key and window.
    money: Mutex<HashMap<String, Money>>,
}

/// A bucket on its way to being full again.
#[derive(Debug, Default)]
struct Filling {
    /// When it would be full, if nobody took any more.
    full_at: Duration,
    /// What calls in progress took, oldest first: whose, how much, and until when that is refilling.
    open: VecDeque<BucketShare>,
}

/// What one call took from a bucket.
#[derive(Debug)]
struct BucketShare {
    call: String,
    cost: u32,
    until: Duration,
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
        Self { clock, buckets: Mutex::default(), money: Mutex::default() }
    }
}

impl InstantCounters for LocalCounters {
    fn take(&self, bucket: &Bucket<'_>, cost: u32) -> Result<u32, Duration> {
        let Bucket { limit, window, .. } = *bucket;
        if limit == 0 || window.is_zero() {
            return Err(window);
        }
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, filling| filling.full_at > now);
        }
        let filling = buckets.entry(name_of(bucket)).or_default();
        let after = filling.full_at.max(now) + share(window, cost, limit);
        let latest = now + window;
        let Some(spare) = latest.checked_sub(after) else { return Err(after.saturating_sub(latest)) };
        filling.full_at = after;
        filling.open(bucket.call, cost, after, now);
        drop(buckets);
        let left = spare.as_nanos() * u128::from(limit) / window.as_nanos();
        Ok(u32::try_from(left).unwrap_or(limit))
    }

    fn correct(&self, bucket: &Bucket<'_>, taken: u32, used: u32) {
        let Bucket { limit, window, .. } = *bucket;
        if limit == 0 || window.is_zero() {
            return;
        }
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(filling) = buckets.get_mut(&name_of(bucket)) else { return };
        let Some(until) = filling.closed(bucket.call, taken) else { return };
        if used >= taken {
            // A debt of more than a window would shut the bucket for longer than its limit says.
            let debt = filling.full_at.max(now) + share(window, used - taken, limit);
            filling.full_at = debt.min(now + window * 2).max(filling.full_at);
        } else {
            // What has refilled meanwhile was given back already, by time.
            let refilling = until.saturating_sub(now);
            let back = share(window, taken - used, limit).min(refilling);
            filling.full_at = filling.full_at.saturating_sub(back);
            for later in filling.open.iter_mut().filter(|share| share.until > until) {
                later.until = later.until.saturating_sub(back);
            }
        }
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

// === impl Filling ===

impl Filling {
    fn open(&mut self, call: &str, cost: u32, until: Duration, now: Duration) {
        // What is full again has nothing left to give back, whether its call has ended or not.
        while self.open.front().is_some_and(|share| share.until <= now) || self.open.len() >= MOST_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(BucketShare { call: call.to_owned(), cost, until });
    }

    /// Until when the share of a call that has ended is refilling.
    fn closed(&mut self, call: &str, cost: u32) -> Option<Duration> {
        let at = self.open.iter().position(|share| share.call == call && share.cost == cost)?;
        self.open.remove(at).map(|share| share.until)
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

fn name_of(bucket: &Bucket<'_>) -> String {
    let Bucket { tenant, component, key, .. } = bucket;
    let mut name = String::with_capacity(tenant.len() + component.len() + key.len() + 2);
    for part in [tenant, "\0", component, "\0", key] {
        name.push_str(part);
    }
    name
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

    fn bucket(call: &str, limit: u32, window: Duration) -> Bucket<'_> {
        Bucket { tenant: "t", component: "c", key: "k", limit, window, call }
    }

    fn take(
        counters: &LocalCounters,
        tenant: &str,
        component: &str,
        cost: u32,
        limit: u32,
        window: Duration,
    ) -> Result<u32, Duration> {
        counters.take(&Bucket { tenant, component, ..bucket("one", limit, window) }, cost)
    }

    #[test]
    fn what_a_call_did_not_use_is_there_for_the_next_one_at_once() {
        let (_, counters) = counters();
        let (one, two) = (bucket("one", 100, MINUTE), bucket("two", 100, MINUTE));
        assert_eq!(counters.take(&one, 90), Ok(10));
        assert!(counters.take(&two, 90).is_err());
        counters.correct(&one, 90, 5);
        assert_eq!(counters.take(&two, 90), Ok(5));
    }

    #[test]
    fn a_call_gives_back_what_it_took_once_and_nothing_else() {
        let (_, counters) = counters();
        let (one, two) = (bucket("one", 100, MINUTE), bucket("two", 100, MINUTE));
        assert_eq!(counters.take(&one, 60), Ok(40));
        counters.correct(&two, 60, 0);
        counters.correct(&one, 59, 0);
        assert!(counters.take(&two, 41).is_err(), "neither another call nor another amount");
        counters.correct(&one, 60, 0);
        counters.correct(&one, 60, 0);
        assert_eq!(counters.take(&two, 50), Ok(50));
        assert_eq!(counters.take(&two, 50), Ok(0));
    }

    #[test]
    fn what_has_refilled_meanwhile_is_not_given_back_again() {
        let (clock, counters) = counters();
        let (one, two) = (bucket("one", 100, MINUTE), bucket("two", 100, MINUTE));
        assert_eq!(counters.take(&one, 50), Ok(50));
        clock.advance(MINUTE);
        assert_eq!(counters.take(&two, 100), Ok(0));
        counters.correct(&one, 50, 0);
        assert!(counters.take(&one, 1).is_err(), "the bucket was full again before the second call came");
    }

    #[test]
    fn what_was_used_beyond_what_was_taken_is_owed_for_a_window_at_most() {
        let (clock, counters) = counters();
        let one = bucket("one", 100, MINUTE);
        assert_eq!(counters.take(&one, 10), Ok(90));
        counters.correct(&one, 10, 130);
        assert_eq!(counters.take(&one, 10), Err(MINUTE * 40 / 100));
        clock.advance(MINUTE * 40 / 100);
        assert_eq!(counters.take(&one, 10), Ok(0));
        counters.correct(&one, 10, u32::MAX);
        assert_eq!(counters.take(&one, 100), Err(MINUTE * 2));
    }

    #[test]
    fn a_bucket_gives_its_limit_and_then_says_when_there_is_more() {
        let (clock, counters) = counters();
        for left in [2, 1, 0] {
            assert_eq!(take(&counters, "t", "c", 1, 3, MINUTE), Ok(left));
        }
        assert_eq!(take(&counters, "t", "c", 1, 3, MINUTE), Err(MINUTE / 3));
        clock.advance(MINUTE / 3);
        assert_eq!(take(&counters, "t", "c", 1, 3, MINUTE), Ok(0));
    }

    #[test]
    fn tenants_and_components_have_buckets_of_their_own() {
        let (_, counters) = counters();
        assert!(take(&counters, "t", "c", 1, 1, MINUTE).is_ok());
        assert!(take(&counters, "t", "c", 1, 1, MINUTE).is_err());
        assert!(take(&counters, "u", "c", 1, 1, MINUTE).is_ok());
        assert!(take(&counters, "t", "d", 1, 1, MINUTE).is_ok());
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
        fn calls_that_settle_never_use_more_than_a_limit_and_what_refilled(
            steps in prop::collection::vec((1_u32..10, 0_u32..10, 0_u64..1_500, any::<bool>()), 1..200)
        ) {
            let (clock, counters) = counters();
            let (limit, window) = (10_u32, Duration::from_secs(1));
            let (mut open, mut held, mut passed) = (Vec::new(), 0_u64, 0_u64);
            for (number, (cost, used, wait, ends)) in steps.into_iter().enumerate() {
                let call = number.to_string();
                if ends && let Some((call, cost)) = open.pop() {
                    let call: String = call;
                    let used = used.min(cost);
                    counters.correct(&bucket(&call, limit, window), cost, used);
                    held -= u64::from(cost - used);
                } else if counters.take(&bucket(&call, limit, window), cost).is_ok() {
                    held += u64::from(cost);
                    open.push((call, cost));
                }
                let may = u64::from(limit) + passed * u64::from(limit) / 1_000;
                prop_assert!(held <= may, "{held} of {may}");
                clock.advance(Duration::from_millis(wait));
                passed += wait;
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
                if take(&counters, "t", "c", cost, limit, window).is_ok() {
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
