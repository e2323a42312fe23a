//! How often somebody may try: failures are counted by what they concern, in windows, in memory that is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long failures count.
pub(crate) const WINDOW: Duration = Duration::from_mins(15);
/// How many different things are counted.
const MOST_KEYS: usize = 20_000;

/// Counts attempts.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    counts: Mutex<HashMap<String, AttemptCount>>,
}

#[derive(Debug, Clone, Copy)]
struct AttemptCount {
    since: Duration,
    window: Duration,
    count: u32,
}

// === impl Throttle ===

impl Throttle {
    /// Counts an attempt; how long to wait where there were `most` already.
    pub(crate) fn attempt(&self, key: &str, most: u32, now: Duration) -> Result<(), Duration> {
        self.attempt_within(key, most, WINDOW, now)
    }

    /// The same in a window of another length.
    pub(crate) fn attempt_within(
        &self,
        key: &str,
        most: u32,
        window: Duration,
        now: Duration,
    ) -> Result<(), Duration> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.contains_key(key) && counts.len() >= MOST_KEYS {
            counts.retain(|_, it| now.saturating_sub(it.since) < it.window);
            if counts.len() >= MOST_KEYS {
                // Somebody tries from everywhere. Whoever is not counted yet waits, rather than that nobody is counted.
                return Err(window);
            }
        }
        let fresh = AttemptCount { since: now, window, count: 0 };
        let entry = counts.entry(key.to_owned()).or_insert(fresh);
        if now.saturating_sub(entry.since) >= window {
            *entry = fresh;
        }
        if entry.count >= most {
            return Err(window.saturating_sub(now.saturating_sub(entry.since)));
        }
        entry.count += 1;
        Ok(())
    }

    /// Takes an attempt back that was none: it succeeded.
    pub(crate) fn forget(&self, key: &str) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// An address as it is counted: of IPv6 the network that one customer has.
pub(crate) fn place(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("address {address}"),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("network {a:x}:{b:x}:{c:x}:{d:x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_may_try_and_then_they_wait_for_the_rest_of_the_window() {
        let throttle = Throttle::default();
        let at = Duration::from_secs;
        for _ in 0..3 {
            assert_eq!(throttle.attempt("ann", 3, at(100)), Ok(()));
        }
        assert_eq!(throttle.attempt("ann", 3, at(160)), Err(WINDOW.saturating_sub(at(60))));
        assert_eq!(throttle.attempt("ben", 3, at(160)), Ok(()), "others are not concerned");
        assert_eq!(throttle.attempt("ann", 3, at(100) + WINDOW), Ok(()));
        throttle.forget("ben");
        for _ in 0..3 {
            assert_eq!(throttle.attempt("ben", 3, at(200)), Ok(()));
        }
    }

    #[test]
    fn memory_is_bounded_and_who_is_not_counted_waits() {
        let throttle = Throttle::default();
        for number in 0..MOST_KEYS {
            throttle.attempt(&number.to_string(), 3, Duration::ZERO).unwrap();
        }
        assert_eq!(throttle.attempt("one more", 3, Duration::ZERO), Err(WINDOW));
        assert_eq!(throttle.attempt("7", 3, Duration::ZERO), Ok(()));
        assert_eq!(throttle.attempt("one more", 3, WINDOW), Ok(()), "what is over makes room");
    }

    #[test]
    fn neighbours_in_a_network_of_ipv6_are_one() {
        let of = |text: &str| place(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
