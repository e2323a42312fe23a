//! The index against other readers of the same bytes: `serde_json`, where the last of two keys wins, and a model of Go's
//! `encoding/json`, which besides takes a key in any case for the field that it spells. Where the index takes a request, all of them
//! read the same; where they could differ, it refuses.

use proptest::prelude::*;
use serde_json::Value;

use super::{Index, Origin, fold};

/// What a reader makes of a request.
#[derive(Debug, PartialEq)]
struct Reading {
    model: Option<String>,
    stream: bool,
    max_tokens: Option<f64>,
    tools: Vec<String>,
    said: String,
}

/// How a reader finds a key among the members of an object, which are in the order of the text.
type Find = fn(&[(String, Value)], &str) -> Option<Value>;

/// An object with all of its members, also those whose key stands twice.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<serde_json::value::RawValue>>()? {
                    members.push((key, Value::String(value.get().to_owned())));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn exact(members: &[(String, Value)], key: &str) -> Option<Value> {
    members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone())
}

fn folding(members: &[(String, Value)], key: &str) -> Option<Value> {
    members.iter().rev().find(|(name, _)| fold(name) == key).map(|(_, value)| value.clone())
}

/// The raw JSON of a member.
fn member(json: &str, key: &str, find: Find) -> Option<String> {
    let Members(members) = serde_json::from_str(json).ok()?;
    find(&members, key)?.as_str().map(str::to_owned)
}

fn elements(json: &str) -> Vec<String> {
    let raw: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(json).unwrap_or_default();
    raw.iter().map(|raw| raw.get().to_owned()).collect()
}

fn string(json: &str, key: &str, find: Find) -> Option<String> {
    serde_json::from_str(&member(json, key, find)?).ok()
}

fn read(json: &str, find: Find) -> Reading {
    let tools = member(json, "tools", find).unwrap_or_default();
    let messages = member(json, "messages", find).unwrap_or_default();
    let mut said = String::new();
    for message in elements(&messages) {
        if string(&message, "role", find).is_some_and(|role| role != "user") {
            continue;
        }
        let content = member(&message, "content", find).unwrap_or_default();
        if let Ok(text) = serde_json::from_str::<String>(&content) {
            said.push_str(&text);
        }
        for block in elements(&content) {
            if string(&block, "type", find).as_deref() == Some("text") {
                said.push_str(&string(&block, "text", find).unwrap_or_default());
            }
        }
    }
    Reading {
        model: string(json, "model", find),
        stream: member(json, "stream", find).as_deref() == Some("true"),
        max_tokens: member(json, "max_tokens", find).and_then(|raw| raw.parse().ok()),
        tools: elements(&tools).iter().filter_map(|tool| string(tool, "name", find)).collect(),
        said,
    }
}

fn indexed(json: &str) -> Option<Reading> {
    let index = Index::parse(json.as_bytes()).ok()?;
    let said = index.texts.iter().filter(|text| text.origin == Origin::User);
    Some(Reading {
        model: Some(index.model.clone()),
        stream: index.stream,
        max_tokens: index.max_tokens.map(f64::from),
        tools: index.tools.clone(),
        said: said.map(|text| text.read(json.as_bytes()).into_owned()).collect(),
    })
}

/// `key` as somebody may spell it who hopes that readers differ.
fn spelt(key: &'static str) -> impl Strategy<Value = String> {
    let upper = key.to_uppercase();
    let title =
        key.chars().take(1).flat_map(char::to_uppercase).chain(key.chars().skip(1)).collect::<String>();
    prop_oneof![
        12 => Just(key.to_owned()),
        1 => Just(upper),
        1 => Just(title),
        1 => Just(key.replace('s', "\u{17f}")),
        1 => Just(key.replace('k', "\u{212a}")),
        1 => Just(key.replace('e', "\\u0065")),
        1 => Just(key.replace('e', "\\u0045")),
    ]
}

fn one(key: &'static str, value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    (spelt(key), value).prop_map(|(key, value)| format!("\"{key}\":{value}")).boxed()
}

fn object(members: Vec<BoxedStrategy<String>>, most: usize) -> BoxedStrategy<String> {
    prop::collection::vec(proptest::strategy::Union::new(members), 1..most)
        .prop_map(|members| format!("{{{}}}", members.join(",")))
        .boxed()
}

fn array(element: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    prop::collection::vec(element, 0..3).prop_map(|elements| format!("[{}]", elements.join(",")))
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![r#""a""#, r#""b \n""#, r#""\u00e9""#, r#""\ud83d\ude00""#])
        .prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["7", "4e3", "4000.0", "-4", "0.5", "null", "\"4000\"", "1e400", "40000E-1"])
        .prop_map(str::to_owned)
}

fn request() -> impl Strategy<Value = String> {
    let kind = || prop::sample::select(vec![r#""text""#, r#""image""#, r#""news""#]).prop_map(str::to_owned);
    let role = || prop::sample::select(vec![r#""user""#, r#""assistant""#]).prop_map(str::to_owned);
    let block =
        object(vec![one("type", Just("\"text\"".to_owned())), one("type", kind()), one("text", word())], 4);
    let content = prop_oneof![word(), array(block)].boxed();
    let message = object(vec![one("role", role()), one("content", content)], 4);
    let tool = object(vec![one("name", word()), one("description", word())], 4);
    object(
        vec![
            one("model", word()),
            one("messages", array(message)),
            one("stream", prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned)),
            one("max_tokens", number()),
            one("tools", array(tool)),
        ],
        7,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_request_that_is_taken_reads_the_same_to_everybody(json in request()) {
        if let Some(ours) = indexed(&json) {
            let last = read(&json, exact);
            // A tool without a name is known by its type, or not at all.
            prop_assert_eq!(&ours, &last, "{}", json);
            prop_assert_eq!(&ours, &read(&json, folding), "{}", json);
        }
    }
}

#[test]
fn ordinary_requests_are_taken() {
    let json = r#"{"model":"a","max_tokens":4e3,"stream":true,"tools":[{"name":"a"}],"messages":[{"role":"user","content":"a"}]}"#;
    let ours = indexed(json).unwrap();
    assert_eq!((ours.max_tokens, ours.said.as_str()), (Some(4000.0), "a"));
    assert_eq!(ours, read(json, folding));
}
