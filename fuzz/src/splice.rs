//! Changes to a request: what is replaced reads as the new text, and nothing else is touched.

use sallyport_protocol::messages::index::{Form, Index, Origin, Text};
use sallyport_protocol::messages::splice::Splices;

/// Panics where a change of one text changes something else. Four bytes choose a text, a range of it, and what takes its place; the
/// body follows.
pub fn check(data: &[u8]) {
    let Some(([which, from, length, with], body)) = data.split_first_chunk::<4>().map(|(a, b)| (*a, b))
    else {
        return;
    };
    let Ok(index) = Index::parse(body) else { return };
    let Some(at) = usize::from(which).checked_rem(index.texts.len()) else { return };
    let text = index.texts[at];
    let before = text.read(body).into_owned();
    let Some(from) = usize::from(from).checked_rem(before.len().max(1)) else { return };
    let to = (from + usize::from(length)).min(before.len());
    let with = ["[REDACTED]", "", "\"}],\"model\":\"x\"", "\\", "\u{2028}\n\u{0}", "\u{1f510}"]
        [usize::from(with) % 6];

    let mut splices = Splices::new();
    if splices.replace(body, text, [(from..to, with)]).is_err() {
        assert!(splices.is_empty(), "a change that was refused is half made");
        return;
    }
    assert!(!text.signed, "a text that the upstream signed was changed");
    let after = splices.apply(body).expect("the change lies in the body");
    let again = Index::parse(&after);
    // What is no plain text may be the name of the model, or the type of a block: the gateway refuses such a change.
    let plain = text.form == Form::String
        && matches!(text.origin, Origin::System | Origin::User | Origin::Assistant | Origin::ToolOutput);
    let again = match again {
        Ok(again) if again.is_like(&index) => again,
        again => {
            assert!(!plain, "a changed body is another request: {again:?}");
            return;
        }
    };
    if plain {
        assert_eq!(again.tools, index.tools);
    }
    let start = text.span.start as usize;
    assert_eq!(after.get(..start), body.get(..start), "what stands before was touched");
    let (tail, rest) = (body.len() - text.span.end as usize, text.span.end as usize);
    assert_eq!(after.get(after.len() - tail..), body.get(rest..), "what stands behind was touched");
    for (number, (old, new)) in index.texts.iter().zip(&again.texts).enumerate() {
        let (old_text, new_text) = (old.read(body), new.read(&after));
        let holds = old.span.start <= text.span.start && text.span.end <= old.span.end;
        let within = text.span.start <= old.span.start && old.span.end <= text.span.end;
        if number != at && !holds && !within {
            assert_eq!(old_text, new_text, "another text was touched");
        }
    }
    // What is more than one string is shown without its escapes only where it has any: a change can bring the first one.
    let now = again.texts[at];
    let escaped = |body: &[u8], text: Text| text.span.of(body).contains(&b'\\');
    if text.form == Form::String || (escaped(body, text) && escaped(&after, now)) {
        assert_eq!(
            now.read(&after),
            format!("{}{with}{}", &before[..from], &before[to..]),
            "the text reads otherwise"
        );
    }
}
