//! Segments: files of fixed size, filled with zeros and flushed before the first record, so that a later `fdatasync` has
//! no metadata to write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::frame::Hash;

const MAGIC: &[u8; 8] = b"SPSPOOL1";
/// Where the records begin.
pub(crate) const RECORDS: usize = 64;

/// What a segment continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The sequence of the first record. What the segment before holds from there on is superseded: it was never durable.
    pub(crate) first_sequence: u64,
    /// The number of the first row.
    pub(crate) first_row: u64,
    /// The hash of the record before.
    pub(crate) previous: Hash,
}

/// Makes the files of the spool; the seam at which a disk can be made to fail.
pub(crate) trait Disk: Send + Sync + 'static {
    /// A new file of `size` zeros, flushed. Whatever was at `path` is gone.
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>>;
}

/// An open segment.
pub(crate) trait SegmentFile: Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Debug, Default)]
pub(crate) struct LocalDisk;

// === impl Header ===

impl Header {
    pub(crate) fn bytes(&self) -> [u8; RECORDS] {
        let mut out = Vec::with_capacity(RECORDS);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.first_row.to_le_bytes());
        out.extend_from_slice(&self.previous);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(RECORDS, 0);
        out.first_chunk().copied().unwrap_or([0; RECORDS])
    }

    /// `None` if these are not the first bytes of a segment in use.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let content = bytes.get(..56)?;
        let (sum, _) = bytes.get(56..)?.split_first_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (magic, rest) = content.split_first_chunk::<8>()?;
        let (first_sequence, rest) = rest.split_first_chunk::<8>()?;
        let (first_row, rest) = rest.split_first_chunk::<8>()?;
        let (previous, _) = rest.split_first_chunk::<32>()?;
        (magic == MAGIC).then_some(Self {
            first_sequence: u64::from_le_bytes(*first_sequence),
            first_row: u64::from_le_bytes(*first_row),
            previous: *previous,
        })
    }
}

// === impl LocalDisk ===

impl Disk for LocalDisk {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // Claims the space in one piece where the file system can; the zeros then make every block a written one, which
        // preallocation alone does not: `fdatasync` would have to commit the change of each extent.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = vec![0_u8; 1 << 20];
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let part = zeros.get(..left.min(zeros.len())).unwrap_or(&zeros);
            file.write_all(part)?;
            left -= part.len();
        }
        file.sync_all()?;
        if let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        Ok(Box::new(file))
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The file of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.spool"))
}

/// The numbers of the segments in `dir`, ascending.
pub(crate) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".spool")).and_then(|stem| stem.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a small file as a whole, durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but the kernel can say whether it was asked: of a pipe, which has no disk, it says that it cannot.
    #[test]
    fn a_segment_is_durable_once_the_kernel_says_so() {
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        assert!(SegmentFile::sync(&pipe).is_err());
        let directory = tempfile::tempdir().unwrap();
        let file = LocalDisk.create(&path(directory.path(), 1), 4096).unwrap();
        file.write_at(b"row", 0).unwrap();
        assert!(file.sync().is_ok());
    }

    #[test]
    fn only_its_owner_reads_a_segment() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), 1);
        drop(LocalDisk.create(&path, 4096).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
