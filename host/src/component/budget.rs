//! An amount for each hour, such as seconds of compiling or uploads: what is not used is kept, up to one hour's worth.

use std::time::Duration;

const HOUR: f64 = 3_600.0;

/// What is left of an hourly amount. It may be overdrawn: who takes more than there is waits longer.
#[derive(Debug, Clone, Copy)]
pub struct HourlyBudget {
    hourly: f64,
    left: f64,
    at: Duration,
}

// === impl HourlyBudget ===

impl HourlyBudget {
    /// A whole hour's worth.
    pub fn full(hourly: u32, now: Duration) -> Self {
        Self { hourly: f64::from(hourly), left: f64::from(hourly), at: now }
    }

    /// The same with another hourly amount; nobody has more left than that.
    #[must_use]
    pub fn with_hourly(mut self, hourly: u32, now: Duration) -> Self {
        self.refill(now);
        self.hourly = f64::from(hourly);
        self.left = self.left.min(self.hourly);
        self
    }

    /// `Ok` while there is a whole unit left, else how long until there is a whole unit again.
    pub fn check(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        // Sums of many small amounts are a little off.
        if self.left > 1.0 - 1e-6 {
            return Ok(());
        }
        let wanted = (1.0 - self.left) * HOUR / self.hourly.max(f64::EPSILON);
        Err(Duration::try_from_secs_f64(wanted).unwrap_or(Duration::MAX))
    }

    /// Takes this much, whether it is there or not.
    pub fn take(&mut self, amount: f64, now: Duration) {
        self.refill(now);
        self.left -= amount.max(0.0);
    }

    /// Whether it is as good as new, and need not be remembered.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.left >= self.hourly
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.hourly / HOUR).min(self.hourly);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_hour_gives_back_what_an_hour_may_take_and_not_more() {
        let mut budget = HourlyBudget::full(60, SECOND);
        budget.take(60.0, SECOND);
        assert_eq!(budget.check(SECOND), Err(Duration::from_mins(1)), "one a minute comes back");
        assert_eq!(budget.check(SECOND * 62), Ok(()));
        assert!(!budget.is_full(SECOND * 62));
        assert!(budget.is_full(SECOND * 3_602));
        budget.take(1.0, SECOND * 100_000);
        assert!(!budget.is_full(SECOND * 100_000), "what was saved is one hour's worth");
    }

    #[test]
    fn what_is_overdrawn_is_waited_for() {
        let mut budget = HourlyBudget::full(3_600, Duration::ZERO);
        budget.take(3_610.0, Duration::ZERO);
        assert_eq!(budget.check(Duration::ZERO), Err(SECOND * 11));
        assert!(budget.check(SECOND * 9).is_err());
        assert_eq!(budget.check(SECOND * 11), Ok(()));
    }
}
