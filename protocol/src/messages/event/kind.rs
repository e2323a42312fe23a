//! Tells what kind of event passes by without parsing its JSON, so that a tap on a forwarded stream costs
//! next to nothing.

/// The kinds of event a tap tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `message_start`
    MessageStart,
    /// `content_block_start`
    BlockStart,
    /// `content_block_delta`
    BlockDelta,
    /// `content_block_stop`
    BlockStop,
    /// `message_delta`
    MessageDelta,
    /// `message_stop`
    MessageStop,
    /// `ping`
    Ping,
    /// `error`
    Error,
    /// Any other event, a comment, or an event whose `event` field and whose data's `type` name different
    /// kinds: clients differ in which of the two they follow, so such an event must not pass for either.
    Other,
}

// === impl EventKind ===

impl EventKind {
    /// The kind with this name on the wire; [`EventKind::Other`] for every other name.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"content_block_delta" => Self::BlockDelta,
            b"content_block_start" => Self::BlockStart,
            b"content_block_stop" => Self::BlockStop,
            b"message_start" => Self::MessageStart,
            b"message_delta" => Self::MessageDelta,
            b"message_stop" => Self::MessageStop,
            b"ping" => Self::Ping,
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }
}

/// The kind of an event with this `event` field (`None` where there is none) and this data. The name decides;
/// the data's top-level `type` decides where there is no name, and has to agree where there is one.
pub fn quick_kind(name: Option<&[u8]>, data: &[u8]) -> EventKind {
    if let Some(name) = name
        && starts_with_type(data, name)
    {
        return EventKind::of(name);
    }
    match (name, type_of(data)) {
        (Some(name), Some(typed)) if name != typed => EventKind::Other,
        (Some(name), _) => EventKind::of(name),
        (None, Some(typed)) => EventKind::of(typed),
        (None, None) => EventKind::Other,
    }
}

/// Whether `data` begins as nearly every event's data does: `{"type":"<name>"`, with or without a space.
fn starts_with_type(data: &[u8], name: &[u8]) -> bool {
    let Some(rest) = data.strip_prefix(b"{\"type\":") else {
        return false;
    };
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let value = rest.strip_prefix(b"\"").and_then(|rest| rest.strip_prefix(name));
    value.is_some_and(|after| after.starts_with(b"\""))
}

/// The `type` of a JSON object, where its first member is one with a plain string; else the first such member
/// at the top level. `None` where there is none.
fn type_of(data: &[u8]) -> Option<&[u8]> {
    let mut rest = space(data).strip_prefix(b"{")?;
    loop {
        let (name, after) = string(space(rest))?;
        let after = space(space(after).strip_prefix(b":")?);
        if name == b"type" {
            return string(after).map(|(value, _)| value);
        }
        rest = space(value(after)?).strip_prefix(b",")?;
    }
}

fn space(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t' | b'\n' | b'\r', after @ ..] = rest {
        rest = after;
    }
    rest
}

/// The content of the string that `bytes` start with, escapes as they stand, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = bytes.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        if body.get(at) == Some(&b'"') {
            return Some((body.get(..at)?, body.get(at + 1..)?));
        }
        at += 2;
    }
}

/// What follows the value that `bytes` start with.
fn value(bytes: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut rest = bytes;
    loop {
        match rest.first()? {
            b'"' => rest = string(rest)?.1,
            b'{' | b'[' => {
                depth += 1;
                rest = rest.get(1..)?;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                rest = rest.get(1..)?;
            }
            b',' | b'}' | b']' if depth == 0 => return Some(rest),
            _ => {
                rest = rest.get(1..)?;
                continue;
            }
        }
        if depth == 0 {
            return Some(rest);
        }
    }
}
