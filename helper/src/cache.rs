//! The cache of one credential: a file of this user's alone, for one gateway and one way to sign in, and a lock so that of
//! several processes one asks the gateway.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::credential::Credential;
use crate::files;
use crate::secret::{Secret, exposed};

const FILE: &str = "systemprompt-cowork.json";
const LOCK: &str = "systemprompt-cowork.lock";
/// More than a credential needs.
const MOST_BYTES: u64 = 128 * 1024;
/// The form of the file. Another number is no cache of ours.
const FORMAT: u32 = 1;

/// Where the credential is kept.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// Held by the process that asks the gateway; let go when it is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    key: String,
    issued_at: u64,
    expires_at: u64,
    #[serde(serialize_with = "exposed")]
    token: Secret,
    headers: BTreeMap<String, String>,
}

// === impl Cache ===

impl Cache {
    /// The one of this folder.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// What is kept under a key. A file that is missing, damaged, another's or open to others is no cache.
    pub(crate) fn read(&self, key: &str) -> Option<Credential> {
        let file = File::open(self.path()).ok()?;
        if files::is_open_to_others(&file).ok()? {
            return None;
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        if stored.format != FORMAT || stored.key != key {
            return None;
        }
        Some(Credential {
            token: stored.token,
            issued_at: stored.issued_at,
            expires_at: stored.expires_at,
            headers: stored.headers,
        })
    }

    /// Keeps a credential, in place of what was there.
    pub(crate) fn write(&self, key: &str, credential: &Credential) -> io::Result<()> {
        let stored = Stored {
            format: FORMAT,
            key: key.to_owned(),
            issued_at: credential.issued_at,
            expires_at: credential.expires_at,
            token: credential.token.clone(),
            headers: credential.headers.clone(),
        };
        let text = Zeroizing::new(serde_json::to_string(&stored)?);
        files::write_private(&self.path(), text.as_bytes())
    }

    /// Forgets it. Says whether there was anything.
    pub(crate) fn clear(&self) -> io::Result<bool> {
        match fs::remove_file(self.path()) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes it with its lock and its folder, if nothing else is in there.
    pub(crate) fn purge(&self) -> io::Result<()> {
        self.clear()?;
        match fs::remove_file(self.dir.join(LOCK)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Something of somebody else in it is a reason to leave it, and no error.
        drop(fs::remove_dir(&self.dir));
        Ok(())
    }

    /// Waits until no other process asks the gateway. `None` where there is no lock to be had in time, or no place for one: then
    /// this process asks on its own, which costs an exchange and is wrong for nobody.
    pub(crate) fn lock(&self, timeout: Duration) -> Option<Held> {
        files::make_private_dir(&self.dir).ok()?;
        let file = files::open_lock(&self.dir.join(LOCK)).ok()?;
        let until = Instant::now() + timeout;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(Held { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        Credential::parse(br#"{"token":"t","ttl":60,"headers":{"x-user-id":"u"}}"#, 5).unwrap()
    }

    #[test]
    fn what_is_kept_is_read_under_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("systemprompt"));
        assert_eq!(cache.read("a"), None);
        cache.write("a", &credential()).unwrap();
        assert_eq!(cache.read("a"), Some(credential()));
        assert_eq!(cache.read("b"), None);
        assert!(cache.clear().unwrap());
        assert!(!cache.clear().unwrap());
    }

    #[test]
    fn a_damaged_file_is_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        cache.write("a", &credential()).unwrap();
        let whole = fs::read(cache.path()).unwrap();
        for cut in 0..whole.len() {
            files::write_private(&cache.path(), &whole[..cut]).unwrap();
            assert_eq!(cache.read("a"), None, "cut at {cut}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_others_may_read_is_no_cache() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        cache.write("a", &credential()).unwrap();
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(cache.read("a"), None);
    }

    #[test]
    fn one_holds_the_lock_and_others_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let held = cache.lock(Duration::ZERO).unwrap();
        assert!(cache.lock(Duration::ZERO).is_none());
        drop(held);
        assert!(cache.lock(Duration::ZERO).is_some());
    }
}
