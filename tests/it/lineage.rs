//! What belongs together: calls, reports and repetitions of one prompt, by the names that Claude Code gives them.

use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Fault, Script, Turn};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::{ask, hello};

const SESSION: &str = "3f0e0ec1-6e1c-4f43-8f2a-4a4f3d8e9c11";

/// A call of Claude Code for one prompt of its session.
async fn call_for(app: &TestApp, prompt: &str, more: &[(&str, &str)], body: &Value) -> Reply {
    let mut headers = vec![("x-claude-code-session-id", SESSION), ("x-claude-code-prompt-id", prompt)];
    headers.extend_from_slice(more);
    app.post("/v1/messages", &headers, body.to_string()).await
}

/// What Claude Code reports of the same session.
async fn report_for(app: &TestApp, event: &str, prompt: &str, more: Value) -> Reply {
    let mut body = json!({"session_id": SESSION, "hook_event_name": event, "prompt_id": prompt});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = app.post(&format!("/v1/hooks/{event}"), &[], body.to_string()).await;
    assert_eq!(reply.status, 200, "{event}: {reply}");
    reply
}

fn session_rows(app: &TestApp, arguments: &[&str]) -> Vec<Value> {
    let session = format!("sess_{SESSION}");
    let asked = [&["audit", "session", session.as_str()], arguments].concat();
    app.cli_json(&asked).as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_reports_of_a_session_are_joined_and_so_are_those_of_one_prompt() {
    let app = TestApp::start().await;
    let tool = Turn::Tool("toolu_1".into(), "Bash".into(), json!({"command": "ls"}));
    app.upstream.script(Script::ToolLoop(vec![tool], "Done.".to_owned()));
    report_for(&app, "UserPromptSubmit", "p1", json!({"prompt": "List."})).await;
    let first = call_for(&app, "p1", &[], &hello()).await;
    let ran = json!({"tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_use_id": "toolu_1"});
    let pre = report_for(&app, "PreToolUse", "p1", ran).await;
    assert_eq!(pre.header("x-trace-id"), first.header("x-trace-id"), "the call that asked for the tool");
    let mut body = hello();
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": first.json()["content"]}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a"}]}),
    ]);
    let second = call_for(&app, "p1", &[], &body).await;
    let submitted = report_for(&app, "UserPromptSubmit", "p2", json!({"prompt": "Again."})).await;
    assert_ne!(submitted.header("x-trace-id"), second.header("x-trace-id"), "no part of the call before");
    let third = call_for(&app, "p2", &[], &hello()).await;
    app.messages(hello()).await;

    let of = |prompt: &'static str, wanted: usize| {
        let app = &app;
        until("all rows of the prompt are there", SOON, move || {
            let rows = session_rows(app, &["--prompt", prompt]);
            std::future::ready((rows.len() == wanted).then_some(rows))
        })
    };
    // Two reports; the first call, its tool and its cost; the second call and its cost.
    let rows = of("p1", 7).await;
    let traces: Vec<_> = rows.iter().map(|row| row["trace_id"].as_str().unwrap()).collect();
    for reply in [&first, &second] {
        assert!(traces.contains(&reply.header("x-trace-id").unwrap()), "{rows:?}");
    }
    assert_eq!(rows[0]["payload"]["event"], "UserPromptSubmit", "in order: {rows:?}");
    let rows = of("p2", 4).await;
    assert!(rows.iter().any(|row| row["trace_id"] == third.header("x-trace-id").unwrap()), "{rows:?}");
    assert_eq!(session_rows(&app, &[]).len(), 11, "the call without these names is of another session");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_says_of_session_and_source_no_header_changes() {
    let app = TestApp::start().await;
    let issued = app.post("/v1/auth/cowork/pat", &[], "").await.json();
    let bearer = format!("Bearer {}", issued["token"].as_str().unwrap());
    let agent = [("authorization", bearer.as_str()), ("x-claude-code-agent-id", "agent-1")];
    let row = app.row_of(&call_for(&app, "p1", &agent, &hello()).await).await;
    assert_eq!(row["session_id"], issued["headers"]["x-session-id"], "{row}");
    assert_eq!(row["call_source"], "cowork", "{row}");
    let payload = &row["payload"];
    assert_eq!((&payload["client_session"], &payload["agent_id"]), (&json!(SESSION), &json!("agent-1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subagents_calls_are_told_from_the_main_ones_and_rules_on_the_source_fit() {
    let rule = json!({"name": "no-gpt", "effect": "deny", "sources": ["subagent"], "models": ["gpt-*"]});
    let rule = json!({"default": "allow", "rules": [rule]});
    let app = TestApp::with(|config| config.component("sallyport/scope", rule)).await;
    let agent = [("x-claude-code-agent-id", "agent-1")];
    let class = [("x-claude-code-request-class", "subagent")];
    for (named, source) in [(&agent[..], "subagent"), (&class[..], "subagent"), (&[][..], "api")] {
        let row = app.row_of(&call_for(&app, "p1", named, &hello()).await).await;
        assert_eq!(row["call_source"], source, "{row}");
    }
    assert_eq!(call_for(&app, "p1", &[], &ask("gpt-5", "Hello")).await.status, 200);
    let denied = call_for(&app, "p1", &agent, &ask("gpt-5", "Hello")).await;
    assert_eq!(denied.status, 451, "{denied}");
    let row = app.row_of(&denied).await;
    assert_eq!(row["payload"]["agent_id"], "agent-1", "{row}");

    let stopped = json!({"agent_id": "agent-1", "agent_type": "explore", "stop_hook_active": false});
    let reply = report_for(&app, "SubagentStop", "p1", stopped).await;
    let trace = reply.header("x-trace-id").unwrap().to_owned();
    let row = until("the report has a row", SOON, || {
        let rows = app.cli_json(&["audit", "lineage", &trace]).as_array().cloned().unwrap_or_default();
        std::future::ready(rows.into_iter().find(|row| row["payload"]["event"] == "SubagentStop"))
    })
    .await;
    assert_eq!((&row["call_source"], &row["payload"]["agent_id"]), (&json!("subagent"), &json!("agent-1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn repetitions_of_a_turn_name_the_first_call_whatever_the_client_leaves_out() {
    let app = TestApp::start().await;
    app.upstream.script(Script::Fault(Fault::Status(529)));
    let mut body = hello();
    body["metadata"] = json!({"x": 1});
    let first = call_for(&app, "p1", &[], &body).await;
    assert_eq!(first.status, 529, "{first}");
    let row = app.row_of(&first).await;
    assert!(row["payload"].get("retry_of").is_none() && row["payload"].get("attempt").is_none(), "{row}");
    let first = first.header("x-trace-id").unwrap();
    let row = app.row_of(&call_for(&app, "p1", &[], &body).await).await;
    assert_eq!(
        (&row["payload"]["retry_of"], &row["payload"]["attempt"]),
        (&json!(first), &json!(2)),
        "{row}"
    );
    // After a refusal Claude Code leaves out one field after the other.
    app.upstream.script(Script::default());
    let row = app.row_of(&call_for(&app, "p1", &[], &hello()).await).await;
    assert_eq!(
        (&row["payload"]["retry_of"], &row["payload"]["attempt"]),
        (&json!(first), &json!(3)),
        "{row}"
    );

    // What was answered is not repeated, and another prompt, user or conversation repeats nothing.
    let row = app.row_of(&call_for(&app, "p1", &[], &hello()).await).await;
    assert!(row["payload"].get("attempt").is_none(), "{row}");
    app.upstream.script(Script::Fault(Fault::Status(529)));
    call_for(&app, "p1", &[], &body).await;
    for reply in [
        call_for(&app, "p2", &[], &body).await,
        call_for(&app, "p1", &[], &ask("claude-sonnet-4-5", "Another question")).await,
        app.messages(body.clone()).await,
    ] {
        let row = app.row_of(&reply).await;
        assert!(row["payload"].get("attempt").is_none(), "{row}");
    }
    // Without a session it is the same body that says so.
    let row = app.row_of(&app.messages(body).await).await;
    assert_eq!(row["payload"]["attempt"], 2, "{row}");
    let row = app.row_of(&app.messages(hello()).await).await;
    assert!(row["payload"].get("attempt").is_none(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_only_count_tokens_are_listed_where_somebody_asks_for_them() {
    let app = TestApp::start().await;
    let counted = app.post("/v1/messages/count_tokens", &[], hello().to_string()).await;
    app.row_of(&counted).await;
    app.row_of(&app.messages(hello()).await).await;
    let listed = app.cli_json(&["analytics", "requests", "list"]);
    let traces = |listed: &Value| -> Vec<String> {
        listed.as_array().unwrap().iter().map(|row| row["trace_id"].as_str().unwrap().to_owned()).collect()
    };
    let counts = counted.header("x-trace-id").unwrap().to_owned();
    assert_eq!((traces(&listed).len(), traces(&listed).contains(&counts)), (1, false), "{listed}");
    let all = app.cli_json(&["analytics", "requests", "list", "--count-tokens"]);
    assert_eq!((traces(&all).len(), traces(&all).contains(&counts)), (2, true), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_does_not_carry_is_told_from_what_an_upstream_refuses() {
    let app = TestApp::start().await;
    let mut body = ask("gpt-5", "Hello");
    body["safeguards"] = json!([{"type": "prompt_injection"}]);
    let reply = app.messages(body).await;
    assert_eq!(reply.status, 400, "{reply}");
    assert_eq!(reply.header("x-sallyport-code"), Some("provider_declined"), "{reply}");
    assert_eq!(app.upstream.seen(), 0);
    let row = app.row_of(&reply).await;
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("denied"), &json!("provider_declined")),
        "{row}"
    );
    assert_eq!(row["payload"]["status"], 400, "{row}");
    app.upstream.script(Script::error(400, "invalid_request_error", "no"));
    let row = app.row_of(&app.messages(ask("gpt-5", "Hello")).await).await;
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("error"), &json!("upstream_error")),
        "{row}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_nobody_counted_to_the_end_are_marked_on_the_call_and_on_its_cost() {
    let app = TestApp::start().await;
    for (model, worth) in [("gpt-5", "estimated"), ("claude-sonnet-4-5", "partial")] {
        let mut body = ask(model, "Hello");
        body["stream"] = json!(true);
        app.upstream.script(Script::default());
        let row = app.row_of(&app.messages(body.clone()).await).await;
        assert!(row["payload"].get("usage").is_none(), "counted to the end: {row}");

        app.upstream.script(Script::Fault(Fault::CutMidEvent));
        let reply = app.messages(body).await;
        let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
        for kind in ["inference", "cost"] {
            let row = rows.iter().find(|row| row["kind"] == kind).unwrap();
            assert_eq!(row["payload"]["usage"], worth, "{model} {kind}: {row}");
        }
    }
}
