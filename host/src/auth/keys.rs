//! The keys that the gateway makes for itself, one for each purpose, in files that nobody else can read.
//!
//! *Invariant:* no key serves two purposes. Each file says what it is for, so one cannot be copied over another, and a
//! directory in which two purposes share a key is refused.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use sallyport_protocol::canonical;
use zeroize::Zeroizing;

use crate::clock::Entropy;

/// The directory below the gateway's home that holds the keys.
pub const DIRECTORY: &str = "keys";

const JWT: &str = "jwt.pk8";
/// What stands before the 32 bytes of an Ed25519 key in a PKCS#8 document: version, algorithm, lengths.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Longer than any key file.
const MAX_LEN: u64 = 1024;

/// 32 secret bytes. `Debug` masks them; they are wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

/// The gateway's own keys.
pub struct Keys {
    jwt: SigningKey,
    pat_pepper: SecretKey,
    component_cache: SecretKey,
    audit_chain: SecretKey,
    rollback: SigningKey,
    evidence: SecretKey,
    manifest: SigningKey,
    token_root: SecretKey,
}

/// Why the keys cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There are keys already: nothing is overwritten.
    #[error("there are keys already in {}", path.display())]
    Exist {
        /// The directory.
        path: PathBuf,
    },
    /// Others than the owner may read, write or list it.
    #[error("{} has mode {mode:04o}: others must have no access (want {want:04o})", path.display())]
    Loose {
        /// The file or the directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        want: u32,
    },
    /// It belongs to another user.
    #[error("{} belongs to another user", path.display())]
    Owner {
        /// The file or the directory.
        path: PathBuf,
    },
    /// It is not what it should be: not a regular file, cut, or a key of another purpose.
    #[error("{} does not hold the key it should", path.display())]
    Malformed {
        /// The file or the directory.
        path: PathBuf,
    },
    /// Two purposes share a key.
    #[error("two keys in {} are the same", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{} could not be used", path.display())]
    Io {
        /// The file or the directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Copy)]
enum Purpose {
    PatPepper,
    ComponentCache,
    AuditChain,
    Rollback,
    Evidence,
    Manifest,
    TokenRoot,
}

// === impl SecretKey ===

impl SecretKey {
    /// Takes the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Never log or store them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice());
        Self(bytes)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

// === impl Purpose ===

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::PatPepper => "pat-pepper",
            Self::ComponentCache => "component-cache",
            Self::AuditChain => "audit-chain",
            Self::Rollback => "rollback",
            Self::Evidence => "evidence",
            Self::Manifest => "manifest",
            Self::TokenRoot => "token-root",
        }
    }

    fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.name()).with_extension("key")
    }
}

// === impl Keys ===

impl Keys {
    /// Makes every key and stores them in `directory`, which must not hold any yet. All of them are there afterwards, or
    /// none: they are written next to it and moved into place at once.
    pub fn generate(directory: &Path, entropy: &dyn Entropy) -> Result<Self, KeysError> {
        let keys = Self {
            jwt: SigningKey::from_bytes(SecretKey::random(entropy).expose()),
            pat_pepper: SecretKey::random(entropy),
            component_cache: SecretKey::random(entropy),
            audit_chain: SecretKey::random(entropy),
            rollback: SigningKey::from_bytes(SecretKey::random(entropy).expose()),
            evidence: SecretKey::random(entropy),
            manifest: SigningKey::from_bytes(SecretKey::random(entropy).expose()),
            token_root: SecretKey::random(entropy),
        };
        let mut suffix = [0; 8];
        entropy.fill(&mut suffix);
        let mut staging = directory.as_os_str().to_owned();
        staging.push(".new-");
        staging.push(canonical::hex(&suffix));
        let staging = PathBuf::from(staging);
        DirBuilder::new().mode(0o700).create(&staging).map_err(io_at(&staging))?;
        let stored = keys.store(&staging).and_then(|()| move_into_place(&staging, directory));
        if stored.is_err() {
            // Nothing of value is in there; an empty name left behind would only confuse.
            if let Err(error) = std::fs::remove_dir_all(&staging) {
                tracing::warn!(path = %staging.display(), %error, "an unfinished key directory is left behind");
            }
        }
        stored.map(|()| keys)
    }

    /// Makes the keys of purposes that a home of an earlier version does not have; what is there stays as it is.
    pub fn complete(directory: &Path, entropy: &dyn Entropy) -> Result<(), KeysError> {
        for purpose in [Purpose::Rollback, Purpose::Evidence, Purpose::Manifest, Purpose::TokenRoot] {
            let path = purpose.path(directory);
            if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                write_secret(directory, purpose, SecretKey::random(entropy).expose())?;
            }
        }
        Ok(())
    }

    /// Reads the keys that [`Keys::generate`] stored. A mode that lets others in is an error that names the file.
    pub fn load(directory: &Path) -> Result<Self, KeysError> {
        let metadata = std::fs::symlink_metadata(directory).map_err(io_at(directory))?;
        if !metadata.is_dir() {
            return Err(KeysError::Malformed { path: directory.to_owned() });
        }
        check_access(directory, &metadata, 0o700)?;

        let path = directory.join(JWT);
        let der = read_private(&path)?;
        let jwt = from_pkcs8(&der).ok_or(KeysError::Malformed { path })?;
        let keys = Self {
            jwt,
            pat_pepper: read_secret(directory, Purpose::PatPepper)?,
            component_cache: read_secret(directory, Purpose::ComponentCache)?,
            audit_chain: read_secret(directory, Purpose::AuditChain)?,
            rollback: SigningKey::from_bytes(read_secret(directory, Purpose::Rollback)?.expose()),
            evidence: read_secret(directory, Purpose::Evidence)?,
            manifest: SigningKey::from_bytes(read_secret(directory, Purpose::Manifest)?.expose()),
            token_root: read_secret(directory, Purpose::TokenRoot)?,
        };
        if keys.share_a_secret() {
            return Err(KeysError::Shared { path: directory.to_owned() });
        }
        Ok(keys)
    }

    /// Signs access tokens until the first exchange of keys, and nothing else.
    pub(crate) fn jwt(&self) -> &SigningKey {
        &self.jwt
    }

    /// Goes into the MAC of personal access tokens: a stolen database alone does not let anyone test guesses.
    pub fn pat_pepper(&self) -> &SecretKey {
        &self.pat_pepper
    }

    /// Authenticates compiled components on disk.
    pub fn component_cache(&self) -> &SecretKey {
        &self.component_cache
    }

    /// Authenticates the audit chain.
    pub fn audit_chain(&self) -> &SecretKey {
        &self.audit_chain
    }

    /// Signs the records of steps back to an earlier release, and nothing else.
    pub(crate) fn rollback(&self) -> &SigningKey {
        &self.rollback
    }

    /// Wraps the data keys of tenants, and nothing else.
    pub(crate) fn evidence(&self) -> &SecretKey {
        &self.evidence
    }

    /// Signs what is installed on workstations, and nothing else.
    pub(crate) fn manifest(&self) -> &SigningKey {
        &self.manifest
    }

    /// What later keys of access tokens are derived from; it signs nothing itself.
    pub(crate) fn token_root(&self) -> &SecretKey {
        &self.token_root
    }

    fn store(&self, directory: &Path) -> Result<(), KeysError> {
        write_private(&directory.join(JWT), &to_pkcs8(&self.jwt))?;
        for (purpose, key) in [
            (Purpose::PatPepper, self.pat_pepper.expose()),
            (Purpose::ComponentCache, self.component_cache.expose()),
            (Purpose::AuditChain, self.audit_chain.expose()),
            (Purpose::Rollback, self.rollback.as_bytes()),
            (Purpose::Evidence, self.evidence.expose()),
            (Purpose::Manifest, self.manifest.as_bytes()),
            (Purpose::TokenRoot, self.token_root.expose()),
        ] {
            write_secret(directory, purpose, key)?;
        }
        File::open(directory).and_then(|it| it.sync_all()).map_err(io_at(directory))
    }

    fn share_a_secret(&self) -> bool {
        let all = [
            self.jwt.as_bytes(),
            self.pat_pepper.expose(),
            self.component_cache.expose(),
            self.audit_chain.expose(),
            self.rollback.as_bytes(),
            self.evidence.expose(),
            self.manifest.as_bytes(),
            self.token_root.expose(),
        ];
        all.iter().enumerate().any(|(at, key)| all.iter().skip(at + 1).any(|other| key == other))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// The key as a PKCS#8 document (RFC 8410, section 7), as `openssl genpkey -algorithm ED25519 -outform DER` writes it.
pub(crate) fn to_pkcs8(key: &SigningKey) -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + 32));
    der.extend_from_slice(&PKCS8);
    der.extend_from_slice(key.as_bytes());
    der
}

fn from_pkcs8(der: &[u8]) -> Option<SigningKey> {
    let seed = Zeroizing::new(<[u8; 32]>::try_from(der.strip_prefix(&PKCS8)?).ok()?);
    Some(SigningKey::from_bytes(&seed))
}

fn move_into_place(staging: &Path, directory: &Path) -> Result<(), KeysError> {
    // Renaming a directory replaces an empty one and refuses any other, in one step.
    std::fs::rename(staging, directory).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            KeysError::Exist { path: directory.to_owned() }
        }
        _ => KeysError::Io { path: directory.to_owned(), source },
    })?;
    // The name is on disk only once its directory is.
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent).and_then(|it| it.sync_all()).map_err(io_at(parent)),
        None => Ok(()),
    }
}

/// Writes a file that is not there yet, for its owner alone.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_at(path))
}

/// Reads a small file that only its owner may access. The checks are made on the open file, not on its name.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(io_at(path))?;
    let metadata = file.metadata().map_err(io_at(path))?;
    if !metadata.is_file() || metadata.len() > MAX_LEN {
        return Err(KeysError::Malformed { path: path.to_owned() });
    }
    check_access(path, &metadata, 0o600)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(io_at(path))?;
    Ok(bytes)
}

fn write_secret(directory: &Path, purpose: Purpose, key: &[u8; 32]) -> Result<(), KeysError> {
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str("sallyport-key-1 ");
    text.push_str(purpose.name());
    text.push(' ');
    text.push_str(&Zeroizing::new(canonical::hex(key)));
    text.push('\n');
    write_private(&purpose.path(directory), text.as_bytes())
}

fn read_secret(directory: &Path, purpose: Purpose) -> Result<SecretKey, KeysError> {
    let path = purpose.path(directory);
    let bytes = read_private(&path)?;
    parse_secret(&bytes, purpose).ok_or(KeysError::Malformed { path })
}

fn parse_secret(bytes: &[u8], purpose: Purpose) -> Option<SecretKey> {
    let text = str::from_utf8(bytes).ok()?;
    let rest = text.strip_prefix("sallyport-key-1 ")?.strip_prefix(purpose.name())?.strip_prefix(' ')?;
    let digits = rest.strip_suffix('\n')?.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(SecretKey(key))
}

fn check_access(path: &Path, metadata: &std::fs::Metadata, want: u32) -> Result<(), KeysError> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Loose { path: path.to_owned(), mode, want });
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(KeysError::Owner { path: path.to_owned() });
    }
    Ok(())
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> KeysError {
    let path = path.to_owned();
    move |source| KeysError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock::SystemEntropy;

    fn generated() -> (tempfile::TempDir, PathBuf, Keys) {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(DIRECTORY);
        let keys = Keys::generate(&directory, &SystemEntropy).unwrap();
        (home, directory, keys)
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn keys_are_stored_so_that_only_their_owner_can_read_them() {
        let (home, directory, keys) = generated();
        let mut files: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().mode() & 0o7777;
                (entry.file_name().into_string().unwrap(), format!("{mode:o}"))
            })
            .collect();
        files.sort();
        let names = [
            "audit-chain.key",
            "component-cache.key",
            "evidence.key",
            "jwt.pk8",
            "manifest.key",
            "pat-pepper.key",
            "rollback.key",
            "token-root.key",
        ];
        assert_eq!(files, names.map(|name| (name.to_owned(), "600".to_owned())));
        assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left next to it");

        let loaded = Keys::load(&directory).unwrap();
        assert_eq!(loaded.jwt.as_bytes(), keys.jwt.as_bytes());
        assert_eq!(loaded.pat_pepper.expose(), keys.pat_pepper.expose());
        assert_eq!(loaded.component_cache.expose(), keys.component_cache.expose());
        assert_eq!(loaded.audit_chain.expose(), keys.audit_chain.expose());
    }

    #[test]
    fn a_home_of_an_earlier_version_gets_the_keys_that_it_lacks_and_keeps_the_others() {
        let (_home, directory, keys) = generated();
        for name in ["rollback.key", "evidence.key"] {
            std::fs::remove_file(directory.join(name)).unwrap();
        }
        assert!(matches!(Keys::load(&directory), Err(KeysError::Io { .. })));
        Keys::complete(&directory, &SystemEntropy).unwrap();
        let completed = Keys::load(&directory).unwrap();
        assert_ne!(completed.rollback.as_bytes(), keys.rollback.as_bytes());
        assert_ne!(completed.evidence.expose(), keys.evidence.expose());
        assert_eq!(completed.jwt.as_bytes(), keys.jwt.as_bytes());
        Keys::complete(&directory, &SystemEntropy).unwrap();
        assert_eq!(Keys::load(&directory).unwrap().rollback.as_bytes(), completed.rollback.as_bytes());
    }

    #[test]
    fn no_key_is_ever_printed() {
        let (_home, _directory, keys) = generated();
        assert_eq!(format!("{keys:?} {:?}", keys.pat_pepper()), "Keys(..) SecretKey(..)");
    }

    #[test]
    fn existing_keys_are_never_overwritten() {
        let (home, directory, keys) = generated();
        let error = Keys::generate(&directory, &SystemEntropy).unwrap_err();
        assert!(matches!(error, KeysError::Exist { .. }), "{error:?}");
        assert_eq!(Keys::load(&directory).unwrap().jwt.as_bytes(), keys.jwt.as_bytes());
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_by_name() {
        let names = [
            "jwt.pk8",
            "pat-pepper.key",
            "component-cache.key",
            "audit-chain.key",
            "rollback.key",
            "evidence.key",
        ];
        for name in names {
            for mode in [0o640, 0o604, 0o620, 0o601] {
                let (_home, directory, _keys) = generated();
                set_mode(&directory.join(name), mode);
                match Keys::load(&directory).unwrap_err() {
                    KeysError::Loose { path, mode: seen, .. } => {
                        assert_eq!((path, seen), (directory.join(name), mode));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused_by_name() {
        for mode in [0o750, 0o701, 0o770] {
            let (_home, directory, _keys) = generated();
            set_mode(&directory, mode);
            let error = Keys::load(&directory).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "{} has mode {mode:04o}: others must have no access (want 0700)",
                    directory.display()
                )
            );
        }
    }

    #[test]
    fn a_key_of_one_purpose_is_not_taken_for_another() {
        let (_home, directory, _keys) = generated();
        std::fs::copy(directory.join("audit-chain.key"), directory.join("pat-pepper.key")).unwrap();
        assert!(
            matches!(Keys::load(&directory), Err(KeysError::Malformed { path }) if path.ends_with("pat-pepper.key"))
        );
    }

    #[test]
    fn two_purposes_with_one_key_are_refused() {
        let (_home, directory, _keys) = generated();
        let audit = std::fs::read_to_string(directory.join("audit-chain.key")).unwrap();
        std::fs::write(directory.join("pat-pepper.key"), audit.replace("audit-chain", "pat-pepper")).unwrap();
        assert!(matches!(Keys::load(&directory), Err(KeysError::Shared { .. })));
    }

    #[test]
    fn a_cut_a_missing_and_a_linked_file_are_refused() {
        let (_home, directory, _keys) = generated();
        let path = directory.join("pat-pepper.key");
        let text = std::fs::read_to_string(&path).unwrap();
        for wrong in
            [text.trim_end(), text.split_at(40).0, "", &text.to_uppercase(), &text.replace('\n', "\n\n")]
        {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Keys::load(&directory), Err(KeysError::Malformed { .. })), "{wrong:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Keys::load(&directory), Err(KeysError::Io { .. })));
        let elsewhere = directory.join("elsewhere");
        write_private(&elsewhere, text.as_bytes()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(Keys::load(&directory), Err(KeysError::Io { .. })));
    }
}
