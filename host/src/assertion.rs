//! Assertions: JSON Web Tokens signed with a key of the gateway's owner, by which identity servers of clouds know who asks (RFC 7523).
//! RSA is that of the TLS library, so that no other is linked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// A key that signs assertions.
#[derive(Clone)]
pub struct AssertionKey {
    key: Arc<dyn SigningKey>,
}

/// How it signs (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionAlgorithm {
    /// `RSASSA-PKCS1-v1_5` with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

/// Why a text holds nothing to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionKeyError {
    /// No private key, or one in a form that is not PEM.
    #[error("holds no private key in PEM")]
    Missing,
    /// Another kind of key.
    #[error("holds a private key that is not RSA")]
    NotRsa,
    /// No certificate.
    #[error("holds no certificate in PEM")]
    NoCertificate,
}

// === impl AssertionKey ===

impl AssertionKey {
    /// Reads the first private key of a text in PEM.
    pub fn parse(pem: &str) -> Result<Self, AssertionKeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| AssertionKeyError::Missing)?;
        let key = any_supported_type(&key).map_err(|_| AssertionKeyError::NotRsa)?;
        match key.choose_scheme(&[AssertionAlgorithm::Rs256.scheme()]) {
            Some(_) => Ok(Self { key }),
            None => Err(AssertionKeyError::NotRsa),
        }
    }

    /// A token that says these claims. `header`: what stands in its header besides algorithm and type. `None`: it could not be signed.
    pub fn assertion(
        &self,
        algorithm: AssertionAlgorithm,
        mut header: Map<String, Value>,
        claims: &Value,
    ) -> Option<Zeroizing<String>> {
        header.insert("alg".to_owned(), algorithm.name().into());
        header.insert("typ".to_owned(), "JWT".into());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header.into()), part(claims));
        let signature = self.key.choose_scheme(&[algorithm.scheme()])?.sign(signed.as_bytes()).ok()?;
        Some(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

impl std::fmt::Debug for AssertionKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("AssertionKey").finish_non_exhaustive()
    }
}

/// The first certificate of a text in PEM.
pub fn certificate(pem: &str) -> Result<Vec<u8>, AssertionKeyError> {
    let read = CertificateDer::from_pem_slice(pem.as_bytes());
    read.map(|certificate| certificate.to_vec()).map_err(|_| AssertionKeyError::NoCertificate)
}

// === impl AssertionAlgorithm ===

impl AssertionAlgorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    const fn scheme(self) -> SignatureScheme {
        match self {
            Self::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            Self::Ps256 => SignatureScheme::RSA_PSS_SHA256,
        }
    }
}
