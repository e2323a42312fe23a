//! The default command: print the credential. From the cache where it is fresh, without a call and without the keystore; from
//! the gateway otherwise, of several processes by one.

use std::time::Duration;

use crate::cache::Held;
use crate::clock;
use crate::credential::{Credential, Format};
use crate::exit::{Exit, Failure, Said};
use crate::ladder;
use crate::places::Asked;
use crate::settings::Settings;

/// How long a process waits for another one that asks the gateway already.
const TIMEOUT: Duration = Duration::from_secs(25);

/// Prints the credential.
pub(crate) fn run(settings: &Settings, format: Format) -> Result<Said, Failure> {
    let (credential, notes) = current(settings)?;
    let mut said = Said::done(credential.print(format, clock::now())?);
    said.notes = notes;
    Ok(said)
}

/// The credential of now, and what is to be noted about it.
pub(crate) fn current(settings: &Settings) -> Result<(Credential, Vec<String>), Failure> {
    let gateway = settings.gateway()?;
    let key = settings.cache_key(gateway);
    let fresh = || settings.cache.read(&key).filter(|credential| credential.is_fresh(clock::now()));
    if let Some(credential) = fresh() {
        return Ok((credential, Vec::new()));
    }
    let _held = hold(settings);
    // Whoever held the lock before may have written it meanwhile.
    if let Some(credential) = fresh() {
        return Ok((credential, Vec::new()));
    }
    match ladder::obtain(settings, settings.asked == Asked::Interactively) {
        Ok(credential) => {
            let mut notes = Vec::new();
            // An exchange may have stored another secret, on which the key depends where secrets are in a file.
            if let Err(error) = settings.cache.write(&settings.cache_key(gateway), &credential) {
                let path = settings.cache.path();
                notes.push(format!("the credential is not cached: cannot write {}: {error}", path.display()));
            }
            Ok((credential, notes))
        }
        // The one before is still good: a gateway that is away for a moment stops nobody.
        Err(failure) if failure.exit == Exit::Network => {
            match settings.cache.read(&key).filter(|credential| credential.is_valid(clock::now())) {
                Some(credential) => Ok((credential, vec![failure.message])),
                None => Err(failure),
            }
        }
        Err(failure) => {
            // What was refused is not printed by the next run either. If it cannot be removed, it ends by itself.
            drop(settings.cache.clear());
            Err(failure)
        }
    }
}

/// The lock of those who ask the gateway or change what it is asked with.
pub(crate) fn hold(settings: &Settings) -> Option<Held> {
    settings.cache.lock(TIMEOUT)
}
