//! Response headers: what the client learns of the upstream's limits, in Anthropic's names
//! (<https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>).

use sallyport_guest_codec::headers::{self, duration_ms};
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

/// The headers the client shall see. `now_ms` is the time of the call.
pub fn pass_on(head: &ResponseHead, now_ms: u64) -> Vec<Attribute> {
    let mut headers = headers::renamed(head, &SAME);
    headers.extend(headers::resets(head, &RESETS, now_ms));
    headers
}

/// When a retry may succeed: as the upstream says, or when the limit that is used up is whole again.
pub(crate) fn retry_after_ms(head: &ResponseHead) -> Option<u32> {
    let used_up = || {
        let limits = ["requests", "tokens"].into_iter().filter_map(|what| {
            (head.header(&format!("x-ratelimit-remaining-{what}"))?.trim() == "0").then_some(())?;
            duration_ms(head.header(&format!("x-ratelimit-reset-{what}"))?)
        });
        limits.max().map(|ms| u32::try_from(ms).unwrap_or(u32::MAX))
    };
    headers::retry_after_ms(head).or_else(|| if head.status == 429 { used_up() } else { None })
}

#[cfg(test)]
mod tests {
    use super::{pass_on, retry_after_ms};
    use sallyport_guest_sdk::provider::ResponseHead;
    use sallyport_guest_sdk::testing::attribute;

    fn head(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
        ResponseHead { status, headers: headers.iter().map(|(n, v)| attribute(n, v)).collect() }
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
    fn the_limit_that_is_used_up_is_the_one_to_wait_for() {
        assert_eq!(retry_after_ms(&head(503, &[("retry-after", "2")])), Some(2000));
        let spent = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "8.64s"),
            ("x-ratelimit-reset-tokens", "1m"),
        ];
        assert_eq!(retry_after_ms(&head(429, &spent)), Some(8640));
        assert_eq!(retry_after_ms(&head(500, &spent)), None);
    }
}
