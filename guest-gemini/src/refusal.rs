//! Errors of Google's APIs: `{"error": {code, message, status, details}}`
//! (<https://ai.google.dev/gemini-api/docs/troubleshooting>, <https://google.aip.dev/193>).

use sallyport_guest_codec::error;
use sallyport_guest_codec::headers::duration_ms;
use sallyport_guest_sdk::provider::{Failure, ResponseHead};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Told,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    details: Vec<Detail>,
}

/// `google.rpc.ErrorInfo` or `google.rpc.RetryInfo`, whichever it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    reason: Option<String>,
    retry_delay: Option<String>,
}

/// What an answer stands for whose status is no success. A key that is not valid is a 400 here, and no fault of the client.
pub fn of_answer(head: &ResponseHead, body: &[u8]) -> Failure {
    // Where events were asked for, some errors come as the one element of a list.
    let read = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<[Body; 1]>(body).map(|[it]| it)
    } else {
        serde_json::from_slice::<Body>(body)
    };
    let details = read.unwrap_or_default().error.details;
    if details.iter().filter_map(|it| it.reason.as_deref()).any(|it| it.starts_with("API_KEY_")) {
        return error::refused();
    }
    let failure = error::of_answer(head, body);
    let delay = details.iter().find_map(|it| duration_ms(it.retry_delay.as_deref()?));
    let delay = delay.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
    Failure { retry_after_ms: failure.retry_after_ms.or(delay), ..failure }
}
