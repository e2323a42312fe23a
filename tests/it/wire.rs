//! The wire: what goes to the upstream, what comes back, and what the gateway says in its own name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::client::assert_legal;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Turn, sse};
use sallyport_tests::wait::{SOON, until_true, within};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::hello;

const ODD_BODY: &str = "{ \"max_tokens\" : 1e2 ,\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00fc \\ud83d\\ude00 \u{fc}\"}],\r\n\
    \"model\":\"claude-sonnet-4-5\",\"zz_unknown\":{\"b\":1.50,\"a\":[ ]},\"context_management\":{\"edits\":[]},\"temperature\":0.10}\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_gets_the_clients_exact_bytes_and_betas() {
    let app = TestApp::start().await;
    let beta = "claude-code-20250219,never-heard-of-2031-01-01";
    let headers = [("anthropic-beta", beta), ("anthropic-version", "2023-06-01")];
    let reply = app.post("/v1/messages?beta=true", &headers, ODD_BODY).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello from upstream."));
    let seen = app.upstream.last();
    assert_eq!(std::str::from_utf8(&seen.body).unwrap(), ODD_BODY);
    assert_eq!(seen.header("anthropic-beta"), Some(beta));
    assert_eq!(seen.header("anthropic-version").map(|v| v.contains("2023-06-01")), Some(true));
    assert_eq!(seen.target, "/v1/messages?beta=true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_model_changes_its_name_and_nothing_else() {
    let app = TestApp::start().await;
    let body = ODD_BODY.replace("claude-sonnet-4-5", "renamed-7");
    assert_eq!(app.post("/v1/messages", &[], body).await.status, 200);
    let expected = ODD_BODY.replace("claude-sonnet-4-5", "claude-renamed");
    assert_eq!(std::str::from_utf8(&app.upstream.last().body).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_id_of_a_client_leaves_only_where_the_route_says_so() {
    let body = r#"{"model":"claude-sonnet-4-5", "metadata":{"user_id" : "device 7"},"max_tokens":64,"messages":[{"role":"user","content":"Hello"}]}"#;
    for (forward, expected) in [(true, body.to_owned()), (false, body.replace("\"device 7\"", "null"))] {
        let upstream = sallyport_tests::upstream::Upstream::start();
        let url = upstream.url();
        let route = |pattern: &str| {
            json!({"model_pattern": pattern, "provider": "anthropic", "endpoint": url, "api_key_secret": "upstream",
                "forward_user_id": forward})
        };
        // Where the provider edits the body too, both edits are made.
        let mut renaming = route("renamed-*");
        renaming["upstream_model"] = json!("claude-renamed");
        let app = TestApp::on(upstream, |config| config.route(route("claude-*")).route(renaming)).await;
        for (asked, told) in [("claude-sonnet-4-5", "claude-sonnet-4-5"), ("renamed-7", "claude-renamed")] {
            let body = body.replace("claude-sonnet-4-5", asked);
            assert_eq!(app.post("/v1/messages", &[], body).await.status, 200);
            let expected = expected.replace("claude-sonnet-4-5", told);
            assert_eq!(std::str::from_utf8(&app.upstream.last().body).unwrap(), expected, "{asked}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_identifies_the_client_stops_at_the_gateway() {
    let app = TestApp::start().await;
    let headers = [
        ("x-trace-id", "t_0123456789abcdef0123456789abcdef"),
        ("cookie", "a=b"),
        ("x-stainless-lang", "js"),
        ("x-stainless-retry-count", "0"),
        ("x-claude-code-session-id", "3a3828d5-0cad-4840-bf74-e3c4d76f3981"),
        ("x-claude-code-prompt-id", "efc0e81d-fac3-4de5-b8d2-13e55f202ac3"),
        ("x-forwarded-for", "10.1.2.3"),
    ];
    assert_eq!(app.post("/v1/messages", &headers, hello().to_string()).await.status, 200);
    let seen = app.upstream.last();
    for (name, value) in &seen.headers {
        let name = name.to_ascii_lowercase();
        let own = [
            "x-user-id",
            "x-session-id",
            "x-trace-id",
            "x-client-id",
            "x-tenant-id",
            "x-policy-version",
            "x-call-source",
        ];
        assert!(!own.contains(&name.as_str()) && name != "cookie", "{name} reached the upstream");
        assert!(
            !name.starts_with("x-stainless-") && !name.starts_with("x-claude-code-"),
            "{name} reached the upstream"
        );
        assert!(!value.contains(&app.token), "the token reached the upstream in {name}");
        assert!(!value.contains("10.1.2.3"), "the client's address reached the upstream in {name}");
    }
    let key = seen.header("x-api-key").or_else(|| seen.header("authorization")).unwrap_or_default();
    assert!(
        key.ends_with("sk-upstream-credential-of-the-organisation"),
        "the gateway brings its own credential"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_error_comes_back_byte_for_byte() {
    let app = TestApp::start().await;
    let body = "{\"type\":\"error\",  \"error\":{\"message\":\"prompt is too long: 1 tokens > 0 maximum\",\"type\":\"invalid_request_error\"}}";
    // 401 and 403 are about the gateway's own credential: see the matrix of faults.
    for status in [400, 404, 413, 422, 429, 500, 529] {
        let headers = vec![
            ("content-type".into(), "application/json".into()),
            ("retry-after".into(), "7".into()),
            ("request-id".into(), "req_x".into()),
        ];
        app.upstream.script(Script::Status(status, headers, Bytes::from_static(body.as_bytes())));
        let reply = app.messages(hello()).await;
        assert_eq!((reply.status, &reply.body[..]), (status, body.as_bytes()));
        assert_eq!((reply.header("retry-after"), reply.header("request-id")), (Some("7"), Some("req_x")));
        assert_eq!(app.row_of(&reply).await["outcome"], "error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_names_its_request_and_its_trace_and_hides_the_upstreams_own_headers() {
    let app = TestApp::start().await;
    let reply = app.messages(hello()).await;
    assert_eq!(reply.header("request-id"), Some("req_up_json"));
    assert_eq!(reply.header("anthropic-ratelimit-requests-remaining"), Some("41"));
    assert_eq!(reply.header("x-internal-host"), None);
    let trace = reply.header("x-trace-id").unwrap();
    assert!(trace.starts_with("t_") && trace.len() == 34, "{trace}");
    let refused = app.post("/v1/messages", &[], "{").await;
    assert!(refused.header("request-id").is_some(), "{refused}");
    assert_eq!(refused.json()["request_id"].as_str(), refused.header("request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_is_a_400_in_anthropics_shape_and_goes_nowhere() {
    let app = TestApp::start().await;
    let deep = format!(r#"{{"model":"claude-x","messages":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("no JSON", b"hello".to_vec()),
        ("half", b"{\"model\":\"claude-x\",\"messages\":[".to_vec()),
        ("two values", br#"{"model":"claude-x","messages":[]} {}"#.to_vec()),
        ("no object", b"[]".to_vec()),
        (
            "broken UTF-8",
            b"{\"model\":\"claude-x\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}".to_vec(),
        ),
        ("two models", br#"{"model":"claude-x","model":"claude-y","messages":[]}"#.to_vec()),
        ("no model", br#"{"messages":[]}"#.to_vec()),
        ("deep", deep.into_bytes()),
    ];
    for (name, body) in cases {
        let reply = app.post("/v1/messages", &[], body).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{name}");
    }
    assert_eq!(app.upstream.seen(), 0);
    assert!(app.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_33_mib_is_a_413_and_one_of_31_goes_through() {
    let app = TestApp::start().await;
    let body = |mib: usize| crate::ask("claude-sonnet-4-5", &"a".repeat(mib << 20)).to_string();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        app.token,
        33 << 20
    );
    let answer = String::from_utf8_lossy(&app.client().raw(head.as_bytes()).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("request_too_large"), "{answer}");
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(app.post("/v1/messages", &[], body(31)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_or_a_length_beside_chunks_are_refused() {
    let app = TestApp::start().await;
    for framing in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: 5\r\ntransfer-encoding: gzip, x",
        "transfer-encoding: gzip",
    ] {
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{framing}\r\nconnection: close\r\n\r\nhello",
            app.token
        );
        let answer = String::from_utf8_lossy(&app.client().raw(head.as_bytes()).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{framing}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing}: {answer}");
    }
    assert_eq!(app.upstream.seen(), 0);
    assert!(app.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_byte_for_byte_as_the_upstream_sent_it() {
    let app = TestApp::start().await;
    app.upstream.script(Script::Turn(vec![
        Turn::Thinking("Let me see.".into(), "RXFvQkNrZ0lBQkFDR0FJaUFB".into()),
        Turn::Text("One, two, h\u{fc}bsch.".into()),
    ]));
    let mut body = hello();
    body["stream"] = json!(true);
    let reply = app.messages(body.clone()).await;
    let direct = sallyport_tests::client::Client::new(app.upstream.address)
        .send("POST", "/v1/messages", &[], body.to_string())
        .await;
    assert_eq!(reply.body, direct.body);
    assert_eq!(reply.header("content-type").map(|v| v.starts_with("text/event-stream")), Some(true));
    assert_eq!(reply.header("content-encoding"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_is_flushed_before_the_second_exists() {
    let app = TestApp::start().await;
    let gate = Arc::new(Semaphore::new(1));
    let start = sse(
        &json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
        "model": "claude-sonnet-4-5", "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 1}}}),
    );
    let rest = sse(
        &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 1}}),
    ) + &sse(&json!({"type": "message_stop"}));
    app.upstream.script(Script::gated(&[&start, &rest], &gate));
    let mut stream = app.messages_stream(hello()).await;
    assert_eq!(stream.next().await.unwrap().unwrap().name, "message_start");
    gate.add_permits(1);
    stream.next_named("message_stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_is_kept_alive() {
    let app = TestApp::start().await;
    let gate = Arc::new(Semaphore::new(1));
    let start = sse(
        &json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
        "model": "claude-sonnet-4-5", "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 1}}}),
    );
    app.upstream.script(Script::gated(&[&start, "never: sent\n\n"], &gate));
    let mut stream = app.messages_stream(hello()).await;
    assert_eq!(stream.next().await.unwrap().unwrap().name, "message_start");
    // A comment is no event: any byte will do. It comes long before any client or proxy loses patience.
    let sign = within("a sign of life", Duration::from_secs(30), stream.bytes()).await;
    assert!(sign.is_some(), "the stream was cut instead of kept alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_the_upstream_with_it_and_what_it_used_is_settled() {
    let app = TestApp::start().await;
    for model in ["claude-sonnet-4-5", "gpt-5"] {
        app.upstream.forget();
        app.upstream.script(Script::Chunks(100_000, Duration::from_millis(5)));
        let mut stream = app.messages_stream(crate::ask(model, "Count.")).await;
        let trace = stream.headers["x-trace-id"].to_str().unwrap().to_owned();
        stream.next_named("content_block_delta").await;
        let left = Instant::now();
        drop(stream);
        until_true("the upstream is let go", SOON, || !app.upstream.disconnects().is_empty()).await;
        let took = app.upstream.disconnects()[0] - left;
        if crate::soak() {
            assert!(took < Duration::from_millis(100), "{model}: {took:?}");
        }
        let rows = app.lineage(&trace).await;
        let row = rows.iter().find(|row| row["kind"] == "inference").unwrap();
        assert_eq!(row["outcome"], "error", "{row}");
        if model.starts_with("claude") {
            assert_eq!(row["tokens_in"], 12, "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_wire_is_translated_both_ways() {
    let app = TestApp::start().await;
    app.upstream.script(Script::tool_loop("Read", json!({"path": "/etc/hosts"}), "Read it."));
    let tools = json!([{"name": "Read", "description": "reads", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}]);
    let mut body = crate::ask("gpt-5", "Read /etc/hosts");
    body["tools"] = tools;
    let reply = app.messages(body.clone()).await;
    let json = reply.json();
    assert_eq!(json["stop_reason"], "tool_use", "{reply}");
    let call = json["content"].as_array().unwrap().iter().find(|b| b["type"] == "tool_use").unwrap();
    assert_eq!((&call["name"], &call["input"]), (&json!("Read"), &json!({"path": "/etc/hosts"})));
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": json["content"]}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "127.0.0.1"}]}),
    ]);
    body["stream"] = json!(true);
    let reply = app.messages(body).await;
    assert_legal(&reply.events());
    assert_eq!(reply.text(), "Read it.");
    let sent = app.upstream.last().json();
    assert_eq!(sent["messages"].as_array().unwrap().last().unwrap()["role"], "tool");
    assert!(app.upstream.last().header("authorization").unwrap().starts_with("Bearer sk-upstream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_by_the_upstream_or_the_estimate_says_so() {
    let app = TestApp::start().await;
    let reply = app.post("/v1/messages/count_tokens", &[], hello().to_string()).await;
    assert_eq!((reply.status, reply.header("x-sallyport-count")), (200, None));
    assert!(reply.json()["input_tokens"].as_u64().unwrap() > 0);
    let reply = app.post("/v1/messages/count_tokens", &[], crate::ask("gpt-5", "Hello").to_string()).await;
    assert_eq!((reply.status, reply.header("x-sallyport-count")), (200, Some("estimate")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_url_with_v1_twice_or_without_it_is_told_how_it_should_end() {
    let app = TestApp::start().await;
    for (target, said) in [
        ("/v1/v1/messages", "must end without /v1"),
        ("/messages", "must end with /v1"),
        ("/messages/count_tokens", "must end with /v1"),
        ("/v1/complete", "does not offer this part of the API"),
    ] {
        let reply = app.post(target, &[], hello().to_string()).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (404, "not_found_error"), "{target}");
        assert!(reply.to_string().contains(said), "{target}: {reply}");
    }
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_needs_no_credential_and_an_unknown_path_is_a_404() {
    let app = TestApp::start().await;
    let client = app.client();
    assert_eq!(client.send("HEAD", "/", &[], Bytes::new()).await.status, 200);
    assert_eq!(client.send("GET", "/health", &[], Bytes::new()).await.status, 200);
    assert_eq!(client.send("GET", "/ready", &[], Bytes::new()).await.status, 200);
    let reply = app.get("/v1/nothing").await;
    assert_eq!((reply.status, reply.error_type().as_str()), (404, "not_found_error"));
}
