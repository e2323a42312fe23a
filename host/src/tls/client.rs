//! Certificates of clients: whose are taken, what was revoked of them, and what is known of a client that showed one.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;

use super::certificate::{SubjectName, list_until, names, thumbprint, valid_until};
use super::files::{MAX_CERTIFICATES, read, sections};
use super::{ClientAuth, ClientSettings, FileProblem};
use crate::modes;

/// Longest list of what was revoked: some hundred thousand certificates.
const MAX_LIST: u64 = 16 << 20;

/// The certificate of a client, verified in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// As it came, in DER, and behind it those that lead to the authority.
    chain: Vec<CertificateDer<'static>>,
    /// Whom it names, in the order in which they stand there.
    names: Vec<SubjectName>,
    /// `x5t#S256` of the client's own.
    thumbprint: String,
    /// When the client's own ends.
    until: OffsetDateTime,
}

/// Whose certificates are taken.
#[derive(Debug)]
pub(super) struct ClientTrust {
    /// One who shows none may come.
    request: Arc<dyn ClientCertVerifier>,
    /// One who shows none may not.
    require: Arc<dyn ClientCertVerifier>,
    /// Until when the lists of what was revoked are good: after the first of them ends, nobody is taken.
    pub(super) lists_until: Option<OffsetDateTime>,
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// Reads what a client showed; `None` if its names cannot be read.
    pub(super) fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first()?;
        let (names, until, thumbprint) = (names(own)?, valid_until(own)?, thumbprint(own));
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Some(Self { chain, names, thumbprint, until })
    }

    /// The SHA-256 of the client's own certificate in base64url: `x5t#S256` (RFC 8705, section 3.1).
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// When the client's own certificate ends.
    pub(crate) fn until(&self) -> OffsetDateTime {
        self.until
    }

    /// The client's own certificate, in DER.
    pub(crate) fn der(&self) -> &[u8] {
        self.chain.first().map(AsRef::as_ref).unwrap_or_default()
    }

    /// Whom it names.
    pub(crate) fn names(&self) -> &[SubjectName] {
        &self.names
    }
}

// === impl ClientTrust ===

impl ClientTrust {
    /// Reads the files; `None` if no authority is named, or one cannot be used.
    pub(super) fn read(settings: &ClientSettings, problems: &mut Vec<FileProblem>) -> Option<Self> {
        let authorities = settings.ca.as_ref()?;
        let roots = roots(authorities).map_err(|it| problems.push(FileProblem::new("client_ca", it))).ok();
        let mut lists = Vec::new();
        let mut lists_until = None;
        for (number, file) in settings.crls.iter().enumerate() {
            match list(file, roots.as_ref()) {
                Ok(found) => {
                    for (list, until) in found {
                        lists.push(list);
                        lists_until =
                            Some(lists_until.map_or(until, |earlier: OffsetDateTime| earlier.min(until)));
                    }
                }
                Err(message) => problems.push(FileProblem::new(format!("client_crls[{number}]"), message)),
            }
        }
        let roots = roots?;
        let request = verifier(&roots, lists.clone(), ClientAuth::Request);
        let require = verifier(&roots, lists, ClientAuth::Require);
        match request.and_then(|request| Ok((request, require?))) {
            Ok((request, require)) => Some(Self { request, require, lists_until }),
            Err(message) => {
                problems.push(FileProblem::new("client_ca", message));
                None
            }
        }
    }

    /// Who looks at what a client shows; `None` where none is asked.
    pub(super) fn verifier(&self, auth: ClientAuth) -> Option<&Arc<dyn ClientCertVerifier>> {
        match auth {
            ClientAuth::Off => None,
            ClientAuth::Request => Some(&self.request),
            ClientAuth::Require => Some(&self.require),
        }
    }

    /// Whether a certificate that was taken once would be taken now.
    pub(super) fn takes(&self, certificate: &ClientCertificate, now: UnixTime) -> bool {
        let Some((own, others)) = certificate.chain.split_first() else { return false };
        self.require.verify_client_cert(own, others, now).is_ok()
    }
}

// === private helpers ===

/// Whoever may change these files decides who is let in.
fn only_ours_to_change(file: &Path) -> Result<(), String> {
    match modes::changed_by_others(file).filter(|mode| mode & 0o002 != 0) {
        None => Ok(()),
        Some(mode) => {
            let shown = file.display();
            Err(format!("{shown} can be changed by others (mode {mode:04o}): chmod go-w {shown}"))
        }
    }
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, String> {
    let shown = file.display();
    only_ours_to_change(file)?;
    let certificates: Vec<CertificateDer<'static>> =
        sections(file, &read(file, MAX_CERTIFICATES)?, "certificate")?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates.into_iter().enumerate() {
        let added = roots.add(certificate);
        added.map_err(|_| format!("certificate {} in {shown} cannot be that of an authority", number + 1))?;
    }
    Ok(Arc::new(roots))
}

/// The lists of a file, each with its end.
fn list(
    file: &Path,
    roots: Option<&Arc<RootCertStore>>,
) -> Result<Vec<(CertificateRevocationListDer<'static>, OffsetDateTime)>, String> {
    let shown = file.display();
    only_ours_to_change(file)?;
    let lists: Vec<CertificateRevocationListDer<'static>> =
        sections(file, &read(file, MAX_LIST)?, "list of revoked certificates")?;
    let mut found = Vec::new();
    for list in lists {
        let until = list_until(&list);
        // The verifier reads it by itself: what it cannot use is said with the file.
        let usable =
            roots.is_none_or(|roots| verifier(roots, vec![list.clone()], ClientAuth::Require).is_ok());
        match until.filter(|_| usable) {
            Some(until) => found.push((list, until)),
            None => return Err(format!("{shown} holds a list of revoked certificates that cannot be used")),
        }
    }
    Ok(found)
}

/// Looks at the whole chain. Where there are lists, an authority without one, or with one that is over, is not taken.
fn verifier(
    roots: &Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    auth: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
        .with_crls(lists)
        .enforce_revocation_expiration();
    if auth != ClientAuth::Require {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| format!("the authorities cannot be used: {error}"))
}
