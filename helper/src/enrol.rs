//! `enrol`: a key of this machine, the request for its certificate, and the certificate when it comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Said};
use crate::files;
use crate::login;
use crate::settings::{Settings, read_pem};

/// What `enrol` was asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Enrol {
    /// The e-mail address that the certificate shall name
    #[arg(long)]
    email: Option<String>,
    /// The DNS name that it shall name
    #[arg(long)]
    dns: Option<String>,
    /// The URI that it shall name
    #[arg(long)]
    uri: Option<String>,
    /// The certificate that the authority made of the request: from now on this machine shows it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["email", "dns", "uri", "renew"])]
    certificate: Option<PathBuf>,
    /// Make another key in place of the one that is there
    #[arg(long)]
    renew: bool,
}

/// Prints a request for a certificate, or takes the certificate.
pub(crate) fn enrol(settings: &mut Settings, asked: &Enrol) -> Result<Said, Failure> {
    let key = settings.file.path.with_file_name("device.key");
    match &asked.certificate {
        Some(path) => take(settings, &key, path),
        None => request(&key, asked),
    }
}

/// The request. The key is made once: asking twice asks for the same one.
fn request(path: &Path, asked: &Enrol) -> Result<Said, Failure> {
    let mut names = Vec::new();
    let bad = |what: &str| Failure::usage(format!("--{what} is no such name"));
    if let Some(email) = &asked.email {
        names.push(SanType::Rfc822Name(email.clone().try_into().map_err(|_| bad("email"))?));
    }
    if let Some(dns) = &asked.dns {
        names.push(SanType::DnsName(dns.clone().try_into().map_err(|_| bad("dns"))?));
    }
    if let Some(uri) = &asked.uri {
        names.push(SanType::URI(uri.clone().try_into().map_err(|_| bad("uri"))?));
    }
    let Some(first) = asked.email.as_ref().or(asked.dns.as_ref()).or(asked.uri.as_ref()) else {
        return Err(Failure::usage("the certificate needs a name: --email, --dns or --uri"));
    };
    let internal = |error: rcgen::Error| Failure::new(Exit::Internal, error.to_string());
    let pair = match fs::symlink_metadata(path) {
        Ok(_) if !asked.renew => KeyPair::from_pem(&text(path)?)
            .map_err(|_| Failure::usage(format!("there is no key in {}: --renew", path.display())))?,
        _ => {
            let pair = KeyPair::generate().map_err(internal)?;
            let pem = Zeroizing::new(pair.serialize_pem());
            files::write_private(path, pem.as_bytes())
                .map_err(|error| Failure::file("write", path, &error))?;
            pair
        }
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, first.clone());
    params.subject_alt_names = names;
    let request = params.serialize_request(&pair).and_then(|request| request.pem()).map_err(internal)?;
    Ok(Said::done(request).noting(format!(
        "the key is {}: have the request signed, then enrol --certificate FILE",
        path.display()
    )))
}

/// The certificate: kept if it is one of our key.
fn take(settings: &mut Settings, key: &Path, path: &Path) -> Result<Said, Failure> {
    let pem = read_pem(path)?;
    let bad = |what: &str| Failure::new(Exit::Tier, format!("{}: {what}", path.display()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain =
        chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| bad("has no certificate in it"))?;
    let private = PrivateKeyDer::from_pem_slice(text(key)?.as_bytes())
        .ok()
        .and_then(|der| any_supported_type(&der).ok())
        .ok_or_else(|| bad("there is no key to it: enrol --email .. comes first"))?;
    let certified = CertifiedKey::new(chain, private);
    certified.keys_match().map_err(|_| bad("is the certificate of another key"))?;
    drop(Arc::new(certified));
    let kept = settings.file.path.with_file_name("device.pem");
    files::write_public(&kept, &pem).map_err(|error| Failure::file("write", &kept, &error))?;
    settings.file.set(Some("mtls"), "cert_keystore_ref", &kept.display().to_string())?;
    settings.file.set(Some("mtls"), "key_file", &key.display().to_string())?;
    settings.file.save()?;
    login::clear(settings)?;
    Ok(Said::done(format!("this machine shows {} from now on\n", kept.display())))
}

fn text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_pem(path)?;
    String::from_utf8(bytes)
        .map(Zeroizing::new)
        .map_err(|_| Failure::usage(format!("{} is no PEM", path.display())))
}
