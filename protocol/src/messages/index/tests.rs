use super::*;

fn texts(body: &str) -> Vec<(Origin, String)> {
    let index = Index::parse(body.as_bytes()).unwrap();
    let beside = |text: &&Text| !(text.origin == Origin::Parameter && text.message.is_none());
    index
        .texts
        .iter()
        .filter(beside)
        .map(|text| (text.origin, text.read(body.as_bytes()).into_owned()))
        .collect()
}

#[test]
fn what_stands_for_an_unknown_kind_of_source_is_shown() {
    for (kind, shown) in [(r#""x-secret""#, "x-secret"), (r#"{"a":["secret"]}"#, "secret")] {
        let body = with(&format!(
            r#"[{{"role":"user","content":[{{"type":"image","source":{{"type":{kind},"url":"u"}}}}]}}]"#
        ));
        assert!(texts(&body).iter().any(|(_, text)| text.contains(shown)), "{kind}: {:?}", texts(&body));
    }
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
            (Origin::Document, "doc"),
            (Origin::Document, "t"),
            (Origin::Document, "AAAA"),
            (Origin::ToolInput, "type: tool_use\ninput: cmd: a\tb\n"),
            (Origin::Assistant, "hm"),
            (Origin::Parameter, "\"signature\":\"sig\""),
            (Origin::System, "mid"),
            (Origin::Other, r#"{"type":"news","deep":{"x":["odd"]}}"#),
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
        "{\"model\":\"m\",\"stream\":\"true\",\"messages\":[]}",
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

#[test]
fn a_key_that_some_readers_take_for_another_is_refused_wherever_the_index_reads() {
    for (body, key) in [
        (r#"{"model":"a","Model":"b","messages":[]}"#, "model"),
        (r#"{"model":"a","messages":[],"Messages":[]}"#, "messages"),
        ("{\"model\":\"a\",\"messages\":[],\"me\u{17f}\u{17f}ages\":[]}", "messages"),
        (r#"{"model":"a","messages":[],"me\u017f\u017fages":[]}"#, "messages"),
        ("{\"model\":\"a\",\"messages\":[],\"max_to\u{212a}ens\":1}", "max_tokens"),
        (r#"{"model":"a","messages":[],"TOOLS":[]}"#, "tools"),
        (r#"{"model":"a","messages":[{"role":"user","Content":"x"}]}"#, "content"),
        (r#"{"model":"a","messages":[{"Role":"user"}]}"#, "role"),
        (r#"{"model":"a","messages":[{"content":[{"type":"text","Text":"x"}]}]}"#, "text"),
        (r#"{"model":"a","messages":[{"content":[{"type":"image","source":{"URL":"x"}}]}]}"#, "url"),
        (r#"{"model":"a","messages":[],"tools":[{"Name":"x"}]}"#, "name"),
        (r#"{"model":"a","messages":[],"tools":[{"function":{"Name":"x"}}]}"#, "name"),
        (r#"{"model":"a","messages":[],"tool_choice":{"NAME":"x"}}"#, "name"),
        (r#"{"model":"a","messages":[],"thinking":{"Budget_tokens":9}}"#, "budget_tokens"),
        (r#"{"model":"a","messages":[],"metadata":{"User_ID":"x"}}"#, "user_id"),
        (r#"{"model":"a","messages":[],"mcp_servers":[{"Url":"x"}]}"#, "url"),
    ] {
        assert_eq!(Index::parse(body.as_bytes()), Err(Malformed::Folded(key)), "{body}");
    }
    // What is a tool's own may be called as it likes.
    let own = r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"n",
        "input":{"Text":1,"text":2,"Model":"x"}}]}],"tools":[{"name":"n","input_schema":{"properties":{"Name":{},"name":{}}}}]}"#;
    assert!(Index::parse(own.as_bytes()).is_ok());
}

#[test]
fn a_number_counts_in_every_spelling_and_nothing_else_passes_for_one() {
    let with = |value: &str| format!(r#"{{"model":"m","messages":[],"max_tokens":{value}}}"#);
    for (value, count) in [("4000", 4000), ("4e3", 4000), ("4000.0", 4000), ("0", 0)] {
        assert_eq!(Index::parse(with(value).as_bytes()).unwrap().max_tokens, Some(count), "{value}");
    }
    for value in ["\"4000\"", "-4000", "null", "0.5", "4294967296", "true", "[1]", "{}"] {
        let refused = Index::parse(with(value).as_bytes());
        assert!(matches!(refused, Err(Malformed::Type { key: "max_tokens", .. })), "{value}: {refused:?}");
    }
    let thinking = |value: &str| {
        format!(r#"{{"model":"m","messages":[],"thinking":{{"type":"enabled","budget_tokens":{value}}}}}"#)
    };
    assert_eq!(Index::parse(thinking("2e3").as_bytes()).unwrap().thinking_tokens, Some(2000));
    assert!(Index::parse(thinking("\"2000\"").as_bytes()).is_err());
    // Another reader's name for the same: the largest counts.
    let body = r#"{"model":"m","messages":[],"max_tokens":1,"max_completion_tokens":5e3}"#;
    let index = Index::parse(body.as_bytes()).unwrap();
    assert_eq!(index.max_tokens, Some(5000));
    assert_eq!(index.unknown.names(), ["max_completion_tokens"]);
}

#[test]
fn tools_are_found_wherever_a_request_defines_or_names_them() {
    let tools = |body: &str| {
        let index = Index::parse(body.as_bytes()).unwrap();
        (index.tools, index.unknown.names().join(" "))
    };
    for (more, names, unknown) in [
        (r#""tools":[{"name":"a"},{"type":"web_search_20250305","name":"b"}]"#, "a b", ""),
        (r#""tools":[{"type":"function","function":{"name":"a","parameters":{}}}]"#, "a", "tools.function"),
        (r#""tools":{"a":{"description":"x"},"b":{"name":"c"}}"#, "a b c", "tools"),
        (r#""tools":{"name":"a","max_uses":1}"#, "name a max_uses", "tools"),
        (r#""tools":["a"]"#, "a", "tools.name"),
        (r#""tools":"a""#, "a", "tools"),
        (r#""tools":[{"type":"spy_20270101"}]"#, "spy_20270101", "tools.name"),
        (r#""tools":[{"name":"a","shade":1}]"#, "a", "tools.shade"),
        (r#""functions":[{"name":"a"}]"#, "a", "functions"),
        (r#""tools":[{"name":"a"}],"tool_choice":{"type":"tool","name":"a"}"#, "a", ""),
        (r#""tool_choice":{"type":"tool","name":"b"}"#, "b", ""),
        (r#""tool_choice":{"type":"function","function":{"name":"b"}}"#, "b", "tool_choice.function"),
        (
            r#""tools":[{"type":"mcp_toolset","mcp_server_name":"git","configs":{"merge":{"enabled":true}}}]"#,
            "mcp__git__* mcp__git__merge",
            "",
        ),
        (
            r#""mcp_servers":[{"type":"url","url":"https://x","name":"git","tool_configuration":{"allowed_tools":["read"]}}]"#,
            "mcp__git__* mcp__git__read",
            "",
        ),
        (r#""mcp_servers":{"git":{"url":"https://x"}}"#, "mcp__git__*", "mcp_servers"),
        (
            r#""system":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"a"}}}]"#,
            "a",
            "",
        ),
        (
            r#""system":[{"type":"compaction","content":"s","tool_changes":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"a"}}},{"tool":{"name":"b"}}]}]"#,
            "a b",
            "",
        ),
        (r#""system":[{"type":"tool_reference","tool_name":"a"}]"#, "a", ""),
        (r#""system":[{"type":"news","tool":{"name":"a"}}]"#, "a", "content.type=news"),
    ] {
        let (found, odd) = tools(&format!(r#"{{"model":"m","messages":[],{more}}}"#));
        assert_eq!((found.join(" ").as_str(), odd.as_str()), (names, unknown), "{more}");
    }
    let nameless = r#"{"model":"m","messages":[],"tools":[{"name":["a"]}]}"#;
    assert!(matches!(Index::parse(nameless.as_bytes()), Err(Malformed::Type { key: "name", .. })));
    let body = r#"{"model":"m","messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"type":"tool_definition",
        "definition":{"name":"mcp__github__merge_pr","input_schema":{}}}}]}]}"#;
    assert_eq!(tools(body).0, ["mcp__github__merge_pr"]);
}

/// A word that nothing else contains, put in the place of `$`, has to be in some text.
#[test]
fn whatever_a_model_or_an_upstream_can_read_is_in_some_text() {
    let word = "Kingfisher";
    let top = [
        r#""tools":[{"name":"$"}]"#,
        r#""tools":[{"name":"a","description":"$"}]"#,
        r#""tools":[{"name":"a","input_schema":{"properties":{"x":{"description":"$"}}}}]"#,
        r#""tools":[{"name":"a","input_schema":{"properties":{"$":{}}}}]"#,
        r#""tools":[{"name":"a","input_schema":{"enum":["$"],"default":"x"}}]"#,
        r#""tools":[{"name":"a","input_examples":[{"k":"$"}]}]"#,
        r#""tools":[{"name":"a","type":"$"}]"#,
        r#""tools":[{"name":"a","$":1}]"#,
        r#""tools":["$"]"#,
        r#""tools":{"$":{}}"#,
        r#""stop_sequences":["$"]"#,
        r#""metadata":{"user_id":"$"}"#,
        r#""metadata":{"note":"$"}"#,
        r#""metadata":"$""#,
        r#""mood":"$""#,
        r#""$":1"#,
        r#""mcp_servers":[{"url":"https://x/$"}]"#,
        r#""mcp_servers":[{"name":"x","url":"u","authorization_token":"$"}]"#,
        r#""output_format":{"schema":{"title":"$"}}"#,
        r#""context_management":{"edits":[{"type":"$"}]}"#,
        r#""container":"$""#,
        r#""container":{"skills":[{"skill_id":"$"}]}"#,
        r#""tool_choice":{"type":"tool","name":"$"}"#,
        r#""thinking":{"type":"$"}"#,
        r#""service_tier":"$""#,
        r#""cache_control":{"type":"$"}"#,
        r#""system":"$""#,
        r#""system":[{"type":"text","text":"a","cache_control":{"type":"$"}}]"#,
        r#""safeguards":[{"type":"$"}]"#,
        r#""anthropic_beta":["$"]"#,
    ];
    let blocks = [
        r#"{"type":"text","text":"$"}"#,
        r#"{"type":"text","text":"a","shade":"$"}"#,
        r#"{"type":"text","text":"a","$":1}"#,
        r#"{"type":"text","text":["$"]}"#,
        r#"{"type":"text","text":"a","content":"$"}"#,
        r#"{"type":"text","text":"a","citations":[{"cited_text":"$"}]}"#,
        r#"{"type":"text","text":"a","source":{"url":"$"}}"#,
        r#"{"type":"$"}"#,
        r#"{"type":["$"],"text":"a"}"#,
        r#"{"type":"news","deep":[{"$":1}]}"#,
        r#"{"type":"image","source":{"type":"url","url":"https://x/$"}}"#,
        r#"{"type":"image","source":{"type":"file","file_id":"$"}}"#,
        r#"{"type":"image","source":{"type":"base64","media_type":"$","data":"AAAA"}}"#,
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"$"}}"#,
        r#"{"type":"image","source":"$"}"#,
        r#"{"type":"document","source":{"type":"text","data":"$"}}"#,
        r#"{"type":"document","source":{"type":"content","content":[{"type":"text","text":"$"}]}}"#,
        r#"{"type":"document","source":{"type":"url","url":"$"},"title":"t"}"#,
        r#"{"type":"document","title":"$"}"#,
        r#"{"type":"document","context":"$"}"#,
        r#"{"type":"document","citations":{"enabled":true,"note":"$"}}"#,
        r#"{"type":"thinking","thinking":"$","signature":"s"}"#,
        r#"{"type":"thinking","thinking":"a","signature":"$"}"#,
        r#"{"type":"redacted_thinking","data":"$"}"#,
        r#"{"type":"tool_use","id":"$","name":"n","input":{}}"#,
        r#"{"type":"tool_use","id":"a","name":"$","input":{}}"#,
        r#"{"type":"tool_use","id":"a","name":"n","input":{"$":1}}"#,
        r#"{"type":"tool_result","tool_use_id":"$","content":"x"}"#,
        r#"{"type":"tool_result","tool_use_id":"a","content":"$"}"#,
        r#"{"type":"tool_result","tool_use_id":"a","content":{"x":"$"}}"#,
        r#"{"type":"tool_result","tool_use_id":"a","is_error":"$"}"#,
        r#"{"type":"web_search_tool_result","content":[{"title":"$"}]}"#,
        r#"{"type":"search_result","source":"$","content":[]}"#,
        r#"{"type":"tool_addition","tool":{"definition":{"name":"a","description":"$"}}}"#,
        r#"{"type":"container_upload","file_id":"$"}"#,
        r#"{"type":"compaction","content":"$"}"#,
        r#""$""#,
        r#"[["$"]]"#,
    ];
    let messages = [
        r#"{"role":"$","content":"a"}"#,
        r#"{"role":"user","content":"a","name":"$"}"#,
        r#"{"role":"user","content":{"x":"$"}}"#,
        r#"{"role":"user","content":"a","output_config":{"effort":"$"}}"#,
    ];
    let top = top.iter().map(|more| format!(r#"{{"model":"m","messages":[],{more}}}"#));
    let blocks = blocks.iter().flat_map(|block| {
        ["user", "assistant", "system"]
            .map(|role| with(&format!(r#"[{{"content":[{block}],"role":"{role}"}}]"#)))
    });
    let messages = messages.iter().map(|message| with(&format!("[{message}]")));
    let model = std::iter::once(r#"{"model":"$","messages":[]}"#.to_owned());
    for body in top.chain(blocks).chain(messages).chain(model) {
        for spelt in [word, r"K\u0069ngf\u0069sher"] {
            let body = body.replace('$', spelt);
            let index = Index::parse(body.as_bytes()).unwrap();
            let found = index.texts.iter().filter(|text| text.read(body.as_bytes()).contains(word)).count();
            assert_eq!(found, 1, "{body}: {:?}", index.texts);
            let units = index.units().iter().filter(|unit| unit.read(body.as_bytes()).contains(word)).count();
            assert_eq!(units, 1, "{body}");
            // No byte belongs to two texts: each can be changed by itself.
            let mut spans: Vec<_> = index.texts.iter().map(|text| text.span).collect();
            spans.sort_by_key(|span| span.start);
            assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start), "{body}");
        }
    }
}

#[test]
fn blobs_and_the_apis_own_words_are_no_texts() {
    let blob = "QUJDRA+/".repeat(20);
    let body = format!(
        r#"{{"model":"m","thinking":{{"type":"adaptive","display":"omitted"}},"output_config":{{"effort":"high"}},"temperature":0.5,
        "context_management":{{"edits":[{{"type":"clear_thinking_20251015","keep":"all"}}]}},"max_tokens":5,"messages":[
        {{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{blob}"}},"cache_control":{{"type":"ephemeral","ttl":"1h"}}}}]}},
        {{"role":"assistant","content":[{{"type":"redacted_thinking","data":"{blob}"}},{{"type":"tool_use","id":"t","name":"n","input":{{}}}}]}},
        {{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","is_error":false}}]}},
        {{"role":"system","content":[],"output_config":{{"effort":"low"}}}}]}}"#
    );
    let call = r#"{"type":"tool_use","id":"t","name":"n","input":{}}"#.to_owned();
    assert_eq!(texts(&body), [(Origin::ToolInput, call)]);
    assert!(Index::parse(body.as_bytes()).unwrap().unknown.is_empty());
}

#[test]
fn what_the_index_does_not_know_is_noted_by_name_and_bounded() {
    let body = r#"{"model":"m","mood":1,"thinking":{"type":"enabled","depth":2},"metadata":{"team":"x"},"messages":[
        {"role":"wizard","content":"a","name":"b"},{"role":"user","content":[{"type":"news"},{"type":"news"},
        {"type":"text","text":"x","shade":1,"source":{"url":"u"}},{"type":"image","source":{"type":"tape","reel":1}},7]}]}"#;
    let index = Index::parse(body.as_bytes()).unwrap();
    let names = [
        "mood",
        "thinking.depth",
        "metadata.team",
        "messages.role=wizard",
        "messages.name",
        "content.type=news",
        "source.type=",
        "content.text.source",
        "content.text.shade",
        "source.reel",
        "source.type=tape",
        "messages.content",
    ];
    assert_eq!(index.unknown.names(), names);
    let many: Vec<String> = (0..100).map(|number| format!(r#""{}{number}":1"#, "x".repeat(100))).collect();
    let body = format!(r#"{{"model":"m","messages":[],{}}}"#, many.join(","));
    let index = Index::parse(body.as_bytes()).unwrap();
    assert_eq!(index.unknown.names().len(), 1, "they are alike as far as they are kept");
    let many: Vec<String> = (0..100).map(|number| format!(r#""x{number}":1"#)).collect();
    let body = format!(r#"{{"model":"m","messages":[],{}}}"#, many.join(","));
    let index = Index::parse(body.as_bytes()).unwrap();
    assert_eq!((index.unknown.names().len(), index.unknown.names().last().unwrap().as_str()), (33, "..."));
}

#[test]
fn more_texts_or_tools_than_are_read_are_refused() {
    let body = with(&format!("[{}]", vec![r#"{"content":"a"}"#; MOST_TEXTS].join(",")));
    assert_eq!(Index::parse(body.as_bytes()), Err(Malformed::Many { what: "texts", most: MOST_TEXTS }));
    let tools = vec![r#"{"name":"a"}"#; MOST_TOOLS + 1].join(",");
    let body = format!(r#"{{"model":"m","messages":[],"tools":[{tools}]}}"#);
    assert_eq!(Index::parse(body.as_bytes()), Err(Malformed::Many { what: "tools", most: MOST_TOOLS }));
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
