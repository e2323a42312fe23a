use super::*;

fn texts(body: &str) -> Vec<(Origin, String)> {
    let index = Index::parse(body.as_bytes()).unwrap();
    index.texts.iter().map(|text| (text.origin, text.read(body.as_bytes()).into_owned())).collect()
}

fn with(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":{messages}}}"#)
}

#[test]
fn the_facts_of_a_request_are_found_in_one_pass() {
    let body = r#" {"max_tokens":1024,"model" : "claude-x","stream":true,"tools":[{"name":"Bash","description":"runs"}],
        "metadata":{"user_id":"abc"},"messages":[{"role":"user","content":"hi"}],"unknown":{"a":[1,2.5e3,null]}} "#;
    let index = Index::parse(body.as_bytes()).unwrap();
    assert_eq!(index.model, "claude-x");
    assert_eq!(index.model_span.of(body.as_bytes()), br#""claude-x""#);
    assert!(index.stream);
    assert_eq!(index.max_tokens, Some(1024));
    assert_eq!(index.tools, ["Bash"]);
    assert_eq!(index.message_count, 1);
    assert_eq!(index.user_id.unwrap().of(body.as_bytes()), br#""abc""#);
    assert!(!index.has_safeguards);
}

#[test]
fn every_text_is_found_with_its_origin() {
    let body = r#"{"model":"m","system":[{"type":"text","text":"be kind"}],"messages":[
        {"role":"user","content":[{"text":"hello","type":"text"},{"type":"tool_result","content":[{"type":"text","text":"out"}]},
          {"type":"document","title":"t","source":{"type":"text","data":"doc"}},{"type":"image","source":{"data":"AAAA"}}]},
        {"content":[{"type":"tool_use","input":{"cmd":"a\tb"}},{"type":"thinking","thinking":"hm","signature":"sig"}],"role":"assistant"},
        {"role":"system","content":"mid"},{"role":"user","content":[{"type":"news","deep":{"x":["odd"]}}]}]}"#;
    assert_eq!(
        texts(body),
        [
            (Origin::System, "be kind"),
            (Origin::User, "hello"),
            (Origin::ToolOutput, "out"),
            (Origin::Document, "t"),
            (Origin::Document, "doc"),
            (Origin::ToolInput, "cmd: a\tb\n"),
            (Origin::Assistant, "hm"),
            (Origin::System, "mid"),
            (Origin::User, "news"),
            (Origin::User, "odd"),
        ]
        .map(|(origin, text)| (origin, text.to_owned()))
    );
}

#[test]
fn messages_and_blocks_of_tools_are_found_where_they_stand() {
    let body = r#"{"model":"m","messages":[{"role":"user","content": "hi" },
        {"content":[{"type":"tool_use","id":"a","input":{}}],"role":"assistant"},
        {"role":"user","content":[ {"type":"tool_result","content":[{"type":"tool_result","content":"fake"}]} ]},
        {"role":"system"}]}"#;
    let index = Index::parse(body.as_bytes()).unwrap();
    let of = |span: Span| std::str::from_utf8(span.of(body.as_bytes())).unwrap();
    let messages: Vec<_> = index.messages.iter().map(|m| (m.role, of(m.content))).collect();
    assert_eq!(
        messages,
        [
            (Role::User, r#""hi""#),
            (Role::Assistant, r#"[{"type":"tool_use","id":"a","input":{}}]"#),
            (Role::User, r#"[ {"type":"tool_result","content":[{"type":"tool_result","content":"fake"}]} ]"#),
            (Role::System, ""),
        ]
    );
    let blocks: Vec<_> = index.tool_blocks.iter().map(|b| (b.is_result, b.message, of(b.span))).collect();
    assert_eq!(
        blocks,
        [
            (false, 1, r#"{"type":"tool_use","id":"a","input":{}}"#),
            (true, 2, r#"{"type":"tool_result","content":[{"type":"tool_result","content":"fake"}]}"#),
        ]
    );
}

#[test]
fn an_escape_hides_neither_a_key_nor_a_text() {
    let body =
        r#"{"mod\u0065l":"m\u0031","messages":[{"role":"us\u0065r","content":"s\u0065cret \ud83d\ude00"}]}"#;
    assert_eq!(Index::parse(body.as_bytes()).unwrap().model, "m1");
    assert_eq!(texts(body), [(Origin::User, "secret \u{1f600}".to_owned())]);
}

#[test]
fn a_key_that_matters_may_stand_once() {
    for (body, key) in [
        (r#"{"model":"a","model":"b","messages":[]}"#, "model"),
        (r#"{"model":"a","messages":[],"messages":[]}"#, "messages"),
        (r#"{"model":"a","messages":[{"role":"user","content":"a","content":"b"}]}"#, "content"),
        (
            r#"{"model":"a","messages":[{"role":"user","content":[{"type":"text","text":"a","t\u0065xt":"b"}]}]}"#,
            "text",
        ),
    ] {
        assert_eq!(Index::parse(body.as_bytes()), Err(Malformed::Twice(key)), "{body}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    assert_eq!(Index::parse(b"{\"model\":\"\xff\"}"), Err(Malformed::Utf8));
    assert_eq!(Index::parse(br#"{"messages":[]}"#), Err(Malformed::Missing("model")));
    assert_eq!(Index::parse(br#"{"model":"m"}"#), Err(Malformed::Missing("messages")));
    for bad in [
        "",
        "null",
        "[]",
        "{",
        "{\"model\"}",
        "{\"model\":\"m\",}",
        "{\"model\":\"m\" \"messages\":[]}",
        "{\"model\":\"m\",\"messages\":[1 2]}",
        "{\"model\":\"m\",\"messages\":[]} x",
        "{\"model\":\"m\n\",\"messages\":[]}",
        "{\"model\":\"\\ud800\",\"messages\":[]}",
        "{\"model\":\"\\x\",\"messages\":[]}",
        "{\"model\":\"m\",\"messages\":[],\"x\":01}",
        "{\"model\":\"m\",\"messages\":[],\"x\":1.}",
        "{\"model\":\"m\",\"messages\":[],\"x\":tru}",
        "{\"model\":7,\"messages\":[]}",
    ] {
        assert!(matches!(Index::parse(bad.as_bytes()), Err(Malformed::Json { .. })), "{bad}");
    }
}

#[test]
fn deep_nesting_is_refused_before_the_stack_is_gone() {
    let deep = format!(r#"{{"model":"m","messages":[],"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Index::parse(deep.as_bytes()), Err(Malformed::Depth));
}

#[test]
fn the_last_turn_of_the_user_is_what_it_wrote_last() {
    let body = with(
        r#"[{"role":"user","content":"one"},{"role":"assistant","content":"two"},{"role":"user","content":[{"type":"text","text":"three"},{"type":"text","text":"four"}]}]"#,
    );
    let index = Index::parse(body.as_bytes()).unwrap();
    let last: Vec<_> = index.last_user_texts().map(|text| text.read(body.as_bytes()).into_owned()).collect();
    assert_eq!(last, ["three", "four"]);
}

mod properties {
    use proptest::prelude::*;

    use super::super::Index;

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _read_or_refused = Index::parse(&bytes).is_ok();
        }

        #[test]
        fn what_serde_refuses_is_refused(at in 0_usize..200, byte in any::<u8>()) {
            let mut body = br#"{"model":"m","max_tokens":12,"messages":[{"role":"user","content":[{"type":"text","text":"a\u00e9\n"}]}],"x":[1.5e-3,{"y":null}]}"#.to_vec();
            let at = at % body.len();
            body[at] = byte;
            if serde_json::from_slice::<serde_json::Value>(&body).is_err() {
                prop_assert!(Index::parse(&body).is_err());
            }
        }
    }
}
