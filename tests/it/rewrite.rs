//! Redaction: a scanner that may rewrite cuts a secret out of the request, and nothing else changes.

use sallyport_tests::gateway::{Config, TestApp};
use serde_json::{Value, json};

use crate::ask;

/// Access keys in the shape that scanners know; they open nothing.
const KEY: &str = "AKIAQ3EGRFZXNDOMVWJK";
const TOKEN: &str = "ghp_k7Qz2Xb9Lm4Np6Rs8Tv1Wy3Za5Bc7De9Fg0H";

fn redacting(config: Config, rewrite: bool) -> Config {
    config.set(
        "/bundle",
        json!([{"component": "sallyport/secret-scan", "rewrite": rewrite, "config": {"action": "redact"}}]),
    )
}

fn scan_of(row: &Value) -> &Value {
    row["payload"]["components"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "sallyport/secret-scan")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_cut_out_and_every_other_byte_arrives_as_it_was_sent() {
    let app = TestApp::with(|config| redacting(config, true)).await;
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<Vec<_>>().concat();
    let body = |one: &str, two: &str| {
        format!(
            "{{ \"max_tokens\" : 1e2, \"model\":\"claude-sonnet-4-5\",\r\n\"system\":[{{\"text\":\"k\\u00e9y {one}\",\"type\":\"text\"}}],\
             \"messages\":[{{\"role\":\"user\",\"content\":\"\\ud83d\\ude00\\t{two}\\n \u{e9}\"}},\
             {{\"role\":\"assistant\",\"content\":[{{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"Bash\",\"input\":{{\"cmd\":\"use\\t{one}\"}}}}]}},\
             {{\"role\":\"user\",\"content\":[{{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_1\",\"content\":\"ok {one}\"}}]}}], \"zz\":1.50 }}\n"
        )
    };
    let reply = app.post("/v1/messages", &[], body(KEY, &escaped)).await;
    assert_eq!(reply.status, 200, "{reply}");
    let gone = "[redacted:aws_access_key]";
    let seen = app.upstream.last();
    assert_eq!(std::str::from_utf8(&seen.body).unwrap(), body(gone, gone));

    let row = app.row_of(&reply).await;
    assert_eq!(row["outcome"], "allowed");
    let scan = scan_of(&row);
    assert_eq!(
        (&scan["verdict"], &scan["redacted"]),
        (&json!("redact"), &json!({"aws_access_key": 4})),
        "{row}"
    );
    let payload = &row["payload"];
    assert_eq!(payload["forwarded_bytes"], seen.body.len());
    assert!(payload["forwarded_blake3"].is_string() && payload["forwarded_blake3"] != payload["body_blake3"]);
    assert!(!row.to_string().contains(KEY) && !app.log().contains(KEY), "the secret is repeated");
    assert!(!app.siem_lines().iter().any(|line| line.to_string().contains(KEY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_translated_request_and_a_remembered_text_are_redacted_too() {
    let app = TestApp::with(|config| redacting(config, true)).await;
    for round in 0..2 {
        let reply = app.messages(ask("gpt-5", &format!("a {KEY} and {TOKEN}."))).await;
        assert_eq!(reply.status, 200, "{reply}");
        let sent = String::from_utf8(app.upstream.last().body.to_vec()).unwrap();
        assert!(sent.contains("a [redacted:aws_access_key] and [redacted:github_token]."), "{sent}");
        assert!(!sent.contains(KEY) && !sent.contains(TOKEN), "{sent}");
        let row = app.row_of(&reply).await;
        // The parameters and the headers are known after the first round, and so is the text.
        assert_eq!(scan_of(&row)["texts"]["remembered"].as_u64().unwrap() >= 3, round == 1, "{row}");
    }
    assert_eq!(
        app.post("/v1/messages/count_tokens", &[], ask("claude-sonnet-4-5", KEY).to_string()).await.status,
        200
    );
    assert!(!String::from_utf8_lossy(&app.upstream.last().body).contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn later_scanners_see_what_was_left() {
    let deny = json!({"action": "deny"});
    let app = TestApp::with(|config| redacting(config, true).component("sallyport/secret-scan", deny)).await;
    assert_eq!(app.messages(ask("claude-sonnet-4-5", KEY)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_permission_what_would_be_redacted_is_refused() {
    let app = TestApp::with(|config| redacting(config, false)).await;
    let reply = app.messages(ask("claude-sonnet-4-5", KEY)).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (451, "permission_error"), "{reply}");
    assert_eq!(app.row_of(&reply).await["payload"]["code"], "aws_access_key");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cut_out_without_harm_is_refused() {
    let app = TestApp::with(|config| redacting(config, true)).await;
    let thinking = json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": format!("use {KEY}"), "signature": "s"}]}]});
    let key = json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "n", "input": {KEY: 1}}]}]});
    for body in [thinking, key] {
        let reply = app.messages(body).await;
        assert_eq!(reply.status, 451, "{reply}");
        let row = app.row_of(&reply).await;
        assert_eq!((&row["outcome"], &row["payload"]["code"]), (&json!("denied"), &json!("aws_access_key")));
        assert!(!row.to_string().contains(KEY));
    }
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_nothing_is_changed_and_the_row_says_what_would_have_been() {
    let entry = json!([{"component": "sallyport/secret-scan", "mode": "shadow", "rewrite": true, "config": {"action": "redact"}}]);
    let app = TestApp::with(|config| config.set("/bundle", entry)).await;
    let reply = app.messages(ask("claude-sonnet-4-5", KEY)).await;
    assert_eq!(reply.status, 200);
    assert!(String::from_utf8_lossy(&app.upstream.last().body).contains(KEY));
    let row = app.row_of(&reply).await;
    assert_eq!(scan_of(&row)["verdict"], "redact");
    assert!(row["payload"]["forwarded_blake3"].is_null());
}
