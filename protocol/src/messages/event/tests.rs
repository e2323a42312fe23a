//! Stories of typed events: what is written is what Anthropic's clients read, and what was read is what was
//! written.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::messages::sse::Splitter;

fn written(event: &StreamEvent) -> String {
    let mut out = Vec::new();
    event.write(&mut out);
    String::from_utf8(out).unwrap()
}

/// Cuts and reads a stream as a client would.
fn read(stream: &[u8]) -> Vec<StreamEvent> {
    let mut splitter = Splitter::default();
    splitter.push(Bytes::copy_from_slice(stream));
    let mut events = Vec::new();
    while let Some(raw) = splitter.next_event().unwrap() {
        events.push(parse(raw.name(), &raw.data()).unwrap());
    }
    assert_eq!(splitter.pending(), 0);
    events
}

#[test]
fn events_are_written_in_anthropics_shape() {
    let usage = Usage {
        input: Some(10),
        output: Some(1),
        cache_read: Some(0),
        cache_write: None,
        cache_write_1h: None,
    };
    let events = [
        StreamEvent::MessageStart { id: "msg_1".into(), model: "m".into(), usage },
        StreamEvent::BlockStart { index: 0, block: Block::text() },
        StreamEvent::BlockStart { index: 1, block: Block::thinking() },
        StreamEvent::BlockStart { index: 2, block: Block::tool_use("toolu_1", "Bash") },
        StreamEvent::BlockStart { index: 3, block: Block::RedactedThinking("abc".into()) },
        StreamEvent::BlockStart { index: 4, block: Block::Raw("{\n\"type\":\"x\"\r\n}".into()) },
        StreamEvent::BlockDelta { index: 0, delta: Delta::Text("Hé\n\"\u{1}".into()) },
        StreamEvent::BlockDelta { index: 1, delta: Delta::Thinking("hm".into()) },
        StreamEvent::BlockDelta { index: 1, delta: Delta::Signature("c2ln".into()) },
        StreamEvent::BlockDelta { index: 2, delta: Delta::InputJson("{\"a\":".into()) },
        StreamEvent::BlockStop { index: 2 },
        StreamEvent::MessageDelta {
            stop_reason: Some("end_turn".into()),
            stop_sequence: None,
            usage: Usage { output: Some(12), ..Usage::default() },
        },
        StreamEvent::MessageStop,
        StreamEvent::Ping,
        StreamEvent::Error { error_type: "api_error".into(), message: "no".into() },
        StreamEvent::Raw { name: "later".into(), data: "{\"type\":\"later\"}".into() },
    ];
    let all: String = events.iter().map(written).collect();
    insta::assert_snapshot!(all.replace("\n\n", "\n"), @r#"
    event: message_start
    data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_read_input_tokens":0,"output_tokens":1}}}
    event: content_block_start
    data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
    event: content_block_start
    data: {"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":"","signature":""}}
    event: content_block_start
    data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}}
    event: content_block_start
    data: {"type":"content_block_start","index":3,"content_block":{"type":"redacted_thinking","data":"abc"}}
    event: content_block_start
    data: {"type":"content_block_start","index":4,"content_block":{ "type":"x"  }}
    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hé\n\"\u0001"}}
    event: content_block_delta
    data: {"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"hm"}}
    event: content_block_delta
    data: {"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"c2ln"}}
    event: content_block_delta
    data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}
    event: content_block_stop
    data: {"type":"content_block_stop","index":2}
    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":12}}
    event: message_stop
    data: {"type":"message_stop"}
    event: ping
    data: {"type":"ping"}
    event: error
    data: {"type":"error","error":{"type":"api_error","message":"no"}}
    event: later
    data: {"type":"later"}
    "#);
}

#[test]
fn a_start_without_counts_still_gives_clients_numbers_to_compute_with() {
    let start = StreamEvent::MessageStart { id: "i".into(), model: "m".into(), usage: Usage::default() };
    assert!(written(&start).contains(r#""usage":{"input_tokens":0,"output_tokens":0}"#));
    let delta = StreamEvent::MessageDelta { stop_reason: None, stop_sequence: None, usage: Usage::default() };
    assert!(written(&delta).contains(r#""usage":{"output_tokens":0}"#));
}

#[test]
fn recorded_streams_survive_reading_and_writing() {
    for recorded in [
        include_str!("../../../fixtures/basic.response.sse"),
        include_str!("../../../fixtures/tool_loop_03.response.sse"),
        include_str!("../../../fixtures/tool_loop_10.response.sse"),
    ] {
        let events = read(recorded.as_bytes());
        let again: String = events.iter().map(written).collect();
        assert_eq!(read(again.as_bytes()), events);
        let parsed = |text: &str| -> Vec<serde_json::Value> {
            let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
            data.map(|json| serde_json::from_str(json).unwrap()).collect()
        };
        let mut originals = parsed(recorded);
        originals[0]["message"]["usage"].as_object_mut().unwrap().remove("service_tier");
        assert_eq!(parsed(&again), originals);
    }
}

#[test]
fn no_text_can_forge_a_second_event() {
    let forged = "x\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n\r\r";
    for event in [
        StreamEvent::BlockDelta { index: 0, delta: Delta::Text(forged.into()) },
        StreamEvent::BlockDelta { index: 0, delta: Delta::Raw(forged.into()) },
        StreamEvent::BlockStart { index: 0, block: Block::Raw(forged.into()) },
        StreamEvent::BlockStart {
            index: 0,
            block: Block::ToolUse { id: forged.into(), name: forged.into(), input: forged.into() },
        },
        StreamEvent::Raw { name: forged.into(), data: forged.into() },
        StreamEvent::Error { error_type: forged.into(), message: forged.into() },
    ] {
        let bytes = written(&event);
        let mut splitter = Splitter::default();
        splitter.push(Bytes::from(bytes.clone()));
        let only = splitter.next_event().unwrap().unwrap();
        assert_eq!(only.bytes.len(), bytes.len(), "{bytes:?}");
        assert_ne!(only.name(), Some("message_stop"));
    }
}

#[test]
fn an_unknown_event_block_or_delta_survives_as_it_came() {
    let event = parse(Some("later"), br#"{"type":"later","x":[1]}"#).unwrap();
    assert_eq!(event, StreamEvent::Raw { name: "later".into(), data: r#"{"type":"later","x":[1]}"#.into() });
    let block = r#"{"type":"web_search_tool_result","text":{"odd":1},"id":7}"#;
    let data = format!(r#"{{"type":"content_block_start","index":3,"content_block":{block}}}"#);
    assert_eq!(
        parse(None, data.as_bytes()).unwrap(),
        StreamEvent::BlockStart { index: 3, block: Block::Raw(block.into()) }
    );
    let delta = r#"{"type":"citations_delta","citation":{"text":1}}"#;
    let data = format!(r#"{{"type":"content_block_delta","index":3,"delta":{delta}}}"#);
    assert_eq!(
        parse(None, data.as_bytes()).unwrap(),
        StreamEvent::BlockDelta { index: 3, delta: Delta::Raw(delta.into()) }
    );
}

#[test]
fn what_a_block_starts_with_is_kept() {
    let data = br#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"n","input":{"a": 1}}}"#;
    let StreamEvent::BlockStart { block, .. } = parse(None, data).unwrap() else { panic!() };
    assert_eq!(block, Block::ToolUse { id: "t".into(), name: "n".into(), input: r#"{"a": 1}"#.into() });
    let data = br#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"so","citations":null}}"#;
    let StreamEvent::BlockStart { block, .. } = parse(None, data).unwrap() else { panic!() };
    assert_eq!(block, Block::Text("so".into()));
}

#[test]
fn an_event_that_names_two_things_is_neither() {
    let data = br#"{"type":"content_block_start","index":0,"content_block":{"type":"text"}}"#;
    assert!(matches!(parse(Some("ping"), data), Err(EventError::Contradiction { .. })));
    assert_eq!(quick_kind(Some(b"ping"), data), EventKind::Other);
    assert_eq!(quick_kind(Some(b"content_block_start"), data), EventKind::BlockStart);
    assert_eq!(quick_kind(None, data), EventKind::BlockStart);
}

#[test]
fn malformed_data_is_an_error_that_names_the_event() {
    let cases: [(Option<&str>, &[u8]); 9] = [
        (Some("message_start"), b"{}"),
        (Some("message_start"), b"{"),
        (Some("content_block_delta"), br#"{"index":-1,"delta":{"type":"text_delta","text":""}}"#),
        (Some("content_block_delta"), br#"{"index":0,"delta":{"type":"text_delta","text":7}}"#),
        (Some("content_block_start"), br#"{"index":0,"content_block":{"type":"tool_use","id":"x"}}"#),
        (Some("content_block_stop"), br#"{"index":0,"index":1}"#),
        (Some("error"), br#"{"type":"error","error":"x"}"#),
        (None, b"{}"),
        (Some("ping"), b"\xff"),
    ];
    for (name, data) in cases {
        let error = parse(name, data).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn the_kind_is_found_wherever_the_type_stands() {
    for (data, kind) in [
        (r#"{"type":"ping"}"#, EventKind::Ping),
        (r#" { "type" : "message_stop" } "#, EventKind::MessageStop),
        (r#"{"index":0,"type":"content_block_stop"}"#, EventKind::BlockStop),
        (
            r#"{"delta":{"type":"text_delta","text":"\"}]{[,"},"x":[1,{"type":"ping"}],"type":"content_block_delta"}"#,
            EventKind::BlockDelta,
        ),
        (r#"{"a":-1.5e3,"b":null,"c":"type","type":"error"}"#, EventKind::Error),
        (r#"{"a":{"type":"ping"}}"#, EventKind::Other),
        (r#"{"type":7}"#, EventKind::Other),
        (r#"["type","ping"]"#, EventKind::Other),
        (r#"{"type":"pin"#, EventKind::Other),
        (r#"{"a":"\"#, EventKind::Other),
        ("", EventKind::Other),
    ] {
        assert_eq!(quick_kind(None, data.as_bytes()), kind, "{data}");
    }
    assert_eq!(quick_kind(Some(b"ping"), b""), EventKind::Ping);
    assert_eq!(quick_kind(Some(b"later"), br#"{"type":"later"}"#), EventKind::Other);
}

#[test]
fn usage_is_cumulative_and_absent_is_not_zero() {
    let mut usage =
        Usage { input: Some(10), output: Some(1), cache_read: None, cache_write: None, cache_write_1h: None };
    usage.merge(Usage { output: Some(30), ..Usage::default() });
    usage.merge(Usage {
        input: Some(0),
        output: Some(42),
        cache_read: Some(0),
        cache_write: None,
        cache_write_1h: None,
    });
    assert_eq!(
        usage,
        Usage {
            input: Some(10),
            output: Some(42),
            cache_read: Some(0),
            cache_write: None,
            cache_write_1h: None
        }
    );
    assert!(Usage::default().is_unknown());
    assert_eq!(
        Usage::parse(br#"{"input_tokens":1,"cache_read_input_tokens":null,"server_tool_use":{}}"#),
        Some(Usage { input: Some(1), ..Usage::default() })
    );
    assert_eq!(Usage::parse(b"7"), None);
}

#[test]
fn what_is_cached_for_an_hour_is_told_apart() {
    let json = br#"{"input_tokens":3,"cache_creation_input_tokens":700,"output_tokens":1,
        "cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":500}}"#;
    let usage = Usage::parse(json).unwrap();
    assert_eq!((usage.cache_write, usage.cache_write_1h), (Some(700), Some(500)));
    let none = Usage::parse(br#"{"cache_creation_input_tokens":700,"cache_creation":null}"#).unwrap();
    assert_eq!((none.cache_write, none.cache_write_1h), (Some(700), None));
    let mut written = Vec::new();
    usage.write(&mut written, Required::Both);
    assert_eq!(Usage::parse(&written), Some(usage));
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains(r#""ephemeral_5m_input_tokens":200"#), "{text}");
}

fn events() -> impl Strategy<Value = StreamEvent> {
    let text = any::<String>();
    let usage =
        any::<[Option<u64>; 5]>().prop_map(|[input, output, cache_read, cache_write, cache_write_1h]| {
            Usage { input, output, cache_read, cache_write, cache_write_1h }
        });
    let block = prop_oneof![
        any::<String>().prop_map(Block::Text),
        any::<(String, String)>().prop_map(|(thinking, signature)| Block::Thinking { thinking, signature }),
        any::<String>().prop_map(Block::RedactedThinking),
        any::<(String, String)>().prop_map(|(id, name)| Block::tool_use(id, name)),
    ];
    let delta = prop_oneof![
        any::<String>().prop_map(Delta::Text),
        any::<String>().prop_map(Delta::InputJson),
        any::<String>().prop_map(Delta::Thinking),
        any::<String>().prop_map(Delta::Signature),
    ];
    prop_oneof![
        (any::<(String, String)>(), usage.clone()).prop_map(|((id, model), mut usage)| {
            usage.input = usage.input.or(Some(0));
            usage.output = usage.output.or(Some(0));
            StreamEvent::MessageStart { id, model, usage }
        }),
        (any::<u32>(), block).prop_map(|(index, block)| StreamEvent::BlockStart { index, block }),
        (any::<u32>(), delta).prop_map(|(index, delta)| StreamEvent::BlockDelta { index, delta }),
        any::<u32>().prop_map(|index| StreamEvent::BlockStop { index }),
        (any::<(Option<String>, Option<String>)>(), usage).prop_map(
            |((stop_reason, stop_sequence), mut usage)| {
                usage.output = usage.output.or(Some(0));
                StreamEvent::MessageDelta { stop_reason, stop_sequence, usage }
            }
        ),
        Just(StreamEvent::MessageStop),
        Just(StreamEvent::Ping),
        (any::<String>(), text).prop_map(|(error_type, message)| StreamEvent::Error { error_type, message }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(stream in prop::collection::vec(events(), 0..8)) {
        let mut bytes = Vec::new();
        for event in &stream {
            event.write(&mut bytes);
        }
        prop_assert_eq!(read(&bytes), stream);
    }

    #[test]
    fn the_quick_kind_agrees_with_the_full_reading(event in events()) {
        let text = written(&event);
        let data = text.lines().nth(1).and_then(|line| line.strip_prefix("data: ")).unwrap();
        prop_assert_eq!(quick_kind(None, data.as_bytes()), event.kind());
    }

    #[test]
    fn no_bytes_make_the_readers_panic(name in prop::option::of(".{0,12}"), data in prop::collection::vec(any::<u8>(), 0..64)) {
        let _parsed = parse(name.as_deref(), &data);
        let _kind = quick_kind(name.as_deref().map(str::as_bytes), &data);
    }

    #[test]
    fn no_near_json_makes_the_readers_panic(data in r#"[{}\[\]",:\\a1 ]{0,24}"#) {
        let _parsed = parse(None, data.as_bytes());
        let _kind = quick_kind(None, data.as_bytes());
    }
}
