//! Limits of tokens: what a call reserves while it runs, and what it gives back however it ends.

use std::sync::Arc;

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Step};
use sallyport_tests::wait;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::ask;

/// The scripted upstream counts 12 tokens of a prompt, 3 written to a cache and 7 of an answer; 5 were in the cache.
const USED: u32 = 22;

async fn limited(limits: Value) -> TestApp {
    TestApp::with(|config| config.component("sallyport/rate-limit", json!({"limits": limits}))).await
}

/// As Claude Code asks: for far more than a turn uses.
fn turn() -> Value {
    let mut body = ask("claude-opus-4-5", "Hello");
    body["max_tokens"] = json!(128_000);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_much_and_uses_little_has_many_turns() {
    let app = limited(json!([{"per": "tenant", "tokens": 2_000_000, "window": "1h"}])).await;
    for number in 0..40 {
        let reply = app.messages(turn()).await;
        assert_eq!(reply.status, 200, "turn {number}: {reply}");
        let reply = app.messages_stream(turn()).await.whole().await;
        assert_eq!(reply.status, 200, "turn {number}, streamed: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_one_max_tokens_counts_what_calls_use() {
    let app = limited(json!([{"per": "user", "tokens": 3 * USED, "window": "30d"}])).await;
    for number in 0..3 {
        let reply = app.messages(turn()).await;
        assert_eq!(reply.status, 200, "turn {number}: {reply}");
    }
    let reply = app.messages(turn()).await;
    assert_eq!(reply.status, 429);
    assert!(reply.to_string().contains("the limit of 66 tokens per user in 30d is reached"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_upstream_failed_gives_back_what_it_reserved() {
    let app = limited(json!([{"per": "user", "tokens": 140_000, "window": "30d", "strict": true}])).await;
    for _ in 0..5 {
        app.upstream.script(Script::error(500, "api_error", "no"));
        assert_eq!(app.messages(turn()).await.status, 500);
        app.upstream.script(Script::Steps(vec![Step::Close]));
        assert_eq!(app.messages(turn()).await.status, 502);
    }
    app.upstream.script(Script::text("Hello again."));
    assert_eq!(app.messages(turn()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_back_what_it_reserved() {
    let app = limited(json!([{"per": "user", "tokens": 140_000, "window": "30d", "strict": true}])).await;
    let gate = Arc::new(Semaphore::new(0));
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
        "model": "claude-opus-4-5", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 12, "output_tokens": 1}}});
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let begun = Bytes::from(format!("{head}event: message_start\ndata: {start}\n\n"));
    app.upstream.script(Script::Steps(vec![Step::Write(begun), Step::Gate(Arc::clone(&gate)), Step::Close]));
    let mut stream = app.messages_stream(turn()).await;
    stream.next_named("message_start").await;
    assert_eq!(app.messages(turn()).await.status, 429, "the first call holds what it may use");
    drop(stream);
    app.upstream.script(Script::text("Hello again."));
    wait::until("what was reserved is given back", wait::SOON, || async {
        (app.messages(turn()).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_somebody_else_refuses_gives_back_what_it_reserved() {
    let app = TestApp::with(|config| {
        let limits = json!({"limits": [{"per": "user", "tokens": 140_000, "window": "30d", "strict": true}]});
        config
            .component("sallyport/rate-limit", limits)
            .component("sallyport/secret-scan", json!({"action": "deny"}))
    })
    .await;
    for _ in 0..5 {
        let mut body = turn();
        body["messages"][0]["content"] = json!("deploy with AKIAQ3EGRFZXNDOMVWJK");
        assert_eq!(app.messages(body).await.status, 451);
    }
    assert_eq!(app.messages(turn()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_in_shadow_settles_like_one_in_force() {
    let limits = json!({"limits": [{"per": "user", "tokens": 140_000, "window": "30d", "strict": true}]});
    let entry = json!([{"component": "sallyport/rate-limit", "mode": "shadow", "config": limits}]);
    let app = TestApp::with(|config| config.set("/bundle", entry)).await;
    for _ in 0..5 {
        let reply = app.messages(turn()).await;
        let row = app.row_of(&reply).await;
        assert_eq!(row["payload"]["components"][0]["verdict"], "allow", "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_of_tokens_takes_nothing_from_a_limit() {
    let app = limited(json!([
        {"per": "user", "requests": 1, "window": "1h"},
        {"per": "user", "tokens": 140_000, "window": "1h", "strict": true},
    ]))
    .await;
    for _ in 0..40 {
        let counted = app.post("/v1/messages/count_tokens", &[], turn().to_string()).await;
        assert_eq!(counted.status, 200, "{counted}");
    }
    assert_eq!(app.messages(turn()).await.status, 200);
    assert_eq!(app.messages(turn()).await.status, 429);
}
