//! What others send is never too large for the trail: many tools, long names, long headers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Turn};
use serde_json::{Value, json};

use crate::{ask, hello};

fn tools(count: usize) -> Script {
    let tool = |number| Turn::Tool(format!("toolu_{number:05}"), format!("Tool_{number}"), json!({ "a": 1 }));
    Script::Turn((0..count).map(tool).collect())
}

/// The rows of a reply, once there are so many tools among them.
async fn rows_with(app: &TestApp, reply: &Reply, tools: usize) -> Vec<Value> {
    let trace = reply.header("x-trace-id").unwrap().to_owned();
    sallyport_tests::wait::until("all rows are in the database", Duration::from_mins(1), || {
        let rows: Vec<Value> =
            app.audit_rows().into_iter().filter(|row| row["trace_id"] == trace.as_str()).collect();
        let found = rows.iter().filter(|row| row["kind"] == "tool_call").count();
        let whole = found == tools && rows.iter().any(|row| row["kind"] == "cost");
        std::future::ready(whole.then_some(rows))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_with_hundreds_of_tool_calls_has_a_row_for_each_and_its_cost() {
    let app = TestApp::start().await;
    for (model, stream) in [("claude-sonnet-4-5", false), ("claude-sonnet-4-5", true)] {
        app.upstream.script(tools(600));
        let mut body = ask(model, "Hello");
        body["stream"] = json!(stream);
        let reply = app.messages(body).await;
        assert_eq!(reply.status, 200);
        let rows = rows_with(&app, &reply, 600).await;
        let costs: Vec<_> = rows.iter().filter_map(|row| row["cost_micro"].as_i64()).collect();
        assert_eq!(costs, [154], "one row has the cost");
        let call = rows.iter().find(|row| row["kind"] == "inference").unwrap();
        assert_eq!((&call["payload"]["rows"], &call["tokens_out"]), (&json!(602), &json!(7)));
        assert!(call["payload"]["components"][0]["digest"].is_string(), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_quotes_and_backslashes_cost_a_row_nothing_but_themselves() {
    let app = TestApp::start().await;
    for (piece, count) in [("\"", 20_000), ("\\", 20_000)] {
        let long = piece.repeat(count);
        let headers = [
            ("x-agent-name", long.as_str()),
            ("x-claude-code-prompt-id", long.as_str()),
            ("x-claude-code-session-id", long.as_str()),
        ];
        let reply = app.post("/v1/messages", &headers, hello().to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let row = app.row_of(&reply).await;
        let payload = &row["payload"];
        for name in ["request_id", "credential", "route", "body_blake3", "status", "price_list"] {
            assert!(!payload[name].is_null(), "{name} is missing: {payload}");
        }
        let components = payload["components"].as_array().unwrap();
        assert!(components.iter().all(|it| it["digest"].is_string() && it["verdict"].is_string()));
        let prompt = payload["prompt_id"].as_str().unwrap();
        assert!(prompt.len() <= 256 && prompt.contains("[20000 bytes, blake3 "), "{prompt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_model_fills_neither_row_nor_log() {
    let app = TestApp::start().await;
    let name = format!("claude-{}", "x".repeat(1_000_000));
    let reply = app.messages(ask(&name, "Hello")).await;
    let row = app.row_of(&reply).await;
    let kept = row["model"].as_str().unwrap();
    assert!(kept.len() <= 256 && kept.contains(&format!("[{} bytes, blake3 ", name.len())), "{kept}");
    assert!(app.log().len() < 100_000, "{} bytes of log", app.log().len());
}

/// In the ordinary suite only that all is answered and counted; the soak says how long others wait.
#[tokio::test(flavor = "multi_thread")]
async fn calls_beside_one_with_thousands_of_tools_are_served() {
    let app = Arc::new(TestApp::start().await);
    let many = if crate::soak() { 8_000 } else { 1_000 };
    app.upstream.next(tools(many));
    let mut wide = tokio::task::JoinSet::new();
    wide.spawn({
        let app = Arc::clone(&app);
        async move { app.messages(ask("claude-sonnet-4-5", "many")).await }
    });
    let mut slowest = Duration::ZERO;
    let (mut served, mut reply) = (0, None);
    while reply.is_none() || served < 20 {
        reply = reply.or_else(|| wide.try_join_next());
        let began = Instant::now();
        assert_eq!(app.messages(ask("echo", "Hello")).await.status, 200);
        slowest = slowest.max(began.elapsed());
        served += 1;
    }
    let reply = reply.unwrap().unwrap();
    rows_with(&app, &reply, many).await;
    crate::tell(&format!("beside a call with {many} tools the slowest of {served} calls took {slowest:?}"));
    if crate::soak() {
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    }
}
