//! Hooks: in band, a tool call is held back until it is decided, then released as it was or replaced by text; further below are
//! the stories of what a request brings, of what clients report, and of hooks that set each other off.

mod chain;
mod inbound;
mod reported;

use std::sync::Arc;
use std::time::Duration;

use sallyport_tests::client::assert_legal;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::{Script, Turn, anthropic_stream};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// The rules hook with these rules.
fn rules(config: Config, rules: Value) -> Config {
    let mut what = json!({});
    what["rules"] = rules;
    config.component("sallyport/event-rules", what)
}

/// The rows of hooks among `rows` that are about `event`.
fn about<'a>(rows: &'a [Value], event: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["kind"] == "hook" && row["payload"]["event"] == event).collect()
}

fn blocking_rm(config: Config) -> Config {
    let what =
        json!({"tools": ["Bash"], "input_contains": ["rm -rf"], "reason": "deleting is not for machines"});
    config.component("sallyport/block-tool", what)
}

fn turn(command: &str) -> Vec<Turn> {
    vec![
        Turn::Text("Let me run it.".into()),
        Turn::Tool("toolu_01Held".into(), "Bash".into(), json!({"command": command})),
        Turn::Tool("toolu_02Read".into(), "Read".into(), json!({"path": "/x"})),
    ]
}

fn asking(model: &str, stream: bool) -> Value {
    let mut body = crate::ask(model, "Clean up.");
    body["stream"] = json!(stream);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_call_is_held_until_it_is_complete_and_then_released_unchanged() {
    let app = TestApp::with(blocking_rm).await;
    let whole = anthropic_stream("claude-sonnet-4-5", &turn("ls"));
    let (before, after) = whole.split_once("toolu_01Held").unwrap();
    let (head, rest) = after.split_once("\n\n").unwrap();
    let held = format!("{before}toolu_01Held{head}\n\n");
    let gate = Arc::new(Semaphore::new(1));
    app.upstream.script(Script::gated(&[&held, rest], &gate));
    let mut stream = app.messages_stream(asking("claude-sonnet-4-5", true)).await;
    stream.next_named("content_block_stop").await;
    let early = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(early.is_err(), "the head of an undecided tool call got out: {early:?}");
    gate.add_permits(1);
    let start = stream.next_named("content_block_start").await.json();
    assert_eq!(start["content_block"]["id"], "toolu_01Held");
    stream.next_named("message_stop").await;

    app.upstream.script(Script::Turn(turn("ls")));
    let reply = app.messages(asking("claude-sonnet-4-5", true)).await;
    assert_eq!(String::from_utf8_lossy(&reply.body), whole, "an allowed stream is released as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_tool_call_becomes_a_text_that_says_why() {
    let app = TestApp::with(blocking_rm).await;
    app.upstream.script(Script::Turn(turn("rm -rf /")));
    for model in ["claude-sonnet-4-5", "gpt-5"] {
        let streamed = app.messages(asking(model, true)).await;
        assert_legal(&streamed.events());
        let text = String::from_utf8_lossy(&streamed.body).into_owned();
        assert!(!text.contains("toolu_01Held") && !text.contains("rm -rf"), "{model}: {text}");
        assert!(text.contains("toolu_02Read"), "{model}: the other call is not touched");
        assert!(streamed.text().contains("deleting is not for machines"), "{model}: {text}");

        let whole = app.messages(asking(model, false)).await;
        assert!(!String::from_utf8_lossy(&whole.body).contains("rm -rf"), "{model}: {whole}");
        assert!(whole.text().contains("deleting is not for machines"), "{model}: {whole}");
        let rows = app.lineage(whole.header("x-trace-id").unwrap()).await;
        assert!(rows.iter().any(|row| row["kind"] == "tool_call" && row["outcome"] == "denied"), "{rows:?}");
        assert!(rows.iter().any(|row| row["kind"] == "hook"), "each call of a hook leaves a row: {rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_only_tool_call_is_blocked_ends_as_a_turn_of_text() {
    let app = TestApp::with(blocking_rm).await;
    app.upstream.script(Script::Turn(vec![Turn::Tool(
        "toolu_1".into(),
        "Bash".into(),
        json!({"command": "rm -rf /"}),
    )]));
    let reply = app.messages(asking("claude-sonnet-4-5", false)).await;
    assert_eq!(reply.json()["stop_reason"], "end_turn", "{reply}");
    let reply = app.messages(asking("claude-sonnet-4-5", true)).await;
    let events = reply.events();
    assert_legal(&events);
    let delta = events.iter().find(|event| event.name == "message_delta").unwrap().json();
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_json_reply_is_byte_for_byte_the_upstreams() {
    let app = TestApp::with(blocking_rm).await;
    app.upstream.script(Script::Turn(turn("ls")));
    let body = asking("claude-sonnet-4-5", false);
    let reply = app.messages(body.clone()).await;
    let direct = sallyport_tests::client::Client::new(app.upstream.address)
        .send("POST", "/v1/messages", &[], body.to_string())
        .await;
    assert_eq!(reply.body, direct.body);
}
