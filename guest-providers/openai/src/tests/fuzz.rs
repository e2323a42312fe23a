//! Input that nobody meant to send: the provider answers with outputs or a failure, and its events stay in order.

use proptest::collection::vec;
use proptest::prelude::*;
use sallyport_guest_codec::golden::{Outcome, calls_of, head};
use sallyport_guest_sdk::provider::{Input, RequestKind};

use super::{request, run, suite};

/// Words that both formats give a meaning to, so that arbitrary JSON gets past the first field.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "model", "messages", "system", "role", "content", "user", "assistant", "type", "text", "image", "document",
            "source", "base64", "url", "data", "media_type", "tool_use", "tool_result", "tool_use_id", "id", "name",
            "input", "tools", "tool_choice", "input_schema", "auto", "any", "tool", "none", "thinking", "stream",
            "choices", "delta", "message", "tool_calls", "function", "function_call", "arguments", "index",
            "finish_reason", "stop", "tool_calls", "usage", "prompt_tokens", "error", "code", "reasoning_content",
            "refusal", "output_config", "format", "schema", "effort", "max_tokens", "stop_sequences", "is_error",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9_f64).prop_map(Into::into),
        word().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Into::into),
            vec((word(), inner), 0..6).prop_map(|it| serde_json::Value::Object(it.into_iter().collect())),
        ]
    })
}

/// A conversation whose blocks have the right names and any values.
fn conversation() -> impl Strategy<Value = serde_json::Value> {
    let role = prop::sample::select(vec!["user", "assistant", "system"]);
    let message = (role, vec(value(), 0..4), value()).prop_map(|(role, blocks, other)| {
        let content = if blocks.len() == 3 { other } else { blocks.into() };
        serde_json::json!({"role": role, "content": content})
    });
    (vec(message, 0..5), value(), value()).prop_map(|(messages, system, tools)| {
        serde_json::json!({"model": "m", "messages": messages, "system": system, "tools": tools, "stream": true})
    })
}

fn event(data: &serde_json::Value) -> String {
    format!("data: {data}\n\n")
}

fn streamed(body: &[u8]) -> Outcome {
    let ask = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let (a, b) = body.split_at(body.len() / 2);
    let inputs = [
        head(200, &[("content-type", "text/event-stream")]),
        Input::Chunk(a.to_vec()),
        Input::Chunk(b.to_vec()),
        Input::End,
    ];
    run("{}", request(ask, "gpt-4o"), inputs)
}

fn whole(status: u16, body: &[u8]) -> Outcome {
    let ask = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    run("{}", request(ask, "gpt-4o"), [head(status, &[]), Input::Chunk(body.to_vec()), Input::End])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_body_is_translated_or_refused(body in prop_oneof![value(), conversation()], count: bool) {
        for model in ["gpt-4o", "o3"] {
            let mut request = request(&body.to_string(), model);
            request.kind = if count { RequestKind::CountTokens } else { RequestKind::Message };
            let told = run("{}", request, []);
            prop_assert!(told.sent.is_some() || told.estimate.is_some() || told.failure.is_some());
        }
    }

    #[test]
    fn any_bytes_of_a_body_are_refused_at_worst(body in any::<String>()) {
        let told = run("{}", request(&body, "gpt-4o"), []);
        prop_assert!(told.sent.is_some() || told.failure.is_some());
    }

    #[test]
    fn any_answer_ends_in_a_reply_or_a_failure(body in prop_oneof![
        vec(any::<u8>(), 0..200),
        value().prop_map(|it| it.to_string().into_bytes()),
    ]) {
        whole(200, &body).assert_ended();
        whole(500, &body).assert_ended();
        streamed(&body).assert_ended();
    }

    #[test]
    fn any_chunks_end_in_a_legal_stream_or_a_failure(chunks in vec(value(), 0..8), choices in vec(value(), 0..4)) {
        let mut stream = String::new();
        for choice in &choices {
            let chunk = serde_json::json!({"choices": [{"delta": choice, "finish_reason": null}]});
            stream += &event(&chunk);
        }
        for chunk in &chunks {
            stream += &event(chunk).replace('\n', "\r\n");
        }
        streamed(stream.as_bytes()).assert_ended();
    }

    #[test]
    fn tool_calls_in_any_order_keep_their_arguments(order in vec((0..4_usize, 1..5_usize), 1..60)) {
        let arguments: Vec<String> =
            (0..4).map(|n| format!(r#"{{"n":{n},"s":"}}\"{{{}"}}"#, "é".repeat(n * 3))).collect();
        let mut sent = [0_usize; 4];
        let mut stream = String::new();
        let every = (0..4).map(|n| (n, usize::MAX));
        for (n, chars) in order.into_iter().chain(every) {
            let piece: String = arguments[n].chars().skip(sent[n]).take(chars).collect();
            let first = sent[n] == 0;
            sent[n] += piece.chars().count();
            let mut call = serde_json::json!({"index": n, "function": {"arguments": piece}});
            if first {
                call["id"] = format!("call_{n}").into();
                call["function"]["name"] = "Tool".into();
            }
            let chunk = serde_json::json!({"choices": [{"delta": {"tool_calls": [call]}}]});
            stream += &event(&chunk);
        }
        stream.push_str("data: [DONE]\n\n");
        let told = streamed(stream.as_bytes());
        told.assert_ended();
        prop_assert!(told.failure.is_none());
        let got: std::collections::BTreeMap<String, String> = calls_of(&told.events).into_iter().collect();
        let expected = arguments.into_iter().enumerate().map(|(n, it)| (format!("call_{n}"), it)).collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn a_recorded_stream_with_a_changed_byte_ends_in_a_legal_stream_or_a_failure() {
    let suite = suite();
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
    let result = proptest::test_runner::TestRunner::new(config).run(&strategy, |(case, at, byte)| {
        let case = case.get(suite.cases());
        let mut bytes = case.upstream.clone();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        suite.run(case, [bytes.as_slice()]).assert_ended();
        Ok(())
    });
    result.expect("no byte breaks the order");
}
