//! Certificates for the stories: an authority of their own, what it signs and revokes, and clients that believe it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

/// The authority that clients of the stories believe.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("authority of the stories"));

/// One who signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
    serial: SerialNumber,
}

/// Until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For so many days from now.
    Days(i64),
    /// For so many seconds from now.
    Seconds(i64),
    /// It ended yesterday.
    Over,
}

/// The authority that `TestApp` believes.
pub fn authority() -> &'static Authority {
    &AUTHORITY
}

// === impl Authority ===

impl Authority {
    /// A new one, which signed itself.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a bad one");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = span(Validity::Days(3650));
        let key = KeyPair::generate().expect("a key can be made");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority can be made") }
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a gateway on this machine.
    pub fn server(&self, validity: Validity) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign(names.into(), ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// For a client, `name` in its own certificate.
    pub fn client(&self, name: &str) -> Pair {
        self.client_for(name, Validity::Days(30))
    }

    /// The same, with an end.
    pub fn client_for(&self, name: &str, validity: Validity) -> Pair {
        self.client_of(&[name], validity)
    }

    /// The same with several names.
    pub fn client_of(&self, names: &[&str], validity: Validity) -> Pair {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(names, ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    /// A list of what it takes back, which is replaced by another one in time.
    pub fn revokes(&self, pairs: &[&Pair], validity: Validity) -> String {
        let (this_update, next_update) = span(validity);
        let revoked = |pair: &&Pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: pairs.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).expect("a list can be made")
    }

    fn sign(&self, names: Vec<String>, usage: ExtendedKeyUsagePurpose, validity: Validity) -> Pair {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(names).expect("the names are good ones");
        (params.not_before, params.not_after) = span(validity);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        // Random, as the key is: no two certificates of an authority have the same.
        let serial = SerialNumber::from_slice(key.public_key_raw().get(8..24).expect("a key is longer"));
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        Pair { certificate: certificate.pem(), key: key.serialize_pem(), serial }
    }
}

// === impl Pair ===

impl Pair {
    /// Writes both into a directory, each file replaced whole: their paths.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        replace(&certificate, &self.certificate);
        replace(&key, &self.key);
        (certificate, key)
    }

    /// The certificate in DER.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate is PEM")
    }
}

/// The SHA-256 of a certificate, in digits of upper case.
pub fn sha256(der: &[u8]) -> String {
    let digits: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    digits.concat()
}

/// Puts a private file in the place of another one.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the directory can be written");
    fs::set_permissions(&new, Permissions::from_mode(0o600)).expect("a mode can be set");
    fs::rename(&new, path).expect("a file can be replaced");
}

/// A client that believes the authorities of this PEM, and shows a certificate if it is asked for one.
pub fn believing(authorities: &str, own: Option<&Pair>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(certificate.expect("an authority is PEM")).expect("an authority can be used");
    }
    let builder = builder().with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key is PEM");
            builder.with_client_auth_cert(vec![pair.der()], key).expect("the key is the certificate's")
        }
    }
}

/// A client that believes nobody: for addresses in clear.
pub fn believing_nobody() -> ClientConfig {
    builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

// === private helpers ===

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
}

#[expect(clippy::disallowed_methods, reason = "certificates are for the machine's own time")]
fn span(validity: Validity) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    match validity {
        Validity::Days(days) => (now - Duration::days(1), now + Duration::days(days)),
        Validity::Seconds(seconds) => (now - Duration::days(1), now + Duration::seconds(seconds)),
        Validity::Over => (now - Duration::days(30), now - Duration::days(1)),
    }
}
