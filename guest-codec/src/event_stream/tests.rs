//! Messages that others published, messages put together by hand, and damage.

use super::{EventStream, EventStreamError, LONGEST};

/// From the README of `aws_event_stream_parser`: a header of type string, and a payload.
const PUBLISHED: &str = "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1";
/// From the documentation of `event_stream` for Elixir: no header.
const PLAIN: [u8; 30] = [
    0, 0, 0, 30, 0, 0, 0, 0, 186, 242, 246, 138, 123, 34, 102, 111, 111, 34, 58, 32, 34, 98, 97, 114, 34,
    125, 174, 114, 88, 228,
];

fn published() -> Vec<u8> {
    let pairs = PUBLISHED.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Content type, payload.
type Read = Vec<(Option<String>, String)>;

fn read(chunks: &[&[u8]]) -> Result<Read, EventStreamError> {
    let mut stream = EventStream::default();
    let mut found = Vec::new();
    for chunk in chunks {
        stream.push(chunk, |message| {
            let media_type = message.header("content-type").map(std::borrow::Cow::into_owned);
            found.push((media_type, String::from_utf8_lossy(message.payload).into_owned()));
            Ok::<_, EventStreamError>(())
        })?;
    }
    stream.end()?;
    Ok(found)
}

/// A message with string headers, put together from the specification.
fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap());
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    framed(&head, payload)
}

fn framed(head: &[u8], payload: &[u8]) -> Vec<u8> {
    let number = |it: usize| u32::try_from(it).unwrap().to_be_bytes();
    let mut bytes = [number(16 + head.len() + payload.len()), number(head.len())].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(payload);
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn published_messages_are_read_at_every_split() {
    let bytes = [published(), PLAIN.to_vec(), published()].concat();
    let json = || (Some("application/json".to_owned()), "{'foo':'bar'}".to_owned());
    let expected = [json(), (None, r#"{"foo": "bar"}"#.to_owned()), json()];
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(read(&[a, b]).unwrap(), expected, "at {at}");
    }
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()).unwrap(), expected);
}

#[test]
fn a_changed_byte_is_never_read_as_a_message() {
    let bytes = published();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(read(&[&changed]), Err(EventStreamError::Checksum), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_body_that_ends_within_a_message_is_cut() {
    let bytes = published();
    for at in 1..bytes.len() {
        assert_eq!(read(&[&bytes[..at]]), Err(EventStreamError::Cut), "at {at}");
    }
    assert_eq!(read(&[]), Ok(Vec::new()));
}

#[test]
fn a_message_that_is_too_long_is_refused_before_it_comes() {
    let number = |it: usize| u32::try_from(it).unwrap().to_be_bytes();
    for (total, headers) in [(LONGEST + 1, 0), (15, 0), (40, 25)] {
        let mut prelude = [number(total), number(headers)].concat();
        prelude.extend_from_slice(&crc32fast::hash(&prelude).to_be_bytes());
        assert_eq!(read(&[&prelude]), Err(EventStreamError::Length), "{total} {headers}");
    }
}

#[test]
fn headers_of_every_type_are_stepped_over_and_one_of_no_type_is_refused() {
    let mut head = Vec::new();
    let sizes = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)];
    for (kind, size) in sizes {
        head.extend_from_slice(&[1, b'x', kind]);
        head.extend(std::iter::repeat_n(0xff, size));
    }
    head.extend_from_slice(&[1, b'x', 6, 0, 2, 0xff, 0xff]);
    head.extend_from_slice(b"\x0ccontent-type\x07\x00\x04text");
    assert_eq!(read(&[&framed(&head, b"p")]).unwrap(), [(Some("text".to_owned()), "p".to_owned())]);
    for head in [&b"\x01x\x0a"[..], b"\x05x", b"\x01x\x07\x00\x09y"] {
        assert_eq!(read(&[&framed(head, b"")]), Err(EventStreamError::Headers), "{head:?}");
    }
}

#[test]
fn an_exception_is_told_apart_from_an_event() {
    let event = message(&[(":event-type", "chunk"), (":message-type", "event")], b"{}");
    let exception =
        message(&[(":exception-type", "throttlingException"), (":message-type", "exception")], b"{}");
    let mut names = Vec::new();
    let mut stream = EventStream::default();
    stream
        .push(&[event, exception].concat(), |it| {
            names.push((it.name().into_owned(), it.is_exception()));
            Ok::<_, EventStreamError>(())
        })
        .unwrap();
    assert_eq!(names, [("chunk".to_owned(), false), ("throttlingException".to_owned(), true)]);
}
