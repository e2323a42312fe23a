//! Response headers: what the client learns of the upstream's limits, in Anthropic's names.

use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::ResponseHead;

/// Upstream names whose value means the same under Anthropic's.
const SAME: [(&str, &str); 5] = [
    ("x-request-id", "request-id"),
    ("x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"),
    ("x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining"),
    ("x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"),
    ("x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining"),
];
/// Upstream names whose value is how long until the limit is whole again, where Anthropic's is when.
const RESETS: [(&str, &str); 2] = [
    ("x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset"),
    ("x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"),
];
const DAY_MS: u64 = 86_400_000;

/// The headers the client shall see. `now_ms` is the time of the call.
pub(crate) fn pass_on(head: &ResponseHead, now_ms: u64) -> Vec<Attribute> {
    let same = SAME.iter().filter_map(|(name, ours)| {
        Some(Attribute { name: (*ours).to_owned(), value: head.header(name)?.to_owned() })
    });
    let resets = RESETS.iter().filter_map(|(name, ours)| {
        let value = timestamp(now_ms.checked_add(duration_ms(head.header(name)?)?)?);
        Some(Attribute { name: (*ours).to_owned(), value })
    });
    same.chain(resets).collect()
}

/// When a retry may succeed.
pub(crate) fn retry_after_ms(head: &ResponseHead) -> Option<u32> {
    let exact = head.header("retry-after-ms").and_then(|it| it.trim().parse::<f64>().ok());
    let seconds =
        || head.header("retry-after").and_then(|it| it.trim().parse::<f64>().ok()).map(|it| it * 1e3);
    let ms = match exact.or_else(seconds).filter(|it| *it >= 0.0) {
        Some(ms) => whole(ms),
        // The limit that is used up is the one to wait for.
        None if head.status == 429 => {
            let used_up = ["requests", "tokens"].into_iter().filter_map(|what| {
                (head.header(&format!("x-ratelimit-remaining-{what}"))?.trim() == "0").then_some(())?;
                duration_ms(head.header(&format!("x-ratelimit-reset-{what}"))?)
            });
            used_up.max()?
        }
        None => return None,
    };
    Some(u32::try_from(ms).unwrap_or(u32::MAX))
}

/// `6m0s`, `1.5s`, `20ms`, or plain seconds.
fn duration_ms(text: &str) -> Option<u64> {
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

/// Milliseconds since 1970 as RFC 3339, rounded up to the second.
fn timestamp(ms: u64) -> String {
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
    use super::{duration_ms, pass_on, retry_after_ms, timestamp};
    use sallyport_guest_sdk::provider::ResponseHead;
    use sallyport_guest_sdk::testing::attribute;

    fn head(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
        ResponseHead { status, headers: headers.iter().map(|(n, v)| attribute(n, v)).collect() }
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
    fn limits_are_passed_on_in_anthropics_names() {
        let head = head(
            200,
            &[
                ("x-request-id", "req_1"),
                ("x-ratelimit-limit-requests", "500"),
                ("x-ratelimit-remaining-tokens", "29000"),
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("openai-organization", "secret-org"),
            ],
        );
        let passed: Vec<_> =
            pass_on(&head, 1_767_225_600_000).into_iter().map(|it| (it.name, it.value)).collect();
        assert_eq!(
            passed,
            [
                ("request-id".to_owned(), "req_1".to_owned()),
                ("anthropic-ratelimit-requests-limit".to_owned(), "500".to_owned()),
                ("anthropic-ratelimit-tokens-remaining".to_owned(), "29000".to_owned()),
                ("anthropic-ratelimit-tokens-reset".to_owned(), "2026-01-01T00:06:00Z".to_owned()),
            ]
        );
    }

    #[test]
    fn the_time_to_wait_is_the_most_exact_one_given() {
        assert_eq!(
            retry_after_ms(&head(429, &[("retry-after", "2"), ("retry-after-ms", "1250")])),
            Some(1250)
        );
        assert_eq!(retry_after_ms(&head(503, &[("retry-after", "2")])), Some(2000));
        let spent = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "8.64s"),
            ("x-ratelimit-reset-tokens", "1m"),
        ];
        assert_eq!(retry_after_ms(&head(429, &spent)), Some(8640));
        assert_eq!(retry_after_ms(&head(500, &spent)), None);
        assert_eq!(retry_after_ms(&head(429, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")])), None);
    }
}
