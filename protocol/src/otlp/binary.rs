//! Exports in the binary form of Protocol Buffers <https://protobuf.dev/programming-guides/encoding/>. Only what stands between the whole and
//! an attribute's name is taken apart, by tables of <https://github.com/open-telemetry/opentelemetry-proto>, so that depth follows from them and
//! not from a client.

use super::{NotOtlp, Signal, is_claim, is_reserved};

/// A message on the way to attributes.
struct WireMessage {
    /// The field with a list of them; 0: none.
    attributes: u32,
    /// Fields with messages that have some.
    below: &'static [(u32, &'static WireMessage)],
}

const EXEMPLAR: WireMessage = WireMessage { attributes: 7, below: &[] };
const NUMBER_POINT: WireMessage = WireMessage { attributes: 7, below: &[(5, &EXEMPLAR)] };
const HISTOGRAM_POINT: WireMessage = WireMessage { attributes: 9, below: &[(8, &EXEMPLAR)] };
const EXPONENTIAL_POINT: WireMessage = WireMessage { attributes: 1, below: &[(11, &EXEMPLAR)] };
const SUMMARY_POINT: WireMessage = WireMessage { attributes: 7, below: &[] };
const NUMBERS: WireMessage = WireMessage { attributes: 0, below: &[(1, &NUMBER_POINT)] };
const METRIC: WireMessage = WireMessage {
    attributes: 12,
    below: &[
        (5, &NUMBERS),
        (7, &NUMBERS),
        (9, &WireMessage { attributes: 0, below: &[(1, &HISTOGRAM_POINT)] }),
        (10, &WireMessage { attributes: 0, below: &[(1, &EXPONENTIAL_POINT)] }),
        (11, &WireMessage { attributes: 0, below: &[(1, &SUMMARY_POINT)] }),
    ],
};
const LOG_RECORD: WireMessage = WireMessage { attributes: 6, below: &[] };
const SPAN: WireMessage = WireMessage {
    attributes: 9,
    below: &[
        (11, &WireMessage { attributes: 3, below: &[] }),
        (13, &WireMessage { attributes: 4, below: &[] }),
    ],
};
const SCOPE: WireMessage = WireMessage { attributes: 3, below: &[] };

/// In every message below: the list of an export, the resource of an entry, the attributes of a resource, the name of an attribute.
const FIRST: u32 = 1;
/// The list of scopes of an entry, and the value of an attribute.
const SECOND: u32 = 2;

/// One field as it stands.
struct WireField<'a> {
    number: u32,
    /// With its tag.
    whole: &'a [u8],
    /// Its bytes, where it has a length.
    value: Option<&'a [u8]>,
}

/// See [`super::stamp`].
pub(super) fn stamp(signal: Signal, body: &[u8], attributes: &[(&str, &str)]) -> Result<Vec<u8>, NotOtlp> {
    let scopes: &WireMessage = match signal {
        Signal::Metrics => &WireMessage { attributes: 0, below: &[(1, &SCOPE), (2, &METRIC)] },
        Signal::Logs => &WireMessage { attributes: 0, below: &[(1, &SCOPE), (2, &LOG_RECORD)] },
        Signal::Traces => &WireMessage { attributes: 0, below: &[(1, &SCOPE), (2, &SPAN)] },
    };
    let mut out = Vec::with_capacity(body.len() + 512);
    for field in fields(body) {
        let field = field?;
        let (FIRST, Some(entry)) = (field.number, field.value) else {
            return Err(NotOtlp("it has a field that an export does not have"));
        };
        put(FIRST, &stamp_entry(entry, scopes, attributes)?, &mut out);
    }
    Ok(out)
}

// === private helpers ===

/// One entry of the list. A resource that stands there in several parts is one, as receivers put them together.
fn stamp_entry(
    entry: &[u8],
    scopes: &'static WireMessage,
    attributes: &[(&str, &str)],
) -> Result<Vec<u8>, NotOtlp> {
    let (mut resource, mut rest) = (Vec::new(), Vec::with_capacity(entry.len()));
    for field in fields(entry) {
        let field = field?;
        match (field.number, field.value) {
            (FIRST, Some(part)) => without(part, FIRST, is_claim, &mut resource)?,
            (FIRST | SECOND, None) => return Err(NotOtlp("a message is none")),
            (SECOND, Some(scope)) => put(SECOND, &rewritten(scope, scopes)?, &mut rest),
            _ => rest.extend_from_slice(field.whole),
        }
    }
    for (name, value) in attributes {
        let (mut attribute, mut text) = (Vec::new(), Vec::new());
        put(FIRST, value.as_bytes(), &mut text);
        put(FIRST, name.as_bytes(), &mut attribute);
        put(SECOND, &text, &mut attribute);
        put(FIRST, &attribute, &mut resource);
    }
    let mut out = Vec::with_capacity(resource.len() + rest.len() + 8);
    put(FIRST, &resource, &mut out);
    out.extend_from_slice(&rest);
    Ok(out)
}

/// A message without attributes that are the gateway's to say.
fn rewritten(bytes: &[u8], message: &'static WireMessage) -> Result<Vec<u8>, NotOtlp> {
    let mut out = Vec::with_capacity(bytes.len());
    for field in fields(bytes) {
        let field = field?;
        let below = message.below.iter().find(|(number, _)| *number == field.number);
        match (below, field.value) {
            (Some((number, below)), Some(value)) => put(*number, &rewritten(value, below)?, &mut out),
            (None, Some(attribute))
                if field.number == message.attributes && named(attribute, is_reserved)? => {}
            _ => out.extend_from_slice(field.whole),
        }
    }
    Ok(out)
}

/// The fields of a message but those attributes in `list` whose name is one of these.
fn without(bytes: &[u8], list: u32, gone: fn(&str) -> bool, out: &mut Vec<u8>) -> Result<(), NotOtlp> {
    for field in fields(bytes) {
        let field = field?;
        let is_gone = match field.value {
            Some(attribute) if field.number == list => named(attribute, gone)?,
            _ => false,
        };
        if !is_gone {
            out.extend_from_slice(field.whole);
        }
    }
    Ok(())
}

/// Whether an attribute has such a name. Of several names a receiver takes the last; none of them may be such a one.
fn named(attribute: &[u8], such: fn(&str) -> bool) -> Result<bool, NotOtlp> {
    for field in fields(attribute) {
        let field = field?;
        if let (FIRST, Some(name)) = (field.number, field.value) {
            let name = std::str::from_utf8(name).map_err(|_| NotOtlp("a name is not UTF-8"))?;
            if such(name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The fields of a message, in their order. The first that cannot be read ends them.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<WireField<'_>, NotOtlp>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let before = rest.filter(|rest| !rest.is_empty())?;
        let read = field(before);
        rest = read.as_ref().map(|(_, after)| *after);
        Some(read.map(|(field, _)| field).ok_or(NotOtlp("it is no message of Protocol Buffers")))
    })
}

fn field(bytes: &[u8]) -> Option<(WireField<'_>, &[u8])> {
    let (tag, rest) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number))?;
    let (value, rest) = match tag & 7 {
        0 => (None, varint(rest)?.1),
        1 => (None, rest.get(8..)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Some(value), rest)
        }
        5 => (None, rest.get(4..)?),
        // Groups are in no message of these.
        _ => return None,
    };
    let whole = bytes.get(..bytes.len() - rest.len())?;
    Some((WireField { number, whole, value }, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has room for one bit.
        if place == 9 && *byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(place + 1..)?));
        }
    }
    None
}

/// Writes a field that has a length.
pub(super) fn put(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}
