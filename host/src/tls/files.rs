//! From files to what a handshake needs, checked whole: what is wrong is said with the key of the configuration that names the file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use zeroize::Zeroize as _;

use super::certificate::{fingerprint, valid_until};
use super::client::ClientTrust;
use super::{FileProblem, TlsSettings};
use crate::modes;

/// Longest file of certificates: a bundle of every authority that there is takes a fifth of it.
pub(super) const MAX_CERTIFICATES: u64 = 1 << 20;
/// Longest key file.
const MAX_KEY: u64 = 64 * 1024;
/// Orchestrators mount keys readable for a group: that far is accepted, as for other files of secrets.
const FORBIDDEN: u32 = 0o037;

/// What the files hold.
#[derive(Debug)]
pub(super) struct Material {
    /// The certificate that is shown, with its key.
    pub(super) shown: Arc<CertifiedKey>,
    /// Until when it is valid.
    pub(super) valid_until: OffsetDateTime,
    /// Whose certificates are taken; nobody's, unless that is said.
    pub(super) clients: Option<ClientTrust>,
}

/// What is said of a certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// What tools print of it.
    pub(crate) fingerprint: String,
    /// Until when it is valid.
    pub(crate) valid_until: OffsetDateTime,
}

/// Everything that is wrong with the files; nothing if they can be used.
pub(crate) fn check(settings: &TlsSettings) -> Vec<FileProblem> {
    Material::read(settings).err().unwrap_or_default()
}

// === impl Shown ===

impl Shown {
    /// Of the certificate that a configuration names; `None` if it cannot be used.
    pub(crate) fn of(settings: &TlsSettings) -> Option<Self> {
        let Material { shown, valid_until, .. } = Material::read(settings).ok()?;
        Some(Self { fingerprint: fingerprint(shown.cert.first()?), valid_until })
    }
}

// === impl Material ===

impl Material {
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, Vec<FileProblem>> {
        let mut problems = Vec::new();
        let mut noted = |key: &str, message: String| problems.push(FileProblem::new(key, message));
        let chain = certificates(&settings.certificate).map_err(|message| noted("certificate", message)).ok();
        let key = private_key(&settings.key).map_err(|message| noted("key", message)).ok();
        let shown = chain.zip(key).and_then(|(chain, mut key)| {
            let fitting = fit(settings, chain, &key);
            key.zeroize();
            fitting.map_err(|(key, message)| noted(key, message)).ok()
        });
        let clients = ClientTrust::read(&settings.clients, &mut problems);
        match shown {
            Some((shown, valid_until)) if problems.is_empty() => {
                Ok(Self { shown: Arc::new(shown), valid_until, clients })
            }
            _ => Err(problems),
        }
    }
}

// === private helpers ===

/// The chain with its key, if the key is the first certificate's.
fn fit(
    settings: &TlsSettings,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<(CertifiedKey, OffsetDateTime), (&'static str, String)> {
    let (chain_file, key_file) = (settings.certificate.display(), settings.key.display());
    let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let Some(valid_until) = valid_until(first) else {
        return Err(("certificate", format!("the first certificate in {chain_file} cannot be read")));
    };
    let Ok(key) = aws_lc_rs::sign::any_supported_type(key) else {
        return Err(("key", format!("{key_file} holds a key of a kind that the gateway cannot use")));
    };
    let shown = CertifiedKey::new(chain, key);
    match shown.keys_match() {
        Ok(()) => Ok((shown, valid_until)),
        Err(rustls::Error::InconsistentKeys(_)) => Err((
            "key",
            format!(
                "{key_file} is not the key of the first certificate in {chain_file}: the gateway's own certificate comes first there"
            ),
        )),
        Err(_) => Err(("certificate", format!("the first certificate in {chain_file} cannot be read"))),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path, MAX_CERTIFICATES)?;
    sections(path, &bytes, "certificate")
}

/// Every section of a PEM file that is of the kind, and at least one.
pub(super) fn sections<T: PemObject>(path: &Path, bytes: &[u8], kind: &str) -> Result<Vec<T>, String> {
    let shown = path.display();
    let found: Result<Vec<T>, _> = T::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{shown} holds no {kind} in PEM")),
        Ok(found) => Ok(found),
        Err(_) => Err(format!("{shown} is damaged: what it holds is not PEM")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    let text = modes::read_private(path, FORBIDDEN, MAX_KEY)?;
    if text.contains("ENCRYPTED") {
        return Err(format!(
            "the key in {shown} is encrypted: the gateway has nobody to ask for its passphrase"
        ));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| format!("{shown} holds no private key in PEM"))
}

pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("cannot read {shown}: {error}");
    let file = File::open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(format!("{shown} is longer than {limit} bytes"));
    }
    Ok(bytes)
}
