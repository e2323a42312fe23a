//! Secrets in a file, where the user asked for it: JSON, by service and account, refused where others may read it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Keystore, KeystoreFault};
use crate::files;
use crate::secret::Secret;

/// More than a few secrets need.
const MOST_BYTES: u64 = 256 * 1024;

type Kept = BTreeMap<String, BTreeMap<String, String>>;

/// The file.
#[derive(Debug)]
pub(crate) struct SecretFile {
    path: PathBuf,
}

// === impl SecretFile ===

impl SecretFile {
    /// The one of this path, which need not be there.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn load(&self) -> Result<Kept, KeystoreFault> {
        let broken = |why: String| KeystoreFault::Broken(format!("{}: {why}", self.path.display()));
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::new()),
            Err(error) => return Err(broken(error.to_string())),
        };
        if files::is_open_to_others(&file).map_err(|error| broken(error.to_string()))? {
            return Err(broken(
                "others may read it: chmod 600, and have the secrets in it revoked".to_owned(),
            ));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| broken(error.to_string()))?;
        // What a parser says of a bad file may quote it.
        serde_json::from_str(&text).map_err(|_| broken("is not what was written there".to_owned()))
    }

    fn save(&self, kept: &Kept) -> Result<(), KeystoreFault> {
        let text = serde_json::to_string(kept).map(Zeroizing::new);
        let text = text.map_err(|error| KeystoreFault::Broken(error.to_string()))?;
        files::write_private(&self.path, text.as_bytes())
            .map_err(|error| KeystoreFault::Broken(format!("{}: {error}", self.path.display())))
    }
}

impl Keystore for SecretFile {
    fn get(&self, service: &str, account: &str) -> Result<Option<Secret>, KeystoreFault> {
        let mut kept = self.load()?;
        Ok(kept.get_mut(service).and_then(|accounts| accounts.remove(account)).map(Secret::new))
    }

    fn set(&self, service: &str, account: &str, secret: &Secret) -> Result<(), KeystoreFault> {
        let mut kept = self.load()?;
        kept.entry(service.to_owned()).or_default().insert(account.to_owned(), secret.expose().to_owned());
        self.save(&kept)
    }

    fn remove(&self, service: &str, account: &str) -> Result<bool, KeystoreFault> {
        let mut kept = self.load()?;
        let removed = kept.get_mut(service).and_then(|accounts| accounts.remove(account)).is_some();
        kept.retain(|_, accounts| !accounts.is_empty());
        if removed {
            self.save(&kept)?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_for_its_gateway_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = SecretFile::at(&dir.path().join("secrets.json"));
        let secret = Secret::new("sp_pat_1".to_owned());
        assert_eq!(store.get("pat", "https://a").unwrap(), None);
        store.set("pat", "https://a", &secret).unwrap();
        assert_eq!(store.get("pat", "https://a").unwrap(), Some(secret));
        assert_eq!(store.get("pat", "https://b").unwrap(), None);
        assert_eq!(store.get("session", "https://a").unwrap(), None);
        assert!(store.remove("pat", "https://a").unwrap());
        assert!(!store.remove("pat", "https://a").unwrap());
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.json");
        let store = SecretFile::at(&path);
        store.set("pat", "https://a", &Secret::new("sp_pat_1".to_owned())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            matches!(store.get("pat", "https://a"), Err(KeystoreFault::Broken(why)) if why.contains("chmod 600"))
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "{\"pat\": \"sp_pat_1\"}").unwrap();
        let Err(KeystoreFault::Broken(why)) = store.get("pat", "https://a") else { panic!("it is refused") };
        assert!(!why.contains("sp_pat_1"), "a secret is not quoted: {why}");
    }
}
