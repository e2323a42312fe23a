//! Where secrets are kept: the keystore of the system, or a file where the user asked for one.

mod file;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(target_os = "macos", windows))]
mod native;
#[cfg(target_os = "linux")]
use self::linux::SecretServiceKeystore as SystemKeystore;
#[cfg(any(target_os = "macos", windows))]
use self::native::NativeKeystore as SystemKeystore;
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
use self::system::NoKeystore as SystemKeystore;

use std::path::Path;

pub(crate) use self::file::SecretFile;
use crate::exit::{Exit, Failure};
use crate::secret::Secret;

/// Keeps secrets by the name of the service and the account: the account is the gateway's address, so that what was stored for
/// one gateway is never sent to another.
pub(crate) trait Keystore {
    /// The secret that is kept there, if there is one.
    fn get(&self, service: &str, account: &str) -> Result<Option<Secret>, KeystoreFault>;
    /// Keeps a secret, in place of the one before.
    fn set(&self, service: &str, account: &str, secret: &Secret) -> Result<(), KeystoreFault>;
    /// Removes a secret; says whether there was one.
    fn remove(&self, service: &str, account: &str) -> Result<bool, KeystoreFault>;
}

/// Why a keystore does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeystoreFault {
    /// It is locked, and nobody unlocked it.
    Locked,
    /// There is none on this machine.
    #[cfg_attr(
        any(target_os = "macos", windows),
        expect(dead_code, reason = "these systems always have one")
    )]
    Missing(String),
    /// Something else.
    Broken(String),
}

/// Which keystore is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeystoreKind {
    /// That of the system: Keychain, Credential Manager, Secret Service
    Os,
    /// A file that only this user may read
    File,
}

/// Opens a keystore. Where `patient`, a dialog may ask a person to unlock it.
pub(crate) fn open(kind: KeystoreKind, file: &Path, patient: bool) -> Box<dyn Keystore> {
    match kind {
        KeystoreKind::Os => Box::new(SystemKeystore { patient }),
        KeystoreKind::File => Box::new(SecretFile::at(file)),
    }
}

// === impl KeystoreFault ===

impl From<KeystoreFault> for Failure {
    fn from(fault: KeystoreFault) -> Self {
        let message = match fault {
            KeystoreFault::Locked => "the keystore is locked: unlock it and try again".to_owned(),
            KeystoreFault::Missing(why) => {
                format!(
                    "no keystore answers on this machine ({why}): `login --keystore file` keeps secrets in a file instead"
                )
            }
            KeystoreFault::Broken(why) => format!("the keystore cannot be used: {why}"),
        };
        Self::new(Exit::Tier, message)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod system {
    //! Systems without a keystore that is known.

    use super::{Keystore, KeystoreFault};
    use crate::secret::Secret;

    pub(crate) struct NoKeystore {
        pub(crate) patient: bool,
    }

    impl NoKeystore {
        fn none<T>(&self) -> Result<T, KeystoreFault> {
            let _ = self.patient;
            Err(KeystoreFault::Missing("this system has none".to_owned()))
        }
    }

    impl Keystore for NoKeystore {
        fn get(&self, _: &str, _: &str) -> Result<Option<Secret>, KeystoreFault> {
            self.none()
        }
        fn set(&self, _: &str, _: &str, _: &Secret) -> Result<(), KeystoreFault> {
            self.none()
        }
        fn remove(&self, _: &str, _: &str) -> Result<bool, KeystoreFault> {
            self.none()
        }
    }
}
