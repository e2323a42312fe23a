//! One rule for texts that others choose and that go into rows, log lines and answers: so many bytes of it, then how long it was
//! and its digest, so that whoever has the original can tell that it is the one.

use std::borrow::Cow;

use serde_json::{Value, json};

/// A column of a row, a name in a log line.
pub const NAME: usize = 256;
/// A reason, and any other text of a payload.
pub const TEXT: usize = 4 * 1024;

/// The text if it takes at most `limit` bytes in JSON, else its beginning and a marker with its length and BLAKE3 digest.
pub fn clip(text: &str, limit: usize) -> Cow<'_, str> {
    if fits(text, limit) {
        return Cow::Borrowed(text);
    }
    let mark = format!("[{} bytes, blake3 {}]", text.len(), blake3::hash(text.as_bytes()).to_hex());
    let mut room = limit.saturating_sub(mark.len());
    let mut end = 0;
    for (at, char) in text.char_indices() {
        let size = size(char);
        if size > room {
            break;
        }
        room -= size;
        end = at + char.len_utf8();
    }
    Cow::Owned(format!("{}{mark}", text.get(..end).unwrap_or_default()))
}

/// The same for every text and key within a value.
pub fn clip_all(value: &mut Value, limit: usize) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(clipped) = clip(text, limit) {
                *text = clipped;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clip_all(item, limit)),
        Value::Object(fields) => {
            if fields.keys().any(|name| !fits(name, NAME)) {
                let owned = std::mem::take(fields);
                fields.extend(owned.into_iter().map(|(name, value)| (clip(&name, NAME).into_owned(), value)));
            }
            fields.values_mut().for_each(|value| clip_all(value, limit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What stands in the place of a value that is left out whole.
pub fn left_out(value: &Value) -> Value {
    let text = value.to_string();
    json!({ "clipped_bytes": text.len(), "blake3": blake3::hash(text.as_bytes()).to_hex().as_str() })
}

/// Whether nothing within a value is clipped.
pub fn is_short(value: &Value, limit: usize) -> bool {
    match value {
        Value::String(text) => fits(text, limit),
        Value::Array(items) => items.iter().all(|item| is_short(item, limit)),
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| fits(name, NAME) && is_short(value, limit))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// A text for a terminal: what would move the cursor, turn the direction of writing or be invisible is replaced.
pub fn visible(text: &str) -> String {
    text.chars().map(|char| if hides(char) { '\u{fffd}' } else { char }).collect()
}

fn hides(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn fits(text: &str, limit: usize) -> bool {
    // No character takes more than six bytes for one of its own.
    text.len() <= limit && (text.len() <= limit / 6 || text.chars().map(size).sum::<usize>() <= limit)
}

/// What a character takes in JSON.
fn size(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => char.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_its_length_and_its_digest() {
        assert_eq!(clip("short", NAME), "short");
        let long = "x".repeat(100_000);
        let clipped = clip(&long, NAME);
        assert_eq!(clipped.len(), NAME);
        let digest = blake3::hash(long.as_bytes()).to_hex();
        assert!(clipped.starts_with("xxx") && clipped.ends_with(&format!("[100000 bytes, blake3 {digest}]")));
    }

    #[test]
    fn no_text_takes_more_room_in_json_than_it_is_given() {
        for text in ["\"", "\\", "\u{1}", "\n", "é", "\u{1f600}", "x\"\u{2}é"] {
            for count in [1, 20, 43, 200, 10_000] {
                for limit in [NAME, TEXT] {
                    let clipped = clip(&text.repeat(count), limit).into_owned();
                    let json = serde_json::to_string(&clipped).unwrap();
                    assert!(json.len() <= limit + 2, "{text:?} x {count}: {}", json.len());
                }
            }
        }
    }

    #[test]
    fn a_value_is_clipped_wherever_it_is_long() {
        let long = "y".repeat(5_000);
        let mut value = json!({ "a": [long, { long.clone(): long }], "b": 1 });
        assert!(!is_short(&value, TEXT));
        clip_all(&mut value, TEXT);
        assert!(is_short(&value, TEXT));
        assert_eq!(value["b"], 1);
    }

    #[test]
    fn what_hides_or_turns_text_is_shown_as_a_replacement() {
        for hidden in
            ['\u{1b}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{200b}', '\u{feff}', '\u{e0041}', '\u{ad}']
        {
            assert_eq!(visible(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        assert_eq!(visible("Zoë · 模型"), "Zoë · 模型");
    }
}
