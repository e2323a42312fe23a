//! A consumer's place in the spool: reads durable records in order, from segment to segment, and remembers how far it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::frame::{Chain, Found};
use super::segment::{Header, RECORDS, numbers, path};

/// The rows of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The number of its first row.
    pub(crate) first_row: u64,
    /// The rows as a JSON array.
    pub(crate) body: Vec<u8>,
}

/// Records read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// The sequence behind the last record.
    pub(crate) next: u64,
}

/// See the module.
pub(crate) struct Cursor {
    dir: PathBuf,
    /// The file that remembers `next`, open once there is something to remember.
    place: PathBuf,
    remembers: Option<File>,
    chain: Chain,
    next: u64,
    at: Option<(u64, File, u64)>,
}

/// So much is read at once, and so much if that does not hold a whole record: larger than any.
const CHUNK: usize = 64 * 1024;
const LARGEST: usize = 512 * 1024;
/// A batch ends after so many rows.
const ROWS: u32 = 200;

// === impl Cursor ===

impl Cursor {
    pub(crate) fn new(dir: &Path, place: PathBuf, chain: Chain, next: u64) -> Self {
        Self { dir: dir.to_owned(), place, remembers: None, chain, next, at: None }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Everything before `next` was delivered: remembers it, by digits of a fixed number in their place, which is a write into
    /// one page and no more. A place that a loss of power makes older only has something delivered again.
    pub(crate) fn delivered(&mut self, next: u64) -> io::Result<()> {
        self.next = next;
        let file = if let Some(file) = self.remembers.take() {
            file
        } else {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).open(&self.place)?
        };
        self.remembers.insert(file).write_all_at(format!("{next:020}").as_bytes(), 0)
    }

    /// The next records before the sequence `end`, which are known to be durable. Reading again before [`Self::delivered`]
    /// must not happen: the cursor has moved on.
    pub(crate) fn read(&mut self, end: u64) -> io::Result<Batch> {
        let mut batch = Batch { entries: Vec::new(), next: self.next };
        let mut rows = 0;
        while batch.next < end && rows < ROWS {
            let (number, file, offset) = match self.at.take() {
                Some(at) => at,
                None => self.find(batch.next)?,
            };
            let mut chunk = read_chunk(&file, offset, CHUNK)?;
            if self.chain.read(&chunk) == Found::Broken {
                chunk = read_chunk(&file, offset, LARGEST)?;
            }
            let mut taken = 0_usize;
            let mut damaged = false;
            while batch.next < end && rows < ROWS {
                match self.chain.read(chunk.get(taken..).unwrap_or_default()) {
                    Found::Frame { frame, size, .. } if frame.sequence <= batch.next => {
                        taken += size;
                        if frame.sequence == batch.next {
                            batch.next += 1;
                            if frame.rows > 0 {
                                rows += frame.rows;
                                batch
                                    .entries
                                    .push(Entry { first_row: frame.first_row, body: frame.body.to_vec() });
                            }
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
                let next = number + 1;
                match open(&self.dir, next)? {
                    Some((header, file)) if header.first_sequence <= batch.next => {
                        self.at = Some((next, file, RECORDS as u64));
                    }
                    _ => return Err(missing(batch.next)),
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

/// The sequence that a place remembers; `None` if it was never written.
pub(crate) fn remembered(place: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(place) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
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
