//! What the echo answers, natively.

use sallyport_guest_sdk::testing::{begin, converse, golden, request, transcript};

use super::*;

fn events(body: &str) -> Vec<StreamEvent> {
    let mut outputs = converse::<Echo>("{}", request(body), []).unwrap();
    assert_eq!(outputs.pop(), Some(Output::Done));
    outputs
        .into_iter()
        .map(|output| match output {
            Output::Event(event) => event,
            other => panic!("not an event: {other:?}"),
        })
        .collect()
}

fn text(body: &str) -> (String, usize) {
    let pieces: Vec<String> = events(body)
        .into_iter()
        .filter_map(|event| match event {
            StreamEvent::BlockDelta(BlockDelta { delta: Delta::Text(text), .. }) => Some(text),
            _ => None,
        })
        .collect();
    (pieces.concat(), pieces.len())
}

fn say(text: &str) -> String {
    let text = serde_json::Value::from(text);
    format!(r#"{{"model":"echo","max_tokens":100000,"messages":[{{"role":"user","content":{text}}}]}}"#)
}

#[test]
fn a_call_is_answered_as_the_golden_cases_say() {
    golden(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), |body| {
        transcript(body, &converse::<Echo>("{}", request(body), []).unwrap())
    });
}

#[test]
fn the_last_user_text_comes_back_in_several_pieces() {
    let words = "ümläuts and 日本語 survive being cut between characters";
    assert_eq!(text(&say(words)), (words.to_owned(), 4));
}

#[test]
fn a_long_text_has_a_bounded_number_of_pieces() {
    let long = "0123456789".repeat(10_000);
    let (answer, pieces) = text(&say(&long));
    assert_eq!(answer, long);
    assert!(pieces <= MOST_PIECES);
}

#[test]
fn an_empty_conversation_is_answered_with_an_empty_block() {
    assert_eq!(text(r#"{"model":"echo","messages":[]}"#), (String::new(), 0));
}

#[test]
fn the_same_call_is_answered_the_same() {
    assert_eq!(events(&say("hello")), events(&say("hello")));
}

#[test]
fn a_count_is_declared_an_estimate() {
    let mut count = request(&say("hello"));
    count.kind = RequestKind::CountTokens;
    let estimate = count.call.body_bytes.div_ceil(3);
    let said = converse::<Echo>("{}", count, []).unwrap();
    assert_eq!(said, [Output::TokenEstimate(estimate), Output::Done]);
}

#[test]
fn only_an_offered_tool_with_an_object_is_called() {
    assert_eq!(tool_call(r#" use tool Bash {"command":"ls"} "#), Some(("Bash", r#"{"command":"ls"}"#)));
    assert_eq!(tool_call("use tool Bash"), Some(("Bash", "{}")));
    assert_eq!(tool_call("use tool Bash [1]"), None);
    assert_eq!(tool_call("use tool Bash {broken"), None);
    assert_eq!(tool_call("please use tool Bash {}"), None);
    assert_eq!(text(&say("use tool Bash {}")).0, "use tool Bash {}");
}

#[test]
fn its_first_outputs_end_the_exchange() {
    assert!(begin::<Echo>("{}", request(&say("hello"))).unwrap().unwrap().exchange.is_none());
}

#[test]
fn a_request_that_is_not_known_is_refused() {
    let mut other = request(&say("hello"));
    other.kind = RequestKind::Other("embeddings".into());
    let said = converse::<Echo>("{}", other, []).unwrap();
    assert!(matches!(&said[..], [Output::Fail(failure)] if failure.status == 400), "{said:?}");
}

#[test]
fn pieces_of_no_characters_are_refused() {
    assert!(begin::<Echo>(r#"{"piece_chars":0}"#, request(&say("x"))).is_err());
    assert!(begin::<Echo>(r#"{"pieces":1}"#, request(&say("x"))).is_err());
}
