use proptest::prelude::*;

use super::*;
use crate::messages::index::Index;

fn splice(span: Range<u32>, with: &str) -> Splice {
    Splice { span: Span { start: span.start, end: span.end }, with: with.as_bytes().to_vec() }
}

/// A request whose last message has `content`, which is JSON.
fn body(content: &str) -> String {
    format!(r#"{{"model":"m", "messages":[{{"role":"user","content":{content}}}],"x": 1.50 }}"#)
}

/// The request with every `needle` in its texts replaced.
fn redacted(body: &str, needle: &str, with: &str) -> Result<String, Misplaced> {
    let bytes = body.as_bytes();
    let mut splices = Splices::new();
    for text in Index::parse(bytes).unwrap().texts {
        let read = text.read(bytes);
        let ranges = read.match_indices(needle).map(|(at, found)| (at..at + found.len(), with));
        splices.replace(bytes, text, ranges.collect::<Vec<_>>())?;
    }
    Ok(String::from_utf8(splices.apply(bytes).unwrap()).unwrap())
}

#[test]
fn a_splice_changes_its_ranges_and_nothing_else() {
    let mut splices = Splices::new();
    for one in
        [splice(9..10, ""), splice(1..3, "ab"), splice(5..5, "+"), splice(5..5, "-"), splice(5..6, "E")]
    {
        splices.push(one).unwrap();
    }
    assert_eq!(splices.apply(b"0123456789").unwrap(), b"0ab34+-E678");
    assert_eq!(Splices::new().apply(b"01").unwrap(), b"01");
    assert_eq!(splices.push(splice(2..4, "")), Err(Misplaced::Overlap));
    assert_eq!(splices.apply(b"012345678"), Err(Misplaced::Outside));
    assert_eq!(apply(b"0123", &[splice(2..3, ""), splice(1..2, "")]), Err(Misplaced::Overlap));
}

#[test]
fn changes_that_came_in_any_order_are_put_in_order_or_refused() {
    let body = b"0123456789";
    let sorted = Splices::from_unsorted(vec![
        splice(9..10, ""),
        splice(5..6, "E"),
        splice(5..5, "+"),
        splice(1..3, "ab"),
        splice(5..5, "-"),
    ]);
    assert_eq!(sorted.unwrap().apply(body).unwrap(), b"0ab34+-E678");
    let bad = [(vec![(2, 5), (4, 6)], Misplaced::Overlap), (vec![(5, 4)], Misplaced::Outside)];
    for (spans, misplaced) in bad {
        let splices = spans.into_iter().map(|(start, end)| splice(start..end, "")).collect();
        assert_eq!(Splices::from_unsorted(splices), Err(misplaced));
    }
    // What was cut out of another body has no place in this one.
    assert_eq!(Span::of_part(body, &body[2..4]), Some(Span { start: 2, end: 4 }));
    for elsewhere in [&b"01"[..], &body.to_vec()[2..4]] {
        assert_eq!(Span::of_part(body, elsewhere), None);
    }
    assert_eq!(text_block("a \"b\""), br#"{"type":"text","text":"a \"b\""}"#);
}

#[test]
fn a_text_is_replaced_within_its_string_however_it_is_written() {
    for (written, expected) in [
        (r#""a KEY b""#, r#""a [\"gone\"]\n b""#),
        (r#""\u00e9 K\u0045Y \ud83d\ude00""#, r#""\u00e9 [\"gone\"]\n \ud83d\ude00""#),
        ("\"\u{e9}\u{1f600}KEY\u{e9}KEY\"", "\"\u{e9}\u{1f600}[\\\"gone\\\"]\\n\u{e9}[\\\"gone\\\"]\\n\""),
        (r#""\\\"KEY\/""#, r#""\\\"[\"gone\"]\n\/""#),
        (
            r#"[{"type":"text","text":"KEY"},{"text":"\tKEY","type":"text"}]"#,
            r#"[{"type":"text","text":"[\"gone\"]\n"},{"text":"\t[\"gone\"]\n","type":"text"}]"#,
        ),
        (
            r#"[{"type":"tool_result","content":[{"type":"text","text":"id=KEY"}]}]"#,
            r#"[{"type":"tool_result","content":[{"type":"text","text":"id=[\"gone\"]\n"}]}]"#,
        ),
    ] {
        assert_eq!(redacted(&body(written), "KEY", "[\"gone\"]\n").unwrap(), body(expected));
    }
}

#[test]
fn the_input_of_a_tool_is_replaced_in_its_values_alone() {
    let input =
        |input: &str| body(&format!(r#"[{{"type":"tool_use","id":"t","name":"n","input":{input}}}]"#));
    for (written, expected) in [
        (r#"{"cmd":"run KEY", "n": [1, "KEY"]}"#, r#"{"cmd":"run <>", "n": [1, "<>"]}"#),
        (r#"{"z":"\tKEY","a":{"b":"\u004bEY"}}"#, r#"{"z":"\t<>","a":{"b":"<>"}}"#),
    ] {
        assert_eq!(redacted(&input(written), "KEY", "<>").unwrap(), input(expected));
    }
    for written in [r#"{"KEY":1}"#, r#"{"a":"\t","KEY":1}"#, r#"{"a":"K","EY":"b"}"#, r#"{"a":["K", "EY"]}"#]
    {
        let needle = if written.contains("KEY") { "KEY" } else { "\"K\", \"EY\"" };
        let found = redacted(&input(written), needle, "<>");
        let untouched = !written.contains(needle);
        assert_eq!(found, if untouched { Ok(input(written)) } else { Err(Misplaced::Text) }, "{written}");
    }
    assert_eq!(
        redacted(&input(r#"{"card":4111}"#), "4111", "<>"),
        Err(Misplaced::Text),
        "a number is no text"
    );
}

#[test]
fn what_the_upstream_signed_is_not_changed() {
    let thinking = body(r#"[{"type":"thinking","thinking":"the KEY","signature":"s"}]"#);
    assert_eq!(redacted(&thinking, "KEY", "<>"), Err(Misplaced::Text));
}

#[test]
fn a_range_that_is_no_piece_of_the_text_changes_nothing() {
    let body = body("\"a\u{e9}\\u00e9b\"");
    let index = Index::parse(body.as_bytes()).unwrap();
    let text = *index.texts.iter().find(|text| text.message.is_some()).unwrap();
    for range in [1..2, 2..3, 3..4, 0..7, 7..8, 3..3] {
        let mut splices = Splices::new();
        assert_eq!(
            splices.replace(body.as_bytes(), text, [(range.clone(), "x")]),
            Err(Misplaced::Text),
            "{range:?}"
        );
        assert!(splices.is_empty());
    }
    let mut splices = Splices::new();
    let unordered = [(3..5, "x"), (0..1, "y")];
    assert_eq!(splices.replace(body.as_bytes(), text, unordered), Err(Misplaced::Text));
}

/// A character and one of the ways to write it in JSON.
fn written() -> impl Strategy<Value = (char, String)> {
    (any::<char>(), any::<bool>()).prop_map(|(char, escape)| {
        let plain = escape || char < ' ' || matches!(char, '"' | '\\');
        let json = if plain {
            let mut units = [0; 2];
            char.encode_utf16(&mut units)
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<Vec<_>>()
                .concat()
        } else {
            char.to_string()
        };
        (char, json)
    })
}

proptest! {
    #[test]
    fn every_other_byte_stays_and_the_result_reads_as_expected(
        chars in prop::collection::vec(written(), 1..40),
        cuts in prop::collection::vec(0_usize..40, 2..6),
        with in any::<String>(),
        nested: bool,
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(chars.len())).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let pairs: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
        let json = |range: Range<usize>| chars[range].iter().map(|(_, json)| json.as_str()).collect::<String>();
        let text = |range: Range<usize>| chars[range].iter().map(|(char, _)| *char).collect::<String>();
        let frame = |content: &str| body(&if nested {
            format!(r#"[{{"type":"tool_use","input":{{"k\u0065y":["x", "{content}"]}}}}]"#)
        } else {
            format!("\"{content}\"")
        });
        let original = frame(&json(0..chars.len()));
        let (mut expected, mut reads, mut from) = (String::new(), String::new(), 0);
        let inside = String::from_utf8(in_quotes(&with)).unwrap();
        for pair in &pairs {
            expected += &json(from..pair.start);
            expected += &inside;
            reads += &text(from..pair.start);
            reads += &with;
            from = pair.end;
        }
        expected += &json(from..chars.len());
        reads += &text(from..chars.len());

        let index = Index::parse(original.as_bytes()).unwrap();
        let found = *index.texts.iter().find(|text| text.message.is_some()).unwrap();
        let offset = if nested { "type: tool_use\ninput: key: x\n".len() } else { 0 };
        let place = |at: usize| offset + text(0..at).len();
        let ranges = pairs.iter().map(|pair| (place(pair.start)..place(pair.end), with.as_str()));
        let mut splices = Splices::new();
        splices.replace(original.as_bytes(), found, ranges.collect::<Vec<_>>()).unwrap();
        let changed = splices.apply(original.as_bytes()).unwrap();
        prop_assert_eq!(std::str::from_utf8(&changed).unwrap(), frame(&expected));
        let value: serde_json::Value = serde_json::from_slice(&changed).unwrap();
        let content = &value["messages"][0]["content"];
        let now = if nested { &content[0]["input"]["key"][1] } else { content };
        prop_assert_eq!(now.as_str().unwrap(), reads);
    }
}
