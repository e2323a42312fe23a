use sallyport_protocol::messages::sse::Splitter;
use serde_json::{Value, json};

use super::*;

/// Cuts a stream as the pump does.
fn cut_up(stream: &str) -> Vec<RawEvent> {
    let mut splitter = Splitter::default();
    splitter.push(Bytes::copy_from_slice(stream.as_bytes()));
    let mut events = Vec::new();
    while let Some(event) = splitter.next_event().unwrap() {
        events.push(event);
    }
    events
}

fn sse(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn start() -> String {
    sse(
        &json!({"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {"input_tokens": 1}}}),
    )
}

fn tool(index: u32, pieces: &[&str]) -> String {
    let block = json!({"type": "tool_use", "id": format!("toolu_{index}"), "name": "Bash", "input": {}});
    let mut out = sse(&json!({"type": "content_block_start", "index": index, "content_block": block}));
    for piece in pieces {
        let delta = json!({"type": "input_json_delta", "partial_json": piece});
        out += &sse(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }
    out + &sse(&json!({"type": "content_block_stop", "index": index}))
}

fn end(reason: &str) -> String {
    sse(
        &json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 2}}),
    )
}

/// Has a whole stream pass; each tool call that is complete is decided by `decide`. What came out, and why it ended early.
fn run(gate: &mut Gate, stream: &str, decide: impl Fn(&Held) -> Decision) -> (String, Option<GateAction>) {
    let mut out = BytesMut::new();
    for raw in cut_up(stream) {
        match gate.raw(&raw, &mut out) {
            GateAction::Passed | GateAction::Tool(_) => {}
            GateAction::Decide(held) => {
                let decision = decide(&held);
                gate.settle(held, &decision, &mut out);
            }
            GateAction::Cut(mut held) => {
                let decision = cut(&mut held.tool);
                assert!(held.tool.blocked.is_some(), "the row says that it did not run");
                gate.settle(held, &decision, &mut out);
            }
            other => return (String::from_utf8(out.to_vec()).unwrap(), Some(other)),
        }
    }
    (String::from_utf8(out.to_vec()).unwrap(), None)
}

fn hooked() -> Gate {
    Gate::listening(true, false, Voice::Upstream)
}

#[test]
fn a_released_tool_call_is_what_came_and_a_modified_one_has_the_other_input() {
    let stream = start() + &tool(0, &["", "{\"command\":", "\"ls\"}"]) + &end("tool_use");
    let (out, ended) = run(&mut hooked(), &stream, |held| {
        assert_eq!((held.tool.name.as_str(), held.input.as_str()), ("Bash", r#"{"command":"ls"}"#));
        Decision::Release
    });
    assert!(ended.is_none());
    assert_eq!(out, stream);

    let (out, _) = run(&mut hooked(), &stream, |_| Decision::Modify(r#"{"command":"true"}"#.to_owned()));
    let (text, expected) = (out, start() + &tool(0, &[r#"{"command":"true"}"#]) + &end("tool_use"));
    let read = |stream: &str| -> Vec<_> {
        cut_up(stream).iter().map(|raw| event::strict(raw.name(), &raw.data()).unwrap()).collect()
    };
    assert_eq!(read(&text), read(&expected));
}

#[test]
fn a_turn_whose_only_tool_call_is_stopped_ends_there() {
    let stream = start() + &tool(0, &["{}"]) + &end("tool_use");
    let (out, _) = run(&mut hooked(), &stream, |_| Decision::Stop("no".to_owned()));
    assert!(!out.contains("tool_use") && out.contains("end_turn") && out.contains("\"no\""), "{out}");
}

#[test]
fn an_input_that_is_no_object_is_asked_about_by_nobody_and_given_to_nobody() {
    for pieces in [&["{\"command\": \"rm -r"][..], &["{}", "{\"a\":1}"], &["[]"], &["{\"a\":1,\"a\":2}"]] {
        let stream = start() + &tool(0, pieces) + &end("max_tokens");
        let (out, ended) = run(&mut hooked(), &stream, |held| panic!("asked about {held:?}"));
        assert!(ended.is_none(), "{pieces:?}: the answer goes on");
        assert!(!out.contains("tool_use") && !out.contains("rm -r"), "{out}");
        assert!(out.contains("did not run") && out.contains("max_tokens"), "{out}");
    }
}

#[test]
fn a_second_input_and_a_piece_after_the_end_are_refused() {
    let block = json!({"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}});
    let begun = sse(&json!({"type": "content_block_start", "index": 0, "content_block": block}));
    let delta = json!({"type": "input_json_delta", "partial_json": "{\"command\":\"rm\"}"});
    let piece = sse(&json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    let (out, ended) = run(&mut hooked(), &(start() + &begun + &piece), |_| Decision::Release);
    assert!(matches!(ended, Some(GateAction::Unreadable(_))) && !out.contains("Bash"), "{out}");

    let (out, ended) = run(&mut hooked(), &(start() + &tool(0, &["{}"]) + &piece), |_| Decision::Release);
    assert!(matches!(ended, Some(GateAction::Unreadable(_))) && !out.contains("rm"), "{out}");
}

#[test]
fn what_cannot_be_read_ends_the_stream_where_somebody_listens_and_passes_where_nobody_does() {
    for odd in [
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"Bash\",\"input\":{}}}\n\n",
        "event: content_block_delta\rdata: {\"type\":\"content_block_start\",\rdata: \"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"Bash\",\"input\":{}}}\r\r\n",
        "data: {\"\\u0074ype\":\"content_block_start\"}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"\n\n",
        "event: later\ndata: nothing\n\n",
    ] {
        let stream = start() + odd;
        for (hooks, text) in [(true, false), (false, true), (true, true)] {
            let mut gate = Gate::listening(hooks, text, Voice::Upstream);
            let (out, ended) = run(&mut gate, &stream, |_| Decision::Release);
            assert!(matches!(ended, Some(GateAction::Unreadable(_))), "{odd}: {ended:?}");
            assert_eq!(out, start());
        }
        let mut gate = Gate::listening(false, false, Voice::Upstream);
        let (out, ended) = run(&mut gate, &stream, |_| panic!("nobody is asked"));
        let passed = match ended {
            Some(GateAction::Last(bytes)) => out + std::str::from_utf8(&bytes).unwrap(),
            _ => out,
        };
        assert_eq!(passed, stream);
    }
}

#[test]
fn unknown_events_blocks_and_comments_pass_byte_for_byte() {
    let stream = start()
        + ": a comment\n\n"
        + &sse(&json!({"type": "ping"}))
        + &sse(&json!({"type": "later", "x": {"y": [1, null]}}))
        + &sse(
            &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}}),
        )
        + &sse(
            &json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}}),
        )
        + &sse(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "later_delta", "x": 1}}))
        + &sse(&json!({"type": "content_block_stop", "index": 0}))
        + &end("end_turn");
    let (out, ended) = run(&mut hooked(), &stream, |_| panic!("nobody is asked"));
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(out, stream);
}

#[test]
fn a_tool_call_in_a_hundred_thousand_pieces_arrives_and_one_beyond_the_limit_is_named() {
    let mut pieces = vec!["{\"a\":\""];
    pieces.extend(std::iter::repeat_n("abcde", 100_000));
    pieces.push("\"}");
    let stream = start() + &tool(0, &pieces) + &end("tool_use");
    let (out, ended) = run(&mut hooked(), &stream, |held| {
        assert_eq!(held.input.len(), 500_008);
        Decision::Release
    });
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(out.len(), stream.len());

    let long = "a".repeat(LONGEST_INPUT / 2);
    let (_, ended) = run(&mut hooked(), &(start() + &tool(0, &["{\"a\":\"", &long, &long, "\"}"])), |_| {
        panic!("too large")
    });
    assert!(matches!(ended, Some(GateAction::TooLarge)), "{ended:?}");
}

#[test]
fn an_error_of_the_upstream_waits_for_the_row_and_is_clipped_in_it() {
    let message = "x".repeat(10_000);
    let error = sse(&json!({"type": "error", "error": {"type": "overloaded_error", "message": message}}));
    for mut gate in [hooked(), Gate::listening(false, false, Voice::Upstream)] {
        let (out, ended) = run(&mut gate, &(start() + &error), |_| Decision::Release);
        assert_eq!(out, start());
        let Some(GateAction::Failed { said, bytes }) = ended else { panic!("{ended:?}") };
        assert_eq!(bytes, error.as_bytes());
        assert!(said.starts_with("overloaded_error: x") && said.len() == 300);
    }
}

#[test]
fn a_provider_gives_out_no_tool_call_that_is_not_whole_though_nobody_listens() {
    let mut gate = Gate::listening(false, false, Voice::Provider);
    let mut out = BytesMut::new();
    let index = 0;
    for event in [
        StreamEvent::BlockStart { index, block: Block::tool_use("t", "Bash") },
        StreamEvent::BlockDelta { index, delta: Delta::InputJson("{\"a\":".to_owned()) },
    ] {
        assert!(matches!(gate.take(event, Bytes::from_static(b"x"), &mut out), GateAction::Passed));
    }
    let taken = gate.take(StreamEvent::BlockStop { index }, Bytes::from_static(b"x"), &mut out);
    assert!(matches!(taken, GateAction::Cut(_)) && out.is_empty(), "{taken:?}");
}
