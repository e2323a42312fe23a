//! Thinking without a signature of Anthropic's: that of another vendor's model, which a gateway gave out earlier in the conversation,
//! without any or with one that it carries for that vendor (`sallyport.gemini...`). Anthropic refuses it, so it does not go up. Everything
//! else stays byte for byte.

use sallyport_guest_sdk::Edit;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
}

/// How a signature begins that a gateway carries for another vendor.
const CARRIED: &str = "\"sallyport.";

/// What is left out of `body`; nothing if it cannot be read, which is for the upstream to say.
pub fn edits(body: &[u8]) -> Vec<Edit> {
    let Some(text) = std::str::from_utf8(body).ok() else { return Vec::new() };
    let Ok(Body { messages }) = serde_json::from_str(text) else { return Vec::new() };
    let place = |raw: &RawValue| {
        let start = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        (start, start + raw.get().len())
    };
    let mut edits = Vec::new();
    let mut turns = Vec::with_capacity(messages.len());
    for message in messages {
        let blocks = serde_json::from_str::<Message<'_>>(message.get())
            .ok()
            .and_then(|it| serde_json::from_str::<Vec<&RawValue>>(it.content.get()).ok())
            .unwrap_or_default();
        let blocks: Vec<_> = blocks.into_iter().map(|it| (place(it), is_unsigned(it))).collect();
        // A turn of nothing else goes whole: one without content is refused, and so may be what stood in its place.
        let gone = !blocks.is_empty() && blocks.iter().all(|(_, gone)| *gone);
        if !gone {
            edits.extend(without(&blocks));
        }
        turns.push((place(message), gone));
    }
    if turns.iter().all(|(_, gone)| *gone) {
        return Vec::new();
    }
    edits.extend(without(&turns));
    edits.sort_by_key(|edit| edit.offset);
    edits
}

/// The edits that take elements out of a list, each with the comma that parts it from one that stays. At least one stays.
fn without(elements: &[((usize, usize), bool)]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut kept = None;
    let mut before = 0;
    for (at, ((start, end), gone)) in elements.iter().enumerate() {
        if *gone {
            let next = elements.get(at + 1).map_or(*end, |((next, _), _)| *next);
            let (from, to) = if kept.is_some() { (before, *end) } else { (*start, next) };
            if let (Ok(offset), Ok(len)) = (u32::try_from(from), u32::try_from(to.saturating_sub(from))) {
                edits.push(Edit { offset, len, replacement: Vec::new() });
            }
        } else {
            kept = Some(at);
        }
        before = *end;
    }
    edits
}

fn is_unsigned(block: &RawValue) -> bool {
    let Ok(block) = serde_json::from_str::<Block<'_>>(block.get()) else { return false };
    block.kind.is_some_and(|it| it.get() == "\"thinking\"")
        && block.signature.is_none_or(|it| it.get() == "\"\"" || it.get().starts_with(CARRIED))
}

#[cfg(test)]
mod tests {
    use super::edits;

    fn left(body: &str) -> String {
        let mut text = body.to_owned();
        for edit in edits(body.as_bytes()).into_iter().rev() {
            let start = edit.offset as usize;
            text.replace_range(start..start + edit.len as usize, "");
        }
        text
    }

    const UNSIGNED: &str = r#"{"type":"thinking","thinking":"hm","signature":""}"#;
    const CARRIED: &str = r#"{"type":"thinking","thinking":"","signature":"sallyport.gemini.Ab=="}"#;
    const SIGNED: &str = r#"{"type":"thinking","thinking":"hm","signature":"Ab=="}"#;
    const TEXT: &str = r#"{"type": "text", "text": "a,b"}"#;

    fn body(turns: &[&[&str]]) -> String {
        let turns: Vec<_> = turns
            .iter()
            .map(|it| format!(r#"{{"role":"assistant","content":[{}]}}"#, it.join(" , ")))
            .collect();
        format!(r#"{{ "messages" : [ {} ], "model":"m" }}"#, turns.join(",\n"))
    }

    #[test]
    fn what_is_unsigned_goes_and_the_rest_is_as_it_was() {
        for (given, stays) in [
            (vec![UNSIGNED, TEXT], vec![TEXT]),
            (vec![TEXT, UNSIGNED], vec![TEXT]),
            (vec![SIGNED, UNSIGNED, UNSIGNED, TEXT], vec![SIGNED, TEXT]),
            (vec![UNSIGNED, UNSIGNED, TEXT, UNSIGNED, SIGNED], vec![TEXT, SIGNED]),
            (vec![SIGNED, TEXT], vec![SIGNED, TEXT]),
            (vec![TEXT, CARRIED, SIGNED], vec![TEXT, SIGNED]),
        ] {
            assert_eq!(left(&body(&[&[TEXT], &given, &[TEXT]])), body(&[&[TEXT], &stays, &[TEXT]]));
        }
    }

    #[test]
    fn a_turn_of_nothing_else_goes_whole() {
        assert_eq!(left(&body(&[&[TEXT], &[UNSIGNED], &[TEXT]])), body(&[&[TEXT], &[TEXT]]));
        assert_eq!(left(&body(&[&[UNSIGNED, UNSIGNED], &[TEXT]])), body(&[&[TEXT]]));
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_upstream() {
        for odd in ["", "{", r#"{"messages":[{"content":"\"signature\":\"\""}]}"#, r#"{"messages":{}}"#] {
            assert_eq!(left(odd), odd);
        }
    }
}
