use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::messages::event::parse;

const TOOL: &str = r#""content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}"#;

fn refused(name: &str, data: &str) -> Ambiguous {
    strict(Some(name), data.as_bytes()).expect_err(data)
}

#[test]
fn a_tool_call_in_disguise_is_refused_in_every_form() {
    let delta = r#""index":0,"delta":{"type":"text_delta","text":""}"#;
    let start = r#""message":{"id":"m","model":"m","content":[{"type":"tool_use","id":"t","name":"Bash","input":{}}]}"#;
    assert!(matches!(
        refused("message_start", &format!(r#"{{"type":"message_start",{start}}}"#)),
        Ambiguous::Content
    ));
    for name in
        ["content_block_delta", "content_block_stop", "message_delta", "message_start", "ping", "later"]
    {
        refused(name, &format!(r#"{{"type":"{name}","type":"content_block_start","index":0,{TOOL}}}"#));
        refused(name, &format!(r#"{{"type":"content_block_start","index":0,{TOOL}}}"#));
        refused(name, &format!(r#"{{"type":"{name}","index":0,{TOOL}}}"#));
        refused(name, &format!(r#"{{"type":"{name}","Type":"content_block_start","index":0,{TOOL}}}"#));
    }
    refused("content_block_delta", &format!(r#"{{"\u0074ype":"content_block_start","index":0,{TOOL}}}"#));
    refused(
        "content_block_delta",
        &format!(r#"{{"type":"content_block_delta","\u0074ype":"content_block_start",{delta},{TOOL}}}"#),
    );
    for data in [
        format!(r#"{{"type":"content_block_delta",{delta},{TOOL}}}"#),
        format!(r#"{{"type":"content_block_delta",{delta},"x":[{{"y":{{{TOOL}}}}}]}}"#),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"tool_use","id":"t","name":"n","input":{}}}"#.into(),
    ] {
        assert!(matches!(refused("content_block_delta", &data), Ambiguous::Hidden), "{data}");
    }
    let nested = format!(
        r#"{{"type":"content_block_start","index":0,"content_block":{{"type":"server","x":{{{TOOL}}}}}}}"#
    );
    assert!(matches!(refused("content_block_start", &nested), Ambiguous::Hidden));
    let beside =
        format!(r#"{{"type":"content_block_start","index":0,{TOOL},"message":{{"type":"tool_use"}}}}"#);
    assert!(matches!(refused("content_block_start", &beside), Ambiguous::Hidden));
}

#[test]
fn what_reads_in_two_ways_is_refused_at_any_depth() {
    for data in [
        r#"{"type":"content_block_delta","index":0,"index":1,"delta":{"type":"text_delta","text":"a"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","type":"input_json_delta","text":"a"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"},"x":{"y":[{"z":1,"z":2}]}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"\u0074ype":"text_delta","text":"a"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a","Partial_JSON":"b"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a","\u017fignature":"b"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}"#,
        r#"{"type":"content_block_delta","index":0.0,"delta":{"type":"text_delta","text":"a"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":["text_delta"]}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}} {}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}"#,
        r#"{"index":0,"delta":{"type":"text_delta","text":"a"}}"#,
        r#"["content_block_delta"]"#,
        "",
    ] {
        refused("content_block_delta", data);
    }
    assert!(matches!(strict(None, b"\xff"), Err(Ambiguous::Utf8)));
}

#[test]
fn many_names_are_compared_too() {
    let members: Vec<String> = (0..1000).map(|n| format!("\"k{n}\":0")).collect();
    let once = format!(r#"{{"type":"later",{}}}"#, members.join(","));
    assert!(strict(Some("later"), once.as_bytes()).is_ok());
    refused("later", &format!(r#"{{"type":"later",{},"k999":1}}"#, members.join(",")));
}

#[test]
fn what_honest_upstreams_send_is_read_as_ever() {
    for recorded in [
        include_str!("../../../../fixtures/basic.response.sse"),
        include_str!("../../../../fixtures/tool_loop_03.response.sse"),
        include_str!("../../../../fixtures/tool_loop_10.response.sse"),
    ] {
        for event in recorded.split("\n\n").filter(|event| !event.trim().is_empty()) {
            let (name, data) = event.trim().split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            let data = data.strip_prefix("data: ").unwrap().as_bytes();
            let read = strict(Some(name), data).unwrap();
            assert_eq!(read, parse(Some(name), data).unwrap());
            // Without what is said it is the same event.
            let unsaid = match read {
                StreamEvent::BlockDelta { index, delta: Delta::Text(_) } => {
                    StreamEvent::BlockDelta { index, delta: Delta::Text(String::new()) }
                }
                StreamEvent::BlockDelta { index, delta: Delta::Thinking(_) } => {
                    StreamEvent::BlockDelta { index, delta: Delta::Thinking(String::new()) }
                }
                read => read,
            };
            assert_eq!(strict_unsaid(Some(name), data).unwrap(), unsaid);
        }
    }
    for data in [
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"web_search_tool_result","content":[{"type":"web_search_result","title":"T","Page":1}]}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{"type":"char_location","cited_text":"x"}}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"n","input":{"gr\u00f6\u00dfe":1,"type":"tool_use","Type":2}}}"#,
        r#"{"type":"message_start","message":{"id":"m","model":"m","content":[ ],"usage":{"input_tokens":1}}}"#,
        r#"{"type":"later","x":{"a":null,"b":[1,-2,1.5e3,true]}}"#,
    ] {
        assert!(strict(None, data.as_bytes()).is_ok(), "{data}");
    }
    let half = br#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\ud83d"}}"#;
    let StreamEvent::BlockDelta { delta: Delta::Text(text), .. } = strict(None, half).unwrap() else {
        panic!()
    };
    assert!(text.starts_with('a'), "half of a character ends no answer: {text}");
}

#[test]
fn a_tools_input_is_exactly_one_object() {
    for good in ["{}", " {\"a\":[1,{\"b\":null}]}\n", r#"{"a":1,"A":2,"type":"tool_use"}"#] {
        assert!(tool_input(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "null",
        "[]",
        "\"{}\"",
        r#"{"command": "rm -r"#,
        "{}{}",
        r#"{}{"a":1}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"b":{"a":1,"a":2}}"#,
        r#"{"\u0063ommand":1}"#,
        r#"{"a":"\ud83d"}"#,
    ] {
        assert!(tool_input(bad).is_err(), "{bad}");
    }
}

/// JSON of few names, often twice, often escaped, often of a tool call: what the readers have to agree on.
fn json() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "type",
        "\\u0074ype",
        "Type",
        "index",
        "delta",
        "content_block",
        "message",
        "content",
        "id",
        "name",
        "input",
        "x",
    ]);
    let leaf = prop::sample::select(vec![
        "\"tool_use\"",
        "\"content_block_start\"",
        "\"content_block_delta\"",
        "\"message_start\"",
        "\"text\"",
        "\"text_delta\"",
        "\"t\"",
        "\"tool\\u005fuse\"",
        "0",
        "1",
        "null",
        "{}",
        "[]",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 6, move |inner| {
        let member = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

/// Every tool call that a client which takes the last of two names can find, wherever it looks, inputs left out.
fn calls<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            if members.get("type").is_some_and(|kind| kind == TOOL_USE) {
                found.push(value);
            }
            members.iter().filter(|(name, _)| *name != "input").for_each(|(_, value)| calls(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| calls(item, found)),
        _ => {}
    }
}

/// Panics where an accepted event is another one to `serde_json`, which takes the last of two names.
fn compare(data: &str) {
    let Ok(event) = strict(None, data.as_bytes()) else { return };
    let theirs: Value = serde_json::from_str(data).unwrap();
    let mut found = Vec::new();
    calls(&theirs, &mut found);
    match &event {
        StreamEvent::BlockStart { index, block: Block::ToolUse { id, name, input } } => {
            assert_eq!(theirs["type"], "content_block_start");
            assert_eq!(theirs["index"], *index);
            assert_eq!(found, [&theirs["content_block"]]);
            assert_eq!(
                (&theirs["content_block"]["id"], &theirs["content_block"]["name"]),
                (&Value::from(id.as_str()), &Value::from(name.as_str()))
            );
            // No input and an input of null are what a client starts with before the first piece.
            let said = theirs["content_block"].get("input").filter(|input| !input.is_null());
            let said = said.cloned().unwrap_or_else(|| serde_json::json!({}));
            assert_eq!(serde_json::from_str::<Value>(input).unwrap(), said);
        }
        _ => assert!(found.is_empty(), "{data}"),
    }
    let kind = EventKind::of(theirs["type"].as_str().unwrap().as_bytes());
    assert_eq!(event.kind(), kind, "{data}");
    if kind == EventKind::MessageStart {
        let content = &theirs["message"]["content"];
        assert!(content.is_null() || content.as_array().is_some_and(Vec::is_empty), "{data}");
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_a_client_reads(data in json()) {
        compare(&data);
    }

    #[test]
    fn a_tool_call_is_read_as_a_client_reads_it(id in json(), more in prop::collection::vec((prop::sample::select(vec!["type", "index", "x", "content_block", "message"]), json()), 0..3), at in 0_usize..4) {
        let mut members = vec![r#""type":"content_block_start""#.to_owned(), r#""index":1"#.to_owned(),
            format!(r#""content_block":{{"type":"tool_use","id":"t","name":"n","input":{id}}}"#)];
        for (name, value) in more {
            members.insert(at.min(members.len()), format!("\"{name}\":{value}"));
        }
        compare(&format!("{{{}}}", members.join(",")));
    }

    #[test]
    fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..64), text in r#"[{}\[\]",:\\a1 ]{0,32}"#) {
        let _one = strict(None, &data);
        let _other = strict(Some("ping"), text.as_bytes());
        let _third = tool_input(&text);
    }
}
