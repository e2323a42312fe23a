use super::*;
use crate::component::contract::BodyView as _;

const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

fn samples(cases: &[(&str, Value)]) -> Samples {
    let mut samples = Samples::default();
    for (name, case) in cases {
        samples.add(name, case.to_string().as_bytes()).unwrap();
    }
    samples
}

fn refused(case: Value, kind: Kind) -> String {
    samples(&[("case", case)]).read(kind).unwrap_err().to_string()
}

fn event() -> Value {
    json!({"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": "ls"}})
}

#[test]
fn samples_travel_inside_the_component_and_leave_it_valid() {
    let samples = samples(&[
        ("b", json!({"event": event()})),
        ("a", json!({"event": event(), "about": "x".repeat(300)})),
    ]);
    let component = samples.put_into(EMPTY).unwrap();
    assert_eq!(Samples::carried(&component).unwrap(), samples);
    wasmparser::Validator::new_with_features(crate::component::inspect::features())
        .validate_all(&component)
        .unwrap();
    let names: Vec<_> = samples.read(Kind::Hook).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(matches!(samples.put_into(&component), Err(SampleError::Twice)));
}

#[test]
fn a_component_without_samples_carries_none_and_neither_does_garbage() {
    assert!(Samples::carried(EMPTY).unwrap().is_empty());
    assert!(Samples::carried(b"no wasm").unwrap().is_empty());
}

#[test]
fn samples_that_stand_there_twice_or_are_no_json_are_refused() {
    let section = |json: &str| {
        let mut content = leb128(SECTION.len());
        content.extend_from_slice(SECTION.as_bytes());
        content.extend_from_slice(json.as_bytes());
        [&[0][..], &leb128(content.len()), &content].concat()
    };
    let twice = [EMPTY, &section("{}"), &section("{}")].concat();
    assert!(matches!(Samples::carried(&twice), Err(SampleError::Twice)));
    for json in ["[]", "{", "{\"a\":{},\"a\":{}}", "{\"a\":9007199254740993}"] {
        let component = [EMPTY, &section(json)].concat();
        assert!(matches!(Samples::carried(&component), Err(SampleError::Json(_))), "{json}");
    }
    let large = [EMPTY, &section(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES)))].concat();
    assert!(matches!(Samples::carried(&large), Err(SampleError::TooLarge(_))));
    let many: Map<String, Value> = (0..=MAX_SAMPLES).map(|n| (n.to_string(), json!({}))).collect();
    let many = [EMPTY, &section(&Value::Object(many).to_string())].concat();
    assert!(matches!(Samples::carried(&many), Err(SampleError::TooMany(65))));
}

#[test]
fn a_misspelt_key_is_named_and_so_is_what_belongs_to_another_kind() {
    for (case, kind, reason) in [
        (json!({"event": event(), "expects": {}}), Kind::Hook, "unknown field `expects`"),
        (
            json!({"event": {"hook_event_name": "PreToolUse", "tool": "Bash"}}),
            Kind::Hook,
            "unknown field `tool`",
        ),
        (json!({"event": {"hook_event_name": "PreTool"}}), Kind::Hook, "unknown variant `PreTool`"),
        (json!({"event": event(), "principal": {"role": []}}), Kind::Hook, "unknown field `role`"),
        (json!({"event": event(), "config": []}), Kind::Hook, "`config` is no object"),
        (json!({"event": event(), "text": "a"}), Kind::Hook, "`text` is not for a hook"),
        (json!({"text": "a"}), Kind::Policy, "a policy is given a `call`"),
        (json!({"call": {"modle": "a"}}), Kind::Policy, "unknown field `modle`"),
        (json!({"text": "a", "text_kind": "prose"}), Kind::Scanner, "unknown variant `prose`"),
        (json!({}), Kind::Provider, "a provider is given a `request`"),
    ] {
        let said = refused(case, kind);
        assert!(said.contains(reason) && said.starts_with("the sample case"), "{reason}: {said}");
    }
}

#[test]
fn the_facts_of_a_call_come_from_its_body_unless_they_are_said() {
    let body = json!({"model": "claude-opus-4-5", "max_tokens": 7, "stream": true, "tools": [{"name": "Bash"}],
        "messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]});
    let case = json!({"call": {"region": "eu"}, "body": body, "principal": {"roles": ["ops"]}});
    let (_, sample) = samples(&[("case", case)]).read(Kind::Policy).unwrap().remove(0);
    let (call, body) = sample.call();
    assert_eq!((call.model.as_ref(), call.max_tokens, call.streaming), ("claude-opus-4-5", Some(7), true));
    assert_eq!(
        (&*call.tools, call.message_count, call.region.as_deref()),
        (&["Bash".to_owned()][..], 2, Some("eu"))
    );
    assert_eq!(*call.principal.roles, ["ops"]);
    let texts: Vec<_> = body.texts().into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["one", "two", "\"model\":\"claude-opus-4-5\"", "{\"name\":\"Bash\"}"]);
}

#[test]
fn an_answer_has_to_contain_what_is_expected_and_may_say_more() {
    let met = |expect: Value, answer: Value| {
        let case = json!({"event": event(), "expect": expect});
        samples(&[("case", case)]).read(Kind::Hook).unwrap().remove(0).1.is_met_by(&answer)
    };
    assert!(met(json!({"outcome": "block"}), json!({"outcome": "block", "reason": "no"})));
    assert!(!met(json!({"outcome": "block", "reason": "yes"}), json!({"outcome": "block", "reason": "no"})));
    assert!(!met(json!({"findings": [{}]}), json!({"findings": []})), "lists are of one length");
    assert!(met(json!({"findings": [{"rule": "a"}]}), json!({"findings": [{"rule": "a", "start": 0}]})));
    assert!(met(json!({"fault": "trap"}), json!({"fault": "trap", "what": "unreachable"})));
    let (_, silent) = samples(&[("case", json!({"event": event()}))]).read(Kind::Hook).unwrap().remove(0);
    assert!(silent.is_met_by(&json!({"outcome": "block"})));
    assert!(!silent.is_met_by(&json!({"fault": "trap"})));
    assert!(!silent.is_met_by(&json!({"configure": "refused", "message": "no"})));
}
