//! What the policy says to calls, natively.

use sallyport_guest_sdk::{
    RefusalKind,
    testing::{FakeBody, FakeHost, call, configured},
};

use super::*;

/// The code of the refusal, or `allow`.
fn code(config: &str, call: &Call) -> String {
    match verdict(config, call) {
        Verdict::Allow => "allow".into(),
        Verdict::Deny(refusal) => refusal.code,
        other => panic!("neither yes nor no: {other:?}"),
    }
}

fn verdict(config: &str, call: &Call) -> Verdict {
    let policy = configured(config, Scope::configure).unwrap();
    policy.check(call, &FakeBody::default(), &FakeHost::default())
}

#[test]
fn without_a_rule_the_default_decides() {
    assert_eq!(code("{}", &call("any")), "allow");
    assert_eq!(code(r#"{"default":"deny"}"#, &call("any")), "no_rule_allows");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let config = r#"{"default":"deny","rules":[
        {"name":"no-preview","effect":"deny","models":["*-preview"]},
        {"name":"claude","effect":"allow","models":["claude-*"]}]}"#;
    assert_eq!(code(config, &call("claude-opus-5")), "allow");
    assert_eq!(code(config, &call("claude-6-preview")), "model_not_allowed");
    assert_eq!(code(config, &call("gpt-9")), "no_rule_allows");
}

#[test]
fn every_list_of_a_rule_has_to_match() {
    let mut call = call("claude-opus-5");
    call.principal.roles = vec!["intern".into()];
    call.principal.department = Some("sales".into());
    for (criterion, matches) in [
        (r#""models":["claude-opus-*"]"#, true),
        (r#""models":["gpt-*","claude-*"]"#, true),
        (r#""models":["gpt-*"]"#, false),
        (r#""routes":["*"]"#, true),
        (r#""providers":["anthropic"]"#, true),
        (r#""providers":["openai"]"#, false),
        (r#""roles":["intern","contractor"]"#, true),
        (r#""roles":["engineer"]"#, false),
        (r#""departments":["sales"]"#, true),
        (r#""departments":["legal"]"#, false),
        (r#""users":["u_alice"]"#, true),
        (r#""users":["u_bob"]"#, false),
        (r#""clients":["sp_cli"]"#, true),
        (r#""clients":["sp_web"]"#, false),
        (r#""sources":["api","cli"]"#, true),
        (r#""sources":["subagent"]"#, false),
        (r#""roles":["intern"],"sources":["subagent"]"#, false),
    ] {
        let config = format!(r#"{{"rules":[{{"name":"r","effect":"deny",{criterion}}}]}}"#);
        assert_eq!(code(&config, &call) != "allow", matches, "{criterion}");
    }
}

#[test]
fn a_caller_without_a_department_is_in_none() {
    let config = r#"{"rules":[{"name":"r","effect":"deny","departments":["*"]}]}"#;
    assert_eq!(code(config, &call("m")), "allow");
}

#[test]
fn one_forbidden_tool_is_enough_and_one_unknown_tool_too_many() {
    let mut call = call("m");
    call.tools = vec!["Read".into(), "mcp__github__merge".into()];
    let forbidden = r#"{"rules":[{"name":"no-github","effect":"deny","tools":["mcp__github__*"]}]}"#;
    assert_eq!(code(forbidden, &call), "tool_not_allowed");
    let known = r#"{"default":"deny","rules":[{"name":"known","effect":"allow","tools":["Read","Write"]}]}"#;
    assert_eq!(code(known, &call), "no_rule_allows");
    call.tools.pop();
    assert_eq!(code(known, &call), "allow");
    assert_eq!(code(forbidden, &call), "allow");
}

#[test]
fn a_server_of_tools_offers_all_that_it_may_have() {
    let mut call = call("m");
    call.tools = vec!["mcp__github__*".into()];
    let rule = |effect: &str, tools: &str| {
        format!(r#"{{"default":"deny","rules":[{{"name":"r","effect":"{effect}","tools":["{tools}"]}}]}}"#)
    };
    for tools in ["mcp__github__merge*", "mcp__*", "*merge*", "mcp__github__*"] {
        assert_eq!(code(&rule("deny", tools), &call), "tool_not_allowed", "{tools}");
    }
    assert_eq!(code(&rule("deny", "mcp__gitlab__*"), &call), "no_rule_allows");
    assert_eq!(code(&rule("allow", "mcp__github__read*"), &call), "no_rule_allows");
    assert_eq!(code(&rule("allow", "mcp__github__*"), &call), "allow");
}

#[test]
fn what_the_gateway_does_not_know_can_be_denied_or_allowed_by_name() {
    let deny = r#"{"rules":[{"name":"new","effect":"deny","unknown":["content.*"]}]}"#;
    let allow = r#"{"default":"deny","rules":[{"name":"known","effect":"allow","unknown":["mood"]}]}"#;
    let mut call = call("m");
    assert_eq!((code(deny, &call), code(allow, &call)), ("allow".to_owned(), "allow".to_owned()));
    let mut unknown = |value: &str| {
        call.attributes = vec![sallyport_guest_sdk::testing::attribute("unknown", value)];
        (code(deny, &call), code(allow, &call))
    };
    let both = |deny: &str, allow: &str| (deny.to_owned(), allow.to_owned());
    assert_eq!(unknown(r#"["mood"]"#), both("allow", "allow"));
    assert_eq!(unknown(r#"["mood","content.type=news"]"#), both("unknown_not_allowed", "no_rule_allows"));
    let any = r#"{"rules":[{"name":"any","effect":"deny","unknown":["*"]}]}"#;
    call.attributes = vec![sallyport_guest_sdk::testing::attribute("unknown", "no json")];
    assert_eq!(code(any, &call), "unknown_not_allowed", "what cannot be read is not known");
}

#[test]
fn the_reason_names_the_rule_and_what_it_forbids() {
    let config = r#"{"rules":[{"name":"no-opus","effect":"deny","models":["*opus*"]}]}"#;
    let expected =
        Refusal::denied("model_not_allowed", "the rule no-opus does not allow the model claude-opus-5");
    assert_eq!(verdict(config, &call("claude-opus-5")), Verdict::Deny(expected));
    let config = r#"{"rules":[{"name":"freeze","effect":"deny","reason":"code freeze until Monday"}]}"#;
    let expected = Refusal::denied("call_not_allowed", "code freeze until Monday");
    assert_eq!(verdict(config, &call("m")), Verdict::Deny(expected));
}

#[test]
fn the_rule_that_decided_is_noted() {
    let config = r#"{"rules":[{"name":"all","effect":"allow"}]}"#;
    let (policy, host) = (configured(config, Scope::configure).unwrap(), FakeHost::default());
    policy.check(&call("m"), &FakeBody::default(), &host);
    assert_eq!(host.notes(), [("scope.rule".to_owned(), "all".to_owned())]);
}

#[test]
fn a_model_outside_the_roles_lists_is_not_entitled_whatever_the_rules_say() {
    let config = r#"{"rules":[{"name":"all","effect":"allow"}],
        "entitlements":{"*":["claude-haiku-*"],"engineer":["claude-opus-*"]}}"#;
    let mut engineer = call("claude-opus-5");
    engineer.principal.roles = vec!["lead".into(), "engineer".into()];
    assert_eq!(code(config, &engineer), "allow");
    assert_eq!(code(config, &call("claude-haiku-4-5")), "allow");
    let Verdict::Deny(refusal) = verdict(config, &call("claude-opus-5")) else { panic!("entitled") };
    assert_eq!((refusal.code.as_str(), refusal.kind), ("model_not_entitled", RefusalKind::NotEntitled));
}

#[test]
fn an_empty_set_of_entitlements_entitles_nobody() {
    assert_eq!(code(r#"{"entitlements":{}}"#, &call("m")), "model_not_entitled");
}

#[test]
fn a_role_called_star_entitles_to_nothing_more() {
    let mut call = call("claude-opus-5");
    call.principal.roles = vec!["*".into()];
    assert_eq!(code(r#"{"entitlements":{"engineer":["*"]}}"#, &call), "model_not_entitled");
}

#[test]
fn a_rule_holds_in_its_hours_alone() {
    let config = r#"{"rules":[{"name":"night","effect":"deny","hours":{"from":"22:00","to":"06:00"}}]}"#;
    let mut call = call("m");
    call.time_ms = "1767571200000".into();
    assert_eq!(code(config, &call), "time_not_allowed");
    call.time_ms = "1767607200000".into();
    assert_eq!(code(config, &call), "allow");
    call.time_ms = "soon".into();
    assert_eq!(code(config, &call), "time_unreadable");
}

#[test]
fn a_configuration_with_a_mistake_never_becomes_active() {
    for (config, why) in [
        (r#"{"defualt":"deny"}"#, "defualt"),
        (r#"{"default":"ask"}"#, "ask"),
        (r#"{"rules":[{"name":"a","effect":"deny","model":["x"]}]}"#, "model"),
        (r#"{"rules":[{"effect":"deny"}]}"#, "name"),
        (r#"{"rules":[{"name":"","effect":"deny"}]}"#, "rules[0].name is empty"),
        (
            r#"{"rules":[{"name":"a","effect":"deny"},{"name":"b","effect":"deny","models":[]}]}"#,
            "rules[1].models is empty",
        ),
        (r#"{"rules":[{"name":"a","effect":"deny","hours":{"from":"9","to":"10:00"}}]}"#, "no time of day"),
    ] {
        let error = configured(config, Scope::configure).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}
