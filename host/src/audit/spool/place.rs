//! A consumer's place in the spool as its file remembers it: one line of a fixed length, written over the one before. The database's
//! place also says which database it is, and how far that one is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::db::audit::replica::Mark;

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeliveryPlace {
    /// The record that is needed next.
    pub(crate) next: u64,
    /// The database that has everything before its mark.
    pub(crate) known: Option<KnownDatabase>,
}

/// A database, as the spool knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownDatabase {
    /// Which database it is.
    pub(crate) identity: String,
    /// How far it is. Records without rows move the place and not this mark.
    pub(crate) mark: Mark,
}

/// The file that remembers a place, open once there is something to remember.
pub(crate) struct PlaceFile {
    path: PathBuf,
    file: Option<File>,
}

// === impl DeliveryPlace ===

impl DeliveryPlace {
    /// What the file remembers; `None` if it was never written.
    pub(crate) fn load(path: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let next = fields.next()?.parse().ok()?;
        Some(Self { next, known: KnownDatabase::parse(fields) })
    }

    fn line(&self) -> String {
        match &self.known {
            None => format!("{:020}", self.next),
            Some(KnownDatabase { identity, mark }) => {
                format!(
                    "{:020} {:020} {:020} {} {identity}\n",
                    self.next, mark.next, mark.last_row, mark.hash
                )
            }
        }
    }
}

// === impl KnownDatabase ===

impl KnownDatabase {
    fn parse<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<Self> {
        let next = fields.next()?.parse().ok()?;
        let last_row = fields.next()?.parse().ok()?;
        let hash = fields.next()?.to_owned();
        let identity = fields.next()?.to_owned();
        Some(Self { identity, mark: Mark { next, hash, last_row } })
    }
}

// === impl PlaceFile ===

impl PlaceFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Remembers a place, by a write into one page and no more. A place that a loss of power makes older only has something
    /// delivered again.
    pub(crate) fn write(&mut self, place: &DeliveryPlace) -> io::Result<()> {
        self.open()?.write_all_at(place.line().as_bytes(), 0)
    }

    /// Remembers a place whatever happens to the machine's power.
    pub(crate) fn write_durably(&mut self, place: &DeliveryPlace) -> io::Result<()> {
        self.write(place)?;
        self.open()?.sync_all()
    }

    fn open(&mut self) -> io::Result<&File> {
        let file = if let Some(file) = self.file.take() {
            file
        } else {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?
        };
        Ok(self.file.insert(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_was_written_and_as_earlier_versions_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("database.place");
        assert_eq!(DeliveryPlace::load(&path).unwrap(), None);
        let mut file = PlaceFile::new(path.clone());
        let mark = Mark { next: 7, hash: "ab".repeat(32), last_row: 12 };
        for next in [9, 10, u64::MAX] {
            let place = DeliveryPlace {
                next,
                known: Some(KnownDatabase { identity: "cd".repeat(16), mark: mark.clone() }),
            };
            file.write(&place).unwrap();
            assert_eq!(DeliveryPlace::load(&path).unwrap(), Some(place));
        }
        fs::write(&path, "00000000000000000009").unwrap();
        assert_eq!(DeliveryPlace::load(&path).unwrap(), Some(DeliveryPlace { next: 9, known: None }));
        fs::write(&path, "torn").unwrap();
        assert_eq!(DeliveryPlace::load(&path).unwrap(), None);
    }
}
