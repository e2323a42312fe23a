//! What users spent, told without a sum over their rows each time they ask: a sum is told again for some seconds, and one is made at a
//! time, so that who asks without end does not keep the database from others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::{OffsetDateTime, Time};
use tokio::sync::Semaphore;

use super::Edge;
use crate::auth::Principal;
use crate::db::DbError;

/// For so long what was told is told again.
const FRESH: Duration = Duration::from_secs(5);
/// So many users are remembered.
const USERS: usize = 10_000;

/// What was told last.
pub(crate) struct Spending {
    told: Mutex<HashMap<UserOfTenant, Told>>,
    sums: Semaphore,
}

/// Microdollars since the beginning of the day, the week (Monday) and the month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) day: i64,
    pub(super) week: i64,
    pub(super) month: i64,
}

type UserOfTenant = (String, String);

#[derive(Clone, Copy)]
struct Told {
    at: Duration,
    spent: Spent,
}

// === impl Spending ===

impl Spending {
    pub(crate) fn new() -> Self {
        Self { told: Mutex::default(), sums: Semaphore::new(1) }
    }

    /// What the caller spent. At most some seconds old.
    pub(super) async fn of(&self, edge: &Edge, principal: &Principal) -> Result<Spent, DbError> {
        let user = (principal.tenant.as_str().to_owned(), principal.user.as_str().to_owned());
        if let Some(spent) = self.told_to(&user, edge.clock.monotonic()) {
            return Ok(spent);
        }
        // The semaphore is never closed.
        let _one = self.sums.acquire().await;
        // Somebody may have asked for the same meanwhile.
        if let Some(spent) = self.told_to(&user, edge.clock.monotonic()) {
            return Ok(spent);
        }
        let [day, week, month] = edge.db.spent_since(&user.0, &user.1, beginnings(edge.clock.now())).await?;
        let spent = Spent { day, week, month };
        self.keep(user, Told { at: edge.clock.monotonic(), spent });
        Ok(spent)
    }

    fn told_to(&self, user: &UserOfTenant, now: Duration) -> Option<Spent> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(user).filter(|told| told.is_fresh(now)).map(|told| told.spent)
    }

    fn keep(&self, user: UserOfTenant, what: Told) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= USERS {
            told.retain(|_, it| it.is_fresh(what.at));
        }
        if told.len() < USERS {
            told.insert(user, what);
        }
    }
}

// === impl Told ===

impl Told {
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < FRESH
    }
}

fn beginnings(now: OffsetDateTime) -> [OffsetDateTime; 3] {
    let day = now.replace_time(Time::MIDNIGHT);
    let week = day - time::Duration::days(i64::from(day.weekday().number_days_from_monday()));
    [day, week, day.replace_day(1).unwrap_or(day)]
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_was_told_is_told_again_for_some_seconds_and_memory_is_bounded() {
        let spending = Spending::new();
        let user = |number: usize| ("default".to_owned(), format!("u_{number}"));
        let spent = Spent { day: 1, week: 2, month: 3 };
        spending.keep(user(0), Told { at: Duration::ZERO, spent });
        assert_eq!(spending.told_to(&user(0), Duration::from_secs(4)), Some(spent));
        assert_eq!(spending.told_to(&user(0), FRESH), None);
        assert_eq!(spending.told_to(&user(1), Duration::ZERO), None, "another user");
        for number in 0..=USERS {
            spending.keep(user(number), Told { at: Duration::ZERO, spent });
        }
        assert_eq!(spending.told.lock().unwrap().len(), USERS);
        spending.keep(user(USERS), Told { at: FRESH, spent });
        assert_eq!(spending.told.lock().unwrap().len(), 1, "what is old makes room");
    }

    #[test]
    fn a_week_begins_on_monday_and_a_month_with_its_first() {
        let [day, week, month] = beginnings(datetime!(2026-11-27 20:45:03.5 UTC));
        assert_eq!(day, datetime!(2026-11-27 0:00 UTC));
        assert_eq!(week, datetime!(2026-11-23 0:00 UTC));
        assert_eq!(month, datetime!(2026-11-01 0:00 UTC));
    }
}
