//! Policies and scanners: who is refused, with which status, and what it costs to ask.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::Package;
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use serde_json::{Value, json};

use crate::{ask, hello};

/// An access key in the shape that scanners know; it opens nothing.
const KEY: &str = "AKIAQ3EGRFZXNDOMVWJK";

fn component<'a>(row: &'a Value, name: &str) -> &'a Value {
    row["payload"]["components"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["name"] == name)
        .unwrap_or_else(|| panic!("no {name} on {row}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_never_reaches_the_upstream_and_names_its_policy() {
    let rules = json!({"rules": [{"name": "no-opus", "effect": "deny", "models": ["claude-opus-*"]}]});
    let app = TestApp::with(|config| config.component("sallyport/scope", rules)).await;
    for stream in [false, true] {
        let mut body = ask("claude-opus-4-5", "Hello");
        body["stream"] = json!(stream);
        let reply = app.messages(body).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (451, "permission_error"));
        let text = reply.to_string();
        assert!(text.contains("scope") && text.contains("no-opus"), "{text}");
        let row = app.row_of(&reply).await;
        assert_eq!(row["outcome"], "denied");
        assert_eq!(row["payload"]["code"], "model_not_allowed", "{row}");
        assert!(component(&row, "sallyport/scope")["digest"].as_str().unwrap().len() >= 64);
    }
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(app.messages(hello()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_can_be_told_as_an_answer() {
    let rules = json!({"rules": [{"name": "no-opus", "effect": "deny", "models": ["claude-opus-*"]}]});
    let app = TestApp::with(|config| {
        config.component("sallyport/scope", rules).set("/deny", json!({"status": "answer"}))
    })
    .await;
    for stream in [false, true] {
        let mut body = ask("claude-opus-4-5", "Hello");
        body["stream"] = json!(stream);
        let reply = app.messages(body).await;
        assert_eq!(reply.status, 200, "{reply}");
        let text = reply.to_string();
        assert!(text.contains("sallyport/scope") && text.contains("end_turn"), "{text}");
        assert_eq!(app.row_of(&reply).await["outcome"], "denied");
    }
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_entitlement_is_a_400_that_clients_understand() {
    let config = json!({"entitlements": {"*": ["claude-sonnet-*"]}});
    let app = TestApp::with(|c| c.component("sallyport/scope", config)).await;
    let reply = app.messages(ask("claude-opus-4-5", "Hello")).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"));
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(app.messages(hello()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_says_when_to_come_back() {
    let limits = json!({"limits": [{"per": "user", "requests": 2, "window": "1h"}]});
    let app = TestApp::with(|config| config.component("sallyport/rate-limit", limits)).await;
    assert_eq!(app.messages(hello()).await.status, 200);
    assert_eq!(app.messages(hello()).await.status, 200);
    let reply = app.messages(hello()).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (429, "rate_limit_error"));
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1800).contains(&seconds), "half of the window at most: {seconds}");
    assert_eq!(app.upstream.seen(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_any_text_is_stopped_and_repeated_nowhere() {
    let app =
        TestApp::with(|config| config.component("sallyport/secret-scan", json!({"action": "deny"}))).await;
    let bodies = [
        ask("claude-sonnet-4-5", &format!("deploy with {KEY}")),
        json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "system": format!("use {KEY}"), "messages": [{"role": "user", "content": "x"}]}),
        json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": format!("id={KEY}")}]}]}]}),
    ];
    for body in bodies {
        let reply = app.messages(body).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (451, "permission_error"), "{reply}");
        assert!(!reply.to_string().contains(KEY));
        let row = app.row_of(&reply).await;
        assert_eq!(row["outcome"], "denied");
        assert!(!row.to_string().contains(KEY), "the audit repeats the secret");
    }
    assert_eq!(app.upstream.seen(), 0);
    assert!(!app.log().contains(KEY), "the log repeats the secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_written_with_escapes_is_the_same_secret() {
    let app =
        TestApp::with(|config| config.component("sallyport/secret-scan", json!({"action": "deny"}))).await;
    let escaped = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
    let body = format!(
        r#"{{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[{{"role":"user","content":"{escaped}"}}]}}"#
    );
    assert_eq!(app.post("/v1/messages", &[], body).await.status, 451);
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_turn_of_a_conversation_costs_its_new_text_only() {
    let app =
        TestApp::with(|config| config.component("sallyport/secret-scan", json!({"action": "deny"}))).await;
    // What else the machine does may make one turn look dear or cheap, but not always the same one: three conversations.
    let mut seen = Vec::new();
    for number in 0..3 {
        let (first, second) = two_turns(&app, number).await;
        seen.push((first, second));
        if second * 4 < first {
            return;
        }
    }
    panic!("the second turn costs as much as the first: {seen:?} us");
}

/// What scanning costs in the first and in the second turn of a conversation, in microseconds.
async fn two_turns(app: &TestApp, number: usize) -> (u64, u64) {
    let long: Vec<Value> = (0..64)
        .map(|at| json!({"role": if at % 2 == 0 { "user" } else { "assistant" }, "content": format!("{number}.{at} {}", "words and words ".repeat(1000))}))
        .chain([json!({"role": "user", "content": "first question"})])
        .collect();
    let mut body = json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": long});
    let first = app.row_of(&app.messages(body.clone()).await).await;
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": "an answer"}),
        json!({"role": "user", "content": "second question"}),
    ]);
    let second = app.row_of(&app.messages(body).await).await;
    let micros = |row: &Value| component(row, "sallyport/secret-scan")["micros"].as_u64().unwrap();
    (micros(&first), micros(&second))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_shadow_notes_its_verdict_and_stops_nobody() {
    let rules = json!({"rules": [{"name": "none", "effect": "deny", "models": ["*"]}]});
    let app = TestApp::with(|config| {
        config.set("/bundle", json!([{"component": "sallyport/scope", "mode": "shadow", "config": rules}]))
    })
    .await;
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 200);
    let row = app.row_of(&reply).await;
    assert_eq!(row["outcome"], "allowed");
    assert!(component(&row, "sallyport/scope")["verdict"].to_string().contains("deny"), "{row}");
}

/// A hostile guest as a package in a file.
fn packed(guest: &str, key: &SigningKey, dir: &Path) -> PathBuf {
    let (kind, component) = hostile::component(guest);
    let package = Package::build(hostile::statement(guest, kind.unwrap()), key, &component).unwrap();
    let file = dir.join(format!("{guest}.sallyport"));
    std::fs::write(&file, package).unwrap();
    file
}

fn publisher(key: &SigningKey) -> Value {
    json!({"key": public_key_text(&key.verifying_key()), "namespace": "hostile", "kinds": ["policy", "scanner"]})
}

/// A policy that never answers, one that stops itself, one whose answer is none, a scanner that falls down behind its answer.
const FAULTY: [&str; 4] = ["01-loop", "24-panic", "24-garbage-verdict", "22-trap-in-post-return"];

#[tokio::test(flavor = "multi_thread")]
async fn who_decides_and_does_not_answer_refuses_the_call() {
    let key = SigningKey::from_bytes(&[41; 32]);
    let dir = tempfile::tempdir().unwrap();
    let publisher = publisher(&key);
    for guest in FAULTY {
        let file = packed(guest, &key, dir.path());
        for (mode, status, seen) in [("enforce", 451, 0), ("shadow", 200, 1)] {
            let entry = json!([{"component": file, "mode": mode}]);
            let app = TestApp::with(|config| {
                config.set("/components", json!({"publishers": [publisher]})).set("/bundle", entry)
            })
            .await;
            let reply = app.messages(hello()).await;
            assert_eq!((reply.status, app.upstream.seen()), (status, seen), "{guest}, {mode}: {reply}");
            let row = app.row_of(&reply).await;
            let asked = &row["payload"]["components"][0];
            assert_eq!(asked["verdict"], "fault", "{guest}, {mode}: {row}");
            assert!(asked["fault"].is_string(), "{row}");
            if mode == "enforce" {
                assert_eq!(row["payload"]["code"], "policy_fault", "{guest}: {row}");
                assert_eq!(reply.error_type(), "permission_error");
                assert_eq!(reply.header("x-should-retry"), Some("false"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_24_a_verdict_that_asks_somebody_or_is_not_known_denies_the_call() {
    let key = SigningKey::from_bytes(&[42; 32]);
    let dir = tempfile::tempdir().unwrap();
    for (guest, verdict) in [("24-ask-verdict", "ask"), ("24-unknown-verdict", "other")] {
        let entry = json!([{"component": packed(guest, &key, dir.path()), "mode": "enforce"}]);
        let app = TestApp::with(|config| {
            config.set("/components", json!({"publishers": [publisher(&key)]})).set("/bundle", entry)
        })
        .await;
        let reply = app.messages(hello()).await;
        assert_eq!((reply.status, app.upstream.seen()), (451, 0), "{guest}: {reply}");
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{guest}");
        let row = app.row_of(&reply).await;
        assert_eq!(row["outcome"], "denied", "{row}");
        assert_eq!(row["payload"]["components"][0]["verdict"], verdict, "{row}");
    }
}
