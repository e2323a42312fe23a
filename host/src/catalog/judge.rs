//! Whether a canary goes on: its faults, its refusals and its time, against its own limits and what is in force beside it.

use sallyport_protocol::fault::BreachCode;

use super::place::Slo;
use crate::component::Counted;

/// Calls of what is in force before a canary is compared with it.
const MIN_BASELINE_CALLS: u64 = 20;
/// How many times slower than what is in force a canary may be, where its limits name no time.
const MAX_SLOWDOWN: u64 = 4;
/// Guest time below which a canary is never too slow, in microseconds.
const NEGLIGIBLE_MICROS: u64 = 2_000;

/// Why a canary ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Breach {
    /// It fails too often.
    Faults {
        /// In a hundred calls.
        percent: f64,
    },
    /// It refuses more than what is in force.
    Refusals {
        /// Of a hundred calls, more.
        jump_percent: f64,
    },
    /// It takes too long.
    Slow {
        /// What 95 of 100 calls stayed below.
        p95_micros: u64,
        /// What they should have stayed below.
        limit_micros: u64,
    },
}

/// What ends the canary; `None` if nothing does, or not enough calls were seen.
pub(super) fn judge(slo: &Slo, canary: &Counted, in_force: &Counted) -> Option<Breach> {
    if canary.calls == 0 || canary.calls < slo.min_calls {
        return None;
    }
    let percent = share(canary.faults, canary.calls);
    if percent > slo.max_fault_percent {
        return Some(Breach::Faults { percent });
    }
    let measured = in_force.calls >= MIN_BASELINE_CALLS;
    if measured {
        let jump_percent = share(canary.refusals, canary.calls) - share(in_force.refusals, in_force.calls);
        if jump_percent > slo.max_refusal_jump_percent {
            return Some(Breach::Refusals { jump_percent });
        }
    }
    let usual = measured.then(|| in_force.p95_micros().saturating_mul(MAX_SLOWDOWN).max(NEGLIGIBLE_MICROS));
    let (p95_micros, limit) = (canary.p95_micros(), slo.max_p95_micros.or(usual));
    limit.filter(|limit| p95_micros > *limit).map(|limit_micros| Breach::Slow { p95_micros, limit_micros })
}

// === impl Breach ===

impl Breach {
    /// Its name in rows.
    pub(super) fn code(&self) -> BreachCode {
        match self {
            Self::Faults { .. } => BreachCode::Faults,
            Self::Refusals { .. } => BreachCode::Refusals,
            Self::Slow { .. } => BreachCode::Slow,
        }
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Faults { percent } => write!(out, "it failed in {percent:.1} of 100 calls"),
            Self::Refusals { jump_percent } => {
                write!(out, "it refused {jump_percent:.1} of 100 calls more than what is in force")
            }
            Self::Slow { p95_micros, limit_micros } => {
                write!(out, "it takes up to {p95_micros} us, more than {limit_micros}")
            }
        }
    }
}

// === private helpers ===

/// Of a hundred.
#[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::{Said, Tally};

    fn counted(answers: u32, refusals: u32, faults: u32, micros: u32) -> Counted {
        let tally = Tally::default();
        for (said, count) in [(Said::Answer, answers), (Said::Refusal, refusals), (Said::Fault, faults)] {
            (0..count).for_each(|_| tally.count(said, micros));
        }
        tally.read()
    }

    #[test]
    fn a_canary_that_behaves_goes_on() {
        let in_force = counted(90, 10, 0, 100);
        assert_eq!(judge(&Slo::default(), &counted(90, 12, 1, 120), &in_force), None);
    }

    #[test]
    fn too_few_calls_are_no_reason() {
        assert_eq!(judge(&Slo::default(), &counted(0, 0, 19, 100), &counted(100, 0, 0, 100)), None);
        let none = Slo { min_calls: 0, ..Slo::default() };
        assert_eq!(judge(&none, &counted(0, 0, 0, 0), &counted(100, 0, 0, 100)), None);
    }

    #[test]
    fn faults_refusals_and_time_each_end_it() {
        let in_force = counted(100, 0, 0, 1_000);
        let end = |canary: &Counted| judge(&Slo::default(), canary, &in_force).map(|breach| breach.code());
        assert_eq!(end(&counted(98, 0, 2, 1_000)), Some(BreachCode::Faults));
        assert_eq!(end(&counted(80, 20, 0, 1_000)), Some(BreachCode::Refusals));
        assert_eq!(end(&counted(100, 0, 0, 9_000)), Some(BreachCode::Slow));
    }

    #[test]
    fn where_nothing_is_in_force_only_faults_and_a_named_time_count() {
        let nothing = Counted::default();
        assert_eq!(judge(&Slo::default(), &counted(0, 100, 0, 40_000), &nothing), None);
        let slo = Slo { max_p95_micros: Some(5_000), ..Slo::default() };
        let breach = judge(&slo, &counted(100, 0, 0, 40_000), &nothing).unwrap();
        assert_eq!(breach.to_string(), "it takes up to 65536 us, more than 5000");
    }
}
