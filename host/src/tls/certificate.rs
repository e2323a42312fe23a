//! What is read of a certificate besides its key.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// One of the alternative names of a certificate's subject. Names of other kinds are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubjectName {
    Dns(String),
    Email(String),
    Uri(String),
    Address(IpAddr),
}

// === impl SubjectName ===

impl std::fmt::Display for SubjectName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => write!(out, "dns:{name}"),
            Self::Email(name) => write!(out, "email:{name}"),
            Self::Uri(name) => write!(out, "uri:{name}"),
            Self::Address(address) => write!(out, "ip:{address}"),
        }
    }
}

/// The SHA-256 of a certificate, as tools print it: pairs of digits in upper case between colons.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// The same as tokens name it (`x5t#S256`): in base64url without padding.
pub(super) fn thumbprint(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(der))
}

/// Until when a certificate is valid; `None` if it is none.
pub(super) fn valid_until(der: &[u8]) -> Option<OffsetDateTime> {
    let read = Certificate::from_der(der).ok()?;
    moment(read.tbs_certificate().validity().not_after)
}

/// Until when a list of revoked certificates is good; `None` if it is none, or does not say.
pub(super) fn list_until(der: &[u8]) -> Option<OffsetDateTime> {
    moment(<CertificateList>::from_der(der).ok()?.tbs_cert_list.next_update?)
}

/// Whom a certificate names; `None` if that is there and cannot be read.
pub(super) fn names(der: &[u8]) -> Option<Vec<SubjectName>> {
    let read = Certificate::from_der(der).ok()?;
    let found = read.tbs_certificate().get_extension::<SubjectAltName>().ok()?;
    let mut names = Vec::new();
    for name in found.map(|(_, names)| names.0).unwrap_or_default() {
        names.push(match name {
            GeneralName::DnsName(name) => SubjectName::Dns(name.to_string()),
            GeneralName::Rfc822Name(name) => SubjectName::Email(name.to_string()),
            GeneralName::UniformResourceIdentifier(name) => SubjectName::Uri(name.to_string()),
            GeneralName::IpAddress(bytes) => SubjectName::Address(address(bytes.as_bytes())?),
            _ => continue,
        });
    }
    Some(names)
}

// === private helpers ===

fn moment(at: x509_cert::time::Time) -> Option<OffsetDateTime> {
    let seconds = i64::try_from(at.to_unix_duration().as_secs()).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_of_every_kind_that_is_known_are_read_in_their_order_and_others_left_out() {
        let mut params = CertificateParams::new(vec!["laptop.example".to_owned()]).unwrap();
        let more = [
            SanType::Rfc822Name("alice@example.org".try_into().unwrap()),
            SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "alice@corp".to_owned().into())),
            SanType::URI("spiffe://example.org/laptop".try_into().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::IpAddress("10.0.0.9".parse().unwrap()),
        ];
        params.subject_alt_names.extend(more);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let shown: Vec<_> = names(made.der()).unwrap().iter().map(ToString::to_string).collect();
        let wanted = [
            "dns:laptop.example",
            "email:alice@example.org",
            "uri:spiffe://example.org/laptop",
            "ip:2001:db8::1",
            "ip:10.0.0.9",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(valid_until(made.der()), Some(params.not_after));
        for cut in [0, 1, made.der().len() / 2, made.der().len() - 1] {
            assert_eq!(names(&made.der()[..cut]), None, "{cut}");
        }
    }
}
