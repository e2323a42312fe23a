//! What users of other gateways ran into, each with the value that is right: written down from the vendors' documentation and by
//! hand, not from what came out.

use sallyport_guest_codec::golden::{Outcome, assert_well_formed, calls_of, head, text_of};
use sallyport_guest_sdk::provider::{Input, StreamEvent};
use serde_json::{Value, json};

use super::{request, run};

const SSE: (&str, &str) = ("content-type", "text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");

fn ask(body: &Value, model: &str) -> Outcome {
    run("{}", request(&body.to_string(), model), [])
}

fn sent(body: &Value, model: &str) -> Value {
    ask(body, model).sent.expect("a request is sent")
}

/// What comes of an answer of these events.
fn streamed(model: &str, events: &[Value]) -> Outcome {
    let body = events.iter().map(|it| format!("data: {it}\n\n")).collect::<Vec<_>>().concat();
    answered(true, SSE, &body, model)
}

fn answered(stream: bool, media_type: (&str, &str), body: &str, model: &str) -> Outcome {
    let asked = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]});
    let chunk = Input::Chunk(body.as_bytes().to_vec());
    run("{}", request(&asked.to_string(), model), [head(200, &[media_type]), chunk, Input::End])
}

fn call(id: &str, arguments: &[&str]) -> Vec<Value> {
    let mut events: Vec<Value> = arguments
        .iter()
        .enumerate()
        .map(|(at, piece)| {
            let mut call = json!({"index": 0, "function": {"arguments": piece}});
            if at == 0 {
                call["id"] = json!(id);
                call["function"]["name"] = json!("look");
            }
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
        })
        .collect();
    events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
    events
}

fn tools() -> Value {
    json!([{"name": "look", "input_schema": {"type": "object"}}])
}

#[test]
fn thinking_goes_back_to_a_model_that_wants_it_and_to_no_other() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I should look.", "signature": ""},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "done"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_2", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_2", "content": "done"}]},
    ], "tools": tools()});
    for model in ["deepseek-chat", "kimi-k2.5", "moonshotai/kimi-k2-thinking"] {
        let messages = sent(&body, model)["messages"].clone();
        assert_eq!(messages[1]["reasoning_content"], "I should look.", "{model}");
        assert_eq!(
            messages[3]["reasoning_content"], "",
            "a call without thinking is refused without the field"
        );
    }
    let plain = ask(&body, "gpt-4o");
    assert_eq!(plain.sent.unwrap()["messages"][1].get("reasoning_content"), None);
    assert_eq!(plain.losses, ["messages[1].content[0]: thinking dropped"]);
}

#[test]
fn the_effort_beside_tools_is_the_one_that_the_model_takes() {
    let body = |effort: Option<&str>, thinking: Option<&str>, tools: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": tools});
        if let Some(effort) = effort {
            body["output_config"] = json!({"effort": effort});
        }
        if let Some(kind) = thinking {
            body["thinking"] = json!({"type": kind});
        }
        body
    };
    for model in ["gpt-5.4", "gpt-5.6", "gpt-6-sol"] {
        for asked in [(Some("high"), None), (None, Some("disabled")), (None, None)] {
            let sent = sent(&body(asked.0, asked.1, tools()), model);
            assert_eq!(sent["reasoning_effort"], "none", "{model} {asked:?}");
        }
        assert_eq!(sent(&body(Some("xhigh"), None, json!([])), model)["reasoning_effort"], "xhigh");
    }
    assert_eq!(sent(&body(Some("high"), None, tools()), "gpt-5.1")["reasoning_effort"], "high");
}

#[test]
fn a_new_reasoning_model_is_asked_as_such() {
    let body = json!({"model": "m", "max_tokens": 100, "temperature": 0.5, "output_config": {"effort": "high"},
        "messages": [{"role": "user", "content": "Hi"}]});
    let sent = sent(&body, "gpt-6.1-sol");
    assert_eq!(sent["max_completion_tokens"], 100);
    assert_eq!((sent.get("max_tokens"), sent.get("temperature")), (None, None));
    assert_eq!(sent["reasoning_effort"], "high");
}

#[test]
fn a_tool_without_parameters_says_that_it_has_none() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": tools()});
    let parameters = sent(&body, "gpt-4o")["tools"][0]["function"]["parameters"].clone();
    assert_eq!(parameters, json!({"type": "object", "properties": {}}));
}

#[test]
fn a_turn_that_only_sets_options_is_no_message_and_its_effort_counts() {
    for config in ["{}", r#"{"inline_system":"user"}"#] {
        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
            {"role": "system", "content": [], "output_config": {"effort": "low"}},
            {"role": "user", "content": [{"type": "text", "text": "Go on"}]}]});
        let sent = run(config, request(&body.to_string(), "gpt-5.1"), []).sent.unwrap();
        let roles: Vec<_> =
            sent["messages"].as_array().unwrap().iter().map(|it| it["role"].clone()).collect();
        assert_eq!(roles, ["user", "assistant", "user"], "{config}");
        assert_eq!(sent["reasoning_effort"], "low");
    }
}

#[test]
fn an_id_of_the_upstream_goes_back_to_it_as_it_was() {
    let told = streamed("kimi-k2.5", &call("functions.look:3", &["{}"]));
    let (id, input) = calls_of(&told.events).remove(0);
    assert_eq!(input, "{}");
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "done"}]}]});
    let messages = sent(&body, "kimi-k2.5")["messages"].clone();
    assert_eq!(messages[1]["tool_calls"][0]["id"], "functions.look:3");
    assert_eq!(messages[2]["tool_call_id"], "functions.look:3");
}

#[test]
fn arguments_that_begin_anew_are_those_that_hold_something() {
    let told = streamed("gpt-4o", &call("call_1", &["{}", r#"{"stock":"#, r#""MSFT"}"#]));
    assert_eq!(calls_of(&told.events), [("call_1".to_owned(), r#"{"stock":"MSFT"}"#.to_owned())]);
    assert_well_formed(&told.events, true);
}

#[test]
fn a_call_that_was_cut_is_no_call_of_what_it_began_with() {
    let told = streamed("gpt-4o", &call("call_1", &[r#"{"command":"rm -r"#]));
    let input: Value = serde_json::from_str(&calls_of(&told.events)[0].1).expect("JSON");
    assert_eq!(input, json!({"malformed_arguments": "{\"command\":\"rm -r"}));
}

#[test]
fn a_call_of_a_hundred_thousand_pieces_arrives() {
    let pieces: Vec<&str> =
        std::iter::once("{\"a\":\"").chain(std::iter::repeat_n("abcde", 100_000)).chain(["\"}"]).collect();
    let told = streamed("gpt-4o", &call("call_1", &pieces));
    let input: Value = serde_json::from_str(&calls_of(&told.events)[0].1).expect("JSON");
    assert_eq!(input["a"].as_str().map(str::len), Some(500_000));
}

#[test]
fn a_character_in_two_halves_is_whole_again_and_one_half_ends_nothing() {
    let piece = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for (pieces, whole) in [
        (["a\\ud83d", "\\ude00b"], "a\u{1f600}b"),
        (["a\\ud83d", "b"], "a\u{fffd}b"),
        (["a", "\\ude00b"], "a\u{fffd}b"),
    ] {
        let body = pieces.map(piece).concat() + end;
        let told = answered(true, SSE, &body, "gpt-4o");
        assert_eq!((text_of(&told.events).as_str(), told.failure.is_none()), (whole, true), "{pieces:?}");
    }
}

#[test]
fn what_was_written_to_a_cache_is_counted_as_such() {
    let told = streamed(
        "gpt-5.6",
        &[
            json!({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 2006, "completion_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 1500, "cache_write_tokens": 400}}}),
        ],
    );
    let usage = told.events.iter().find_map(|event| match event {
        StreamEvent::MessageDelta(it) => Some(it.usage),
        _ => None,
    });
    let usage = usage.expect("a message delta");
    let told = (usage.input, usage.cache_read, usage.cache_write, usage.output);
    assert_eq!(told, (Some(106), Some(1500), Some(400), Some(30)));
}

#[test]
fn a_stream_begins_with_about_how_many_tokens_were_asked() {
    let told =
        streamed("gpt-4o", &[json!({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})]);
    let Some(StreamEvent::MessageStart(start)) = told.events.first() else { panic!("a start") };
    assert!(start.usage.input.is_some_and(|it| (1..100).contains(&it)), "{:?}", start.usage.input);
}

#[test]
fn an_answer_in_the_other_form_is_an_answer() {
    let whole = r#"{"id":"chatcmpl-1","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
    let events = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    for media_type in [SSE, JSON, ("content-type", "text/plain")] {
        for stream in [true, false] {
            let told = answered(stream, media_type, events, "gpt-4o");
            assert_eq!(
                (text_of(&told.events).as_str(), told.is_done),
                ("Hi", true),
                "events, {stream} {media_type:?}"
            );
        }
        let told = answered(true, media_type, whole, "gpt-4o");
        assert_eq!((text_of(&told.events).as_str(), told.is_done), ("Hi", true), "whole {media_type:?}");
        assert_well_formed(&told.events, true);
        let told = answered(false, media_type, whole, "gpt-4o");
        assert_eq!(told.message.unwrap()["content"][0]["text"], "Hi", "{media_type:?}");
    }
}

#[test]
fn a_full_context_is_told_in_the_words_that_clients_act_on() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    for (said, told) in [
        (
            "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
            "prompt is too long: 61709 tokens > 40960 maximum",
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 145316 tokens.",
            "prompt is too long: 145316 tokens > 131072 maximum",
        ),
        (
            "This model's maximum context length is 262144 tokens. However, you requested 262462 tokens (230462 in the messages, 32000 in the completion).",
            "input length and `max_tokens` exceed context limit: 230462 + 32000 > 262144",
        ),
    ] {
        let error = json!({"object": "error", "message": said, "code": 400}).to_string();
        let inputs = [head(400, &[JSON]), Input::Chunk(error.into_bytes()), Input::End];
        let failure = run("{}", request(&body, "m"), inputs).failure.expect("it fails");
        assert!(failure.message.starts_with(told), "{}", failure.message);
        assert_eq!((failure.status, failure.retryable), (400, false));
    }
}
