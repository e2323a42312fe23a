//! Requests that Claude Code really sends, recorded: a gateway that trips over one of them is of no use.

use std::path::{Path, PathBuf};

use sallyport_tests::client::assert_legal;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::Script;
use sallyport_tests::upstream::Step;
use serde_json::Value;

/// Headers that the connection makes, or that carry the credential of the recording.
const NOT_REPLAYED: [&str; 5] = ["authorization", "x-api-key", "content-length", "host", "connection"];

struct Recorded {
    name: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Value,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/claude-code")
}

/// Every recorded `POST`.
fn recorded() -> Vec<Recorded> {
    let mut all = Vec::new();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let entries = if let Value::Array(entries) = file { entries } else { vec![file] };
        for entry in
            entries.iter().filter(|e| e["request"]["method"] == "POST" && e["request"]["body"].is_object())
        {
            let request = &entry["request"];
            let headers = request["headers"].as_array().unwrap().iter().map(|pair| {
                (pair[0].as_str().unwrap().to_ascii_lowercase(), pair[1].as_str().unwrap().to_owned())
            });
            all.push(Recorded {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                target: request["path"].as_str().unwrap().to_owned(),
                headers: headers.filter(|(name, _)| !NOT_REPLAYED.contains(&name.as_str())).collect(),
                body: request["body"].clone(),
            });
        }
    }
    assert!(all.len() >= 8, "only {} recordings", all.len());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_request_reaches_an_anthropic_upstream_byte_for_byte() {
    let app = TestApp::start().await;
    for Recorded { name, target, headers, body } in recorded() {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let bytes = serde_json::to_string_pretty(&body).unwrap();
        let reply = app.post(&target, &headers, bytes.clone()).await;
        assert_eq!(reply.status, 200, "{name}: {reply}");
        let seen = app.upstream.last();
        assert_eq!(std::str::from_utf8(&seen.body).unwrap(), bytes, "{name}");
        let beta = headers.iter().find(|(n, _)| *n == "anthropic-beta").map(|(_, v)| *v);
        assert_eq!(seen.header("anthropic-beta"), beta, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_request_is_translated_or_refused_by_name_and_losses_are_on_the_row() {
    let app = TestApp::start().await;
    let (mut translated, mut refused) = (0, 0);
    for Recorded { name, target, headers, mut body } in recorded() {
        body["model"] = "gpt-5".into();
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let reply = app.post(&target, &headers, body.to_string()).await;
        if reply.status != 200 {
            assert_eq!(
                (reply.status, reply.error_type().as_str()),
                (400, "invalid_request_error"),
                "{name}: {reply}"
            );
            // By the name of what cannot be carried, which is in the request.
            let text = reply.to_string();
            let asks = body["safeguards"].is_object() || body["safeguards"].is_array();
            let searches = body["tools"].to_string().contains("\"web_search");
            assert!(
                asks && text.contains("safeguards") || searches && text.contains("web_search"),
                "{name}: {reply}"
            );
            refused += 1;
            continue;
        }
        if target.contains("count_tokens") {
            continue;
        }
        if body["stream"] == true {
            assert_legal(&reply.events());
        }
        let row = app.row_of(&reply).await;
        let lost: Vec<&str> = row["payload"]["loss"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|loss| loss["field"].as_str())
            .collect();
        for field in ["context_management", "metadata"] {
            assert_eq!(lost.contains(&field), !body[field].is_null(), "{name}: {field}: {lost:?}");
        }
        let cached = body.to_string().contains("\"cache_control\"");
        assert_eq!(lost.contains(&"cache_control"), cached, "{name}: {lost:?}");
        translated += 1;
    }
    assert!(translated >= 3 && refused >= 1, "{translated} translated, {refused} refused");
    assert!(app.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_stream_comes_back_byte_for_byte() {
    let app = TestApp::start().await;
    let request = recorded().into_iter().find(|r| r.name == "basic").unwrap();
    for name in ["basic", "tool_loop_03", "tool_loop_10"] {
        let bytes = std::fs::read(directory().join(format!("{name}.response.sse"))).unwrap();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        )
        .into_bytes();
        answer.extend_from_slice(&bytes);
        app.upstream.script(Script::Steps(vec![Step::Write(answer.into())]));
        let reply = app.post(&request.target, &[], request.body.to_string()).await;
        assert_eq!(reply.body, bytes, "{name}");
    }
}
