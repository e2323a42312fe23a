//! Clients that leave: the upstream is let go, the row says what was done by then, and what was reserved is given back.

use std::sync::Arc;
use std::time::Duration;

use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Fault, Script, Upstream};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::ask;

/// The row of the one call that a story makes.
async fn only_row(app: &TestApp) -> Value {
    until("the call has its row", SOON, || {
        let rows = app.audit_rows();
        std::future::ready(rows.into_iter().find(|row| row["kind"] == "inference"))
    })
    .await
}

/// What each component of a row said, by its name.
fn verdicts(row: &Value) -> Vec<(String, String)> {
    let said = |component: &Value| {
        let text = |name: &str| component[name].as_str().unwrap_or_default().to_owned();
        (text("name"), text("verdict"))
    };
    row["payload"]["components"].as_array().unwrap().iter().map(said).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_its_answer_leaves_a_row_with_all_that_was_decided() {
    for (model, provider) in [("claude-sonnet-4-5", "sallyport/anthropic"), ("gpt-5", "sallyport/openai")] {
        for stream in [false, true] {
            let limits =
                json!({"limits": [{"per": "user", "tokens": 100_000, "window": "1h", "reserve": 90_000}]});
            let app = TestApp::with(|config| config.component("sallyport/rate-limit", limits)).await;
            app.upstream.script(Script::Fault(Fault::HeaderHang));
            let mut body = ask(model, "Think.");
            body["stream"] = json!(stream);
            body["max_tokens"] = json!(90_000);
            tokio::select! {
                reply = app.messages(body.clone()) => panic!("nothing was said: {reply}"),
                () = until_true("the upstream is asked", SOON, || app.upstream.busy_sockets() == 1) => {}
            }
            until_true("the upstream is let go", SOON, || app.upstream.busy_sockets() == 0).await;
            let row = only_row(&app).await;
            let payload = &row["payload"];
            assert_eq!(
                (&row["outcome"], &payload["code"], &payload["status"]),
                (&json!("error"), &json!("client_disconnected"), &json!(499)),
                "{model} {stream}: {row}"
            );
            assert_eq!(
                verdicts(&row),
                [("sallyport/rate-limit", "allow"), (provider, "served")]
                    .map(|(name, verdict)| (name.to_owned(), verdict.to_owned())),
                "{model} {stream}: {row}"
            );
            assert_eq!(row["tokens_in"], Value::Null, "nothing was used: {row}");
            // Else the next call would find 90,000 of 100,000 tokens gone.
            app.upstream.script(Script::default());
            let next = until("the policy has been told", SOON, || async {
                let reply = app.messages(body.clone()).await;
                (reply.status == 200).then_some(reply)
            })
            .await;
            assert_eq!(app.row_of(&next).await["payload"]["attempt"], 2, "the same turn again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_after_the_pings_had_its_200() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| {
        config.route(json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": url,
            "api_key_secret": "upstream", "timeouts": {"ping_ms": 50}}))
    })
    .await;
    let gate = Arc::new(Semaphore::new(0));
    app.upstream.script(Script::text("Never heard.").behind(&gate));
    let mut stream = app.messages_stream(ask("claude-sonnet-4-5", "Think.")).await;
    assert_eq!(stream.next().await.unwrap().unwrap().name, "ping");
    drop(stream);
    until_true("the upstream is let go", SOON, || app.upstream.busy_sockets() == 0).await;
    let row = only_row(&app).await;
    let payload = &row["payload"];
    assert_eq!(
        (&payload["code"], &payload["status"], &payload["head_before_upstream"]),
        (&json!("client_disconnected"), &json!(200), &json!(true)),
        "{row}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_a_stream_pays_for_what_it_had() {
    let app = TestApp::start().await;
    app.upstream.script(Script::Chunks(100_000, Duration::from_millis(5)));
    let mut stream = app.messages_stream(ask("claude-sonnet-4-5", "Count.")).await;
    let trace = stream.headers["x-trace-id"].to_str().unwrap().to_owned();
    stream.next_named("content_block_delta").await;
    drop(stream);
    let rows = app.lineage(&trace).await;
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind).unwrap_or(&Value::Null).clone();
    let (row, cost) = (of("inference"), of("cost"));
    let payload = &row["payload"];
    assert_eq!(
        (&row["tokens_in"], &payload["code"], &payload["status"], &payload["usage"]),
        (&json!(12), &json!("client_disconnected"), &json!(200), &json!("partial")),
        "{row}"
    );
    assert!(cost["cost_micro"].as_i64().is_some_and(|cost| cost >= 36), "12 tokens at $3 a million: {cost}");
    assert_eq!(verdicts(&row), [("sallyport/anthropic".to_owned(), "served".to_owned())], "{row}");
}
