//! Reports as the client sends them, and answers as it reads them.

use serde_json::{Value, json};

use super::*;

fn tool(event: &str) -> Value {
    json!({"session_id": "s", "prompt_id": "p", "cwd": "/x", "effort": {"level": "medium"}, "hook_event_name": event,
        "tool_name": "Bash", "tool_input": {"command": "ls", "n": 1.50}, "tool_use_id": "toolu_1"})
}

fn parse(event: HookEvent, body: &Value) -> Result<Report, ReportError> {
    Report::parse(event, body.to_string().as_bytes())
}

#[test]
fn a_tool_call_is_read_and_what_is_not_known_is_passed_over() {
    let report = parse(HookEvent::PreToolUse, &tool("PreToolUse")).unwrap();
    assert_eq!((report.session.as_str(), report.prompt.as_deref()), ("s", Some("p")));
    let call = report.what.tool().unwrap();
    assert_eq!((call.id.as_str(), call.name.as_str()), ("toolu_1", "Bash"));
    assert_eq!(call.input, r#"{"command":"ls","n":1.5}"#);
    assert_eq!(report.what.subject(), Some("Bash"));
}

#[test]
fn an_answer_of_text_is_text_and_any_other_is_json() {
    for (response, expected) in
        [(json!("hi \"x\""), "hi \"x\""), (json!({"stdout": "hi"}), r#"{"stdout":"hi"}"#)]
    {
        let mut body = tool("PostToolUse");
        body["tool_response"] = response;
        body["duration_ms"] = json!(7);
        let Reported::PostToolUse { output, duration_ms, .. } =
            parse(HookEvent::PostToolUse, &body).unwrap().what
        else {
            panic!("another event")
        };
        assert_eq!((output.as_str(), duration_ms), (expected, Some(7)));
    }
}

#[test]
fn a_report_sent_as_another_event_is_refused() {
    let error = parse(HookEvent::PostToolUse, &tool("PreToolUse")).unwrap_err();
    assert!(matches!(error, ReportError::OtherEvent { wanted: HookEvent::PostToolUse, .. }), "{error}");
    let error = parse(HookEvent::PreToolUse, &tool("PreCompact")).unwrap_err();
    assert_eq!(error.to_string(), "the report is of PreCompact, but was sent as PreToolUse");
}

#[test]
fn what_is_read_has_its_type_and_stands_once() {
    let missing = |key: &str| {
        let mut body = tool("PreToolUse");
        body.as_object_mut().unwrap().remove(key);
        body
    };
    for key in ["session_id", "hook_event_name", "tool_name", "tool_input", "tool_use_id"] {
        assert!(parse(HookEvent::PreToolUse, &missing(key)).is_err(), "{key}");
        let mut body = tool("PreToolUse");
        if key != "tool_input" {
            body[key] = json!(5);
            assert!(parse(HookEvent::PreToolUse, &body).is_err(), "{key}");
        }
    }
    for (key, value) in [("session_id", ""), ("tool_use_id", "a\nb"), ("tool_name", &"x".repeat(257))] {
        let mut body = tool("PreToolUse");
        body[key] = json!(value);
        assert!(
            matches!(parse(HookEvent::PreToolUse, &body), Err(ReportError::Id(name)) if name == key),
            "{key}"
        );
    }
    let twice = br#"{"session_id":"s","hook_event_name":"Stop","hook_event_name":"Stop"}"#;
    assert!(Report::parse(HookEvent::Stop, twice).is_err());
    for body in ["", "[]", "null", "{", "\u{feff}{}"] {
        assert!(
            matches!(Report::parse(HookEvent::Stop, body.as_bytes()), Err(ReportError::Shape(_))),
            "{body}"
        );
    }
}

fn answer(event: HookEvent, decision: Decision, modified: Option<&str>, context: Option<&str>) -> Value {
    let modified = modified.map(|json| RawValue::from_string(json.to_owned()).unwrap());
    let answer = Answer { decision, modified, context: context.map(str::to_owned) };
    serde_json::from_str(&answer.to_json(event)).unwrap()
}

#[test]
fn nothing_to_say_is_an_empty_object_and_never_an_approval() {
    for event in HookEvent::ALL {
        assert_eq!(answer(event, Decision::Proceed, None, None), json!({}), "{event}");
    }
}

#[test]
fn a_tool_call_is_denied_asked_about_or_rewritten() {
    let pre = HookEvent::PreToolUse;
    assert_eq!(
        answer(pre, Decision::Block("no".into()), Some(r#"{"a":1}"#), None),
        json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "deny",
            "permissionDecisionReason": "no"}})
    );
    assert_eq!(
        answer(pre, Decision::Ask("sure?".into()), None, None),
        json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "ask",
            "permissionDecisionReason": "sure?"}})
    );
    assert_eq!(
        answer(pre, Decision::Proceed, Some(r#"{"n":1.50}"#), Some("ctx")),
        json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "allow",
            "updatedInput": {"n": 1.5}, "additionalContext": "ctx"}})
    );
}

#[test]
fn other_events_are_blocked_by_a_decision() {
    let no = || Decision::Block("no".into());
    for event in
        [HookEvent::UserPromptSubmit, HookEvent::PostToolUse, HookEvent::Stop, HookEvent::SubagentStop]
    {
        assert_eq!(answer(event, no(), None, None), json!({"decision": "block", "reason": "no"}), "{event}");
    }
    assert_eq!(
        answer(HookEvent::SessionStart, no(), None, None),
        json!({"continue": false, "stopReason": "no"})
    );
    assert_eq!(
        answer(HookEvent::PostToolUse, Decision::Proceed, Some(r#"{"stdout":""}"#), None),
        json!({"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": {"stdout": ""}}})
    );
    assert_eq!(
        answer(HookEvent::UserPromptSubmit, Decision::Proceed, None, Some("rule 1")),
        json!({"hookSpecificOutput": {"hookEventName": "UserPromptSubmit", "additionalContext": "rule 1"}})
    );
}
