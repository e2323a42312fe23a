//! Credentials that upstreams refuse. Callers can do nothing about it, so the operator is told: in the log, not once for each
//! call, and by readiness until the upstream takes the credential again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often one refused credential is logged.
const PAUSE: Duration = Duration::from_mins(1);

/// Which credentials were refused when they were last used. Their number is that of the configuration's routes.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Whether there are any: looked at for each answer, so without a lock.
    some: AtomicBool,
    /// When each was logged last.
    logged: Mutex<HashMap<String, Instant>>,
}

// === impl Refusals ===

impl Refusals {
    /// Notes one; whether it is to be logged now.
    pub(super) fn note(&self, provider: &str, credential: Option<&str>, now: Instant) -> bool {
        self.some.store(true, Ordering::Release);
        let mut logged = self.locked();
        let last = logged.get(&key(provider, credential));
        let due = last.is_none_or(|last| now.duration_since(*last) >= PAUSE);
        if due {
            logged.insert(key(provider, credential), now);
        }
        due
    }

    /// Notes that it was taken.
    pub(super) fn clear(&self, provider: &str, credential: Option<&str>) {
        if !self.some.load(Ordering::Acquire) {
            return;
        }
        let mut logged = self.locked();
        logged.remove(&key(provider, credential));
        self.some.store(!logged.is_empty(), Ordering::Release);
    }

    /// All of them, in order.
    pub(super) fn list(&self) -> Vec<String> {
        let mut list: Vec<String> = self.locked().keys().cloned().collect();
        list.sort();
        list
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === private helpers ===

fn key(provider: &str, credential: Option<&str>) -> String {
    format!("{provider} ({})", credential.unwrap_or("no credential"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_credential_is_logged_once_a_minute_and_remembered_until_it_is_taken() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.note("openai", Some("key"), now));
        assert!(!refusals.note("openai", Some("key"), now + PAUSE / 2));
        assert!(refusals.note("openai", Some("key"), now + PAUSE));
        assert!(refusals.note("anthropic", None, now));
        assert_eq!(refusals.list(), ["anthropic (no credential)", "openai (key)"]);
        refusals.clear("openai", Some("key"));
        refusals.clear("openai", Some("other"));
        assert_eq!(refusals.list(), ["anthropic (no credential)"]);
    }
}
