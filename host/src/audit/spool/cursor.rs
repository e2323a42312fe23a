//! A consumer's reading of the spool: durable records in order, from segment to segment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{Chain, Found, Frame, Hash};
use super::recover::Marks;
use super::segment::{Header, RECORDS, numbers, path};

/// The rows of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowRecord {
    /// The number of its first row.
    pub(crate) first_row: u64,
    /// How many there are.
    pub(crate) rows: u32,
    /// The rows as a JSON array.
    pub(crate) body: Vec<u8>,
}

/// Records read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Arc<RowRecord>>,
    /// What follows the last record: its sequence, row number and the hash before it.
    pub(crate) end: Marks,
    rows: u32,
    bytes: usize,
}

/// Reads durable records in order, from segment to segment, for one consumer.
pub(crate) struct Cursor {
    dir: PathBuf,
    chain: Chain,
    next: u64,
    at: Option<(u64, File, u64)>,
}

/// So much is read at once, and so much if that does not hold a whole record: larger than any.
const CHUNK: usize = 64 * 1024;
const LARGEST: usize = 512 * 1024;
/// A batch ends after so many rows, or so many bytes of them.
const ROWS: u32 = 512;
const BYTES: usize = 4 << 20;

// === impl RowRecord ===

impl RowRecord {
    /// The rows of a record, if it has any.
    pub(super) fn of(frame: &Frame<'_>) -> Option<Arc<Self>> {
        let Frame { first_row, rows, body, .. } = *frame;
        (rows > 0).then(|| Arc::new(Self { first_row, rows, body: body.to_vec() }))
    }
}

// === impl Marks ===

impl Marks {
    /// What follows a record.
    pub(super) fn behind(frame: &Frame<'_>, hash: Hash) -> Self {
        Self {
            first_sequence: frame.sequence + 1,
            first_row: frame.first_row + u64::from(frame.rows),
            previous: hash,
        }
    }
}

// === impl Batch ===

impl Batch {
    /// Nothing yet; what comes begins at the sequence `next`.
    pub(super) fn begin(next: u64) -> Self {
        let end = Marks { first_sequence: next, first_row: 0, previous: [0; 32] };
        Self { entries: Vec::new(), end, rows: 0, bytes: 0 }
    }

    /// Whether it has room for another record.
    pub(super) fn has_room(&self) -> bool {
        self.rows < ROWS && self.bytes < BYTES
    }

    /// Takes the next record: its rows, of which there may be none, and what follows it.
    pub(super) fn push(&mut self, entry: Option<Arc<RowRecord>>, end: Marks) {
        if let Some(entry) = entry {
            self.rows = self.rows.saturating_add(entry.rows);
            self.bytes = self.bytes.saturating_add(entry.body.len());
            self.entries.push(entry);
        }
        self.end = end;
    }
}

// === impl Cursor ===

impl Cursor {
    pub(crate) fn new(dir: &Path, chain: Chain, next: u64) -> Self {
        Self { dir: dir.to_owned(), chain, next, at: None }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Everything before `next` was delivered.
    pub(crate) fn delivered(&mut self, next: u64) {
        self.next = next;
    }

    /// Goes on at another record, or at this one once more.
    pub(crate) fn seek(&mut self, next: u64) {
        self.next = next;
        self.at = None;
    }

    /// Lets go of the file: the next records come from elsewhere.
    pub(crate) fn rest(&mut self) {
        self.at = None;
    }

    /// The next records before the sequence `end`, which are known to be durable. Reading again before [`Self::delivered`]
    /// must not happen: the cursor has moved on.
    pub(crate) fn read(&mut self, end: u64) -> io::Result<Batch> {
        let mut batch = Batch::begin(self.next);
        while batch.end.first_sequence < end && batch.has_room() {
            let (number, file, offset) = match self.at.take() {
                Some(at) => at,
                None => self.find(batch.end.first_sequence)?,
            };
            let mut chunk = read_chunk(&file, offset, CHUNK)?;
            if self.chain.read(&chunk) == Found::Broken {
                chunk = read_chunk(&file, offset, LARGEST)?;
            }
            let mut taken = 0_usize;
            let mut damaged = false;
            while batch.end.first_sequence < end && batch.has_room() {
                match self.chain.read(chunk.get(taken..).unwrap_or_default()) {
                    Found::Frame { frame, size, hash } if frame.sequence <= batch.end.first_sequence => {
                        taken += size;
                        if frame.sequence == batch.end.first_sequence {
                            batch.push(RowRecord::of(&frame), Marks::behind(&frame, hash));
                        }
                    }
                    Found::Frame { .. } | Found::End | Found::Broken => {
                        damaged = taken == 0;
                        break;
                    }
                }
            }
            if damaged {
                // The record stands in the next segment, or nowhere.
                let (next, following) = (batch.end.first_sequence, number + 1);
                match open(&self.dir, following)? {
                    Some((header, file)) if header.first_sequence <= next => {
                        self.at = Some((following, file, RECORDS as u64));
                    }
                    _ => return Err(missing(next)),
                }
            } else {
                self.at = Some((number, file, offset + taken as u64));
            }
        }
        Ok(batch)
    }

    /// The last segment that begins at or before `sequence`.
    fn find(&self, sequence: u64) -> io::Result<(u64, File, u64)> {
        for number in numbers(&self.dir)?.into_iter().rev() {
            if let Some((header, file)) = open(&self.dir, number)?
                && header.first_sequence <= sequence
            {
                return Ok((number, file, RECORDS as u64));
            }
        }
        Err(missing(sequence))
    }
}

/// What the spool says at the sequence `next`: the hash of the record before it and the number of its first row. `None` if that
/// record is not in the spool.
pub(crate) fn marks_at(dir: &Path, chain: Chain, next: u64) -> io::Result<Option<Marks>> {
    for number in numbers(dir)?.into_iter().rev() {
        if let Some((header, file)) = open(dir, number)?
            && header.first_sequence <= next
        {
            let marks = follow(chain, &read_all(&file)?, header, Some(next));
            return Ok(Some(marks).filter(|marks| marks.first_sequence == next));
        }
    }
    Ok(None)
}

/// Where the spool begins, and where it ends; `None` if there are no records.
pub(crate) fn bounds(dir: &Path, chain: Chain) -> io::Result<Option<(Marks, Marks)>> {
    let mut headers = Vec::new();
    for number in numbers(dir)? {
        headers.extend(open(dir, number)?);
    }
    let (Some((first, _)), Some((last, file))) = (headers.first(), headers.last()) else { return Ok(None) };
    let end = follow(chain, &read_all(file)?, *last, None);
    Ok(Some((*first, end)))
}

/// Follows the records of a segment up to the sequence `until`, or to their end.
fn follow(chain: Chain, bytes: &[u8], header: Header, until: Option<u64>) -> Marks {
    let mut marks = header;
    let mut offset = RECORDS;
    while until != Some(marks.first_sequence)
        && let Found::Frame { frame, size, hash } = chain.read(bytes.get(offset..).unwrap_or_default())
        && (frame.sequence, frame.previous) == (marks.first_sequence, marks.previous)
    {
        offset += size;
        marks = Marks::behind(&frame, hash);
    }
    marks
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    read_chunk(file, 0, size)
}

fn open(dir: &Path, number: u64) -> io::Result<Option<(Header, File)>> {
    let file = match File::open(path(dir, number)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; RECORDS];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(Header::parse(&bytes).map(|header| (header, file))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_chunk(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..)
        && !rest.is_empty()
    {
        match file.read_at(rest, offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn missing(sequence: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("record {sequence} of the spool is damaged or missing"),
    )
}
