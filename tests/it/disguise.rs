//! An upstream that lies about the form of its answers: where hooks listen, what they were asked about is what the client gets, or
//! the client gets an error and the row says why. Where nobody listens, bytes pass as they are.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use sallyport_tests::client::{Reply, assert_legal};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::{Script, Turn, anthropic_message, sse};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const MODEL: &str = "claude-sonnet-4-5";

fn block_bash(config: Config) -> Config {
    config.component("sallyport/block-tool", json!({"tools": ["Bash"]}))
}

fn start(content: &Value) -> String {
    sse(
        &json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL,
        "content": content, "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 12, "output_tokens": 1}}}),
    )
}

fn tool() -> Value {
    json!({"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "id"}})
}

fn raw(name: &str, data: &str) -> String {
    let lines: String = data.lines().fold(String::new(), |mut all, line| {
        writeln!(all, "data: {line}").unwrap();
        all
    });
    format!("event: {name}\n{lines}\n")
}

fn end(reason: &str) -> String {
    sse(
        &json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 7}}),
    ) + &sse(&json!({"type": "message_stop"}))
}

fn stream(body: &str) -> Script {
    Script::Status(
        200,
        vec![("content-type".into(), "text/event-stream".into())],
        Bytes::from(body.to_owned()),
    )
}

async fn ask(app: &TestApp, model: &str, stream: bool) -> Reply {
    let mut body = crate::ask(model, "Go on.");
    body["stream"] = json!(stream);
    app.messages(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_call_that_hides_from_the_hooks_ends_the_stream_with_an_error() {
    let app = TestApp::with(block_bash).await;
    let open = tool();
    let start_type = format!(r#""type":"content_block_start","index":0,"content_block":{open}"#);
    let mut forms = vec![("in message_start".to_owned(), start(&json!([open])) + &end("tool_use"))];
    for name in
        ["content_block_delta", "content_block_stop", "message_delta", "message_start", "ping", "later"]
    {
        for data in [
            format!(r#"{{"type":"{name}",{start_type}}}"#),
            format!(r"{{{start_type}}}"),
            format!("{{\"type\":\n\"{name}\",\n{start_type}}}"),
            format!(
                r#"{{"type":"{name}","\u0074ype":"content_block_start","index":0,"content_block":{open}}}"#
            ),
        ] {
            forms.push((format!("{name}: {data}"), start(&json!([])) + &raw(name, &data) + &end("tool_use")));
        }
    }
    let escaped = format!(r#"{{"\u0074ype":"content_block_start","index":0,"content_block":{open}}}"#);
    forms.push((
        "escaped".into(),
        start(&json!([])) + &raw("content_block_delta", &escaped) + &end("tool_use"),
    ));
    let bare = format!("data: {{{start_type}\n\n");
    forms.push(("not JSON".into(), start(&json!([])) + &bare + &end("tool_use")));
    for (what, body) in forms {
        app.upstream.script(stream(&body));
        let reply = ask(&app, MODEL, true).await;
        let text = String::from_utf8_lossy(&reply.body);
        assert!(!text.contains("toolu_1"), "{what}: the client has the tool call: {text}");
        let last = reply.events().pop().unwrap();
        assert_eq!(
            (last.name.as_str(), &last.json()["error"]["type"]),
            ("error", &json!("api_error")),
            "{what}: {text}"
        );
        let row = app.row_of(&reply).await;
        assert_eq!(
            (&row["outcome"], &row["payload"]["code"]),
            (&json!("error"), &json!("answer_unreadable")),
            "{what}: {row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_reply_that_reads_in_two_ways_is_an_error() {
    let app = TestApp::with(block_bash).await;
    let whole = anthropic_message(MODEL, &[Turn::Text("Hello".into())]).to_string();
    let hidden = format!(r#"{{"type":"later","content":[{}]}}"#, tool());
    for body in [
        whole.replacen(r#""content":["#, &format!(r#""content":[{hidden},"#), 1),
        whole.replacen('{', &format!(r#"{{"Content":[{}],"#, tool()), 1),
        whole.replacen('{', &format!(r#"{{"\u0063ontent":[{}],"#, tool()), 1),
        whole.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1),
    ] {
        let headers = vec![("content-type".into(), "application/json".into())];
        app.upstream.script(Script::Status(200, headers, Bytes::from(body.clone())));
        let reply = ask(&app, MODEL, false).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (502, "api_error"), "{body}: {reply}");
        let row = app.row_of(&reply).await;
        assert!(
            matches!(row["payload"]["code"].as_str(), Some("answer_unreadable" | "upstream_answer")),
            "{row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_same_bytes_pass() {
    let app = TestApp::start().await;
    let odd = raw("content_block_delta", r#"{"type":"content_block_delta","type":"later","a":1,"a":2}"#);
    let body = start(&json!([])) + &odd + &end("end_turn");
    app.upstream.script(stream(&body));
    assert_eq!(String::from_utf8_lossy(&ask(&app, MODEL, true).await.body), body);
}

fn pieces(pieces: &[&str], reason: &str) -> String {
    let block = json!({"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}});
    let mut body =
        start(&json!([])) + &sse(&json!({"type": "content_block_start", "index": 0, "content_block": block}));
    for piece in pieces {
        body += &sse(&json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": piece}}));
    }
    body + &sse(&json!({"type": "content_block_stop", "index": 0})) + &end(reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_call_whose_input_is_cut_is_not_asked_about_and_not_given_out() {
    let app =
        TestApp::with(|config| config.component("sallyport/block-tool", json!({"tools": ["Nothing"]}))).await;
    app.upstream.script(stream(&pieces(&["{\"command\": \"rm -r"], "max_tokens")));
    let reply = ask(&app, MODEL, true).await;
    assert_legal(&reply.events());
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(!text.contains("rm -r") && text.contains("did not run") && text.contains("max_tokens"), "{text}");
    let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
    assert!(rows.iter().any(|row| row["kind"] == "tool_call" && row["outcome"] == "denied"), "{rows:?}");
    assert!(!rows.iter().any(|row| row["kind"] == "hook"), "nobody was asked: {rows:?}");

    let message = anthropic_message(MODEL, &[Turn::Tool("toolu_1".into(), "Bash".into(), json!("rm -r"))]);
    let headers = vec![("content-type".into(), "application/json".into())];
    app.upstream.script(Script::Status(200, headers, Bytes::from(message.to_string())));
    let reply = ask(&app, MODEL, false).await;
    assert!(!reply.to_string().contains("rm -r") && reply.text().contains("did not run"), "{reply}");

    app.upstream.script(Script::Turn(vec![Turn::Tool("toolu_1".into(), "Bash".into(), json!(["rm -r"]))]));
    let reply = ask(&app, "gpt-5", true).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(
        text.contains("malformed_arguments") && !text.contains(r#""partial_json":"["#),
        "an object all the same: {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_call_of_a_hundred_thousand_pieces_arrives() {
    let app =
        TestApp::with(|config| config.component("sallyport/block-tool", json!({"tools": ["Nothing"]}))).await;
    let mut all = vec!["{\"command\":\""];
    all.extend(std::iter::repeat_n("abcde", 100_000));
    all.push("\"}");
    let body = pieces(&all, "tool_use");
    app.upstream.script(stream(&body));
    let reply = ask(&app, MODEL, true).await;
    assert!(reply.body == body.as_bytes(), "{} bytes of {}", reply.body.len(), body.len());
    assert_eq!(app.row_of(&reply).await["outcome"], "allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_changes_an_input_changes_what_the_client_gets_on_both_wires() {
    let app = TestApp::with(|config| {
        config.component("sallyport/event-rules", json!({"rules": [
            {"name": "harmless", "on": ["PreToolUse"], "tools": ["Bash"], "then": {"replace": {"command": "true"}}}]}))
    })
    .await;
    app.upstream.script(Script::Turn(vec![Turn::Tool(
        "toolu_1".into(),
        "Bash".into(),
        json!({"command": "rm -rf /"}),
    )]));
    for model in [MODEL, "gpt-5"] {
        for streams in [true, false] {
            let reply = ask(&app, model, streams).await;
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            assert!(!text.contains("rm -rf"), "{model} {streams}: {text}");
            let input = if streams {
                assert_legal(&reply.events());
                let events = reply.events();
                let pieces = events
                    .iter()
                    .filter(|event| event.name == "content_block_delta")
                    .map(sallyport_tests::client::Event::json);
                pieces
                    .filter_map(|piece| piece["delta"]["partial_json"].as_str().map(str::to_owned))
                    .collect()
            } else {
                reply.json()["content"][0]["input"].to_string()
            };
            assert_eq!(
                serde_json::from_str::<Value>(&input).unwrap(),
                json!({"command": "true"}),
                "{model} {streams}: {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_upstream_ends_with_an_error_is_an_error_on_the_row_and_in_lists() {
    let app = TestApp::start().await;
    let error =
        sse(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}));
    let body = start(&json!([])) + &error;
    app.upstream.script(stream(&body));
    let reply = ask(&app, MODEL, true).await;
    assert_eq!(String::from_utf8_lossy(&reply.body), body, "the client is told by the upstream");
    let row = app.row_of(&reply).await;
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("error"), &json!("upstream_error")),
        "{row}"
    );
    assert!(row["payload"]["reason"].as_str().unwrap().contains("overloaded_error: Overloaded"), "{row}");
    assert_eq!(row["tokens_in"], 12, "{row}");
}

/// Routes whose clients hear of the gateway soon.
async fn talkative() -> TestApp {
    let upstream = sallyport_tests::upstream::Upstream::start();
    let url = upstream.url();
    TestApp::on(upstream, |config| {
        let route = |model: &str, provider: &str, path: &str| {
            json!({"model_pattern": model, "provider": provider, "endpoint": format!("{url}{path}"),
                "api_key_secret": "upstream", "timeouts": {"ping_ms": 50}})
        };
        config.route(route("claude-*", "anthropic", "")).route(route(
            "gpt-*",
            "openai",
            "/v1/chat/completions",
        ))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_upstream_is_silent_begins_with_pings_and_goes_on_as_it_came() {
    let app = talkative().await;
    for model in [MODEL, "gpt-5"] {
        let gate = Arc::new(Semaphore::new(0));
        app.upstream.script(Script::Turn(vec![Turn::Text("At last.".into())]).behind(&gate));
        let mut stream = app.messages_stream(crate::ask(model, "Think.")).await;
        for _ in 0..2 {
            assert_eq!(stream.next().await.unwrap().unwrap().name, "ping", "{model}");
        }
        gate.add_permits(1);
        let reply = stream.whole().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "At last."), "{model}: {reply}");
        let row = app.row_of(&reply).await;
        assert_eq!(
            (&row["outcome"], &row["payload"]["head_before_upstream"]),
            (&json!("allowed"), &json!(true)),
            "{row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_after_the_pings_is_an_error_event_and_the_row_has_its_status() {
    let app = talkative().await;
    for model in [MODEL, "gpt-5"] {
        let gate = Arc::new(Semaphore::new(0));
        app.upstream.script(Script::error(529, "overloaded_error", "Overloaded").behind(&gate));
        let mut stream = app.messages_stream(crate::ask(model, "Think.")).await;
        assert_eq!(stream.next().await.unwrap().unwrap().name, "ping", "{model}");
        gate.add_permits(1);
        let reply = stream.whole().await;
        assert_eq!(reply.status, 200, "{model}: {reply}");
        let last = reply.events().pop().unwrap();
        assert_eq!(
            (last.name.as_str(), &last.json()["error"]["type"]),
            ("error", &json!("overloaded_error")),
            "{model}: {reply}"
        );
        let row = app.row_of(&reply).await;
        assert_eq!(
            (&row["outcome"], &row["payload"]["code"], &row["payload"]["status"]),
            (&json!("error"), &json!("upstream_error"), &json!(529)),
            "{model}: {row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_head_leaves_a_row_that_says_so() {
    let app = TestApp::start().await;
    let gate = Arc::new(Semaphore::new(0));
    app.upstream.script(Script::text("Never heard.").behind(&gate));
    let mut body = crate::hello();
    body["stream"] = json!(true);
    let call = app.messages(body);
    tokio::select! {
        _ = call => panic!("nothing was said"),
        () = sallyport_tests::wait::until_true("the upstream is asked", sallyport_tests::wait::SOON, || app.upstream.busy_sockets() == 1) => {}
    }
    let row = sallyport_tests::wait::until("the call has its row", sallyport_tests::wait::SOON, || {
        std::future::ready(
            app.audit_rows().into_iter().find(|row| row["kind"] == "inference" && row["outcome"] != "intent"),
        )
    })
    .await;
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("error"), &json!("client_disconnected")),
        "{row}"
    );
    assert!(!row["payload"]["components"].as_array().unwrap().is_empty(), "{row}");
}
