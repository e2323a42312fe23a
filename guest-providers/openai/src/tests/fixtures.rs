//! Requests that Claude Code sends, as recorded.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use sallyport_guest_codec::golden::Outcome;
use sallyport_guest_sdk::provider::RequestKind;

use super::{request, run};

fn translate(name: &str, model: &str) -> Outcome {
    translated(name, model, "{}")
}

fn translated(name: &str, model: &str, config: &str) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/claude-code-2.1.329").join(name);
    let body = fs::read_to_string(path).expect("the fixture is there");
    let mut request = request(&body, model);
    if name.starts_with("count_tokens") {
        request.kind = RequestKind::CountTokens;
    }
    run(config, request, [])
}

/// One line for each message, then the names of the other fields, then the losses.
fn summary(told: &Outcome) -> String {
    if let Some(failure) = &told.failure {
        return format!("{} {} {}", failure.status, failure.error_type, failure.message);
    }
    let sent = told.sent.as_ref().and_then(|it| it.as_object()).expect("a request is sent");
    let mut lines: Vec<String> = Vec::new();
    for message in sent["messages"].as_array().expect("messages") {
        let content = message["content"].to_string();
        let calls = message["tool_calls"].as_array().map_or(0, Vec::len);
        let content: String = content.chars().take(70).collect();
        lines.push(format!("{} {content} calls={calls}", message["role"].as_str().unwrap_or_default()));
    }
    lines.push(format!("tools={}", sent.get("tools").and_then(|it| it.as_array()).map_or(0, Vec::len)));
    let options = sent.iter().filter(|(name, _)| !matches!(name.as_str(), "messages" | "tools"));
    lines.extend(options.map(|(name, value)| format!("{name}={value}")));
    lines.extend(told.losses.iter().map(|it| format!("lost {it}")));
    lines.join("\n")
}

#[test]
fn a_first_turn_is_translated() {
    assert_snapshot!(summary(&translate("messages/basic.json", "gpt-4o")), @r#"
    system "x-anthropic-billing-header: cc_version=2.1.329.0a8; cc_entrypoint=sdk calls=0
    user "<elided 556 chars>\n\n<elided 580 chars>\n\nSay hi" calls=0
    system "<elided 9201 chars>" calls=0
    tools=12
    max_tokens=128000
    model="gpt-4o"
    stream=true
    stream_options={"include_usage":true}
    lost cache_control: dropped: the upstream caches prompts by itself (3 times)
    lost thinking: dropped: the model's reasoning is not controlled
    lost output_config.effort: dropped: the model's reasoning is not controlled
    lost tools[10].defer_loading: tool sent in full
    lost metadata: dropped
    lost context_management: dropped
    "#);
}

#[test]
fn a_tool_loop_is_translated() {
    assert_snapshot!(summary(&translate("messages/tool_loop_03.json", "gpt-4o")), @r#"
    system "x-anthropic-billing-header: cc_version=2.1.329.d0d; cc_entrypoint=sdk calls=0
    user "<elided 335 chars>\n\n<elided 569 chars>\n\n<elided 580 chars>\n\nDo  calls=0
    system "<elided 9201 chars>" calls=0
    tools=12
    max_tokens=128000
    model="gpt-4o"
    stream=true
    stream_options={"include_usage":true}
    lost cache_control: dropped: the upstream caches prompts by itself (3 times)
    lost thinking: dropped: the model's reasoning is not controlled
    lost output_config.effort: dropped: the model's reasoning is not controlled
    lost tools[10].defer_loading: tool sent in full
    lost metadata: dropped
    lost context_management: dropped
    "#);
    assert_snapshot!(summary(&translate("messages/tool_loop_10.json", "gpt-5.1")), @r#"
    system "x-anthropic-billing-header: cc_version=2.1.329.d0d; cc_entrypoint=sdk calls=0
    user "<elided 335 chars>\n\n<elided 569 chars>\n\n<elided 580 chars>\n\nDo  calls=0
    system "<elided 9201 chars>" calls=0
    assistant "Calling." calls=2
    tool "Error: File does not exist. Note: your current working directory is / calls=0
    tool "hook-ok" calls=0
    tools=12
    max_completion_tokens=128000
    model="gpt-5.1"
    reasoning_effort="medium"
    stream=true
    stream_options={"include_usage":true}
    lost cache_control: dropped: the upstream caches prompts by itself (3 times)
    lost thinking.display: dropped
    lost tools[10].defer_loading: tool sent in full
    lost metadata: dropped
    lost context_management: dropped
    "#);
}

#[test]
fn auto_mode_is_refused_by_the_name_of_its_field_and_works_without_it() {
    for name in ["flag_1", "flag_2", "ok_1", "ok_2", "unsup_1", "unsup_2", "rejected_400_names_safeguards_1"]
    {
        let told = translate(&format!("auto-mode-safeguards/{name}.json"), "gpt-4o");
        assert_eq!(
            summary(&told),
            "400 invalid_request_error safeguards: not supported by this model's upstream"
        );
    }
    assert_snapshot!(summary(&translate("auto-mode-safeguards/rejected_400_names_safeguards_2.json", "gpt-4o")), @r#"
    system "x-anthropic-billing-header: cc_version=2.1.329.3c4; cc_entrypoint=sdk calls=0
    user "<elided 335 chars>\n\n<elided 569 chars>\n\n<elided 580 chars>\n\nhi" calls=0
    system "<elided 9682 chars>" calls=0
    tools=12
    max_tokens=128000
    model="gpt-4o"
    stream=true
    stream_options={"include_usage":true}
    lost cache_control: dropped: the upstream caches prompts by itself (3 times)
    lost thinking: dropped: the model's reasoning is not controlled
    lost output_config.effort: dropped: the model's reasoning is not controlled
    lost tools[10].defer_loading: tool sent in full
    lost metadata: dropped
    lost context_management: dropped
    "#);
    assert_snapshot!(summary(&translate("auto-mode-safeguards/rejected_400_names_safeguards_3.json", "gpt-4o")), @r#"
    system "x-anthropic-billing-header: cc_version=2.1.329.3c4; cc_entrypoint=sdk calls=0
    user "<elided 335 chars>\n\n<elided 569 chars>\n\n<elided 580 chars>\n\nhi" calls=0
    system "<elided 9682 chars>" calls=0
    assistant "Calling." calls=1
    tool "Error: <elided 295 chars>" calls=0
    tools=12
    max_tokens=128000
    model="gpt-4o"
    stream=true
    stream_options={"include_usage":true}
    lost cache_control: dropped: the upstream caches prompts by itself (3 times)
    lost thinking: dropped: the model's reasoning is not controlled
    lost output_config.effort: dropped: the model's reasoning is not controlled
    lost tools[10].defer_loading: tool sent in full
    lost metadata: dropped
    lost context_management: dropped
    "#);
}

#[test]
fn a_server_tool_that_the_upstream_does_not_have_is_refused_by_its_name() {
    let refused = summary(&translate("server-tools/web_search.json", "gpt-4o"));
    assert!(
        refused.starts_with("400 invalid_request_error tools[0]: the tool web_search_20250305 is"),
        "{refused}"
    );
}

#[test]
fn a_server_tool_is_lost_where_the_operator_says_so() {
    let told = translated("server-tools/web_search.json", "gpt-4o", r#"{"server_tools":"drop"}"#);
    assert_snapshot!(summary(&told), @r#"
    system "x-anthropic-billing-header: cc_version=2.1.329.74f; cc_entrypoint=sdk calls=0
    user "Perform a web search for the query: rust wasmtime" calls=0
    tools=0
    max_tokens=128000
    model="gpt-4o"
    stream=true
    stream_options={"include_usage":true}
    lost output_config.effort: dropped: the model's reasoning is not controlled
    lost tools[0] (web_search_20250305): tool that the upstream does not know dropped
    lost metadata: dropped
    "#);
}

#[test]
fn tokens_are_estimated_where_the_client_asks_for_a_count() {
    let counts = ["sample_1", "sample_2", "sample_3"].map(|name| {
        let told = translate(&format!("count_tokens/{name}.json"), "gpt-4o");
        assert!(told.is_done && told.sent.is_none());
        told.estimate
    });
    assert_snapshot!(format!("{counts:?}"), @"[Some(35), Some(23), Some(23)]");
}
