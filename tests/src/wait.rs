//! Waiting with a deadline: the only place of the rig that lets time pass.

use std::time::{Duration, Instant};

/// How long a story waits for something that has to happen soon.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks again every few milliseconds until the answer is `Some`; stops the test with `what` once `limit` has passed.
pub async fn until<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same for a condition that needs no waiting to evaluate.
pub async fn until_true(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    until(what, limit, || std::future::ready(ask().then_some(()))).await;
}

/// The output of `future`, which has to come within `limit`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(limit, future).await else {
        panic!("took more than {limit:?}: {what}")
    };
    value
}
