//! What clients report: Claude Code's HTTP hooks, in its own words, answered in its own schema.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use super::{about, asking, rules};
use crate::hello;

const TEN: [&str; 10] = [
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "SessionStart",
    "SessionEnd",
    "UserPromptSubmit",
    "Notification",
    "Stop",
    "SubagentStart",
    "SubagentStop",
];

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hooks")
}

fn file(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(directory().join(name)).unwrap()).unwrap()
}

/// Every recorded report.
fn recorded() -> Vec<Value> {
    let mut names: Vec<_> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "decisions.json")
        .collect();
    names.sort();
    let body = |name: &String| {
        let file = file(name);
        if file["command_stdin"].is_object() {
            file["command_stdin"].clone()
        } else {
            file["request"]["body"].clone()
        }
    };
    names.iter().map(body).collect()
}

async fn report(app: &TestApp, body: &Value) -> Reply {
    let event = body["hook_event_name"].as_str().unwrap();
    app.post(&format!("/v1/hooks/{event}"), &[], body.to_string()).await
}

fn tool(event: &str, id: &str) -> Value {
    json!({"session_id": "s", "hook_event_name": event, "tool_name": "Bash", "tool_input": {"command": "ls"},
        "tool_use_id": id})
}

/// The rows of one trace that are there.
async fn trace_of(app: &TestApp, reply: &Reply) -> Vec<Value> {
    let trace = reply.header("x-trace-id").unwrap().to_owned();
    until("the report has a row", SOON, || {
        let rows = app.cli_json(&["audit", "lineage", &trace]).as_array().cloned().unwrap_or_default();
        std::future::ready((!rows.is_empty()).then_some(rows))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_report_is_answered_and_leaves_its_rows() {
    let on: Vec<&str> = TEN.to_vec();
    // A rule that fits nothing: every event reaches the hook, and the hook lets it go on.
    let rule =
        json!([{"name": "none", "on": on, "contains": ["nothing says this"], "then": {"block": "no"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    let mut seen = BTreeSet::new();
    for body in recorded() {
        let event = body["hook_event_name"].as_str().unwrap().to_owned();
        let reply = report(&app, &body).await;
        if !TEN.contains(&event.as_str()) {
            assert_eq!(
                (reply.status, reply.error_type().as_str()),
                (404, "not_found_error"),
                "{event}: {reply}"
            );
            continue;
        }
        assert_eq!((reply.status, reply.json()), (200, json!({})), "{event}: {reply}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.header("request-id").is_some());
        let rows = trace_of(&app, &reply).await;
        let [own, hook] = about(&rows, &event)[..] else { panic!("{event}: {rows:?}") };
        assert_eq!(
            (own["payload"]["verdict"].as_str(), own["payload"]["in_band"].as_bool()),
            (Some("reported"), Some(false))
        );
        assert_eq!(own["payload"]["client_session"], body["session_id"]);
        assert_eq!(
            (hook["payload"]["verdict"].as_str(), hook["payload"]["in_band"].as_bool()),
            (Some("proceed"), Some(false))
        );
        assert_eq!(hook["payload"]["digest"].as_str().unwrap().len(), 64);
        if body["tool_use_id"].is_string() {
            for row in [own, hook] {
                assert_eq!(
                    (&row["payload"]["tool"], &row["payload"]["tool_use_id"]),
                    (&body["tool_name"], &body["tool_use_id"])
                );
            }
        }
        seen.insert(event);
    }
    assert_eq!(seen.len(), TEN.len(), "{seen:?}");
}

#[test]
fn the_plugin_that_ships_reports_all_ten_events() {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/governance");
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(plugin.join(name)).unwrap()).unwrap() };
    // Without a manifest it is in no marketplace.
    let manifest = read(".claude-plugin/plugin.json");
    assert_eq!(manifest["name"], "governance");
    assert!(manifest["version"].is_string() && manifest["description"].is_string(), "{manifest}");
    let file = read("hooks/hooks.json");
    let hooks = file["hooks"].as_object().unwrap();
    assert_eq!(hooks.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(TEN));
    for (event, entries) in hooks {
        let [entry] = &entries.as_array().unwrap()[..] else { panic!("{event}: {entries}") };
        let hook = &entry["hooks"][0];
        // Over HTTP the client never reports the beginning of a session.
        let address = if event == "SessionStart" { &hook["command"] } else { &hook["url"] };
        assert!(address.as_str().unwrap().ends_with(&format!("/v1/hooks/{event}")), "{event}: {hook}");
        assert!(hook.to_string().contains("Bearer $SALLYPORT_TOKEN"), "{event}: {hook}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_joins_the_call_that_caused_it() {
    let app = TestApp::start().await;
    app.upstream.script(Script::Turn(vec![Turn::Tool(
        "toolu_1".into(),
        "Bash".into(),
        json!({"command": "ls"}),
    )]));
    for (stream, session) in [(false, "one"), (true, "two")] {
        let body = asking("claude-sonnet-4-5", stream).to_string();
        let call = app.post("/v1/messages", &[("x-claude-code-session-id", session)], body).await;
        let mut pre = tool("PreToolUse", "toolu_1");
        pre["session_id"] = json!("a session that nobody saw");
        let stop = json!({"session_id": session, "hook_event_name": "Stop"});
        for body in [pre, stop] {
            let reply = report(&app, &body).await;
            assert_eq!(reply.header("x-trace-id"), call.header("x-trace-id"), "{body}");
        }
    }
    let other = report(&app, &tool("PreToolUse", "toolu_unknown")).await;
    let rows = trace_of(&app, &other).await;
    assert_eq!(rows.len(), 1, "a trace of its own: {rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_that_the_client_was_recorded_to_understand() {
    let decisions = file("decisions.json");
    for (name, rule) in [
        ("deny", json!({"name": "a", "on": ["PreToolUse"], "then": {"block": "policy P-17 forbids"}})),
        (
            "rewrite",
            json!({"name": "a", "on": ["PreToolUse"], "then": {"replace": {"command": "echo REWRITTEN"}}}),
        ),
        (
            "prompt_block",
            json!({"name": "a", "on": ["UserPromptSubmit"], "then": {"block": "prompt refused by policy"}}),
        ),
        (
            "prompt_ctx",
            json!({"name": "a", "on": ["UserPromptSubmit"], "then": {"add_context": "tenant rule 1"}}),
        ),
        (
            "post",
            json!({"name": "a", "on": ["PostToolUse"], "then": {"replace": {"stdout": "REDACTED", "stderr": "",
            "interrupted": false, "isImage": false}}}),
        ),
    ] {
        let app = TestApp::with(|config| rules(config, json!([rule]))).await;
        let reply = report(&app, &decisions[name]["request"]["body"]).await;
        let answer = reply.json();
        // Reasons name the hook; texts that the recording has besides are not this hook's.
        let mut expected = decisions[name]["response"]["body"].clone();
        for reason in ["/reason", "/hookSpecificOutput/permissionDecisionReason"] {
            if let Some(reason) = expected.pointer_mut(reason) {
                *reason = json!(format!("[sallyport/event-rules] {}", reason.as_str().unwrap()));
            }
        }
        expected.as_object_mut().unwrap().remove("systemMessage");
        if let Some(specific) =
            expected["hookSpecificOutput"].as_object_mut().filter(|_| name != "prompt_ctx")
        {
            specific.remove("additionalContext");
        }
        if expected["hookSpecificOutput"].is_null() {
            expected.as_object_mut().unwrap().remove("hookSpecificOutput");
        }
        assert_eq!(answer, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_goes_to_the_user_and_a_no_counts_before_it() {
    let ask = json!([{"name": "ask", "on": ["PreToolUse"], "then": {"ask": "sure?"}}]);
    let no = json!([{"name": "no", "on": ["PreToolUse"], "contains": ["rm"], "then": {"block": "never"}}]);
    let app = TestApp::with(|config| rules(rules(config, ask), no)).await;
    let decision = async |command: &str| {
        let mut body = tool("PreToolUse", "toolu_1");
        body["tool_input"]["command"] = json!(command);
        report(&app, &body).await.json()["hookSpecificOutput"]["permissionDecision"].clone()
    };
    assert_eq!(decision("ls").await, "ask");
    assert_eq!(decision("rm x").await, "deny");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_read_is_refused_and_leaves_a_row() {
    let app = TestApp::start().await;
    let stop = json!({"session_id": "s", "hook_event_name": "Stop"});
    for (target, body) in [
        ("/v1/hooks/PreToolUse", stop.to_string()),
        ("/v1/hooks/Stop", "{".to_owned()),
        ("/v1/hooks/Stop", json!({"session_id": 1, "hook_event_name": "Stop"}).to_string()),
        ("/v1/hooks/PreToolUse", json!({"session_id": "s", "hook_event_name": "PreToolUse"}).to_string()),
    ] {
        let reply = app.post(target, &[], body.clone()).await;
        assert_eq!(
            (reply.status, reply.error_type().as_str()),
            (400, "invalid_request_error"),
            "{body}: {reply}"
        );
    }
    let refused = until("the refusals are rows", SOON, || {
        let rows = app.audit_rows();
        let refused = rows.iter().filter(|row| row["payload"]["code"] == "report_malformed").count();
        std::future::ready((refused == 4).then_some(refused))
    })
    .await;
    assert_eq!(refused, 4);
    for event in ["PreCompact", "stop", "..", "Stop%2f"] {
        let reply = app.post(&format!("/v1/hooks/{event}"), &[], stop.to_string()).await;
        assert_eq!(reply.status, 404, "{event}: {reply}");
    }
    assert_eq!(app.get("/v1/hooks/Stop").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_more_than_a_mebibyte_is_refused() {
    let app = TestApp::start().await;
    let body = |bytes: usize| {
        let mut body = json!({"session_id": "s", "hook_event_name": "Stop", "last_assistant_message": ""});
        let rest = bytes - body.to_string().len();
        body["last_assistant_message"] = json!("x".repeat(rest));
        body.to_string()
    };
    let largest = app.post("/v1/hooks/Stop", &[], body(1024 * 1024)).await;
    assert_eq!(largest.status, 200, "{largest}");
    let larger = app.post("/v1/hooks/Stop", &[], body(1024 * 1024 + 1)).await;
    assert_eq!((larger.status, larger.error_type().as_str()), (413, "request_too_large"), "{larger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_reports_nothing_and_leaves_a_row() {
    let app = TestApp::start().await;
    let stop = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
    for headers in [&[][..], &[("authorization", "Bearer nonsense")]] {
        let reply = app.client().send("POST", "/v1/hooks/Stop", headers, Bytes::from(stop.clone())).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (401, "authentication_error"), "{reply}");
    }
    // What exists is nobody's business who is not known.
    let reply = app.client().send("POST", "/v1/hooks/Nothing", &[], Bytes::from(stop)).await;
    assert_eq!(reply.status, 401);
    until("the refusals are rows", SOON, || {
        let refused =
            app.audit_rows().iter().filter(|row| row["kind"] == "auth" && row["outcome"] == "denied").count();
        std::future::ready((refused == 3).then_some(()))
    })
    .await;
    assert!(app.audit_rows().iter().all(|row| row["kind"] != "hook"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_touch_each_others_traces() {
    let app = TestApp::start().await;
    app.cli(&["tenant", "create", "other"]);
    app.cli(&["user", "create", "mallory", "--tenant", "other"]);
    let minted =
        app.cli_json(&["gateway", "pat", "create", "--user", "mallory", "--tenant", "other", "--name", "t"]);
    let bearer = format!("Bearer {}", minted["token"].as_str().unwrap());
    app.upstream.script(Script::Turn(vec![Turn::Tool(
        "toolu_1".into(),
        "Bash".into(),
        json!({"command": "ls"}),
    )]));
    let call = app.post("/v1/messages", &[("x-claude-code-session-id", "s")], hello().to_string()).await;
    let own = call.header("x-trace-id").unwrap().to_owned();
    for body in [tool("PreToolUse", "toolu_1"), json!({"session_id": "s", "hook_event_name": "Stop"})] {
        let event = body["hook_event_name"].as_str().unwrap();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let target = format!("/v1/hooks/{event}");
        let reply = app.client().send("POST", &target, &headers, Bytes::from(body.to_string())).await;
        assert_eq!(reply.status, 200, "{reply}");
        assert_ne!(reply.header("x-trace-id"), Some(own.as_str()), "{event}");
        let rows = trace_of(&app, &reply).await;
        assert!(rows.iter().all(|row| row["tenant_id"] == "other"), "{rows:?}");
    }
    let rows = app.lineage(&own).await;
    assert!(rows.iter().all(|row| row["tenant_id"] != "other"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_end_was_reported_begins_anew() {
    let rule = json!([{"name": "a", "on": ["SessionStart"], "contains": ["never"], "then": {"block": "no"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for _ in 0..2 {
        let reply = app.post("/v1/messages", &[("x-claude-code-session-id", "s")], hello().to_string()).await;
        let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
        assert_eq!(about(&rows, "SessionStart").len(), 1, "{rows:?}");
        let end = json!({"session_id": "s", "hook_event_name": "SessionEnd", "reason": "clear"});
        assert_eq!(report(&app, &end).await.status, 200);
    }
}
