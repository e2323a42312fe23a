//! Stories of the splitter: whatever the chunks and the line ends, the cuts are the same and no byte is lost.

use proptest::prelude::*;

use super::*;

const RECORDED: [&str; 3] = [
    include_str!("../../../fixtures/basic.response.sse"),
    include_str!("../../../fixtures/tool_loop_03.response.sse"),
    include_str!("../../../fixtures/tool_loop_10.response.sse"),
];

/// Pushes the chunks one by one and takes every event in between.
fn split(chunks: &[&[u8]]) -> (Vec<RawEvent>, Rest) {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = splitter.next_event().unwrap() {
            events.push(event);
        }
    }
    (events, splitter.finish())
}

fn joined(events: &[RawEvent], rest: &Rest) -> Vec<u8> {
    let mut all: Vec<u8> = events.iter().flat_map(|event| event.bytes.to_vec()).collect();
    match rest {
        Rest::Nothing => {}
        Rest::Event(event) => all.extend_from_slice(&event.bytes),
        Rest::Partial(bytes) => all.extend_from_slice(bytes),
    }
    all
}

fn data(event: &RawEvent) -> String {
    String::from_utf8(event.data().into_owned()).unwrap()
}

#[test]
fn a_recorded_stream_is_cut_into_its_events() {
    let (events, rest) = split(&[RECORDED[0].as_bytes()]);
    let names: Vec<_> = events.iter().map(|event| event.name().unwrap()).collect();
    insta::assert_snapshot!(names.join(" "), @"message_start content_block_start ping content_block_delta content_block_delta content_block_stop message_delta message_stop");
    assert_eq!(data(&events[7]), r#"{"type": "message_stop"}"#);
    assert_eq!(&events[7].bytes[..], b"event: message_stop\ndata: {\"type\": \"message_stop\"}\n\n");
    assert_eq!(rest, Rest::Nothing);
}

#[test]
fn every_recorded_stream_is_cut_the_same_at_every_byte_and_with_every_line_end() {
    for recorded in RECORDED {
        let expected: Vec<_> = split(&[recorded.as_bytes()]).0.iter().map(data).collect();
        for line_end in ["\n", "\r\n", "\r"] {
            let stream = recorded.replace('\n', line_end);
            let whole = split(&[stream.as_bytes()]);
            for at in 0..=stream.len() {
                let (left, right) = stream.as_bytes().split_at(at);
                let halves = split(&[left, right]);
                assert_eq!(halves, whole, "cut at {at} with {line_end:?}");
            }
            let (mut events, rest) = whole;
            if let Rest::Event(last) = rest {
                events.push(last);
            }
            assert_eq!(events.iter().map(data).collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn an_event_that_lies_whole_in_a_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: 1\n\ndata: 2\n\ndata: 3");
    let start = chunk.as_ptr() as usize;
    let range = start..start + chunk.len();
    let mut splitter = Splitter::default();
    splitter.push(chunk);
    for _ in 0..2 {
        let event = splitter.next_event().unwrap().unwrap();
        assert!(range.contains(&(event.bytes.as_ptr() as usize)));
    }
    assert_eq!(splitter.next_event().unwrap(), None);
    assert_eq!(splitter.pending(), 7);
    splitter.push(Bytes::from_static(b"\n\n"));
    assert_eq!(&splitter.next_event().unwrap().unwrap().bytes[..], b"data: 3\n\n");
    assert_eq!(splitter.pending(), 0);
}

#[test]
fn chunks_pushed_without_taking_events_are_kept_in_order() {
    let mut splitter = Splitter::default();
    for chunk in ["data: a\n", "\ndata", ": b\n\n", "da"] {
        splitter.push(Bytes::from_static(chunk.as_bytes()));
    }
    assert_eq!(data(&splitter.next_event().unwrap().unwrap()), "a");
    splitter.push(Bytes::from_static(b"ta: c\n\n"));
    assert_eq!(data(&splitter.next_event().unwrap().unwrap()), "b");
    assert_eq!(data(&splitter.next_event().unwrap().unwrap()), "c");
    assert_eq!(splitter.next_event().unwrap(), None);
    assert_eq!(splitter.finish(), Rest::Nothing);
}

#[test]
fn fields_are_read_as_the_standard_has_it() {
    let stream =
        "\u{feff}event: first\nevent: last\nid: 7\ndata:  two spaces\ndata\ndata:x: y\n: note\nother: z\n\n";
    let (events, _) = split(&[stream.as_bytes()]);
    assert_eq!(events[0].name(), Some("last"));
    assert_eq!(data(&events[0]), " two spaces\n\nx: y");
    assert!(events[0].bytes.starts_with(b"\xef\xbb\xbf"));
}

#[test]
fn a_byte_order_mark_counts_at_the_start_of_the_stream_alone() {
    let (events, _) = split(&["\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes()]);
    assert_eq!(data(&events[0]), "a");
    assert!(!events[1].has_data());
}

#[test]
fn comments_and_extra_blank_lines_are_events_without_data() {
    let (events, rest) = split(&[b": ping\n\n\ndata:\n\n"]);
    assert_eq!(events.len(), 3);
    assert_eq!(events.iter().map(RawEvent::has_data).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(events[0].kind(), EventKind::Other);
    assert_eq!(&events[1].bytes[..], b"\n");
    assert_eq!(rest, Rest::Nothing);
}

#[test]
fn a_name_that_is_empty_or_not_text_is_none() {
    let (events, _) = split(&[b"event:\ndata: 1\n\nevent: \xff\ndata: 1\n\nevent: a\nevent:\n\n"]);
    assert!(events.iter().all(|event| event.name().is_none()));
}

#[test]
fn an_event_larger_than_the_limit_is_refused_for_good() {
    let mut splitter = Splitter::new(16);
    splitter.push(Bytes::from_static(b"data: 12345678\n\ndata: 123456789\n\n"));
    assert_eq!(splitter.next_event().unwrap().unwrap().bytes.len(), 16);
    assert_eq!(splitter.next_event(), Err(SseError::TooLarge { limit: 16 }));
    splitter.push(Bytes::from_static(b"data: 1\n\n"));
    assert_eq!(splitter.next_event(), Err(SseError::TooLarge { limit: 16 }));
}

#[test]
fn a_line_without_an_end_cannot_fill_the_memory() {
    let mut splitter = Splitter::new(1024);
    for _ in 0..16 {
        splitter.push(Bytes::from(vec![b'x'; 64]));
        assert_eq!(splitter.next_event(), Ok(None));
    }
    splitter.push(Bytes::from_static(b"x"));
    assert_eq!(splitter.next_event(), Err(SseError::TooLarge { limit: 1024 }));
    assert_eq!(splitter.pending(), 0);
}

#[test]
fn an_event_that_was_cut_off_is_told_apart() {
    let (events, rest) = split(&[b"data: 1\n\ndata: 2\n"]);
    assert_eq!(events.len(), 1);
    assert_eq!(rest, Rest::Partial(Bytes::from_static(b"data: 2\n")));
}

#[test]
fn a_last_event_that_ends_in_a_lone_carriage_return_is_complete_at_the_end() {
    let (events, rest) = split(&[b"data: 1\r\r"]);
    assert!(events.is_empty());
    let Rest::Event(event) = rest else { panic!("{rest:?}") };
    assert_eq!(data(&event), "1");
}

/// Bytes that make line ends, blank lines and fields likely.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\n".to_vec()),
        3 => Just(b"\r".to_vec()),
        3 => Just(b"\r\n".to_vec()),
        2 => Just(b"data: x".to_vec()),
        1 => Just(b"event: ping".to_vec()),
        2 => Just(b"event: ping\ndata: {\"type\":\"ping\"}".to_vec()),
        1 => Just(b":".to_vec()),
        1 => Just(b"\xef\xbb\xbf".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_chunking_changes_the_cuts_or_loses_a_byte(
        stream in stream(),
        sizes in prop::collection::vec(0..9_usize, 0..60),
    ) {
        let whole = split(&[&stream]);
        let mut rest = &stream[..];
        let mut chunks = Vec::new();
        for size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        chunks.push(rest);
        let pieces = split(&chunks);
        prop_assert_eq!(&pieces, &whole);
        prop_assert_eq!(joined(&whole.0, &whole.1), stream);
    }

    #[test]
    fn the_splitter_agrees_with_a_line_by_line_reading(stream in stream()) {
        let text = String::from_utf8_lossy(&stream).into_owned();
        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
        let expected = lines.matches('\n').count();
        let (mut events, rest) = split(&[text.as_bytes()]);
        if let Rest::Event(event) = rest {
            events.push(event);
        }
        let mut blocks: Vec<String> = Vec::new();
        let mut open = String::new();
        for line in lines.split_inclusive('\n') {
            open += line;
            if line == "\n" {
                blocks.push(std::mem::take(&mut open));
            }
        }
        let cut: Vec<String> = events
            .iter()
            .map(|event| {
                let text = String::from_utf8(event.bytes.to_vec()).unwrap();
                text.replace("\r\n", "\n").replace('\r', "\n")
            })
            .collect();
        prop_assert_eq!(&cut, &blocks);
        prop_assert!(expected >= blocks.len());
        for event in &events {
            let slow = event::quick_kind(event.name().map(str::as_bytes), &event.data());
            prop_assert_eq!(event.kind(), slow);
        }
    }
}
