//! Token counts, as upstreams report them and as Messages counts them: what was read from a cache and what was written to it is no
//! part of `input` (<https://docs.claude.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance>).

use std::fmt;

use sallyport_guest_sdk::Usage;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A number of tokens, however it is spelled: servers send floating-point numbers, `null` and -1. Absent is not zero.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub Option<u32>);

/// Nothing is known.
pub const UNKNOWN: Usage =
    Usage { input: None, output: None, cache_read: None, cache_write: None, cache_write_1h: None };

/// Takes over what `newer` knows.
pub fn merge(usage: &mut Usage, newer: Usage) {
    usage.input = newer.input.or(usage.input);
    usage.output = newer.output.or(usage.output);
    usage.cache_read = newer.cache_read.or(usage.cache_read);
    usage.cache_write = newer.cache_write.or(usage.cache_write);
    usage.cache_write_1h = newer.cache_write_1h.or(usage.cache_write_1h);
}

/// The input tokens outside any cache, where `all` counts those of the cache too.
pub fn uncached(all: Option<u32>, read: Option<u32>, written: Option<u32>) -> Option<u32> {
    let cached = read.unwrap_or_default().saturating_add(written.unwrap_or_default());
    all.map(|all| all.saturating_sub(cached))
}

// === impl Count ===

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lenient;
        impl Visitor<'_> for Lenient {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of tokens")
            }
            fn visit_u64<E: Error>(self, count: u64) -> Result<Count, E> {
                Ok(Count(Some(u32::try_from(count).unwrap_or(u32::MAX))))
            }
            fn visit_i64<E: Error>(self, count: i64) -> Result<Count, E> {
                Ok(Count(u32::try_from(count).ok()))
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            fn visit_f64<E: Error>(self, count: f64) -> Result<Count, E> {
                Ok(Count((count >= 0.0).then_some(count as u32)))
            }
            fn visit_unit<E: Error>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
        }
        deserializer.deserialize_any(Lenient)
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, UNKNOWN, merge, uncached};
    use sallyport_guest_sdk::Usage;

    #[test]
    fn a_count_is_read_in_every_spelling_and_what_is_none_is_not_zero() {
        let read = |json: &str| serde_json::from_str::<Count>(json).unwrap().0;
        assert_eq!(["7", "7.0", "0", "99999999999"].map(read), [Some(7), Some(7), Some(0), Some(u32::MAX)]);
        assert_eq!(["null", "-1", "-0.5"].map(read), [None, None, None]);
        assert!(serde_json::from_str::<Count>("\"7\"").is_err());
    }

    #[test]
    fn what_is_newer_counts_and_what_it_does_not_know_stays() {
        let mut usage = Usage { input: Some(10), output: Some(1), ..UNKNOWN };
        merge(&mut usage, Usage { output: Some(5), cache_read: Some(2), ..UNKNOWN });
        assert_eq!(usage, Usage { input: Some(10), output: Some(5), cache_read: Some(2), ..UNKNOWN });
        merge(&mut usage, UNKNOWN);
        assert_eq!(usage, Usage { input: Some(10), output: Some(5), cache_read: Some(2), ..UNKNOWN });
    }

    #[test]
    fn what_a_cache_held_is_no_input() {
        assert_eq!(uncached(Some(2006), Some(1500), Some(400)), Some(106));
        assert_eq!(uncached(Some(10), Some(20), None), Some(0));
        assert_eq!(uncached(None, Some(20), None), None);
    }
}
