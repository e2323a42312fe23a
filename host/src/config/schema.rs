//! `sallyport.schema.json`: a JSON Schema of the file, for editors and for tools that write it. Made of the descriptions of the keys.
//! It says what each key may hold; what depends on other keys, files and secrets is checked by the gateway alone.

use serde_json::{Map, Value, json};

use super::file::FILE;
use super::key::{Absent, ConfigBlock, ConfigKey, Form};

/// The schema as text.
pub(super) fn text() -> String {
    let mut schema = block(&FILE);
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "sallyport.yaml".into());
    // A map of values always has a text.
    let mut text = format!("{:#}", Value::Object(schema));
    text.push('\n');
    text
}

fn block(block: &ConfigBlock) -> Map<String, Value> {
    let properties: Map<_, _> = block.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required = block.keys.iter().filter(|key| matches!(key.absent, Absent::Required));
    let required: Vec<_> = required.map(|key| key.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.insert("properties".to_owned(), properties.into());
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn property(key: &ConfigKey) -> Value {
    let mut schema = value(key.form);
    if !matches!(key.absent, Absent::Required) {
        // A key with nothing behind it is as good as none.
        or_nothing(&mut schema);
    }
    let default = match key.absent {
        Absent::Required | Absent::Nothing | Absent::Derived(_) => None,
        Absent::Flag(flag) => Some(Value::from(flag)),
        Absent::Number(number) => Some(number.into()),
        Absent::Word(word) => Some(word().into()),
        Absent::Text(text) => Some(text.into()),
    };
    schema.extend(default.map(|default| ("default".to_owned(), default)));
    schema.insert("description".to_owned(), without_links(key.about).into());
    Value::Object(schema)
}

fn value(form: Form) -> Map<String, Value> {
    let schema = match form {
        Form::Text => json!({ "type": "string", "pattern": "\\S" }),
        Form::Secret => json!({ "type": ["string", "object"] }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Number(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Form::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Choice(words) => json!({ "enum": words().into_iter().flat_map(spellings).collect::<Vec<_>>() }),
        Form::List(item) => json!({ "type": "array", "items": value(*item) }),
        Form::Mapping(mapping) => return block(mapping),
        Form::Free => json!({ "type": "object" }),
        Form::Either(forms) => json!({ "anyOf": forms.iter().map(|form| value(*form)).collect::<Vec<_>>() }),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// A word, and the number that YAML reads where it stands without quotes.
fn spellings(word: &str) -> Vec<Value> {
    let number = word.parse::<u64>().ok().map(Value::from);
    [Some(Value::from(word)), number].into_iter().flatten().collect()
}

fn or_nothing(schema: &mut Map<String, Value>) {
    let nothing = json!("null");
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), nothing]);
    } else if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
        forms.push(json!({ "type": nothing }));
    }
}

/// Markdown without the targets of its links: `[policies](..)` becomes `policies`.
fn without_links(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((text, link)) = before.rsplit_once('[').zip(after.split_once(')')) else { break };
        out.push_str(text.0);
        out.push_str(text.1);
        rest = link.1;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
