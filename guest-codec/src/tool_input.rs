//! A tool call's arguments as a tool gets them: exactly one JSON object, whatever the upstream made of them.

use serde_json::value::RawValue;

use crate::json::{Json, escape, is_object, quoted};
use crate::surrogate;

/// The object that `arguments` spell. Servers that begin with `{}` or say everything twice mean the one that holds something. What
/// is no object, since the model erred or was cut short, is handed to the tool as text, which its schema refuses: the model then
/// learns of it.
pub fn whole(arguments: &str) -> Json<'static> {
    let trimmed = arguments.trim();
    if trimmed.is_empty() {
        return object("{}".to_owned());
    }
    let mended = match serde_json::from_str::<serde_json::Value>(trimmed) {
        Ok(value) if value.is_object() => return object(trimmed.to_owned()),
        _ => String::from_utf8(surrogate::mend(trimmed.as_bytes(), None)).unwrap_or_default(),
    };
    let mut found: Option<&RawValue> = None;
    for one in serde_json::Deserializer::from_str(&mended).into_iter::<&RawValue>() {
        match one {
            Ok(raw) if is_object(raw) && is_whole(raw) => {
                let empty = |raw: &RawValue| raw.get().trim_matches(['{', '}']).trim().is_empty();
                match found {
                    Some(before) if before.get() == raw.get() || empty(raw) => {}
                    Some(before) if !empty(before) => return malformed(arguments),
                    _ => found = Some(raw),
                }
            }
            _ => return malformed(arguments),
        }
    }
    found.map_or_else(|| malformed(arguments), |raw| object(raw.get().to_owned()))
}

/// Whether everything in it can be read, not only stepped over.
fn is_whole(raw: &RawValue) -> bool {
    serde_json::from_str::<serde_json::Value>(raw.get()).is_ok()
}

fn object(json: String) -> Json<'static> {
    Json::Owned(RawValue::from_string(json).unwrap_or_default())
}

fn malformed(arguments: &str) -> Json<'static> {
    object(format!("{{\"malformed_arguments\":{}}}", quoted(&escape(arguments)).get()))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn a_tool_gets_exactly_one_object() {
        for (said, got) in [
            (r#"{"stock":"MSFT"}"#, r#"{"stock":"MSFT"}"#),
            (r#" {"a": 1} "#, r#"{"a": 1}"#),
            ("", "{}"),
            ("{}", "{}"),
            ("{}{}", "{}"),
            (r#"{}{"stock":"MSFT"}"#, r#"{"stock":"MSFT"}"#),
            (r#"{"stock":"MSFT"}{}"#, r#"{"stock":"MSFT"}"#),
            (r#"{"a":1}{"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1}{"a":2}"#, r#"{"malformed_arguments":"{\"a\":1}{\"a\":2}"}"#),
            (r#"{"command":"rm -r"#, r#"{"malformed_arguments":"{\"command\":\"rm -r"}"#),
            ("[1]", r#"{"malformed_arguments":"[1]"}"#),
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a":"\ud83d\ude00"}"#, r#"{"a":"\ud83d\ude00"}"#),
        ] {
            assert_eq!(whole(said).get(), got, "{said}");
        }
    }
}
