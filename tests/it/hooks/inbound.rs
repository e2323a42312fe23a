//! What a request brings: prompts, answers of tools, the beginning and the end of a session, seen in the traffic alone.

use std::path::Path;

use sallyport_tests::client::{Reply, assert_legal};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use super::{about, asking, rules};
use crate::{ask, hello};

const MODELS: [&str; 2] = ["claude-sonnet-4-5", "gpt-5"];
const SESSION: &str = "x-claude-code-session-id";

/// A recorded request of Claude Code.
fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/claude-code/{name}.json"));
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["request"]["body"].clone()
}

async fn in_session(app: &TestApp, session: &str, body: &Value) -> Reply {
    app.post("/v1/messages", &[(SESSION, session)], body.to_string()).await
}

async fn rows_of(app: &TestApp, reply: &Reply) -> Vec<Value> {
    app.lineage(reply.header("x-trace-id").unwrap()).await
}

/// A conversation in which a tool has just answered. Each model's call has its own id.
fn answered(model: &str, answer: &Value, is_error: bool) -> Value {
    let id = format!("toolu_{model}");
    json!({"model": model, "max_tokens": 64, "messages": [
        {"role": "user", "content": "Which host?"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": id, "name": "Bash", "input": {"command": "hostname"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": answer, "is_error": is_error}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_prompt_never_reaches_the_upstream_and_says_which_hook_and_why() {
    let rule = json!([{"name": "nightjar", "on": ["UserPromptSubmit"], "contains": ["Nightjar"],
        "then": {"block": "not for models"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for model in MODELS {
        for stream in [false, true] {
            let mut body = ask(model, "About Night\u{6a}ar.");
            body["stream"] = json!(stream);
            // A client that tries again is refused again.
            for _ in 0..2 {
                let reply = app.messages(body.clone()).await;
                assert_eq!((reply.status, reply.error_type().as_str()), (451, "permission_error"), "{reply}");
                assert!(reply.to_string().contains("sallyport/event-rules: not for models"), "{reply}");
                assert_eq!(reply.header("x-sallyport-code"), Some("hook_blocked"));
                assert_eq!(reply.header("x-sallyport-policy"), Some("sallyport/event-rules"));
                let rows = rows_of(&app, &reply).await;
                let [hook] = about(&rows, "UserPromptSubmit")[..] else { panic!("{rows:?}") };
                assert_eq!(
                    (hook["outcome"].as_str(), hook["payload"]["verdict"].as_str()),
                    (Some("denied"), Some("block"))
                );
                assert_eq!(hook["payload"]["digest"].as_str().unwrap().len(), 64);
                assert_eq!(hook["payload"]["in_band"], true);
                assert!(hook["payload"]["micros"].as_u64().unwrap() > 0);
                assert_eq!(app.row_of(&reply).await["outcome"], "denied");
            }
        }
    }
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(app.messages(hello()).await.status, 200);
    app.reload(|config| config.set("/deny", json!({"status": "answer"})));
    let told = until("the denial is told as an answer", SOON, || async {
        Some(app.messages(ask("claude-sonnet-4-5", "Nightjar")).await).filter(|reply| reply.status == 200)
    })
    .await;
    assert!(told.text().contains("not for models"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_be_asked_a_question_is_a_no() {
    let rule = json!([{"name": "q", "on": ["UserPromptSubmit"], "then": {"ask": "is it urgent?"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 451, "{reply}");
    assert!(reply.to_string().contains("is it urgent? (nobody can be asked here)"), "{reply}");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_judged_once_and_its_context_stands_in_every_step_of_its_tool_loop() {
    let rule =
        json!([{"name": "rule", "on": ["UserPromptSubmit"], "then": {"add_context": "tenant rule 1"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    let added = json!({"type": "text", "text": "tenant rule 1"});
    for (name, judged) in [("tool_loop_03", 1), ("tool_loop_10", 0)] {
        let body = recorded(name);
        let reply = in_session(&app, "loop", &body).await;
        assert_eq!(reply.status, 200, "{reply}");
        let rows = rows_of(&app, &reply).await;
        assert_eq!(about(&rows, "UserPromptSubmit").len(), judged, "{name}: {rows:?}");
        let mut sent = app.upstream.last().json();
        let first = sent["messages"][0]["content"].as_array_mut().unwrap();
        assert_eq!(first.pop().as_ref(), Some(&added), "{name}");
        assert_eq!(sent, body, "{name}: nothing else is changed");
        let payload = &app.row_of(&reply).await["payload"];
        let edited = &payload["edited"];
        assert_eq!((edited["contexts"].as_u64(), edited["tool_results"].as_u64()), (Some(1), Some(0)));
        assert_eq!(edited["body_bytes"].as_u64(), u64::try_from(app.upstream.last().body.len()).ok());
        assert_ne!(edited["body_blake3"], payload["body_blake3"], "the row names what came and what left");
    }
    // Counting is no prompt, but counts what would be sent.
    let mut count = recorded("tool_loop_10");
    count.as_object_mut().unwrap().retain(|key, _| matches!(key.as_str(), "model" | "messages"));
    let reply = app.post("/v1/messages/count_tokens", &[(SESSION, "loop")], count.to_string()).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert!(String::from_utf8_lossy(&app.upstream.last().body).contains("tenant rule 1"));
    assert!(about(&rows_of(&app, &reply).await, "UserPromptSubmit").is_empty());
    // The next prompt is judged, and the earlier one keeps its text.
    let mut next = recorded("tool_loop_10");
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "done"}));
    messages.push(json!({"role": "user", "content": "Again"}));
    let reply = in_session(&app, "loop", &next).await;
    assert_eq!(about(&rows_of(&app, &reply).await, "UserPromptSubmit").len(), 1);
    let sent = app.upstream.last().json();
    assert_eq!(sent["messages"][0]["content"].as_array().unwrap().last(), Some(&added));
    assert_eq!(sent["messages"][5]["content"], json!([{"type": "text", "text": "Again"}, added]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_behind_an_answer_or_in_an_unknown_loop_is_judged_all_the_same() {
    let rule = json!([{"name": "nightjar", "on": ["UserPromptSubmit"], "contains": ["Nightjar"],
        "then": {"block": "not for models"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    let mut beside = answered("claude-sonnet-4-5", &json!("host-1"), false);
    beside["messages"][2]["content"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "text", "text": "Nightjar?"}));
    assert_eq!(app.messages(beside).await.status, 451);
    let mut before = answered("claude-sonnet-4-5", &json!("host-1"), false);
    before["messages"][0]["content"] = json!("Nightjar?");
    assert_eq!(
        app.messages(before).await.status,
        451,
        "a prompt that nobody judged, in a loop that nobody saw"
    );
    let mut around = ask("claude-sonnet-4-5", "");
    let text = "<system-reminder>a</system-reminder> Nightjar <system-reminder>b</system-reminder>";
    around["messages"][0]["content"] = json!([{"type": "text", "text": text}]);
    assert_eq!(app.messages(around).await.status, 451, "between two reminders");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_of_a_request_goes_up_unjudged_however_a_client_arranges_it() {
    let rule = json!([{"name": "nightjar", "on": ["UserPromptSubmit"], "contains": ["Nightjar"],
        "then": {"block": "not for models"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    let user = |content: Value| json!({"role": "user", "content": content});
    let text = |text: &str| json!({"type": "text", "text": text});
    let model = json!({"role": "assistant", "content": "ok"});
    let forbidden = user(json!("About Nightjar."));
    let mut many: Vec<Value> =
        (0..100).flat_map(|n| [user(json!(format!("q {n}"))), model.clone()]).collect();
    many.push(user(json!("go on")));
    many[80] = forbidden.clone();
    for messages in [
        json!([forbidden, user(json!("go on"))]),
        json!([forbidden, model, user(json!("go on"))]),
        json!([user(json!([text("<system-reminder>Nightjar</system-reminder>")]))]),
        json!([user(json!([text("Night"), text("jar")]))]),
        json!([user(json!("a")), {"role": "system", "content": "Nightjar"}]),
        json!([user(
            json!([text("a"), {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Nightjar"}}])
        )]),
        json!([user(json!([{"type": "news", "x": "Nightjar"}]))]),
        json!([user(json!("a")), {"role": "assistant", "content": "Nightjar is"}]),
        json!(many),
    ] {
        for _ in 0..2 {
            let body = json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages});
            let reply = in_session(&app, "arranged", &body).await;
            let code = reply.header("x-sallyport-code").map(str::to_owned);
            assert_eq!((reply.status, code.as_deref()), (451, Some("hook_blocked")), "{body}: {reply}");
        }
    }
    assert_eq!(app.upstream.seen(), 0);
    // What nobody objects to is asked about once.
    many[80] = user(json!("fine"));
    for judged in [true, false] {
        let mut messages = many.clone();
        messages.push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]}));
        messages.push(user(
            json!([{"type": "tool_result", "tool_use_id": "t", "content": "Nightjar is a tool's word"}]),
        ));
        let body = json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages});
        let reply = in_session(&app, "arranged", &body).await;
        assert_eq!(reply.status, 200, "{reply}");
        let rows = rows_of(&app, &reply).await;
        assert_eq!(!about(&rows, "UserPromptSubmit").is_empty(), judged, "{rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scanners_look_at_what_hooks_added() {
    let key = "AKIAQ3EGRFZXNDOMVWJK";
    let rule =
        json!([{"name": "leak", "on": ["UserPromptSubmit"], "then": {"add_context": format!("use {key}")}}]);
    let app = TestApp::with(|config| {
        rules(config, rule).component("sallyport/secret-scan", json!({"action": "deny"}))
    })
    .await;
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 451, "{reply}");
    assert_eq!(reply.header("x-sallyport-policy"), Some("sallyport/secret-scan"));
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_once_and_its_context_stands_at_the_beginning() {
    let rule = json!([{"name": "house", "on": ["SessionStart"], "contains": ["startup"],
        "then": {"add_context": "house rules"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for (session, began) in [("one", 1), ("one", 0), ("two", 1), ("one", 0)] {
        let reply = in_session(&app, session, &hello()).await;
        let rows = rows_of(&app, &reply).await;
        assert_eq!(about(&rows, "SessionStart").len(), began, "{session}: {rows:?}");
        let content = &app.upstream.last().json()["messages"][0]["content"];
        assert_eq!(content[1]["text"], "house rules", "{content}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_not_begin_is_asked_about_again() {
    let rule = json!([{"name": "closed", "on": ["SessionStart"], "then": {"block": "closed today"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for _ in 0..2 {
        let reply = in_session(&app, "one", &hello()).await;
        assert_eq!(reply.status, 451, "{reply}");
        assert!(reply.to_string().contains("closed today"), "{reply}");
    }
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_tool_is_masked_for_good_on_every_wire() {
    let rule = json!([{"name": "hosts", "on": ["PostToolUse"], "tools": ["Bash"], "contains": ["10.0.0."],
        "then": {"mask": "[internal]"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for model in MODELS {
        let id = format!("toolu_{model}");
        for answer in [json!("at 10.0.0.7"), json!([{"type": "text", "text": "at 10.0.0.7"}])] {
            let step = answered(model, &answer, false);
            let mut later = step.clone();
            let messages = later["messages"].as_array_mut().unwrap();
            messages.push(json!({"role": "assistant", "content": "There."}));
            messages.push(json!({"role": "user", "content": "Thanks"}));
            for (body, judged) in [(&step, 1), (&step, 0), (&later, 0)] {
                let reply = app.messages(body.clone()).await;
                assert_eq!(reply.status, 200, "{reply}");
                let sent = String::from_utf8_lossy(&app.upstream.last().body).into_owned();
                assert!(sent.contains("at [internal]7") && !sent.contains("10.0.0."), "{model}: {sent}");
                let rows = rows_of(&app, &reply).await;
                let about = about(&rows, "PostToolUse");
                assert_eq!(about.len(), judged, "{model}: {rows:?}");
                if let [row] = about[..] {
                    let payload = &row["payload"];
                    assert_eq!(
                        (
                            payload["verdict"].as_str(),
                            payload["tool"].as_str(),
                            payload["tool_use_id"].as_str()
                        ),
                        (Some("modify"), Some("Bash"), Some(id.as_str()))
                    );
                }
            }
        }
    }
    // What the gateway has forgotten, it asks again.
    app.kill();
    app.launch().await;
    let mut later = answered("claude-sonnet-4-5", &json!("at 10.0.0.7"), false);
    let messages = later["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "There."}));
    messages.push(json!({"role": "user", "content": "Thanks"}));
    let reply = app.messages(later).await;
    assert!(!String::from_utf8_lossy(&app.upstream.last().body).contains("10.0.0."));
    assert_eq!(about(&rows_of(&app, &reply).await, "PostToolUse").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_answer_is_replaced_by_the_reason_and_the_conversation_goes_on() {
    let rule = json!([{"name": "payroll", "on": ["PostToolUse"], "contains": ["salary"], "then": {"block": "payroll"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for model in MODELS {
        for stream in [false, true] {
            let mut body = answered(model, &json!("salary: 1"), false);
            body["stream"] = json!(stream);
            let reply = app.messages(body).await;
            assert_eq!(reply.status, 200, "{reply}");
            let sent = String::from_utf8_lossy(&app.upstream.last().body).into_owned();
            assert!(!sent.contains("salary"), "{sent}");
            assert!(
                sent.contains("[sallyport/event-rules withheld what the tool Bash answered: payroll]"),
                "{sent}"
            );
        }
    }
    let counted = answered("claude-sonnet-4-5", &json!("salary: 2"), false);
    let reply = app.post("/v1/messages/count_tokens", &[], counted.to_string()).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert!(!String::from_utf8_lossy(&app.upstream.last().body).contains("salary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_tool_is_told_as_such_with_its_call() {
    let rule = json!([
        {"name": "failed", "on": ["PostToolUseFailure"], "tools": ["Read"], "contains": ["does not exist"],
            "then": {"add_context": "look before you read"}},
        {"name": "worked", "on": ["PostToolUse"], "tools": ["Bash"], "contains": ["hook-ok"], "then": {"replace": "fine"}},
    ]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    let body = recorded("tool_loop_10");
    let reply = in_session(&app, "loop", &body).await;
    let rows = rows_of(&app, &reply).await;
    let ([failed], [worked]) = (&about(&rows, "PostToolUseFailure")[..], &about(&rows, "PostToolUse")[..])
    else {
        panic!("{rows:?}")
    };
    assert_eq!(
        (failed["payload"]["verdict"].as_str(), failed["payload"]["tool"].as_str()),
        (Some("add-context"), Some("Read"))
    );
    assert_eq!(
        (worked["payload"]["verdict"].as_str(), worked["payload"]["tool"].as_str()),
        (Some("modify"), Some("Bash"))
    );
    let mut expected = body;
    let last = expected["messages"].as_array_mut().unwrap().last_mut().unwrap();
    let blocks = last["content"].as_array_mut().unwrap();
    blocks[1]["content"] = json!("fine");
    blocks.push(json!({"type": "text", "text": "look before you read"}));
    assert_eq!(app.upstream.last().json(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_turn_is_told_and_cannot_be_held_back() {
    let rule =
        json!([{"name": "more", "on": ["Stop"], "contains": ["All done"], "then": {"block": "go on"}}]);
    let app = TestApp::with(|config| rules(config, rule)).await;
    for model in MODELS {
        for stream in [false, true] {
            app.upstream.script(Script::text("All done."));
            let reply = app.messages(asking(model, stream)).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "All done."), "{reply}");
            if stream {
                assert_legal(&reply.events());
            }
            let rows = rows_of(&app, &reply).await;
            let [stop] = about(&rows, "Stop")[..] else { panic!("{model}: {rows:?}") };
            let payload = &stop["payload"];
            assert_eq!(
                (payload["verdict"].as_str(), payload["ignored"].as_bool()),
                (Some("block"), Some(true))
            );
            assert_eq!(stop["outcome"], "allowed");

            app.upstream.script(Script::Turn(vec![
                Turn::Text("All done?".into()),
                Turn::Tool("toolu_1".into(), "Bash".into(), json!({"command": "ls"})),
            ]));
            let reply = app.messages(asking(model, stream)).await;
            assert!(
                about(&rows_of(&app, &reply).await, "Stop").is_empty(),
                "a turn that goes on has not ended"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_falls_silent_has_ended() {
    let rule = json!([{"name": "bye", "on": ["SessionEnd"], "contains": ["idle"], "then": {"block": "no"}}]);
    let app =
        TestApp::with(|config| rules(config, rule).set("/hooks", json!({"session_idle_seconds": 1}))).await;
    let reply = in_session(&app, "short", &hello()).await;
    let rows = until("the end of the session is a row", SOON, || async {
        let rows = rows_of(&app, &reply).await;
        (!about(&rows, "SessionEnd").is_empty()).then_some(rows)
    })
    .await;
    let [end] = about(&rows, "SessionEnd")[..] else { panic!("told once: {rows:?}") };
    assert_eq!(end["payload"]["client_session"], "short");
    assert_eq!((end["outcome"].as_str(), end["payload"]["ignored"].as_bool()), (Some("allowed"), Some(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_matchers_and_failure_modes_hold_for_each_entry() {
    let block = |on: &str| json!({"rules": [{"name": "no", "on": [on], "then": {"block": "no"}}]});
    // A tool's input has to be an object: this answer cannot be used.
    let garbage = json!({"rules": [{"name": "bad", "on": ["PreToolUse"], "then": {"replace": "no object"}}]});
    let entry = |mode: &str, config: &Value, more: Value| {
        let mut entry = json!({"component": "sallyport/event-rules", "mode": mode, "config": config});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let bundle = json!([
        entry("shadow", &block("UserPromptSubmit"), json!({})),
        entry("off", &block("UserPromptSubmit"), json!({})),
        entry("enforce", &block("PreToolUse"), json!({"matcher": "Write|mcp__github__.*"})),
        entry("enforce", &garbage, json!({"matcher": "Bash", "on_fault": "continue"})),
        entry("enforce", &garbage, json!({"matcher": "Read"})),
    ]);
    let app = TestApp::with(|config| config.set("/bundle", bundle)).await;
    let tool = |id: &str, name: &str| Turn::Tool(id.into(), name.into(), json!({"x": 1}));
    app.upstream.script(Script::Turn(vec![
        tool("toolu_1", "Bash"),
        tool("toolu_2", "Read"),
        tool("toolu_3", "Write"),
        tool("toolu_4", "mcp__github__merge"),
        tool("toolu_5", "Glob"),
    ]));
    for stream in [false, true] {
        let reply = app.messages(asking("claude-sonnet-4-5", stream)).await;
        assert_eq!(reply.status, 200, "a shadow stops nobody: {reply}");
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        let released: Vec<_> = (1..=5).filter(|n| body.contains(&format!("toolu_{n}"))).collect();
        assert_eq!(released, [1, 5], "{body}");
        let rows = rows_of(&app, &reply).await;
        let [shadow] = about(&rows, "UserPromptSubmit")[..] else { panic!("off is not asked: {rows:?}") };
        let payload = &shadow["payload"];
        assert_eq!((payload["mode"].as_str(), payload["verdict"].as_str()), (Some("shadow"), Some("block")));
        assert_eq!(shadow["outcome"], "allowed", "a shadow denies nothing");
        let mut asked: Vec<_> = about(&rows, "PreToolUse")
            .iter()
            .filter(|row| row["payload"]["mode"] == "enforce")
            .map(|row| {
                let payload = &row["payload"];
                let text = |key: &str| payload[key].as_str().unwrap_or("-").to_owned();
                format!("{} {} {}", text("tool"), text("verdict"), text("on_fault"))
            })
            .collect();
        asked.sort();
        assert_eq!(
            asked,
            ["Bash garbage continue", "Read garbage block", "Write block -", "mcp__github__merge block -"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_says_of_a_policy_what_is_for_hooks_is_refused() {
    let app = TestApp::start().await;
    app.reload(|config| {
        config.set("/bundle", json!([{"component": "sallyport/scope", "config": {}, "matcher": "Bash"}]))
    });
    until("the reload is refused", SOON, || async {
        app.log()
            .contains("matcher, on_fault and timeout_ms are for hooks, and this is a policy")
            .then_some(())
    })
    .await;
    assert_eq!(app.messages(hello()).await.status, 200, "the last good bundle stays in force");
}
