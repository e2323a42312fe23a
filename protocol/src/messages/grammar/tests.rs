//! Stories of the grammar: which streams pass, and which event stops one that does not.

use super::*;
use crate::messages::event::Usage;

fn start() -> StreamEvent {
    StreamEvent::MessageStart { id: "msg_1".into(), model: "m".into(), usage: Usage::default() }
}

fn open(index: u32, block: Block) -> StreamEvent {
    StreamEvent::BlockStart { index, block }
}

fn text(index: u32) -> StreamEvent {
    StreamEvent::BlockDelta { index, delta: Delta::Text("x".into()) }
}

fn stop(index: u32) -> StreamEvent {
    StreamEvent::BlockStop { index }
}

fn ending() -> StreamEvent {
    StreamEvent::MessageDelta { stop_reason: None, stop_sequence: None, usage: Usage::default() }
}

fn raw(name: &str, data: &str) -> StreamEvent {
    StreamEvent::Raw { name: name.into(), data: data.into() }
}

/// Feeds the events; the error of the last one. All before it have to pass.
fn last(events: &[StreamEvent]) -> Result<(), String> {
    let mut grammar = Grammar::new();
    let (event, before) = events.split_last().unwrap();
    for event in before {
        grammar.check(event).unwrap();
    }
    grammar.check(event).map_err(|error| error.to_string())
}

#[test]
fn a_whole_reply_with_pings_anywhere_passes() {
    let mut grammar = Grammar::new();
    let stream = [
        StreamEvent::Ping,
        start(),
        StreamEvent::Ping,
        open(0, Block::thinking()),
        StreamEvent::BlockDelta { index: 0, delta: Delta::Thinking("hm".into()) },
        StreamEvent::BlockDelta { index: 0, delta: Delta::Signature("s".into()) },
        stop(0),
        open(1, Block::text()),
        StreamEvent::Ping,
        text(1),
        StreamEvent::BlockDelta { index: 1, delta: Delta::Raw(r#"{"type":"citations_delta"}"#.into()) },
        raw("later", r#"{"type":"later"}"#),
        stop(1),
        open(2, Block::tool_use("toolu_1", "Bash")),
        StreamEvent::BlockDelta { index: 2, delta: Delta::InputJson("{}".into()) },
        stop(2),
        open(3, Block::RedactedThinking("x".into())),
        stop(3),
        open(4, Block::Raw(r#"{"type":"server_tool_use","id":"s"}"#.into())),
        StreamEvent::BlockDelta { index: 4, delta: Delta::InputJson("{}".into()) },
        stop(4),
        ending(),
        ending(),
        StreamEvent::MessageStop,
        StreamEvent::Ping,
    ];
    for event in &stream {
        grammar.check(event).unwrap();
    }
    assert!(grammar.is_over());
}

#[test]
fn the_state_says_how_to_close_a_stream_early() {
    let mut grammar = Grammar::new();
    assert!(!grammar.has_started());
    assert_eq!(grammar.open_block(), None);
    grammar.check(&start()).unwrap();
    assert!(grammar.has_started());
    grammar.check(&open(0, Block::text())).unwrap();
    assert_eq!((grammar.open_block(), grammar.next_index()), (Some(0), 1));
    grammar.check(&stop(0)).unwrap();
    assert_eq!((grammar.open_block(), grammar.next_index()), (None, 1));
    grammar.check(&open(1, Block::text())).unwrap();
    grammar.check(&stop(1)).unwrap();
    assert_eq!(grammar.next_index(), 2);
    assert!(!grammar.is_ending());
    grammar.check(&ending()).unwrap();
    assert!(grammar.is_ending() && !grammar.is_over());
}

#[test]
fn a_stream_is_concluded_in_good_order_from_wherever_it_stands() {
    let stream = [start(), open(0, Block::text()), text(0), stop(0), ending(), StreamEvent::MessageStop];
    for seen in 0..=stream.len() {
        let mut grammar = Grammar::new();
        for event in &stream[..seen] {
            grammar.check(event).unwrap();
        }
        let rest = grammar.conclude("stopped by no-secrets", Usage::default());
        assert_eq!(rest.is_empty(), seen == 0 || seen == stream.len());
        for event in &rest {
            grammar.check(event).unwrap();
        }
        assert_eq!(grammar.is_over(), seen > 0);
    }
}

#[test]
fn events_out_of_order_are_refused() {
    let mut seen = String::new();
    for events in [
        vec![text(0)],
        vec![StreamEvent::MessageStop],
        vec![raw("later", r#"{"type":"later"}"#)],
        vec![start(), start()],
        vec![start(), text(0)],
        vec![start(), stop(0)],
        vec![start(), StreamEvent::MessageStop],
        vec![start(), open(1, Block::text())],
        vec![start(), open(0, Block::text()), open(1, Block::text())],
        vec![start(), open(0, Block::text()), text(1)],
        vec![start(), open(0, Block::text()), stop(1)],
        vec![start(), open(0, Block::text()), ending()],
        vec![start(), open(0, Block::text()), stop(0), open(0, Block::text())],
        vec![start(), ending(), open(0, Block::text())],
        vec![start(), ending(), StreamEvent::MessageStop, StreamEvent::MessageStop],
        vec![StreamEvent::Error { error_type: "api_error".into(), message: "x".into() }, start()],
    ] {
        seen += &last(&events).unwrap_err();
        seen.push('\n');
    }
    insta::assert_snapshot!(seen, @r#"
    content_block_delta is not allowed before message_start
    message_stop is not allowed before message_start
    an unknown event is not allowed before message_start
    message_start is not allowed between blocks
    content_block_delta is not allowed between blocks
    content_block_stop is not allowed between blocks
    message_stop is not allowed between blocks
    block 1 where block 0 was due
    content_block_start is not allowed inside a block
    block 1 where block 0 was due
    block 1 where block 0 was due
    message_delta is not allowed inside a block
    block 0 where block 1 was due
    content_block_start is not allowed after message_delta
    message_stop is not allowed after the end
    message_start is not allowed after the end
    "#);
}

#[test]
fn a_delta_that_its_block_cannot_take_is_refused() {
    for (block, delta) in [
        (Block::text(), Delta::InputJson(String::new())),
        (Block::text(), Delta::Thinking(String::new())),
        (Block::tool_use("t", "n"), Delta::Text(String::new())),
        (Block::thinking(), Delta::Text(String::new())),
        (Block::RedactedThinking(String::new()), Delta::Signature(String::new())),
    ] {
        let stream = [start(), open(0, block), StreamEvent::BlockDelta { index: 0, delta }];
        let refused = last(&stream).unwrap_err();
        assert!(refused.contains("_delta in a "), "{refused}");
    }
}

#[test]
fn nothing_gets_past_the_gates_disguised_as_raw_json() {
    for json in [
        r#"{"type":"tool_use","id":"t","name":"Bash","input":{}}"#,
        r#"{"type":"text","text":"x"}"#,
        r#"{"type":"x","type":"tool_use"}"#,
        r#"{"\u0074ype":"tool_use"}"#,
        r#"{"type":"tool\u005fuse"}"#,
        r#"["tool_use"]"#,
        r#""tool_use""#,
        "{}",
        "{",
        "",
    ] {
        let refused = last(&[start(), open(0, Block::Raw(json.into()))]);
        assert!(refused.is_err(), "block {json}");
    }
    for json in [r#"{"type":"text_delta","text":"x"}"#, r#"{"type":"input_json_delta"}"#, "[]"] {
        let delta = StreamEvent::BlockDelta { index: 0, delta: Delta::Raw(json.into()) };
        let refused = last(&[start(), open(0, Block::text()), delta]);
        assert!(refused.is_err(), "delta {json}");
    }
    for (name, data) in [
        ("message_stop", r#"{"type":"message_stop"}"#),
        ("later", r#"{"type":"message_stop"}"#),
        ("message_stop", r#"{"type":"later"}"#),
        ("later\nevent: message_stop", r#"{"type":"later"}"#),
        ("later", "{}"),
        ("later", "not json"),
    ] {
        assert!(last(&[start(), raw(name, data)]).is_err(), "event {name} {data}");
    }
    let input = Block::ToolUse { id: "t".into(), name: "n".into(), input: "{} }".into() };
    assert!(last(&[start(), open(0, input)]).is_err());
}

#[test]
fn after_a_refusal_everything_is_refused() {
    let mut grammar = Grammar::new();
    grammar.check(&start()).unwrap();
    grammar.check(&stop(0)).unwrap_err();
    assert!(grammar.is_over());
    grammar.check(&open(0, Block::text())).unwrap_err();
}
