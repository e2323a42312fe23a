//! What the spool holds when the gateway starts: every record verified, torn tail cut off, a broken chain set aside.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::frame::{Chain, Found, Hash, Tag};
use super::segment::{Header, RECORDS, numbers, path, sync_dir};

/// A segment that is no longer written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) number: u64,
    /// The sequence that follows its last record.
    pub(crate) end: u64,
}

/// Where a record goes: what the next one continues.
pub(crate) type Marks = Header;

/// The state to go on from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) next_number: u64,
    pub(crate) marks: Marks,
    /// Intents without an outcome, by the sequence of the call.
    pub(crate) orphans: BTreeMap<u64, Vec<u8>>,
    /// Rows of calls whose last rows are not there, by the sequence of the call.
    pub(crate) unfinished: BTreeMap<u64, Vec<u8>>,
    /// The sequence of the first record that is still there.
    pub(crate) begin: u64,
    /// Whether there was no spool.
    pub(crate) fresh: bool,
    /// What was found broken, for everybody to see.
    pub(crate) broken: Option<String>,
    /// The row number behind the last one seen beyond a break.
    pub(crate) seen_row: u64,
}

/// A place that does not continue what came before.
struct Break {
    number: u64,
    offset: usize,
    what: &'static str,
}

/// Reads the whole spool. `delivered` is the next sequence that the database still lacks; `stamp` names what is set aside.
pub(crate) fn recover(dir: &Path, chain: Chain, delivered: Option<u64>, stamp: i64) -> io::Result<Recovered> {
    let found = numbers(dir)?;
    let mut state = Recovered {
        sealed: Vec::new(),
        next_number: found.first().copied().unwrap_or(1),
        marks: Marks { first_sequence: 1, first_row: 1, previous: [0; 32] },
        orphans: BTreeMap::new(),
        unfinished: BTreeMap::new(),
        begin: 1,
        fresh: found.is_empty(),
        broken: None,
        seen_row: 1,
    };
    let broken = read_all(dir, chain, &found, &mut state)?;
    if let Some(Break { number, offset, what }) = broken {
        let aside = set_aside(dir, number, offset, stamp)?;
        for number in numbers(&aside)? {
            state.seen_row = state.seen_row.max(last_row(chain, &fs::read(path(&aside, number))?));
        }
        state.broken = Some(format!(
            "segment {number} is broken at byte {offset} (record {}): {what}; it and all behind it are in {}",
            state.marks.first_sequence,
            aside.display()
        ));
    } else if let Some(delivered) = delivered.filter(|delivered| *delivered > state.marks.first_sequence) {
        state.broken = Some(format!(
            "records up to {} were delivered, but the spool ends before {}",
            delivered - 1,
            state.marks.first_sequence
        ));
    } else if state.begin > delivered.unwrap_or(1) {
        state.broken = Some(format!(
            "records {} to {} are gone, but were not delivered",
            delivered.unwrap_or(1),
            state.begin - 1
        ));
    }
    Ok(state)
}

fn read_all(dir: &Path, chain: Chain, found: &[u64], state: &mut Recovered) -> io::Result<Option<Break>> {
    let mut files = Vec::new();
    for number in found {
        files.push((*number, path(dir, *number)));
    }
    if let Some((number, file)) = files.last() {
        let bytes = fs::read(file)?;
        if Header::parse(&bytes).is_none() && !holds_records(chain, &bytes, 0) {
            // The crash came before the first record of this segment was durable.
            fs::remove_file(file)?;
            if files.len() == 1 {
                state.next_number = *number;
            }
            files.pop();
            state.fresh = files.is_empty();
        }
    }
    let mut next = files.iter().peekable();
    let mut bytes = match next.peek() {
        Some((_, file)) => fs::read(file)?,
        None => return Ok(None),
    };
    let mut first = true;
    while let Some((number, _)) = next.next() {
        let number = *number;
        let following = match next.peek() {
            Some((_, file)) => Some(fs::read(file)?),
            None => None,
        };
        if number != state.next_number {
            return Ok(Some(Break { number: state.next_number, offset: 0, what: "the segment is missing" }));
        }
        let Some(header) = Header::parse(&bytes) else {
            return Ok(Some(Break { number, offset: 0, what: "the header is damaged" }));
        };
        if first {
            state.marks = header;
            state.begin = header.first_sequence;
            first = false;
        } else if header != state.marks {
            return Ok(Some(Break {
                number,
                offset: 0,
                what: "the header does not continue the segment before",
            }));
        }
        // The next segment says from where on this one is superseded; nothing behind that was ever durable.
        let end = following.as_deref().and_then(Header::parse).map(|header| header.first_sequence);
        if let Some((offset, what)) = read_one(chain, &bytes, end, following.is_none(), state) {
            state.sealed.push(Sealed { number, end: state.marks.first_sequence });
            state.next_number = number + 1;
            return Ok(Some(Break { number, offset, what }));
        }
        state.sealed.push(Sealed { number, end: state.marks.first_sequence });
        state.next_number = number + 1;
        bytes = following.unwrap_or_default();
    }
    Ok(None)
}

/// Reads the records of one segment; returns where it breaks.
fn read_one(
    chain: Chain,
    bytes: &[u8],
    end: Option<u64>,
    last: bool,
    state: &mut Recovered,
) -> Option<(usize, &'static str)> {
    let mut offset = RECORDS;
    loop {
        if end == Some(state.marks.first_sequence) {
            return None;
        }
        match chain.read(bytes.get(offset..).unwrap_or_default()) {
            Found::Frame { frame, size, hash } => {
                if frame.sequence != state.marks.first_sequence || frame.previous != state.marks.previous {
                    return Some((offset, "the record does not continue the one before"));
                }
                if frame.rows > 0 && frame.first_row != state.marks.first_row {
                    return Some((offset, "the row numbers do not continue"));
                }
                match frame.tag {
                    Tag::Intent => {
                        state.orphans.insert(frame.sequence, frame.body.to_vec());
                    }
                    Tag::Carried => {
                        state.orphans.insert(frame.call, frame.body.to_vec());
                    }
                    Tag::Close => {
                        state.orphans.remove(&frame.call);
                    }
                    Tag::Closing | Tag::More => {
                        state.orphans.remove(&frame.call);
                        state.unfinished.entry(frame.call).or_insert_with(|| frame.body.to_vec());
                    }
                    Tag::Last => {
                        state.unfinished.remove(&frame.call);
                    }
                    Tag::Rows => {}
                }
                state.advance(frame.rows, hash);
                offset += size;
            }
            Found::End | Found::Broken if end.is_none() && last => {
                // A tail that a crash tore has nothing whole behind it.
                return holds_records(chain, bytes, offset)
                    .then_some((offset, "whole records follow a damaged one"));
            }
            // What the damaged header behind this says cannot be known; it is reported for itself.
            Found::End if end.is_none() => return None,
            Found::End => return Some((offset, "records are missing")),
            Found::Broken => return Some((offset, "the record is damaged")),
        }
    }
}

/// Whether a whole record begins anywhere behind `from`.
fn holds_records(chain: Chain, bytes: &[u8], from: usize) -> bool {
    whole_records(chain, bytes, from).next().is_some()
}

/// The row number behind the last row in a damaged segment.
fn last_row(chain: Chain, bytes: &[u8]) -> u64 {
    whole_records(chain, bytes, 0).max().unwrap_or(1)
}

/// For each whole record behind `from`, wherever it begins, the row number that follows it.
fn whole_records(chain: Chain, bytes: &[u8], from: usize) -> impl Iterator<Item = u64> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (from..used).filter_map(move |offset| match chain.read(bytes.get(offset..)?) {
        Found::Frame { frame, .. } => Some(frame.first_row + u64::from(frame.rows)),
        Found::End | Found::Broken => None,
    })
}

/// Copies the broken segment and moves all behind it; what stands before the break stays.
fn set_aside(dir: &Path, number: u64, offset: usize, stamp: i64) -> io::Result<PathBuf> {
    let aside = dir.join("set-aside").join(format!("{number:020}-{stamp}"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside)?;
    for later in numbers(dir)?.into_iter().filter(|found| *found >= number) {
        let (from, to) = (path(dir, later), path(&aside, later));
        if later == number && offset > 0 {
            fs::copy(&from, &to)?;
            File::open(&to)?.sync_all()?;
            let file = OpenOptions::new().write(true).open(&from)?;
            file.set_len(offset as u64)?;
            file.sync_all()?;
        } else {
            fs::rename(&from, &to)?;
        }
    }
    sync_dir(&aside)?;
    sync_dir(dir)?;
    Ok(aside)
}

// === impl Recovered ===

impl Recovered {
    fn advance(&mut self, rows: u32, hash: Hash) {
        self.marks.first_sequence += 1;
        self.marks.first_row += u64::from(rows);
        self.marks.previous = hash;
    }
}
