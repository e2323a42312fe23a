//! What is judged of a request is everything that the model or the upstream can read, and it is read in one way.

use std::path::Path;

use sallyport_tests::gateway::TestApp;
use serde_json::{Value, json};

use crate::{ask, hello};

/// A token in the shape that scanners know; it opens nothing.
const TOKEN: &str = "ghp_k7Qz2Xb9Lm4Np6Rs8Tv1Wy3Za5Bc7De9Fg0H";

fn with(more: &Value) -> Value {
    let mut body = hello();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_some_readers_take_for_another_is_refused_on_every_route() {
    let app = TestApp::start().await;
    for model in ["claude-sonnet-4-5", "gpt-5"] {
        for double in ["\"Messages\":[]", "\"me\u{17f}\u{17f}ages\":[]", "\"Model\":\"x\"", "\"TOOLS\":[]"] {
            let body = format!(
                r#"{{"model":"{model}","max_tokens":9,"messages":[{{"role":"user","content":"a"}}],{double}}}"#
            );
            let reply = app.post("/v1/messages", &[], body).await;
            assert_eq!(
                (reply.status, reply.error_type().as_str()),
                (400, "invalid_request_error"),
                "{reply}"
            );
            assert_eq!(reply.header("x-sallyport-code"), Some("body_ambiguous"));
            assert_eq!(reply.header("x-should-retry"), Some("false"));
        }
        let nested = json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "a", "Content": "b"}]});
        assert_eq!(app.messages(nested).await.status, 400);
    }
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_tokens_counts_in_every_spelling_and_nothing_else_passes_for_one() {
    let limits = json!({"limits": [{"per": "user", "tokens": 5000, "window": "1h", "strict": true}]});
    let app = TestApp::with(|config| config.component("sallyport/rate-limit", limits)).await;
    for value in ["\"4000\"", "-4000", "null", "0.5", "true"] {
        let body = format!(
            r#"{{"model":"claude-sonnet-4-5","max_tokens":{value},"messages":[{{"role":"user","content":"a"}}]}}"#
        );
        let reply = app.post("/v1/messages", &[], body).await;
        assert_eq!(reply.status, 400, "{value}: {reply}");
        assert!(reply.to_string().contains("max_tokens"), "{reply}");
    }
    assert_eq!(app.upstream.seen(), 0);
    let spelt = |value: &str| {
        format!(
            r#"{{"model":"claude-sonnet-4-5","max_tokens":{value},"messages":[{{"role":"user","content":"a"}}]}}"#
        )
    };
    let reply = app.post("/v1/messages", &[], spelt("6e3")).await;
    assert_eq!(reply.header("x-sallyport-code"), Some("request_exceeds_limit"), "{reply}");
    assert_eq!(app.post("/v1/messages", &[], spelt("4000.0")).await.status, 200);
    assert!(
        String::from_utf8_lossy(&app.upstream.last().body).contains("4000.0"),
        "the bytes stay as they came"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_tool_is_found_wherever_a_request_defines_or_names_it() {
    let rules = json!({"rules": [{"name": "no-merge", "effect": "deny", "tools": ["mcp__github__merge*"]}]});
    let app = TestApp::with(|config| config.component("sallyport/scope", rules)).await;
    let tool =
        json!({"name": "mcp__github__merge_pr", "description": "x", "input_schema": {"type": "object"}});
    let addition = json!({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tool}});
    let turns = |block: &Value| json!({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": [block]}]});
    for more in [
        json!({"tools": [tool]}),
        json!({"tools": [{"type": "function", "function": tool}]}),
        json!({"tools": {"mcp__github__merge_pr": {}}}),
        json!({"tools": [{"type": "mcp_toolset", "mcp_server_name": "github"}]}),
        json!({"mcp_servers": [{"type": "url", "url": "https://mcp.example", "name": "github"}]}),
        json!({"tool_choice": {"type": "tool", "name": "mcp__github__merge_pr"}}),
        turns(&addition),
        turns(&json!({"type": "compaction", "content": "s", "tool_changes": [addition]})),
    ] {
        let reply = app.messages(with(&more)).await;
        assert_eq!(reply.status, 451, "{more}: {reply}");
        assert_eq!(reply.header("x-sallyport-code"), Some("tool_not_allowed"), "{more}");
    }
    let nameless = app.messages(with(&json!({"tools": [{"name": ["mcp__github__merge_pr"]}]}))).await;
    assert_eq!(nameless.status, 400, "{nameless}");
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(
        app.messages(with(&json!({"mcp_servers": [{"type": "url", "url": "https://x", "name": "wiki"}]})))
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_found_wherever_it_stands() {
    let app =
        TestApp::with(|config| config.component("sallyport/secret-scan", json!({"action": "deny"}))).await;
    let block = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for more in [
        json!({"tools": [{"name": "a", "input_schema": {"properties": {"x": {"description": format!("use {TOKEN}")}}}}]}),
        json!({"tools": [{"name": "a", "input_schema": {"properties": {"x": {"enum": [TOKEN], "default": 1}}}}]}),
        json!({"tools": [{"name": "a", "input_examples": [{"x": TOKEN}]}]}),
        json!({"stop_sequences": [TOKEN]}),
        json!({"metadata": {"note": TOKEN}}),
        json!({"mood": {TOKEN: 1}}),
        json!({"mcp_servers": [{"type": "url", "url": "https://x", "name": "n", "authorization_token": TOKEN}]}),
        json!({"output_format": {"type": "json_schema", "schema": {"title": TOKEN}}}),
        json!({"container": TOKEN}),
        json!({"context_management": {"edits": [{"type": TOKEN}]}}),
        block(json!({"type": "image", "source": {"type": "url", "url": format!("https://x/?k={TOKEN}")}})),
        block(json!({"type": "text", "text": "a", "citations": [{"cited_text": TOKEN}]})),
        block(json!({"type": "text", "text": "a", "shade": TOKEN})),
        block(json!({"type": "news", "deep": {TOKEN: 1}})),
        block(json!({"type": "tool_use", "id": TOKEN, "name": "a", "input": {}})),
        json!({"messages": [{"role": "user", "content": "a", "name": TOKEN}]}),
        json!({"messages": [{"role": TOKEN, "content": "a"}]}),
        json!({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "a", "signature": TOKEN}]}]}),
    ] {
        let reply = app.messages(with(&more)).await;
        assert_eq!(reply.status, 451, "{more}: {reply}");
        assert_eq!(reply.header("x-sallyport-code"), Some("github_token"), "{more}");
    }
    let body = hello().to_string();
    let header = app.post("/v1/messages", &[("anthropic-beta", TOKEN)], body.clone()).await;
    let query = app.post(&format!("/v1/messages?beta={TOKEN}"), &[], body.clone()).await;
    let escaped =
        app.post(&format!("/v1/messages?beta=%67{}", TOKEN.trim_start_matches('g')), &[], body).await;
    for reply in [header, query, escaped] {
        assert_eq!(reply.header("x-sallyport-code"), Some("github_token"), "{reply}");
    }
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_does_not_know_is_noted_and_a_strict_route_or_a_rule_refuses_it() {
    let news =
        with(&json!({"mood": 1, "messages": [{"role": "user", "content": [{"type": "news", "x": "y"}]}]}));
    let names = json!(["content.type=news", "mood"]);
    let sorted = |row: &Value| {
        let mut names = row["payload"]["unknown"].as_array().unwrap().clone();
        names.sort_by_key(ToString::to_string);
        Value::from(names)
    };
    let app = TestApp::start().await;
    let reply = app.messages(news.clone()).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert_eq!(sorted(&app.row_of(&reply).await), names);

    let strict = TestApp::with(|config| config.set("/gateway/routes/0/strict", json!(true))).await;
    let reply = strict.messages(news.clone()).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply}");
    assert_eq!(reply.header("x-sallyport-code"), Some("unknown_construct"));
    assert!(reply.to_string().contains("mood") || reply.to_string().contains("content.type=news"), "{reply}");
    let row = strict.row_of(&reply).await;
    assert_eq!((row["outcome"].as_str(), sorted(&row)), (Some("denied"), names));
    assert_eq!(strict.upstream.seen(), 0);
    assert_eq!(strict.messages(hello()).await.status, 200);

    let rules = json!({"rules": [{"name": "new", "effect": "deny", "unknown": ["content.type=*"]}]});
    let scoped = TestApp::with(|config| config.component("sallyport/scope", rules)).await;
    let reply = scoped.messages(news).await;
    assert_eq!(
        (reply.status, reply.header("x-sallyport-code")),
        (451, Some("unknown_not_allowed")),
        "{reply}"
    );
    assert_eq!(scoped.messages(with(&json!({"mood": 1}))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_claude_code_sends_holds_nothing_unknown_and_passes_a_strict_route_byte_for_byte() {
    let app = TestApp::with(|config| {
        config
            .set("/gateway/routes/0/strict", json!(true))
            .component("sallyport/secret-scan", json!({"action": "deny"}))
    })
    .await;
    for name in ["basic", "tool_loop_03", "tool_loop_10"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/claude-code/{name}.json"));
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut body = file["request"]["body"].clone();
        // The route does not let it travel.
        body.as_object_mut().unwrap().remove("metadata");
        let body = body.to_string();
        let reply = app.post("/v1/messages?beta=true", &[], body.clone()).await;
        assert_eq!(reply.status, 200, "{name}: {reply}");
        assert_eq!(app.upstream.last().body, body.as_bytes(), "{name}");
        assert!(app.row_of(&reply).await["payload"]["unknown"].is_null(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_small_texts_costs_few_questions_and_is_redacted_all_the_same() {
    let scan =
        json!([{"component": "sallyport/secret-scan", "rewrite": true, "config": {"action": "redact"}}]);
    let app = TestApp::with(|config| config.set("/bundle", scan)).await;
    let content: Vec<Value> =
        (0..5_000).map(|number| json!({"type": "text", "text": format!("w {number}")})).collect();
    let mut body = ask("claude-sonnet-4-5", "");
    body["messages"][0]["content"] = content.into();
    body["messages"][0]["content"][4_321]["text"] = json!(format!("a {TOKEN} b"));
    let reply = app.messages(body.clone()).await;
    assert_eq!(reply.status, 200, "{reply}");
    let mut expected = body;
    expected["messages"][0]["content"][4_321]["text"] = json!("a [redacted:github_token] b");
    assert_eq!(app.upstream.last().json(), expected);
    let row = app.row_of(&reply).await;
    let scan = &row["payload"]["components"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "sallyport/secret-scan")
        .unwrap();
    let asked = scan["texts"]["scanned"].as_u64().unwrap();
    assert!(asked < 100, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tools_than_are_read_are_told_as_too_many() {
    let app = TestApp::start().await;
    let tools = vec![r#"{"name":"a"}"#; 20_000].join(",");
    let body = format!(r#"{{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[],"tools":[{tools}]}}"#);
    let reply = app.post("/v1/messages", &[], body).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (413, "request_too_large"), "{reply}");
    assert_eq!(reply.header("x-sallyport-code"), Some("body_too_many"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
}

/// Policies are asked last, about the bytes that leave: neither what a hook has put in nor what a scanner has cut out is hidden
/// from them.
#[tokio::test(flavor = "multi_thread")]
async fn policies_decide_about_what_hooks_and_scanners_left() {
    // What a hook puts into a tool's answer names a tool, and `scope` forbids it.
    let replaced = json!([{"type": "tool_reference", "tool_name": "mcp__github__merge"}]);
    let app = TestApp::with(|config| {
        config
            .component(
                "sallyport/event-rules",
                json!({"rules": [{"name": "swap", "on": ["PostToolUse"], "then": {"replace": replaced}}]}),
            )
            .component(
                "sallyport/scope",
                json!({"rules": [{"name": "no", "effect": "deny", "tools": ["mcp__github__*"]}]}),
            )
    })
    .await;
    let body = json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}]});
    let reply = app.messages(body).await;
    assert_eq!((reply.status, reply.header("x-sallyport-code")), (451, Some("tool_not_allowed")), "{reply}");
    assert_eq!(app.upstream.seen(), 0);

    // What a scanner cuts out is gone before `scope` looks: the name that it forbids is no longer there.
    let bundle = json!([
        {"component": "sallyport/secret-scan", "rewrite": true, "config": {"action": "redact"}},
        {"component": "sallyport/scope", "config": {"rules": [{"name": "no", "effect": "deny", "tools": ["*ghp_*"]}]}}
    ]);
    let app = TestApp::with(|config| config.set("/bundle", bundle)).await;
    let body = with(&json!({"tools": [{"name": format!("x {TOKEN}"), "input_schema": {"type": "object"}}]}));
    let reply = app.messages(body).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert_eq!(app.upstream.last().json()["tools"][0]["name"], "x [redacted:github_token]");
}
