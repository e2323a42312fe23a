//! Compiled code on disk. wasmtime trusts it blindly, so nothing is loaded that does not carry this host's MAC; what does
//! not is deleted and compiled again.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use super::compile::Compiled;
use crate::modes;

const MAGIC: &[u8; 8] = b"SPCODE\0\x01";
const HEAD: usize = MAGIC.len() + 32 + 32 + 1;
/// Files beyond this are not read.
const MAX_FILE: u64 = 300 * 1024 * 1024;

/// What compiled code belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeId([u8; 32]);

/// Code that this host compiled: fresh from its compiler, or from a file that carries its MAC.
pub(crate) struct Trusted(Compiled);

/// The directory and the key.
pub(crate) struct Cache {
    directory: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

// === impl CodeId ===

impl CodeId {
    /// `compatibility` is the engine's; `config` the digest of the configuration.
    pub(crate) fn new(component: &str, config: &str, compatibility: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("sallyport 2026 compiled component");
        for part in [component.as_bytes(), config.as_bytes(), compatibility] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    fn file_name(self) -> String {
        format!("{}.code", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

// === impl Trusted ===

impl Trusted {
    /// What the child sent over its pipe.
    pub(crate) fn fresh(compiled: Compiled) -> Self {
        Self(compiled)
    }

    pub(crate) fn snapshotted(&self) -> bool {
        self.0.snapshotted
    }

    /// What a worker runs, which takes this host's word for it.
    pub(crate) fn into_code(self) -> Vec<u8> {
        self.0.code
    }

    /// Makes it runnable.
    #[expect(unsafe_code, reason = "the code is this host's own: fresh from its compiler, or under its MAC")]
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: only `Trusted` code gets here, and that is the unchanged output of wasmtime's compiler.
        unsafe { Component::deserialize(engine, &self.0.code) }
    }
}

// === impl Cache ===

impl Cache {
    /// Makes the directory, for this user alone.
    pub(crate) fn open(directory: PathBuf, key: [u8; 32]) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        modes::make_private(&directory);
        Ok(Self { directory, key: Zeroizing::new(key) })
    }

    /// The code of `id`, if it is there and nobody touched it.
    pub(crate) fn load(&self, id: CodeId) -> Option<Trusted> {
        let path = self.directory.join(id.file_name());
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "compiled component not readable, compiling again");
                drop(fs::remove_file(&path));
                return None;
            }
        };
        if let Some(compiled) = self.check(id, &bytes) {
            return Some(Trusted(compiled));
        }
        tracing::warn!(file = %path.display(), "compiled component was changed on disk: deleted, compiling again");
        drop(fs::remove_file(&path));
        None
    }

    /// Keeps the code of `id`: written aside, then moved into place, readable for this user alone.
    pub(crate) fn store(&self, id: CodeId, trusted: &Trusted) -> std::io::Result<()> {
        let Compiled { snapshotted, code } = &trusted.0;
        let flags = [u8::from(*snapshotted)];
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        for part in [MAGIC.as_slice(), self.mac(id, flags, code).as_bytes(), &id.0, &flags, code] {
            file.write_all(part)?;
        }
        file.persist(self.directory.join(id.file_name())).map_err(|error| error.error)?;
        Ok(())
    }

    fn check(&self, id: CodeId, bytes: &[u8]) -> Option<Compiled> {
        let rest = bytes.strip_prefix(MAGIC.as_slice())?;
        let (mac, rest) = rest.split_first_chunk::<32>()?;
        let (found, rest) = rest.split_first_chunk::<32>()?;
        let (flags, code) = rest.split_first_chunk::<1>()?;
        // `blake3::Hash` compares in constant time.
        let fits = *found == id.0 && self.mac(id, *flags, code) == blake3::Hash::from_bytes(*mac);
        fits.then(|| Compiled { snapshotted: *flags == [1], code: code.to_vec() })
    }

    fn mac(&self, id: CodeId, flags: [u8; 1], code: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.key)
            .update(MAGIC)
            .update(&id.0)
            .update(&flags)
            .update(code)
            .finalize()
    }
}

// === private helpers ===

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len().min(MAX_FILE)).unwrap_or(HEAD));
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(directory: &tempfile::TempDir, key: u8) -> Cache {
        Cache::open(directory.path().join("code"), [key; 32]).unwrap()
    }

    fn code() -> Trusted {
        Trusted(Compiled { snapshotted: true, code: (0..=255).collect() })
    }

    fn file(cache: &Cache, id: CodeId) -> PathBuf {
        cache.directory.join(id.file_name())
    }

    #[test]
    fn code_comes_back_as_it_was_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, id) = (cache(&directory, 1), CodeId::new("a", "b", &[0; 32]));
        cache.store(id, &code()).unwrap();
        assert_eq!(cache.load(id).unwrap().0, code().0);
        let mode = fs::metadata(file(&cache, id)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(&cache.directory).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_with_any_byte_changed_is_deleted_and_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, id) = (cache(&directory, 1), CodeId::new("a", "b", &[0; 32]));
        cache.store(id, &code()).unwrap();
        let good = fs::read(file(&cache, id)).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x41;
            fs::write(file(&cache, id), &bad).unwrap();
            assert!(cache.load(id).is_none(), "byte {position}");
            assert!(!file(&cache, id).exists(), "byte {position}");
        }
    }

    #[test]
    fn a_file_of_another_host_or_another_component_is_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let (mine, theirs) = (cache(&directory, 1), cache(&directory, 2));
        let (id, other) = (CodeId::new("a", "b", &[0; 32]), CodeId::new("a", "c", &[0; 32]));
        theirs.store(id, &code()).unwrap();
        assert!(mine.load(id).is_none());
        mine.store(id, &code()).unwrap();
        fs::rename(file(&mine, id), file(&mine, other)).unwrap();
        assert!(mine.load(other).is_none());
    }

    #[test]
    fn ids_do_not_run_together() {
        assert_ne!(CodeId::new("ab", "c", &[0; 32]), CodeId::new("a", "bc", &[0; 32]));
        assert_ne!(CodeId::new("a", "b", &[0; 32]), CodeId::new("a", "b", &[1; 32]));
    }
}
