//! Records of the audit spool: what the gateway reads of a segment is what another reader has, and what it reads was written so, byte
//! for byte.

/// The gateway's reader as it is: a file that needs nothing of the gateway, which would take an hour to build with these flags.
#[path = "../../host/src/audit/spool/frame.rs"]
#[allow(dead_code, reason = "what only the gateway asks for")]
mod reader;

use reader::{Chain, Found, Frame, Tag};

/// Everything of a record but its body.
const OVERHEAD: usize = 8 + 61;

/// Panics where a segment is another one to another reader. An even first byte: what follows is a segment, which is read to its end.
/// An odd one: what follows is the body of a record that is written, and then torn at each of its bytes and changed at one.
pub fn check(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let chain = Chain((how % 4 < 2).then_some([7; 32]));
    if how % 2 == 0 {
        return segment(chain, rest);
    }
    let mut written = Vec::new();
    let (fields, body) = rest.split_at(rest.len().min(8));
    let number = fields.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    let record = Frame {
        sequence: number,
        previous: [*how; 32],
        tag: Tag::Close,
        call: !number,
        first_row: number.rotate_left(7),
        rows: u32::MAX,
        body,
    };
    let hash = chain.write(&mut written, &record);
    let size = written.len();
    assert_eq!(
        chain.read(&written),
        Found::Frame { frame: record, size, hash },
        "a record is read as another"
    );
    for torn in [0, 1, 4, 8, OVERHEAD, size - 1] {
        let read = chain.read(written.get(..torn.min(size - 1)).unwrap_or_default());
        assert!(!matches!(read, Found::Frame { .. }), "a record is read of which a part is missing");
    }
    // A change of one byte after the length: the sum notices every one.
    let at = 4 + usize::try_from(number).unwrap_or(usize::MAX) % (size - 4);
    written[at] ^= (how >> 2) | 1;
    assert_eq!(chain.read(&written), Found::Broken, "a record is read that was changed at {at}");
}

fn segment(chain: Chain, mut bytes: &[u8]) {
    loop {
        let read = chain.read(bytes);
        match (&read, theirs(bytes)) {
            (Found::End, None) => return,
            // What is broken for the gateway may be no record for the other one either.
            (Found::Broken, None) => return,
            (Found::Frame { frame, size, hash }, Some(body)) => {
                assert_eq!(frame.body, body, "a record has another body");
                let mut again = Vec::new();
                assert_eq!(chain.write(&mut again, frame), *hash, "a record has another hash");
                assert_eq!(again, bytes[..*size], "a record would be written otherwise");
                bytes = &bytes[*size..];
            }
            (read, other) => panic!("{read:?} is to another reader {other:?}"),
        }
    }
}

/// The body of the record at the beginning of `bytes`, by the layout that the reader's page shows, and with a sum that is computed bit by
/// bit.
fn theirs(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let content = bytes.get(8..8usize.checked_add(length)?)?;
    let summed = bytes.get(..4)?.iter().chain(content);
    let known = content.get(8 + 32).is_some_and(|tag| (1..=7).contains(tag));
    (length > 0 && known && crc(summed) == sum).then(|| content.get(8 + 32 + 1 + 8 + 8 + 4..)).flatten()
}

/// CRC-32 of ISO-HDLC.
fn crc<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    };
    !bytes.fold(!0, step)
}
