//! Requests as clients send them, and requests that nobody should send.

use super::{
    BlockType, Content, Invalid, OutputSchema, Path, Request, Role, SourceKind, ThinkingMode, ToolChoice,
};
use crate::json::string;
use crate::losses::Losses;
use serde_json::value::RawValue;

fn read(body: &str) -> Request<'_> {
    Request::read(body).expect("it is read")
}

#[test]
fn every_part_of_a_request_is_found_where_it_stands() {
    let body = r#"{"model":"m","max_tokens":5,"stream":true,"system":"Be brief.","top_k":4,"metadata":{"user_id":"u"},
        "messages":[
            {"role":"user","content":"Hi"},
            {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},
                {"type":"tool_use","id":"toolu_1","name":"look","input":{"a":1}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","is_error":true,"content":"no"},
                {"type":"image","source":{"type":"base64","media_type":"image\/png","data":"a\/b="}}, {"type":"new"}]}],
        "tools":[{"name":"look","input_schema":{}},{"type":"web_search_20250305","name":"web_search"}],
        "tool_choice":{"type":"tool","name":"look"},"thinking":{"type":"adaptive"},
        "output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}}"#;
    let request = read(body);
    assert_eq!((request.max_tokens, request.unknown.len()), (Some(5), 2));
    assert_eq!(request.field("top_k").map(RawValue::get), Some("4"));
    assert!(request.field("temperature").is_none());

    let messages = request.messages.as_deref().unwrap();
    let path = Path::root("messages");
    let roles: Vec<_> = messages.iter().map(|it| it.role(path).unwrap()).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User]);
    let blocks = |at: usize| match Content::read(messages[at].content(path).unwrap(), path).unwrap() {
        Content::Blocks(blocks) => blocks,
        Content::Text(text) => panic!("blocks, not {text}"),
    };
    let first = Content::read(messages[0].content(path).unwrap(), path).unwrap();
    assert!(matches!(first, Content::Text(text) if text.get() == "\"Hi\""));

    let turn = blocks(1);
    assert_eq!(turn[0].block_type(path), Ok(BlockType::Thinking));
    let call = turn[1].tool_use(path).unwrap();
    assert_eq!((&*call.id, &*call.name, call.input.unwrap().get()), ("toolu_1", "look", "{\"a\":1}"));

    let turn = blocks(2);
    let answer = turn[0].tool_result(path).unwrap();
    assert_eq!((&*answer.tool_use_id, answer.is_error), ("toolu_1", true));
    let source = turn[1].source(path).unwrap();
    assert_eq!(source.source_kind(), SourceKind::Base64);
    assert_eq!(source.media_type().as_deref(), Some("image/png"));
    assert_eq!(source.data().as_deref(), Some("a/b="));
    assert_eq!(turn[2].block_type(path), Ok(BlockType::Other("new".into())));

    let tools = request.tools.as_deref().unwrap();
    assert_eq!(tools[0].defined_by_anthropic(path), Ok(None));
    assert_eq!(tools[1].defined_by_anthropic(path), Ok(Some("web_search_20250305".into())));
    assert_eq!(request.tool_choice.unwrap().read(), Ok(ToolChoice::Tool("look".into())));
    assert_eq!(request.thinking.unwrap().mode(), Ok(ThinkingMode::Enabled));
    let schema = OutputSchema::read(request.output_config.as_ref(), None, &mut Losses::default()).unwrap();
    assert_eq!(schema.map(|it| it.schema.get()), Some("{\"type\":\"object\"}"));
    assert_eq!(request.system.and_then(string).as_deref(), Some("Be brief."));
}

#[test]
fn what_is_missing_or_of_another_type_is_named_with_its_place() {
    let whole = Path::root("messages");
    let at = whole.index(2);
    let refusals = |message: &str| {
        let body = format!(r#"{{"messages":[{message}]}}"#);
        let request = read(&body);
        let message = &request.messages.as_deref().unwrap()[0];
        let content = at.field("content");
        let role = message.role(at).map(drop);
        let blocks = message.content(at).and_then(|raw| Content::read(raw, content));
        let block = blocks.and_then(|blocks| match blocks {
            Content::Blocks(blocks) => {
                let path = content.index(0);
                blocks.iter().try_for_each(|block| match block.block_type(path)? {
                    BlockType::Text => block.text(path).map(drop),
                    BlockType::ToolUse => block.tool_use(path).map(drop),
                    BlockType::ToolResult => block.tool_result(path).map(drop),
                    _ => block.source(path).map(drop),
                })
            }
            Content::Text(_) => Ok(()),
        });
        [role, block].into_iter().filter_map(|it| it.err().map(|Invalid(text)| text)).collect::<Vec<_>>()
    };
    for (message, texts) in [
        (r#"{"content":"x"}"#, vec!["messages[2].role: Field required"]),
        (
            r#"{"role":"owner","content":"x"}"#,
            vec![r#"messages[2].role: "owner" is not one of "user", "assistant", "system""#],
        ),
        (r#"{"role":"user"}"#, vec!["messages[2].content: Field required"]),
        (
            r#"{"role":"user","content":7}"#,
            vec!["messages[2].content: a string or an array of blocks expected"],
        ),
        (r#"{"role":"user","content":[{}]}"#, vec!["messages[2].content[0].type: Field required"]),
        (
            r#"{"role":"user","content":[{"type":"text","text":1}]}"#,
            vec!["messages[2].content[0].text: a string expected"],
        ),
        (
            r#"{"role":"user","content":[{"type":"tool_use","id":"a","name":"b","input":"c"}]}"#,
            vec!["messages[2].content[0].input: an object expected"],
        ),
        (
            r#"{"role":"user","content":[{"type":"tool_result"}]}"#,
            vec!["messages[2].content[0].tool_use_id: Field required"],
        ),
        (
            r#"{"role":"user","content":[{"type":"image"}]}"#,
            vec!["messages[2].content[0].source: Field required"],
        ),
        (r#"{"role":"user","content":"x"}"#, vec![]),
    ] {
        assert_eq!(refusals(message), texts, "{message}");
    }
}

#[test]
fn a_field_that_is_given_twice_is_refused() {
    for body in [r#"{"model":"a","model":"b"}"#, r#"{"messages":[{"role":"user","role":"system"}]}"#] {
        assert!(Request::read(body).is_err_and(|Invalid(text)| text.contains("duplicate field")), "{body}");
    }
}

#[test]
fn the_newer_place_of_the_outputs_form_counts_and_what_is_no_schema_is_lost() {
    let read = |body: &str| {
        let request: Request<'_> = Request::read(body).unwrap();
        let mut losses = Losses::default();
        let found =
            OutputSchema::read(request.output_config.as_ref(), request.output_format, &mut losses).unwrap();
        let found = found.map(|it| (it.schema.get().to_owned(), it.path));
        let lost: Vec<_> = losses.into_losses().into_iter().map(|it| it.field).collect();
        (found, lost)
    };
    let schema = |name: &str| format!(r#"{{"type":"json_schema","schema":{{"title":"{name}"}}}}"#);
    let both =
        format!(r#"{{"output_config":{{"format":{}}},"output_format":{}}}"#, schema("new"), schema("old"));
    assert_eq!(read(&both).0, Some((r#"{"title":"new"}"#.to_owned(), "output_config.format")));
    let older = format!(r#"{{"output_format":{}}}"#, schema("old"));
    assert_eq!(read(&older), (Some((r#"{"title":"old"}"#.to_owned(), "output_format")), Vec::new()));
    let (found, lost) = read(r#"{"output_config":{"format":{"type":"grammar","more":1},"pace":2}}"#);
    assert_eq!(found, None);
    assert_eq!(lost, ["output_config.pace", "output_config.format.more", "output_config.format"]);
}
