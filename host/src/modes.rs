//! Who may read and write what the gateway keeps on disk: its own user, and nobody else. Looser modes are put right and told of.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// What others may do with something that is private: nothing.
const OTHERS: u32 = 0o077;
/// What would let others change something.
const CHANGE: u32 = 0o022;
/// A directory in which everybody may write, and nobody may touch what is another's.
const STICKY: u32 = 0o1000;

/// Takes from others what they may do with a file or directory. What is not there is well.
pub(crate) fn make_private(path: &Path) {
    tighten(path, OTHERS);
}

/// The same for a directory and everything in it.
pub(crate) fn make_private_whole(directory: &Path) {
    make_private(directory);
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => make_private_whole(&entry.path()),
            Ok(kind) if kind.is_file() => make_private(&entry.path()),
            _ => {}
        }
    }
}

/// Takes from others that they can change what is in a directory; they may still look at it. A directory that all users of the
/// machine share, like `/tmp`, is left alone: there nobody can take away what is another's.
pub(crate) fn keep_others_from_changing(directory: &Path) {
    if fs::metadata(directory).is_ok_and(|found| found.mode() & STICKY == 0) {
        tighten(directory, CHANGE);
    }
}

/// Makes a file that only its user may touch, if there is none.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The files of a SQLite database: besides the file itself what it writes ahead and what its processes share.
pub(crate) fn sqlite_files(file: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

/// Whether others may change a file, and its mode.
pub(crate) fn changed_by_others(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.mode() & 0o7777).filter(|mode| mode & CHANGE != 0)
}

/// Reads a file that nobody else may read: none of the bits of `forbidden` may be set in its mode.
pub(crate) fn read_private(path: &Path, forbidden: u32, limit: u64) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot read {shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(format!("{shown} can be read or changed by others (mode {mode:04o}): chmod 600 {shown}"));
    }
    if metadata.len() > limit {
        return Err(format!("{shown} is longer than {limit} bytes"));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Ok(text)
}

fn tighten(path: &Path, forbidden: u32) {
    let Ok(found) = fs::metadata(path) else { return };
    let mode = found.mode() & 0o7777;
    if mode & forbidden == 0 {
        return;
    }
    let wanted = mode & !forbidden;
    let shown = path.display();
    match fs::set_permissions(path, Permissions::from_mode(wanted)) {
        Ok(()) => {
            tracing::warn!("others could get at {shown} (mode {mode:04o}): its mode is now {wanted:04o}");
        }
        Err(error) => {
            tracing::warn!(error = %error, "others can get at {shown} (mode {mode:04o}), and its mode cannot be changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_private_loses_every_right_of_others_and_keeps_those_of_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let (file, inner) = (dir.path().join("file"), dir.path().join("inner"));
        create_private(&file).unwrap();
        create_private(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("deep"), "x").unwrap();
        for (path, loose) in [(&file, 0o666), (&inner, 0o777), (&inner.join("deep"), 0o640)] {
            set(path, loose);
        }
        set(dir.path(), 0o755);
        make_private_whole(dir.path());
        let found = [dir.path(), &file, &inner, &inner.join("deep")].map(mode);
        assert_eq!(found, [0o700, 0o600, 0o700, 0o600]);
        make_private(&dir.path().join("nothing"));
    }

    #[test]
    fn a_home_may_be_looked_at_and_not_changed_and_a_shared_directory_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for (found, wanted) in [(0o777, 0o755), (0o775, 0o755), (0o755, 0o755), (0o1777, 0o1777)] {
            set(dir.path(), found);
            keep_others_from_changing(dir.path());
            assert_eq!(mode(dir.path()), wanted, "{found:o}");
        }
        set(dir.path(), 0o700);
    }
}
