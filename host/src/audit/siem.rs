//! Rows for a SIEM: one line of JSON each, to standard output or a file that rotates by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Sink;

/// Where lines go. At least once: after a crash the last batch may come again, with the same sequences.
#[derive(Debug, Clone)]
pub(super) enum Outlet {
    Stdout,
    File { path: PathBuf, limit: u64 },
}

/// A file that reaches this size becomes `<path>.1`, and so on.
const LIMIT: u64 = 100 << 20;
/// So many old files stay.
const KEPT: u32 = 10;

// === impl Outlet ===

impl Outlet {
    pub(super) fn new(sink: &Sink) -> Self {
        match sink {
            Sink::Stdout => Self::Stdout,
            Sink::File(path) => Self::File { path: path.clone(), limit: LIMIT },
        }
    }

    /// Writes whole lines and waits until they are safe.
    pub(super) fn write(&self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File { path, limit } => append(path, *limit, lines),
        }
    }
}

/// The name under which a sink's place is remembered.
pub(super) fn name(sink: &Sink) -> String {
    match sink {
        Sink::Stdout => "stdout".to_owned(),
        Sink::File(path) => {
            let hash = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
            format!("file-{}", hash.as_str().get(..16).unwrap_or_default())
        }
    }
}

fn append(path: &Path, limit: u64, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).create(true).append(true).mode(0o600).open(path)?;
    let mut length = cut_torn_line(&mut file)?;
    if length > 0 && length + lines.len() as u64 > limit {
        drop(file);
        rotate(path)?;
        file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        length = 0;
    }
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if written.is_err()
        && let Err(error) = file.set_len(length)
    {
        // The lines come again as a whole, and the next time cuts off what is left of this one.
        tracing::warn!(error = %error, "half a line stays in the SIEM file until the next one");
    }
    written
}

/// A crash may have left half a line: it comes again as a whole. Returns the length of the file.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(0);
    }
    let mut end = length;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(0);
        let part = block.get_mut(..size).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(newline) = memchr::memrchr(b'\n', part) {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

fn rotate(path: &Path) -> io::Result<()> {
    for number in (1..KEPT).rev() {
        rename(&numbered(path, number), &numbered(path, number + 1))?;
    }
    rename(path, &numbered(path, 1))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_half_line_left_by_a_crash_gives_way_to_the_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("siem.jsonl");
        fs::write(&path, "{\"sequence\":1}\n{\"sequ").unwrap();
        append(&path, LIMIT, b"{\"sequence\":2}\n").unwrap();
        assert_eq!(read(&path), "{\"sequence\":1}\n{\"sequence\":2}\n");
    }

    #[test]
    fn a_full_file_rotates_between_lines_and_loses_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("siem.jsonl");
        for number in 1..=5 {
            append(&path, 15, format!("line {number}...\n").as_bytes()).unwrap();
        }
        let files = [numbered(&path, 4), numbered(&path, 3), numbered(&path, 2), numbered(&path, 1), path];
        let all: String = files.iter().map(|path| read(path)).collect();
        assert_eq!(all, "line 1...\nline 2...\nline 3...\nline 4...\nline 5...\n");
    }

    #[test]
    fn a_disk_without_room_is_an_error_and_not_a_silence() {
        let error = append(Path::new("/dev/full"), LIMIT, b"{}\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
