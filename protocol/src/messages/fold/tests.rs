//! Stories of folding: a stream becomes the reply that the same upstream would have given without streaming.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::messages::event;
use crate::messages::grammar::Grammar;
use crate::messages::sse::Splitter;

fn folded(events: &[StreamEvent]) -> Result<Value, FoldError> {
    let mut fold = Fold::new();
    for event in events {
        fold.push(event)?;
    }
    Ok(serde_json::from_slice(&fold.finish()?).unwrap())
}

fn start() -> StreamEvent {
    StreamEvent::MessageStart {
        id: "msg_1".into(),
        model: "m".into(),
        usage: Usage { input: Some(10), output: Some(1), ..Usage::default() },
    }
}

fn open(index: u32, block: Block) -> StreamEvent {
    StreamEvent::BlockStart { index, block }
}

fn delta(index: u32, delta: Delta) -> StreamEvent {
    StreamEvent::BlockDelta { index, delta }
}

fn stop(index: u32) -> StreamEvent {
    StreamEvent::BlockStop { index }
}

fn ending(reason: &str) -> [StreamEvent; 2] {
    let usage = Usage { output: Some(12), ..Usage::default() };
    [
        StreamEvent::MessageDelta { stop_reason: Some(reason.into()), stop_sequence: None, usage },
        StreamEvent::MessageStop,
    ]
}

#[test]
fn a_recorded_stream_folds_into_one_reply() {
    let mut splitter = Splitter::default();
    splitter.push(Bytes::from_static(include_bytes!("../../../fixtures/tool_loop_03.response.sse")));
    let mut fold = Fold::new();
    while let Some(raw) = splitter.next_event().unwrap() {
        fold.push(&event::parse(raw.name(), &raw.data()).unwrap()).unwrap();
    }
    assert_eq!(fold.usage().output, Some(30));
    let reply = String::from_utf8(fold.finish().unwrap()).unwrap();
    insta::assert_snapshot!(reply, @r#"{"id":"msg_d112982765294339aba1c57a","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{"type":"text","text":"Calling."},{"type":"tool_use","id":"toolu_ed4bd1a6644b450883824a","name":"Bash","input":{"command": "echo hook-ok", "description": "say ok"}},{"type":"tool_use","id":"toolu_243caea4f5224d12849787","name":"Read","input":{"file_path": "/nonexistent/x"}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":30}}"#);
}

#[test]
fn thinking_keeps_its_signature_and_text_its_citations() {
    let mut events = vec![
        start(),
        StreamEvent::Ping,
        open(0, Block::thinking()),
        delta(0, Delta::Thinking("so ".into())),
        delta(0, Delta::Thinking("then".into())),
        delta(0, Delta::Signature("c2ln".into())),
        stop(0),
        open(1, Block::RedactedThinking("enc".into())),
        stop(1),
        open(2, Block::Text("A".into())),
        delta(2, Delta::Text("b".into())),
        delta(2, Delta::Raw(r#"{"type":"citations_delta","citation":{"cited_text":"c"}}"#.into())),
        delta(2, Delta::Raw(r#"{"type":"later_delta"}"#.into())),
        stop(2),
        StreamEvent::Raw { name: "later".into(), data: "{}".into() },
        open(3, Block::Raw(r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{}}"#.into())),
        delta(3, Delta::InputJson("{\"query\":".into())),
        delta(3, Delta::InputJson("\"x\"}".into())),
        stop(3),
        open(4, Block::Raw(r#"{"type":"web_search_tool_result","content":[]}"#.into())),
        stop(4),
    ];
    events.extend(ending("end_turn"));
    let reply = folded(&events).unwrap();
    assert_eq!(
        reply["content"],
        json!([
            { "type": "thinking", "thinking": "so then", "signature": "c2ln" },
            { "type": "redacted_thinking", "data": "enc" },
            { "type": "text", "text": "Ab", "citations": [{ "cited_text": "c" }] },
            { "type": "server_tool_use", "id": "s", "name": "web_search", "input": { "query": "x" } },
            { "type": "web_search_tool_result", "content": [] },
        ])
    );
    assert_eq!(reply["usage"], json!({ "input_tokens": 10, "output_tokens": 12 }));
    assert_eq!(reply["stop_reason"], "end_turn");
}

#[test]
fn a_tool_call_without_input_has_an_empty_object() {
    let mut events = vec![start(), open(0, Block::tool_use("toolu_1", "Now"))];
    events.extend([delta(0, Delta::InputJson(String::new())), stop(0)]);
    events.extend(ending("tool_use"));
    assert_eq!(folded(&events).unwrap()["content"][0]["input"], json!({}));
}

#[test]
fn tool_input_keeps_the_spelling_of_its_numbers() {
    let mut events = vec![start(), open(0, Block::tool_use("toolu_1", "Pay"))];
    events.extend([
        delta(0, Delta::InputJson("{\"sum\": 1.10, \"id\": 12345678901234567890123}".into())),
        stop(0),
    ]);
    events.extend(ending("tool_use"));
    let mut fold = Fold::new();
    for event in &events {
        fold.push(event).unwrap();
    }
    let reply = String::from_utf8(fold.finish().unwrap()).unwrap();
    assert!(reply.contains("\"input\":{\"sum\": 1.10, \"id\": 12345678901234567890123}"), "{reply}");
}

#[test]
fn a_tool_call_whose_input_is_cut_off_is_no_reply() {
    let events = [
        start(),
        open(0, Block::tool_use("toolu_1", "Bash")),
        delta(0, Delta::InputJson("{\"a\":".into())),
        stop(0),
    ];
    assert!(matches!(folded(&events), Err(FoldError::ToolInput { index: 0, .. })));
}

#[test]
fn a_stream_that_breaks_off_is_no_reply() {
    assert!(matches!(folded(&[]), Err(FoldError::Incomplete)));
    assert!(matches!(folded(&[start()]), Err(FoldError::Incomplete)));
    let error = StreamEvent::Error { error_type: "overloaded_error".into(), message: "busy".into() };
    assert!(matches!(folded(&[start(), error]), Err(FoldError::Upstream { .. })));
}

#[test]
fn events_out_of_order_are_refused() {
    for events in [
        vec![open(0, Block::text())],
        vec![StreamEvent::MessageStop],
        vec![start(), start()],
        vec![start(), delta(0, Delta::Text("x".into()))],
        vec![start(), open(0, Block::text()), delta(1, Delta::Text("x".into()))],
        vec![start(), open(0, Block::text()), delta(0, Delta::Thinking("x".into()))],
        vec![start(), open(0, Block::text()), stop(1)],
        vec![start(), open(0, Block::text()), StreamEvent::MessageStop],
    ] {
        assert!(matches!(folded(&events), Err(FoldError::Order)), "{events:?}");
    }
}

#[test]
fn a_reply_cannot_fill_the_memory() {
    let piece = "x".repeat(1024 * 1024);
    let mut fold = Fold::new();
    fold.push(&start()).unwrap();
    fold.push(&open(0, Block::text())).unwrap();
    for _ in 0..LIMIT / piece.len() {
        fold.push(&delta(0, Delta::Text(piece.clone()))).unwrap();
    }
    let over = fold.push(&delta(0, Delta::Text("x".into())));
    assert!(matches!(over, Err(FoldError::TooLarge)));
}

#[test]
fn many_blocks_cannot_fill_the_memory_either() {
    let quarter = "x".repeat(LIMIT / 4);
    let mut fold = Fold::new();
    fold.push(&start()).unwrap();
    for index in 0..4 {
        fold.push(&open(index, Block::text())).unwrap();
        fold.push(&delta(index, Delta::Text(quarter.clone()))).unwrap();
        let stopped = fold.push(&stop(index));
        // What stands around the texts is what the fourth has no room for.
        assert_eq!(matches!(stopped, Err(FoldError::TooLarge)), index == 3, "{index}: {stopped:?}");
    }
}

fn any_event() -> impl Strategy<Value = StreamEvent> {
    let index = 0..3_u32;
    let block = prop_oneof![
        Just(Block::text()),
        Just(Block::thinking()),
        Just(Block::tool_use("t", "n")),
        Just(Block::RedactedThinking("x".into())),
        Just(Block::Raw(r#"{"type":"server_tool_use"}"#.into())),
    ];
    let piece = prop_oneof![
        Just(Delta::Text("x".into())),
        Just(Delta::Thinking("x".into())),
        Just(Delta::Signature("x".into())),
        Just(Delta::InputJson("1".into())),
        Just(Delta::Raw(r#"{"type":"citations_delta","citation":1}"#.into())),
    ];
    prop_oneof![
        1 => Just(start()),
        3 => (index.clone(), block).prop_map(|(index, block)| open(index, block)),
        3 => (index.clone(), piece).prop_map(|(index, piece)| delta(index, piece)),
        3 => index.prop_map(stop),
        1 => Just(ending("end_turn")[0].clone()),
        1 => Just(StreamEvent::MessageStop),
        1 => Just(StreamEvent::Ping),
    ]
}

proptest! {
    #[test]
    fn what_the_grammar_lets_through_folds_into_json(events in prop::collection::vec(any_event(), 0..200)) {
        let mut grammar = Grammar::new();
        let mut fold = Fold::new();
        fold.push(&start()).unwrap();
        grammar.check(&start()).unwrap();
        for event in &events {
            // Only what is legal is let through, so that long legal streams come about.
            let mut tried = grammar.clone();
            if tried.check(event).is_ok() {
                grammar = tried;
                match fold.push(event) {
                    // An input that is no object is not handed out in pieces or whole.
                    Err(FoldError::ToolInput { .. }) => return Ok(()),
                    folded => folded.unwrap(),
                }
            }
        }
        for event in grammar.conclude("why", Usage::default()) {
            match fold.push(&event) {
                Err(FoldError::ToolInput { .. }) => return Ok(()),
                folded => folded.unwrap(),
            }
        }
        let reply: Value = serde_json::from_slice(&fold.finish().unwrap()).unwrap();
        prop_assert_eq!(&reply["role"], "assistant");
    }
}
