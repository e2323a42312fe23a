//! What response headers say of time and limits.

use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::ResponseHead;

const DAY_MS: u64 = 86_400_000;

/// When a retry may succeed: `retry-after-ms`, which OpenAI and Azure send, or the seconds of `retry-after` (RFC 9110, section
/// 10.2.3). A date there says nothing to a guest, which has no clock.
pub fn retry_after_ms(head: &ResponseHead) -> Option<u32> {
    let number = |name| head.header(name).and_then(|it| it.trim().parse::<f64>().ok());
    let ms = number("retry-after-ms").or_else(|| number("retry-after").map(|it| it * 1e3));
    ms.filter(|it| *it >= 0.0).map(|it| u32::try_from(whole(it)).unwrap_or(u32::MAX))
}

/// Headers whose value means the same under another name: pairs of the upstream's name and the client's.
pub fn renamed(head: &ResponseHead, names: &[(&str, &str)]) -> Vec<Attribute> {
    let renamed = names.iter().filter_map(|(name, ours)| {
        Some(Attribute { name: (*ours).to_owned(), value: head.header(name)?.to_owned() })
    });
    renamed.collect()
}

/// Headers that say in how long a limit is whole again, as those that say when: pairs of the upstream's name and the client's. `now_ms`
/// is the time of the call, in milliseconds since 1970.
pub fn resets(head: &ResponseHead, names: &[(&str, &str)], now_ms: u64) -> Vec<Attribute> {
    let resets = names.iter().filter_map(|(name, ours)| {
        let value = timestamp(now_ms.checked_add(duration_ms(head.header(name)?)?)?);
        Some(Attribute { name: (*ours).to_owned(), value })
    });
    resets.collect()
}

/// Milliseconds of a duration as OpenAI and others spell it in `x-ratelimit-reset-*`: `6m0s`, `1.5s`, `20ms`, or plain seconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return (seconds >= 0.0).then(|| whole(seconds * 1e3));
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !(it.is_ascii_digit() || it == '.'))?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|it: char| !it.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "d" => 86_400e3,
            "h" => 3_600e3,
            "m" => 60e3,
            "s" => 1e3,
            "ms" => 1.0,
            "us" | "µs" | "ns" => 0.001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    Some(whole(total))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; callers pass nothing negative"
)]
fn whole(ms: f64) -> u64 {
    ms.ceil() as u64
}

/// Milliseconds since 1970 as RFC 3339, rounded up to the second: how Anthropic says when a limit is whole again
/// (<https://docs.claude.com/en/api/rate-limits#response-headers>).
pub fn timestamp(ms: u64) -> String {
    let ms = ms.saturating_add(999);
    let (days, of_day) = (ms / DAY_MS, (ms % DAY_MS) / 1000);
    // Days to a civil date: eras of 400 years, years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::{duration_ms, renamed, resets, retry_after_ms, timestamp};
    use sallyport_guest_sdk::provider::ResponseHead;
    use sallyport_guest_sdk::testing::attribute;

    fn head(headers: &[(&str, &str)]) -> ResponseHead {
        ResponseHead { status: 429, headers: headers.iter().map(|(n, v)| attribute(n, v)).collect() }
    }

    #[test]
    fn durations_are_read_in_every_spelling() {
        for (text, ms) in [
            ("20ms", 20),
            ("1s", 1000),
            ("6m0s", 360_000),
            ("1.5s", 1500),
            ("1h2m3s", 3_723_000),
            ("7", 7000),
            ("0.25", 250),
        ] {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for text in ["soon", "5x", "s", "-1", "1..s"] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }

    #[test]
    fn a_point_in_time_is_written_as_anthropic_does() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_767_225_599_001), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn the_time_to_wait_is_the_most_exact_one_given() {
        assert_eq!(retry_after_ms(&head(&[("retry-after", "2"), ("retry-after-ms", "1250")])), Some(1250));
        assert_eq!(retry_after_ms(&head(&[("retry-after", "2")])), Some(2000));
        assert_eq!(retry_after_ms(&head(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")])), None);
        assert_eq!(retry_after_ms(&head(&[("retry-after", "-1")])), None);
    }

    #[test]
    fn headers_are_handed_on_under_other_names() {
        let head = head(&[("x-id", "req_1"), ("x-reset", "6m0s"), ("x-odd", "soon"), ("server", "x")]);
        let same = renamed(&head, &[("x-id", "request-id"), ("x-none", "none")]);
        assert_eq!(same, [attribute("request-id", "req_1")]);
        let resets = resets(&head, &[("x-reset", "reset"), ("x-odd", "odd")], 1_767_225_600_000);
        assert_eq!(resets, [attribute("reset", "2026-01-01T00:06:00Z")]);
    }
}
