//! Streams that a provider says: whatever it says, what passes the grammar is a stream that a client's library takes.

use sallyport_protocol::messages::event::{Block, Delta, StreamEvent, Usage};
use sallyport_protocol::messages::grammar::Grammar;

/// Panics where the grammar lets a stream pass that is none. Each byte pair is an event and where it says it belongs.
pub fn check(data: &[u8]) {
    let mut grammar = Grammar::new();
    let mut passed = Vec::new();
    for pair in data.chunks_exact(2) {
        let event = event(pair[0], u32::from(pair[1] & 7), pair[1] >> 3);
        if grammar.check(&event).is_err() {
            assert!(grammar.is_over(), "after an error nothing follows");
            assert!(grammar.check(&StreamEvent::MessageStop).is_err(), "an end after the end");
            break;
        }
        passed.push(event);
    }
    let whole = grammar.is_over();
    let end = grammar.conclude("stopped", Usage::default());
    assert_eq!(end.is_empty(), whole || passed.iter().all(|event| matches!(event, StreamEvent::Ping)));
    for event in end {
        assert_eq!(grammar.check(&event), Ok(()), "the gateway's own end is not in order");
        passed.push(event);
    }
    follow(&passed);
}

/// A client's library, as far as it can be confused: blocks in order, pieces in the open block, nothing after the end.
fn follow(events: &[StreamEvent]) {
    let (mut started, mut ending, mut over) = (false, false, false);
    let mut open: Option<(u32, &'static str)> = None;
    let mut blocks = 0;
    for event in events {
        let is_ping = matches!(event, StreamEvent::Ping);
        assert!(is_ping || !over, "{event:?} after the end");
        match event {
            StreamEvent::Ping => {}
            StreamEvent::MessageStart { .. } => {
                assert!(!started, "a second beginning");
                started = true;
            }
            StreamEvent::BlockStart { index, block } => {
                assert!(started && !ending && open.is_none(), "a block begins out of place");
                assert_eq!(*index, blocks, "blocks are counted");
                blocks += 1;
                let kind = match block {
                    Block::Text(_) => "text",
                    Block::Thinking { .. } => "thinking",
                    Block::ToolUse { .. } => "tool",
                    Block::RedactedThinking(_) => "redacted",
                    Block::Raw(_) => "raw",
                };
                open = Some((*index, kind));
            }
            StreamEvent::BlockDelta { index, delta } => {
                let (at, kind) = open.expect("a piece of no block");
                assert_eq!(*index, at, "a piece of another block");
                let fits = match delta {
                    Delta::Text(_) => kind == "text",
                    Delta::InputJson(_) => kind == "tool",
                    Delta::Thinking(_) | Delta::Signature(_) => kind == "thinking",
                    Delta::Raw(_) => true,
                };
                assert!(fits || kind == "raw", "{delta:?} in a block of {kind}");
            }
            StreamEvent::BlockStop { index } => {
                assert_eq!(open.take().map(|(at, _)| at), Some(*index), "another block ends");
            }
            StreamEvent::MessageDelta { .. } => {
                assert!(started && open.is_none(), "the turn ends inside a block");
                ending = true;
            }
            StreamEvent::MessageStop => {
                assert!(ending, "the end comes before the reason for it");
                over = true;
            }
            StreamEvent::Error { .. } => over = true,
            StreamEvent::Raw { name, data } => {
                assert!(started, "something before the beginning");
                let typed: serde_json::Value = serde_json::from_str(data).expect("raw data is json");
                assert_eq!(typed["type"], name.as_str(), "a raw event of another kind");
                assert!(!KNOWN.contains(&name.as_str()), "{name} in disguise");
            }
        }
    }
}

const KNOWN: [&str; 8] = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
];

/// Pieces of JSON that a provider might put where raw JSON is allowed.
const RAW: [&str; 16] = [
    r#"{"type":"later"}"#,
    r#"{"type":"tool_use","id":"a","name":"b","input":{}}"#,
    r#"{"type":"later","type":"tool_use"}"#,
    r#"{"\u0074ype":"tool_use"}"#,
    r#"{"type":"text_delta","text":"x"}"#,
    r#"{"type":"input_json_delta","partial_json":"{"}"#,
    r#"{"type":"message_stop"}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use"}}"#,
    r#"{"Type":"tool_use","type":"later"}"#,
    "[]",
    "{}",
    "",
    "{\"type\":\"later\"}\n\nevent: message_stop",
    r#"{"type":1}"#,
    "null",
    r#"{"type":"later","a":[1,2,{"type":"tool_use"}]}"#,
];

fn event(kind: u8, index: u32, more: u8) -> StreamEvent {
    let raw = RAW[usize::from(more) % RAW.len()].to_owned();
    let block = |block| StreamEvent::BlockStart { index, block };
    let delta = |delta| StreamEvent::BlockDelta { index, delta };
    match kind % 20 {
        0 => StreamEvent::MessageStart { id: "m".into(), model: "x".into(), usage: Usage::default() },
        1 => block(Block::text()),
        2 => block(Block::thinking()),
        3 => block(Block::tool_use("a", "b")),
        4 => block(Block::RedactedThinking("x".into())),
        5 => block(Block::Raw(raw)),
        6 => delta(Delta::Text("x".into())),
        7 => delta(Delta::InputJson("{".into())),
        8 => delta(Delta::Thinking("x".into())),
        9 => delta(Delta::Signature("x".into())),
        10 => delta(Delta::Raw(raw)),
        11 => StreamEvent::BlockStop { index },
        12 => StreamEvent::MessageDelta { stop_reason: None, stop_sequence: None, usage: Usage::default() },
        13 => StreamEvent::MessageStop,
        14 => StreamEvent::Ping,
        15 => StreamEvent::Error { error_type: "overloaded_error".into(), message: "x".into() },
        16 => StreamEvent::Raw { name: "later".into(), data: raw },
        17 => StreamEvent::Raw { name: "message_stop".into(), data: raw },
        18 => block(Block::ToolUse { id: "a".into(), name: "b".into(), input: raw }),
        _ => StreamEvent::Raw { name: "content_block_start".into(), data: raw },
    }
}
