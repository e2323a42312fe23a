//! A certificate for a lab: it is signed by itself, and good for the names that are given.

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::certificate::fingerprint;

/// How long it is valid: what clients take at most.
const VALID: Duration = Duration::days(397);

/// A certificate that signed itself, and its key.
pub(crate) struct SelfSigned {
    /// The certificate, in PEM.
    pub(crate) certificate: String,
    /// The key, in PEM.
    pub(crate) key: Zeroizing<String>,
    /// What tools print of it.
    pub(crate) fingerprint: String,
    /// Until when it is valid.
    pub(crate) valid_until: OffsetDateTime,
}

// === impl SelfSigned ===

impl SelfSigned {
    /// Makes one. It says that it is no authority: who trusts it trusts this gateway and nobody else.
    pub(crate) fn make(names: &[String], now: OffsetDateTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Sallyport lab");
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Clocks differ a little.
        params.not_before = now - Duration::hours(1);
        params.not_after = now + VALID;
        let made = params.self_signed(&key)?;
        Ok(Self {
            certificate: made.pem(),
            key: Zeroizing::new(key.serialize_pem()),
            fingerprint: fingerprint(made.der()),
            valid_until: params.not_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_a_lab_is_valid_for_a_year_and_no_authority() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = SelfSigned::make(&names, now).unwrap();
        assert_eq!(made.valid_until - now, VALID);
        assert_eq!(made.fingerprint.len(), 32 * 3 - 1);
        assert!(
            made.certificate.starts_with("-----BEGIN CERTIFICATE-----") && made.key.contains("PRIVATE KEY")
        );
        assert!(SelfSigned::make(&["not a name \u{e4}".to_owned()], now).is_err());
    }
}
