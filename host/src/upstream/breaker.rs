//! What is known of how upstreams do, from calls of late: a circuit breaker for each address and credential, the time for which an
//! upstream asked not to be called, and how many retries it may be given. Kept in memory: as much as the configuration has targets.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::config::{BreakerSettings, RouteTarget};

/// Retries that an upstream is given whatever its share, in hundredths.
const FREE_RETRIES: u32 = 10 * 100;
/// How many retries may be saved up, in hundredths.
const MOST_RETRIES: u32 = 100 * 100;
/// How often the time for which a breaker is open doubles.
const MOST_DOUBLINGS: u32 = 4;
/// Longest that an upstream's own `retry-after` is believed.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Every upstream of the configuration.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    by_upstream: Mutex<BTreeMap<UpstreamKey, Arc<Breaker>>>,
}

/// Which upstream: its address, and as whom it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct UpstreamKey {
    address: String,
    credential: String,
}

/// What is known of one upstream. Times are of the clock that is passed in.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    phase: BreakerPhase,
    /// How often it opened without having been closed since.
    openings: u32,
    /// Calls of this window and of the one before.
    now: CallCount,
    before: CallCount,
    /// When this window began.
    since: Duration,
    /// Until when the upstream asked not to be called.
    paused_until: Option<Duration>,
    /// Calls less retries, in hundredths of a retry; `None` before the first call.
    retries: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum BreakerPhase {
    /// Calls pass.
    #[default]
    Closed,
    /// None passes before this time; then one does.
    Open(Duration),
    /// One is under way, and tells what becomes of the others.
    Probing,
}

#[derive(Debug, Default, Clone, Copy)]
struct CallCount {
    calls: u32,
    failures: u32,
}

/// A call that may be made. Dropped without a word about how it went, it says nothing of the upstream.
#[derive(Debug)]
pub struct BreakerPass {
    breaker: Arc<Breaker>,
    settings: Option<BreakerSettings>,
    probing: bool,
}

/// An upstream and how it does, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamState {
    /// Its address.
    pub upstream: String,
    /// The name of the credential with which it is asked; empty where there is none.
    pub credential: String,
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// For how long no call passes.
    pub open_ms: u64,
}

// === impl Breakers ===

impl Breakers {
    /// The one of this target's upstream.
    pub(super) fn of(&self, target: &RouteTarget) -> Arc<Breaker> {
        let key = UpstreamKey::of(target);
        let mut all = self.locked();
        if let Some(breaker) = all.get(&key) {
            return Arc::clone(breaker);
        }
        Arc::clone(all.entry(key).or_default())
    }

    /// Forgets the upstreams that are none of these targets'.
    pub(super) fn keep<'a>(&self, targets: impl Iterator<Item = &'a Arc<RouteTarget>>) {
        let wanted: HashSet<_> = targets.map(|target| UpstreamKey::of(target)).collect();
        self.locked().retain(|key, _| wanted.contains(key));
    }

    /// How each does that was asked so far.
    pub(super) fn states(&self, now: Duration) -> Vec<UpstreamState> {
        let all = self.locked();
        let state = |(key, breaker): (&UpstreamKey, &Arc<Breaker>)| {
            let (breaker, open) = breaker.locked().said(now);
            UpstreamState {
                upstream: key.address.clone(),
                credential: key.credential.clone(),
                breaker,
                open_ms: u64::try_from(open.as_millis()).unwrap_or(u64::MAX),
            }
        };
        all.iter().map(state).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<UpstreamKey, Arc<Breaker>>> {
        self.by_upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl UpstreamKey ===

impl UpstreamKey {
    fn of(target: &RouteTarget) -> Self {
        let address = match &target.endpoint {
            Some(endpoint) => endpoint.to_string(),
            None => target.provider.clone(),
        };
        Self { address, credential: target.api_key_secret.clone().unwrap_or_default() }
    }
}

// === impl Breaker ===

impl Breaker {
    /// Lets a call through, or says how long none is. Without settings every call passes.
    pub fn pass(
        self: &Arc<Self>,
        settings: Option<BreakerSettings>,
        now: Duration,
    ) -> Result<BreakerPass, Duration> {
        let mut state = self.locked();
        let mut probing = false;
        if settings.is_some() {
            match state.phase {
                BreakerPhase::Closed => {}
                BreakerPhase::Open(until) if until > now => return Err(until.saturating_sub(now)),
                BreakerPhase::Open(_) => {
                    state.phase = BreakerPhase::Probing;
                    probing = true;
                }
                // Its answer may be there at any moment.
                BreakerPhase::Probing => return Err(Duration::from_secs(1)),
            }
        }
        drop(state);
        Ok(BreakerPass { breaker: Arc::clone(self), settings, probing })
    }

    /// Whether the upstream asked not to be called now.
    pub fn is_paused(&self, now: Duration) -> bool {
        self.locked().paused_until.is_some_and(|until| until > now)
    }

    /// The upstream asked not to be called for so long.
    pub fn pause(&self, time: Duration, now: Duration) {
        let until = now.saturating_add(time.min(LONGEST_PAUSE));
        let mut state = self.locked();
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// A call is made that repeats none: so many hundredths of a retry are saved up.
    pub fn earn(&self, hundredths: u32) {
        let mut state = self.locked();
        let saved = state.retries.unwrap_or(FREE_RETRIES).saturating_add(hundredths);
        state.retries = Some(saved.min(MOST_RETRIES));
    }

    /// Whether a retry may be made; it is taken off.
    pub fn spend(&self) -> bool {
        let mut state = self.locked();
        let left = state.retries.unwrap_or(FREE_RETRIES).checked_sub(100);
        state.retries = left.or(state.retries);
        left.is_some()
    }

    /// A call failed whose answer had begun.
    pub fn broke_off(&self, settings: Option<BreakerSettings>, now: Duration) {
        if let Some(settings) = settings {
            self.locked().count(true, &settings, now);
        }
    }

    fn locked(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl BreakerPass ===

impl BreakerPass {
    /// The upstream answered.
    pub fn answered(mut self, now: Duration) {
        self.tell(false, now);
    }

    /// It failed.
    pub fn failed(mut self, now: Duration) {
        self.tell(true, now);
    }

    fn tell(&mut self, failed: bool, now: Duration) {
        let Some(settings) = self.settings else { return };
        let mut state = self.breaker.locked();
        if std::mem::take(&mut self.probing) {
            if failed {
                state.open(&settings, now);
            } else {
                state.close();
            }
        } else {
            state.count(failed, &settings, now);
        }
    }
}

impl Drop for BreakerPass {
    fn drop(&mut self) {
        if self.probing {
            // Nobody knows how it went: the next call finds out.
            self.breaker.locked().phase = BreakerPhase::Open(Duration::ZERO);
        }
    }
}

// === impl BreakerState ===

impl BreakerState {
    fn count(&mut self, failed: bool, settings: &BreakerSettings, now: Duration) {
        if self.phase != BreakerPhase::Closed {
            // A call from before it opened.
            return;
        }
        self.turn(settings.window, now);
        self.now.calls = self.now.calls.saturating_add(1);
        if !failed {
            return;
        }
        self.now.failures = self.now.failures.saturating_add(1);
        let failures = u64::from(self.now.failures) + u64::from(self.before.failures);
        let calls = u64::from(self.now.calls) + u64::from(self.before.calls);
        if failures >= u64::from(settings.failures)
            && failures * 100 >= calls * u64::from(settings.share_percent)
        {
            self.open(settings, now);
        }
    }

    /// Begins another window, if this one is over. A window is counted in two halves, of which the older one is dropped.
    fn turn(&mut self, window: Duration, now: Duration) {
        let half = window / 2;
        let passed = now.saturating_sub(self.since);
        if passed < half {
            return;
        }
        self.before = if passed < window { self.now } else { CallCount::default() };
        self.now = CallCount::default();
        self.since = now;
    }

    fn open(&mut self, settings: &BreakerSettings, now: Duration) {
        let time = settings.open.saturating_mul(1 << self.openings.min(MOST_DOUBLINGS));
        self.openings = self.openings.saturating_add(1);
        self.phase = BreakerPhase::Open(now.saturating_add(time));
        (self.now, self.before) = (CallCount::default(), CallCount::default());
    }

    fn close(&mut self) {
        self.phase = BreakerPhase::Closed;
        self.openings = 0;
    }

    /// In a word, and for how long no call passes.
    fn said(&self, now: Duration) -> (&'static str, Duration) {
        match self.phase {
            BreakerPhase::Closed => ("closed", Duration::ZERO),
            BreakerPhase::Open(until) if until > now => ("open", until.saturating_sub(now)),
            BreakerPhase::Open(_) | BreakerPhase::Probing => ("half_open", Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        share_percent: 50,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
    };

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn call(breaker: &Arc<Breaker>, good: bool, at: Duration) {
        let pass = breaker.pass(Some(SETTINGS), at).unwrap();
        if good { pass.answered(at) } else { pass.failed(at) }
    }

    #[test]
    fn it_opens_where_calls_fail_often_enough_and_are_a_share_of_all() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..4 {
            call(&breaker, true, second(1));
        }
        for _ in 0..3 {
            call(&breaker, false, second(1));
        }
        assert!(breaker.pass(Some(SETTINGS), second(1)).is_ok(), "three of seven are less than half");
        call(&breaker, false, second(1));
        assert_eq!(breaker.pass(Some(SETTINGS), second(2)).unwrap_err(), second(4));
        assert!(breaker.pass(None, second(2)).is_ok(), "without settings there is none");
    }

    #[test]
    fn failures_of_long_ago_count_no_more() {
        let breaker = Arc::new(Breaker::default());
        for at in [1, 2, 30, 31, 60, 61] {
            call(&breaker, false, second(at));
        }
        assert!(breaker.pass(Some(SETTINGS), second(62)).is_ok());
    }

    #[test]
    fn one_call_finds_out_whether_it_closes_and_the_wait_doubles_where_it_does_not() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..3 {
            call(&breaker, false, second(0));
        }
        let probe = breaker.pass(Some(SETTINGS), second(5)).unwrap();
        assert!(breaker.pass(Some(SETTINGS), second(5)).is_err(), "the others wait for it");
        probe.failed(second(6));
        assert_eq!(breaker.pass(Some(SETTINGS), second(6)).unwrap_err(), second(10));
        // A probe of which nobody says how it went lets the next one find out.
        drop(breaker.pass(Some(SETTINGS), second(16)).unwrap());
        breaker.pass(Some(SETTINGS), second(16)).unwrap().answered(second(16));
        for _ in 0..5 {
            assert!(breaker.pass(Some(SETTINGS), second(17)).is_ok(), "closed again");
        }
        for _ in 0..3 {
            call(&breaker, false, second(18));
        }
        assert_eq!(breaker.pass(Some(SETTINGS), second(18)).unwrap_err(), second(5), "and begins anew");
    }

    #[test]
    fn what_was_under_way_when_it_opened_neither_opens_it_for_longer_nor_closes_it() {
        let breaker = Arc::new(Breaker::default());
        let late: Vec<_> = (0..4).map(|_| breaker.pass(Some(SETTINGS), second(0)).unwrap()).collect();
        for _ in 0..3 {
            call(&breaker, false, second(0));
        }
        for (number, pass) in late.into_iter().enumerate() {
            if number % 2 == 0 { pass.answered(second(1)) } else { pass.failed(second(1)) }
        }
        assert_eq!(breaker.pass(Some(SETTINGS), second(1)).unwrap_err(), second(4));
    }

    #[test]
    fn retries_are_a_share_of_the_calls_and_a_few_more() {
        let breaker = Breaker::default();
        for _ in 0..50 {
            breaker.earn(20);
        }
        let given = (0..100).filter(|_| breaker.spend()).count();
        assert_eq!(given, 20, "ten are free, and ten were earned");
        for _ in 0..5 {
            breaker.earn(20);
        }
        assert!(breaker.spend() && !breaker.spend());
    }

    #[test]
    fn an_upstream_rests_for_as_long_as_it_asks_but_not_for_ever() {
        let breaker = Breaker::default();
        breaker.pause(second(7), second(1));
        breaker.pause(second(2), second(1));
        assert!(breaker.is_paused(second(7)) && !breaker.is_paused(second(8)));
        breaker.pause(Duration::MAX, second(10));
        assert!(!breaker.is_paused(second(10) + LONGEST_PAUSE));
    }
}
