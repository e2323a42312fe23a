//! What holds for this run: the configuration file, and the environment before it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::cache::Cache;
use crate::client::Wire;
use crate::config::{ConfigFile, Device};
use crate::exit::Failure;
use crate::gateway::Gateway;
use crate::keystore::{self, Keystore, KeystoreKind};
use crate::places::{Asked, Environment, Os, Places};
use crate::secret::{Secret, hex};

/// The names of the keystore's entries, unless the configuration has others.
const PAT_SERVICE: &str = "systemprompt-cowork-pat";
const SESSION_SERVICE: &str = "systemprompt-cowork-session";
/// How long an exchange may take: the client gives the whole program 60 seconds.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A file of certificates is not longer.
const MOST_PEM: u64 = 4 * 1024 * 1024;

/// Everything that was decided before this run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Files and folders.
    pub(crate) places: Places,
    /// The configuration file.
    pub(crate) file: ConfigFile,
    /// Who asks.
    pub(crate) asked: Asked,
    /// Where the credential is kept.
    pub(crate) cache: Cache,
    /// The program that opens an address, where the user named one.
    pub(crate) browser: Option<PathBuf>,
    gateway: Option<Gateway>,
    keystore: KeystoreKind,
    timeout: Duration,
    ca_bundle: Option<PathBuf>,
    device: Option<Device>,
    pat: Option<Secret>,
}

/// The ways to prove who calls, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// The device's certificate.
    Mtls,
    /// A sign-in in the browser.
    Session,
    /// A personal access token.
    Pat,
}

// === impl Settings ===

impl Settings {
    /// Reads the file and the environment.
    pub(crate) fn load(environment: &Environment) -> Result<Self, Failure> {
        environment.check()?;
        let home = std::env::home_dir();
        let places = Places::of(Os::here(), environment, home.as_deref())?;
        let file = ConfigFile::load(&places.config, places.earlier_config.as_deref())?;
        let config = &file.config;
        let from = |name: &str, inside: Option<&String>| -> Result<Option<String>, Failure> {
            Ok(environment.text(name)?.or_else(|| inside.cloned()))
        };
        let gateway = match from("SP_COWORK_GATEWAY_URL", config.gateway_url.as_ref())? {
            None => None,
            Some(text) => {
                let name = if environment.text("SP_COWORK_GATEWAY_URL")?.is_some() {
                    "SP_COWORK_GATEWAY_URL".to_owned()
                } else {
                    format!("{}: gateway_url", file.path.display())
                };
                Some(Gateway::parse(&text).map_err(|what| Failure::usage(format!("{name} {what}")))?)
            }
        };
        let keystore = match from("SP_COWORK_KEYSTORE", config.keystore.as_ref())?.as_deref() {
            None | Some("os") => KeystoreKind::Os,
            Some("file") => KeystoreKind::File,
            Some(_) => return Err(Failure::usage("SP_COWORK_KEYSTORE is os or file")),
        };
        let seconds =
            match environment.text("SP_COWORK_TIMEOUT_SEC")? {
                None => config.timeout_sec,
                Some(text) => {
                    let seconds = text.parse().ok().filter(|seconds| (1..=120).contains(seconds));
                    Some(seconds.ok_or_else(|| {
                        Failure::usage("SP_COWORK_TIMEOUT_SEC is a whole number from 1 to 120")
                    })?)
                }
            };
        let cache_dir = environment
            .path("SP_COWORK_CACHE_DIR")
            .or_else(|| config.cache_dir.as_deref().map(|dir| places.expand(dir)))
            .unwrap_or_else(|| places.cache_dir.clone());
        let mut device = config.mtls.clone().filter(|device| device.cert_keystore_ref.is_some());
        if let Some(label) = environment.text("SP_COWORK_DEVICE_CERT_LABEL")? {
            device.get_or_insert_default().cert_keystore_ref = Some(label);
        }
        let ca_bundle = environment
            .path("SP_COWORK_CA_BUNDLE")
            .or_else(|| config.mtls.as_ref()?.ca_bundle.as_deref().map(|path| places.expand(path)))
            .or_else(|| config.ca_bundle.as_deref().map(|path| places.expand(path)));
        Ok(Self {
            asked: environment.asked(),
            browser: environment.path("BROWSER"),
            cache: Cache::at(&cache_dir),
            gateway,
            keystore,
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
            ca_bundle,
            device,
            pat: environment.text("SP_COWORK_PAT")?.map(Secret::new),
            places,
            file,
        })
    }

    /// The gateway. Without one there is nothing to do.
    pub(crate) fn gateway(&self) -> Result<&Gateway, Failure> {
        self.gateway.as_ref().ok_or_else(|| {
            Failure::usage("no gateway is configured: sp-cowork-auth install --gateway https://..")
        })
    }

    /// The gateway, where there is one.
    pub(crate) fn known_gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref()
    }

    /// Another gateway, or another keystore, from now on.
    pub(crate) fn choose(&mut self, gateway: Option<Gateway>, keystore: Option<KeystoreKind>) {
        self.gateway = gateway.or_else(|| self.gateway.take());
        self.keystore = keystore.unwrap_or(self.keystore);
    }

    /// The keystore. Where `patient`, a dialog may ask a person to unlock it.
    pub(crate) fn keystore(&self, patient: bool) -> Box<dyn Keystore> {
        keystore::open(self.keystore, &self.secret_file(), patient)
    }

    /// The file that stands in for a keystore where the user asked for that.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.file.path.with_file_name("systemprompt-cowork.secrets.json")
    }

    /// How calls are made.
    pub(crate) fn wire(&self) -> Result<Wire, Failure> {
        let authorities = match &self.ca_bundle {
            None => None,
            Some(path) => Some(read_pem(path)?),
        };
        Ok(Wire { authorities, certificate: None, timeout: self.timeout })
    }

    /// The device's certificate, where that tier is configured.
    pub(crate) fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// The keystore's entry for the session, where that tier is configured.
    pub(crate) fn session_service(&self) -> Option<&str> {
        let store = self.file.config.session.as_ref()?;
        Some(store.keystore_service.as_deref().unwrap_or(SESSION_SERVICE))
    }

    /// The keystore's entry for the personal access token, where that tier is configured.
    pub(crate) fn pat_service(&self) -> Option<&str> {
        let store = self.file.config.pat.as_ref()?;
        Some(store.keystore_service.as_deref().unwrap_or(PAT_SERVICE))
    }

    /// The entry that `login` writes for a tier.
    pub(crate) fn service_to_write(&self, tier: Tier) -> &str {
        match tier {
            Tier::Session => self.session_service().unwrap_or(SESSION_SERVICE),
            Tier::Pat | Tier::Mtls => self.pat_service().unwrap_or(PAT_SERVICE),
        }
    }

    /// The personal access token of the environment.
    pub(crate) fn pat_given(&self) -> Option<&Secret> {
        self.pat.as_ref()
    }

    /// Which tiers are configured.
    pub(crate) fn tiers(&self) -> Vec<Tier> {
        let mut tiers = Vec::new();
        if self.device.is_some() {
            tiers.push(Tier::Mtls);
        }
        if self.session_service().is_some() {
            tiers.push(Tier::Session);
        }
        if self.pat_service().is_some() || self.pat.is_some() {
            tiers.push(Tier::Pat);
        }
        tiers
    }

    /// What a cached credential depends on: the gateway, and what was configured to sign in with. The keystore is not asked, which
    /// may take a person; whoever changes it through this program clears the cache.
    pub(crate) fn cache_key(&self, gateway: &Gateway) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
            hash.update(part);
        };
        add(gateway.as_str().as_bytes());
        for part in [self.session_service(), self.pat_service()] {
            add(part.unwrap_or_default().as_bytes());
        }
        add(&self.pat.as_ref().map(Secret::digest).unwrap_or_default());
        match self.keystore {
            KeystoreKind::Os => add(b"os"),
            KeystoreKind::File => add(&fs::read(self.secret_file()).unwrap_or_default()),
        }
        if let Some(device) = &self.device {
            let label = device.cert_keystore_ref.as_deref().unwrap_or_default();
            add(label.as_bytes());
            if let Some(path) = certificate_file(label, &self.places) {
                add(&fs::read(path).unwrap_or_default());
            }
        }
        hex(&hash.finalize())
    }
}

// === impl Tier ===

impl Tier {
    /// Its name, in files and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Session => "session",
            Self::Pat => "pat",
        }
    }
}

/// The file that a reference to a certificate names; `None` where it is the name of a keystore's entry.
pub(crate) fn certificate_file(reference: &str, places: &Places) -> Option<PathBuf> {
    if let Some(path) = reference.strip_prefix("file:") {
        return Some(places.expand(path));
    }
    let is_path = reference.contains('/') || reference.contains('\\');
    is_path.then(|| places.expand(reference))
}

/// A file of certificates or keys, of bounded size.
pub(crate) fn read_pem(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let meta = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if meta.len() > MOST_PEM {
        return Err(Failure::usage(format!("{} is too long for certificates", path.display())));
    }
    fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(crate::exit::Exit::Tier, format!("cannot read {}: {error}", path.display()))
}
