//! The Secret Service of a Linux desktop: GNOME Keyring, `KWallet`, `KeePassXC`.
//!
//! Secrets cross the session bus in clear: it is a socket of this user's alone, and whoever reads its memory reads ours.

use std::collections::HashMap;

use dbus_secret_service::{EncryptionType, Error, SecretService};

use super::{Keystore, KeystoreFault};
use crate::secret::Secret;

/// How long a person may take to unlock a keystore.
const TIMEOUT_SECONDS: u64 = 60;

/// The one that the session bus knows.
#[derive(Debug)]
pub(crate) struct SecretServiceKeystore {
    /// Whether a dialog may ask a person to unlock it.
    pub(crate) patient: bool,
}

// === impl SecretServiceKeystore ===

impl SecretServiceKeystore {
    fn connect(&self) -> Result<SecretService, KeystoreFault> {
        let seconds = if self.patient { TIMEOUT_SECONDS } else { 0 };
        SecretService::connect_with_max_prompt_timeout(EncryptionType::Plain, seconds)
            .map_err(|error| KeystoreFault::Missing(error.to_string()))
    }
}

impl Keystore for SecretServiceKeystore {
    fn get(&self, service: &str, account: &str) -> Result<Option<Secret>, KeystoreFault> {
        let bus = self.connect()?;
        let found = bus.search_items(attributes(service, account)).map_err(fault)?;
        let Some(item) = found.unlocked.first().or_else(|| found.locked.first()) else { return Ok(None) };
        item.ensure_unlocked().map_err(fault)?;
        let bytes = item.get_secret().map_err(fault)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(_) => Err(KeystoreFault::Broken("what it keeps for this program is no text".to_owned())),
        }
    }

    fn set(&self, service: &str, account: &str, secret: &Secret) -> Result<(), KeystoreFault> {
        let bus = self.connect()?;
        let collection = bus.get_default_collection().map_err(fault)?;
        if collection.is_locked().map_err(fault)? {
            collection.unlock().map_err(fault)?;
        }
        let label = format!("{service} ({account})");
        let attributes = attributes(service, account);
        collection
            .create_item(&label, attributes, secret.expose().as_bytes(), true, "text/plain")
            .map(drop)
            .map_err(fault)
    }

    fn remove(&self, service: &str, account: &str) -> Result<bool, KeystoreFault> {
        let bus = self.connect()?;
        let found = bus.search_items(attributes(service, account)).map_err(fault)?;
        let mut removed = false;
        for item in found.unlocked.iter().chain(&found.locked) {
            if item.is_locked().map_err(fault)? {
                item.unlock().map_err(fault)?;
            }
            item.delete().map_err(fault)?;
            removed = true;
        }
        Ok(removed)
    }
}

fn attributes<'a>(service: &'a str, account: &'a str) -> HashMap<&'a str, &'a str> {
    HashMap::from([("service", service), ("username", account), ("application", "sp-cowork-auth")])
}

fn fault(error: Error) -> KeystoreFault {
    match error {
        Error::Locked | Error::Prompt => KeystoreFault::Locked,
        Error::Unavailable | Error::NoResult => KeystoreFault::Missing(error.to_string()),
        error => KeystoreFault::Broken(error.to_string()),
    }
}
