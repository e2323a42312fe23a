//! The client's body as clouds take it that serve Claude themselves: without what their paths say, and with the version, and where they
//! want it so the betas, that Anthropic's own API takes as headers. Everything else stays byte for byte.

use std::fmt;

use sallyport_guest_sdk::Edit;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const NO_OBJECT: &str = "the body is no JSON object";

/// Members of an object, in order: where each begins and ends, and its key and value.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

/// How a cloud takes the body.
#[derive(Debug, Clone, Copy)]
pub struct Hosted<'a> {
    /// What stands in the place of `anthropic-version`.
    pub version: &'a str,
    /// Members that are left out, since the path says them or nobody shall see them.
    pub gone: &'a [&'a str],
    /// The betas that the client's header names, with commas between them, where the body is to list them; otherwise the body's list
    /// stays as it is.
    pub betas: Option<&'a str>,
    /// Whether a limit of output tokens is added where there is none: some count only what could be asked.
    pub limited: bool,
}

/// The edits that make the client's body the cloud's, or what is wrong with it.
pub fn edits(body: &str, hosted: Hosted<'_>) -> Result<Vec<Edit>, &'static str> {
    let Members(members) = serde_json::from_str(body).map_err(|_| NO_OBJECT)?;
    let place = |raw: &RawValue| {
        let start = (raw.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
        (start, start + raw.get().len())
    };
    let is =
        |key: &RawValue, name: &str| serde_json::from_str::<String>(key.get()).is_ok_and(|it| it == name);
    let value = |name: &str| members.iter().find(|(key, _)| is(key, name)).map(|(_, value)| *value);

    let mut added = String::new();
    if value("anthropic_version").is_none() {
        added.extend(["\"anthropic_version\":\"", hosted.version, "\","]);
    }
    if let Some(betas) = hosted.betas {
        let betas = betas.split(',').map(str::trim).filter(|it| !it.is_empty());
        let mut all: Vec<String> = match value("anthropic_beta") {
            None => Vec::new(),
            Some(named) => {
                serde_json::from_str(named.get()).map_err(|_| "anthropic_beta: no list of texts")?
            }
        };
        for beta in betas {
            if !all.iter().any(|it| it == beta) {
                all.push(beta.to_owned());
            }
        }
        if !all.is_empty() {
            let list = serde_json::to_string(&all).map_err(|_| NO_OBJECT)?;
            added.extend(["\"anthropic_beta\":", &list, ","]);
        }
    }
    if hosted.limited && value("max_tokens").is_none() {
        added.push_str("\"max_tokens\":1,");
    }

    let gone = |key: &RawValue| {
        hosted.gone.iter().any(|name| is(key, name)) || (hosted.betas.is_some() && is(key, "anthropic_beta"))
    };
    let mut edits = Vec::new();
    // The first that stays has what is new in front of it, and no comma before that.
    let mut kept = false;
    let mut last_end = body.find('{').map_or(0, |at| at + 1);
    let first = last_end;
    for (at, (key, value)) in members.iter().enumerate() {
        let (start, end) = (place(key).0, place(value).1);
        if gone(key) {
            let next = members.get(at + 1).map_or(end, |(next, _)| place(next).0);
            edits.push(if kept { edit(last_end, end, "")? } else { edit(start, next, "")? });
        } else {
            kept = true;
        }
        last_end = end;
    }
    if !kept {
        added.pop();
    }
    edits.insert(0, edit(first, first, &added)?);
    Ok(edits)
}

/// What the edits make of a body.
pub fn edited(body: &str, edits: &[Edit]) -> String {
    let mut text = String::with_capacity(body.len() + 128);
    let mut from = 0;
    for edit in edits {
        let (start, len) = (edit.offset as usize, edit.len as usize);
        text.push_str(body.get(from..start).unwrap_or_default());
        text.push_str(&String::from_utf8_lossy(&edit.replacement));
        from = start + len;
    }
    text.push_str(body.get(from..).unwrap_or_default());
    text
}

fn edit(from: usize, to: usize, replacement: &str) -> Result<Edit, &'static str> {
    let offset = u32::try_from(from).map_err(|_| NO_OBJECT)?;
    let len = to.checked_sub(from).and_then(|it| u32::try_from(it).ok()).ok_or(NO_OBJECT)?;
    Ok(Edit { offset, len, replacement: replacement.as_bytes().to_vec() })
}

// === impl Members ===

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::{Hosted, NO_OBJECT, edited, edits};

    const VERSION: &str = "bedrock-2023-05-31";

    fn hosted(betas: &str, counting: bool) -> Hosted<'_> {
        let gone: &[&str] = if counting { &["model", "stream", "metadata"] } else { &["model", "stream"] };
        Hosted { version: VERSION, gone, betas: Some(betas), limited: counting }
    }

    fn made(body: &str, betas: &str, counting: bool) -> String {
        edited(body, &edits(body, hosted(betas, counting)).expect("an object"))
    }

    #[test]
    fn what_the_path_says_is_left_out_and_the_rest_stays_byte_for_byte() {
        let version = r#""anthropic_version":"bedrock-2023-05-31","#;
        for (given, made_of) in [
            (r#"{"model":"m","max_tokens":1}"#, format!(r#"{{{version}"max_tokens":1}}"#)),
            (r#"{ "a" : 1.50 , "model" : "m" }"#, format!(r#"{{{version} "a" : 1.50 }}"#)),
            (
                r#"{"stream":true,"model":"m","a":"\u00e9","b":[ ]}"#,
                format!(r#"{{{version}"a":"\u00e9","b":[ ]}}"#),
            ),
            (
                r#"{"a":{"model":"x"},"model":"m","stream":false,"b":2}"#,
                format!(r#"{{{version}"a":{{"model":"x"}},"b":2}}"#),
            ),
            (r#"{"model":"m"}"#, r#"{"anthropic_version":"bedrock-2023-05-31"}"#.to_owned()),
            (r#"{"mod\u0065l":"m","a":1}"#, format!(r#"{{{version}"a":1}}"#)),
        ] {
            let made = made(given, "", false);
            assert_eq!(made, made_of, "{given}");
            assert!(serde_json::from_str::<serde_json::Value>(&made).is_ok());
        }
        assert_eq!(edits("[]", hosted("", false)).unwrap_err(), NO_OBJECT);
    }

    #[test]
    fn betas_of_the_header_and_of_the_body_are_one_list() {
        let made = made(r#"{"model":"m","anthropic_beta":["a"],"x":1}"#, "b, a,,c", false);
        assert_eq!(
            made,
            r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["a","b","c"],"x":1}"#
        );
    }

    #[test]
    fn betas_that_are_no_list_are_refused_and_not_lost() {
        for betas in [r#""a""#, r#"{"a":1}"#, "[1]", "null"] {
            let body = format!(r#"{{"model":"m","anthropic_beta":{betas}}}"#);
            let refused = edits(&body, hosted("b", false)).unwrap_err();
            assert_eq!(refused, "anthropic_beta: no list of texts", "{betas}");
        }
    }

    #[test]
    fn a_count_has_a_limit_and_names_nobody() {
        let made = made(r#"{"model":"m","metadata":{"user_id":"canary"},"messages":[]}"#, "", true);
        assert_eq!(made, r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[]}"#);
    }
}
