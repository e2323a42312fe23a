//! Whose certificates are believed where the gateway or its command line dials.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedServers {
    /// Those that lead to an authority of the system.
    System,
    /// Those that lead to an authority in this PEM file.
    Authorities(PathBuf),
    /// The first one in this PEM file and no other, whatever name it has: it is a server's own file.
    Exactly(PathBuf),
}

/// Takes one certificate, and checks that the server has its key.
#[derive(Debug)]
struct OneCertificate {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

// === impl TrustedServers ===

impl TrustedServers {
    pub(super) fn config(&self) -> io::Result<ClientConfig> {
        let builder = ClientConfig::builder();
        Ok(match self {
            Self::System => builder.with_root_certificates(system()?).with_no_client_auth(),
            Self::Authorities(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| unusable(file, &error.to_string()))?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Self::Exactly(file) => {
                let first = certificates(file)?.into_iter().next();
                let certificate = first.ok_or_else(|| unusable(file, "it holds no certificate"))?;
                let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
                let verifier = Arc::new(OneCertificate { certificate, algorithms });
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
        })
    }
}

// === impl OneCertificate ===

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

// === private helpers ===

/// The authorities of the system. One that cannot be read is left out, as everywhere on that system; none at all is an error.
fn system() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("a certificate authority of the system cannot be read: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        tracing::debug!("{unusable} certificate authorities of the system cannot be used");
    }
    if roots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the system has no certificate authorities"));
    }
    Ok(roots)
}

/// The certificates of a PEM file, of which there has to be one.
fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(file).map_err(|error| unusable(file, &error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = read.map_err(|_| unusable(file, "it is not PEM"))?;
    if found.is_empty() { Err(unusable(file, "it holds no certificate")) } else { Ok(found) }
}

fn unusable(file: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be used: {why}", file.display()))
}
