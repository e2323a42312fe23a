//! The Keychain of macOS and the Credential Manager of Windows, over the stores of `keyring`.

use std::sync::Arc;

use keyring_core::{CredentialStore, Entry, Error};

use super::{Keystore, KeystoreFault};
use crate::secret::Secret;

/// The one of this system.
#[derive(Debug)]
pub(crate) struct NativeKeystore {
    /// Whether a dialog may ask a person to unlock it. These systems decide that themselves.
    pub(crate) patient: bool,
}

// === impl NativeKeystore ===

impl NativeKeystore {
    fn entry(&self, service: &str, account: &str) -> Result<Entry, KeystoreFault> {
        let _ = self.patient;
        Entry::new_in_store(&store()?, service, account).map_err(fault)
    }
}

impl Keystore for NativeKeystore {
    fn get(&self, service: &str, account: &str) -> Result<Option<Secret>, KeystoreFault> {
        match self.entry(service, account)?.get_password() {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(fault(error)),
        }
    }

    fn set(&self, service: &str, account: &str, secret: &Secret) -> Result<(), KeystoreFault> {
        self.entry(service, account)?.set_password(secret.expose()).map_err(fault)
    }

    fn remove(&self, service: &str, account: &str) -> Result<bool, KeystoreFault> {
        match self.entry(service, account)?.delete_credential() {
            Ok(()) => Ok(true),
            Err(Error::NoEntry) => Ok(false),
            Err(error) => Err(fault(error)),
        }
    }
}

#[cfg(target_os = "macos")]
fn store() -> Result<Arc<CredentialStore>, KeystoreFault> {
    let store = apple_native_keyring_store::keychain::Store::new();
    store.map(|store| store as Arc<CredentialStore>).map_err(fault)
}

#[cfg(windows)]
fn store() -> Result<Arc<CredentialStore>, KeystoreFault> {
    let store = windows_native_keyring_store::Store::new();
    store.map(|store| store as Arc<CredentialStore>).map_err(fault)
}

fn fault(error: Error) -> KeystoreFault {
    match error {
        Error::NoStorageAccess(_) => KeystoreFault::Locked,
        // Others may quote what they could not read.
        Error::BadEncoding(_) | Error::BadDataFormat(..) => {
            KeystoreFault::Broken("what it keeps for this program is no text".to_owned())
        }
        error => KeystoreFault::Broken(error.to_string()),
    }
}
