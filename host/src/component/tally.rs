//! What a component did since it was admitted: how often it was asked, refused and failed, and how long it took. What a
//! trial is judged by.

use std::sync::atomic::{AtomicU64, Ordering};

/// Guest times are counted by powers of two of microseconds.
const BUCKETS: usize = 32;

/// What came of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It answered, and did not refuse.
    Answer,
    /// It refused.
    Refusal,
    /// It did not answer.
    Fault,
}

/// Counts that grow.
#[derive(Debug, Default)]
pub struct Tally {
    calls: AtomicU64,
    refusals: AtomicU64,
    faults: AtomicU64,
    times: [AtomicU64; BUCKETS],
}

/// Counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// How often it was asked.
    pub calls: u64,
    /// How often it refused.
    pub refusals: u64,
    /// How often it failed.
    pub faults: u64,
    times: [u64; BUCKETS],
}

// === impl Tally ===

impl Tally {
    /// Counts one call and its guest time.
    pub fn count(&self, said: Said, micros: u32) {
        self.count_remembered(said);
        if let Some(bucket) = self.times.get(bucket(micros)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call for which it was not asked again: it took no time, and says nothing of how long it takes.
    pub fn count_remembered(&self, said: Said) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match said {
            Said::Answer => {}
            Said::Refusal => drop(self.refusals.fetch_add(1, Ordering::Relaxed)),
            Said::Fault => drop(self.faults.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// What was counted so far.
    pub fn read(&self) -> Counted {
        let mut times = [0; BUCKETS];
        for (read, time) in times.iter_mut().zip(&self.times) {
            *read = time.load(Ordering::Relaxed);
        }
        Counted {
            calls: self.calls.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            times,
        }
    }
}

// === impl Counted ===

impl Counted {
    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut times = self.times;
        for (time, earlier) in times.iter_mut().zip(&before.times) {
            *time = time.saturating_sub(*earlier);
        }
        Self {
            calls: self.calls.saturating_sub(before.calls),
            refusals: self.refusals.saturating_sub(before.refusals),
            faults: self.faults.saturating_sub(before.faults),
            times,
        }
    }

    /// Microseconds that 95 of 100 calls stayed below, rounded up to a power of two.
    pub fn p95_micros(&self) -> u64 {
        let all: u64 = self.times.iter().sum();
        let wanted = all - all / 20;
        let mut seen = 0;
        for (bucket, count) in self.times.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return 1 << bucket;
            }
        }
        0
    }
}

// === private helpers ===

/// The power of two that `micros` stays at or below.
fn bucket(micros: u32) -> usize {
    let bits = u32::BITS - micros.saturating_sub(1).leading_zeros();
    usize::try_from(bits).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_came_since() {
        let tally = Tally::default();
        tally.count(Said::Fault, 10);
        let before = tally.read();
        tally.count(Said::Answer, 10);
        tally.count(Said::Refusal, 10);
        let since = tally.read().since(&before);
        assert_eq!((since.calls, since.refusals, since.faults), (2, 1, 0));
        assert_eq!(since.p95_micros(), 16);
    }

    #[test]
    fn what_was_remembered_counts_and_makes_nobody_look_fast() {
        let tally = Tally::default();
        tally.count(Said::Answer, 10_000);
        (0..99).for_each(|_| tally.count_remembered(Said::Refusal));
        let counted = tally.read();
        assert_eq!((counted.calls, counted.refusals, counted.p95_micros()), (100, 99, 16_384));
    }

    #[test]
    fn one_slow_call_of_a_hundred_does_not_move_the_95th_and_ten_do() {
        let tally = Tally::default();
        (0..99).for_each(|_| tally.count(Said::Answer, 100));
        tally.count(Said::Answer, 50_000);
        assert_eq!(tally.read().p95_micros(), 128);
        (0..9).for_each(|_| tally.count(Said::Answer, 50_000));
        assert_eq!(tally.read().p95_micros(), 65_536);
        assert_eq!(Tally::default().read().p95_micros(), 1, "nothing was counted");
    }
}
