//! Streams: an event is cut, named and read as the client's library does it.

use bytes::Bytes;
use sallyport_protocol::messages::event::{self, Block, StreamEvent};
use sallyport_protocol::messages::sse::{RawEvent, Rest, Splitter};

use crate::tree::Tree;

/// Panics where an event of this stream is another one to its client. The first byte says how the stream is cut into chunks.
pub fn check(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let mut raw = Vec::new();
    let mut splitter = Splitter::default();
    for chunk in stream.chunks(usize::from(*cut).max(1)) {
        splitter.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = splitter.next_event().expect("less than the limit") {
            raw.push(event);
        }
    }
    let rest = match splitter.finish() {
        Rest::Nothing => Bytes::new(),
        Rest::Event(event) => {
            raw.push(event);
            Bytes::new()
        }
        Rest::Partial(bytes) => bytes,
    };
    let together: Vec<u8> = raw.iter().flat_map(|event| event.bytes.iter()).chain(&rest).copied().collect();
    assert_eq!(together, stream, "bytes were lost or made");

    // A client has text, not bytes.
    let Ok(text) = std::str::from_utf8(stream) else { return };
    let ours: Vec<&RawEvent> = raw.iter().filter(|event| event.has_data()).collect();
    let theirs = client(text);
    assert_eq!(ours.len(), theirs.len(), "events");
    for (event, (name, data)) in ours.into_iter().zip(theirs) {
        assert_eq!(event.name().unwrap_or_default(), name, "a name");
        assert_eq!(event.data(), data.as_bytes(), "data");
        one(event);
    }
}

/// Names and data of a stream's events, by the letter of the standard: lines end with a line feed, a return, or both.
fn client(text: &str) -> Vec<(String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let mut events = Vec::new();
    let (mut name, mut data) = (String::new(), None::<String>);
    // What follows the last line break is no line yet.
    let Some((lines, _)) = text.rsplit_once('\n') else { return events };
    for line in lines.split('\n') {
        if line.is_empty() {
            if let Some(data) = data.take() {
                events.push((std::mem::take(&mut name), data));
            }
            name.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => data = Some(value.to_owned()),
            },
            _ => {}
        }
    }
    events
}

/// One event that both have: where it can be read, it is what the client reads.
fn one(raw: &RawEvent) {
    let data = raw.data();
    let Ok(event) = event::parse(raw.name(), &data) else { return };
    let Some(tree) = Tree::parse(&data) else { return };
    let said = |key: &str| tree.last(key);
    if let Some(typed) = said("type").and_then(Tree::text) {
        assert_eq!(raw.name().unwrap_or(typed), typed, "an event of two kinds passes");
    }
    match &event {
        StreamEvent::BlockStart { index, block } => {
            assert_eq!(said("index"), Some(&Tree::Whole(u64::from(*index))), "the index of a block");
            let theirs = said("content_block").expect("a block");
            let is_tool = theirs.last("type").and_then(Tree::text) == Some("tool_use");
            match block {
                Block::ToolUse { id, name, .. } => {
                    assert!(is_tool, "a tool call that is none");
                    assert_eq!(theirs.last("id").and_then(Tree::text), Some(id.as_str()), "the id of a call");
                    assert_eq!(
                        theirs.last("name").and_then(Tree::text),
                        Some(name.as_str()),
                        "the name of a tool"
                    );
                }
                _ => assert!(!is_tool, "a tool call that passes for something else"),
            }
        }
        StreamEvent::BlockDelta { index, .. } | StreamEvent::BlockStop { index } => {
            assert_eq!(said("index"), Some(&Tree::Whole(u64::from(*index))), "the index of a block");
        }
        StreamEvent::MessageDelta { stop_reason, .. } => {
            let theirs = said("delta").and_then(|delta| delta.last("stop_reason")).and_then(Tree::text);
            assert_eq!(stop_reason.as_deref(), theirs, "the reason of the end");
        }
        _ => {}
    }

    // What is written again is the same event.
    let mut written = Vec::new();
    event.write(&mut written);
    let mut splitter = Splitter::default();
    splitter.push(written.into());
    let again = splitter.next_event().expect("less than the limit").expect("a whole event");
    if !matches!(event, StreamEvent::Raw { .. }) {
        let read = event::parse(again.name(), &again.data()).expect("what the gateway writes can be read");
        assert_eq!(read.kind(), event.kind(), "an event is another one when it is written");
    }
    assert!(splitter.next_event().expect("less than the limit").is_none(), "one event became two");
}
