//! The ladder: the device's certificate, then the session, then the personal access token. The first that is configured is the
//! one that counts: if it fails, that is an error, and nobody is signed in by a weaker one instead.

use ureq::tls::{ClientCert, PemItem, PrivateKey, parse_pem};

use crate::client::{Answer, Client, certificates};
use crate::clock;
use crate::config::Device;
use crate::credential::Credential;
use crate::exit::{Exit, Failure};
use crate::gateway::Gateway;
use crate::keystore::Keystore;
use crate::places::Asked;
use crate::secret::Secret;
use crate::session;
use crate::settings::{Settings, Tier, certificate_file, read_pem};

/// Asks the gateway for a credential.
pub(crate) fn obtain(settings: &Settings, patient: bool) -> Result<Credential, Failure> {
    let gateway = settings.gateway()?;
    let keystore = settings.keystore(patient);
    if let Some(device) = settings.device() {
        return by_certificate(settings, gateway, device, &*keystore);
    }
    let may_ask = settings.asked == Asked::Interactively;
    let session = match settings.session_service() {
        Some(service) => keystore.get(service, gateway.as_str())?.map(|cookie| (service, cookie)),
        None => None,
    };
    if let Some((service, cookie)) = session {
        return match by_session(settings, gateway, service, &cookie, &*keystore) {
            // It ended, and a person is there who can begin another one.
            Err(failure) if failure.exit == Exit::Tier && may_ask => {
                by_browser(settings, gateway, service, &*keystore)
            }
            other => other,
        };
    }
    let pat = match (settings.pat_given(), settings.pat_service()) {
        (Some(pat), _) => Some(pat.clone()),
        (None, Some(service)) => keystore.get(service, gateway.as_str())?,
        (None, None) => None,
    };
    match (pat, settings.session_service()) {
        (Some(pat), _) => by_pat(settings, gateway, &pat),
        (None, Some(service)) if may_ask => by_browser(settings, gateway, service, &*keystore),
        (None, _) => Err(Failure::new(
            Exit::Credential,
            format!("nobody is signed in at {gateway}: sp-cowork-auth login"),
        )),
    }
}

/// A sign-in in the browser, while the client waits.
fn by_browser(
    settings: &Settings,
    gateway: &Gateway,
    service: &str,
    keystore: &dyn Keystore,
) -> Result<Credential, Failure> {
    let (cookie, credential) = session::sign_in(settings, gateway, session::WHILE_ASKED)?;
    keystore.set(service, gateway.as_str(), &cookie)?;
    Ok(credential)
}

/// A personal access token for an access token.
pub(crate) fn by_pat(settings: &Settings, gateway: &Gateway, pat: &Secret) -> Result<Credential, Failure> {
    let client = Client::new(gateway, &settings.wire()?)?;
    let bearer = format!("Bearer {}", pat.expose());
    let answer = client.post("/v1/auth/cowork/pat", &[("authorization", &bearer)], None)?;
    read(Tier::Pat, gateway, &answer)
}

/// The session's cookie for an access token. A cookie that the gateway exchanges is kept in place of the one before.
fn by_session(
    settings: &Settings,
    gateway: &Gateway,
    service: &str,
    cookie: &Secret,
    keystore: &dyn Keystore,
) -> Result<Credential, Failure> {
    let client = Client::new(gateway, &settings.wire()?)?;
    // A cookie alone may come from a browser that was led here: the gateway wants to hear where the request is from.
    let origin = gateway.origin();
    let headers = [("cookie", cookie.expose()), ("origin", origin.as_str())];
    let answer = client.post("/v1/auth/cowork/session", &headers, Some("{}"))?;
    let credential = read(Tier::Session, gateway, &answer)?;
    if let Some(next) = session_cookie(&answer).filter(|next| next != cookie) {
        keystore.set(service, gateway.as_str(), &next)?;
    }
    Ok(credential)
}

/// The cookie of an answer, as it is sent back: the name and the value.
pub(crate) fn session_cookie(answer: &Answer) -> Option<Secret> {
    let pair = answer.cookies.first()?.split(';').next()?.trim();
    let (name, value) = pair.split_once('=')?;
    let fits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    (fits(name) && fits(value)).then(|| Secret::new(pair.to_owned()))
}

/// The device's certificate for an access token that is bound to it.
fn by_certificate(
    settings: &Settings,
    gateway: &Gateway,
    device: &Device,
    keystore: &dyn Keystore,
) -> Result<Credential, Failure> {
    if !gateway.as_str().starts_with("https://") {
        return Err(tier("a certificate is shown over https:// alone".to_owned()));
    }
    let certificate = certificate(settings, gateway, device, keystore)?;
    let mut wire = settings.wire()?;
    wire.certificate = Some(certificate);
    let client = Client::new(gateway, &wire)?;
    let answer = client.post("/v1/auth/cowork/mtls", &[], Some("{}"))?;
    read(Tier::Mtls, gateway, &answer)
}

fn certificate(
    settings: &Settings,
    gateway: &Gateway,
    device: &Device,
    keystore: &dyn Keystore,
) -> Result<ClientCert, Failure> {
    let reference = device.cert_keystore_ref.as_deref().unwrap_or_default();
    let pem = match certificate_file(reference, &settings.places) {
        Some(path) => read_pem(&path)?,
        None => match keystore.get(reference, gateway.as_str())? {
            Some(pem) => pem.expose().as_bytes().to_vec(),
            None => return Err(tier(format!("the keystore has no certificate {reference} for {gateway}"))),
        },
    };
    let chain = certificates(&pem);
    let key = match &device.key_file {
        Some(path) => read_pem(&settings.places.expand(path))?,
        None => pem,
    };
    let key: Option<PrivateKey<'static>> = parse_pem(&key).find_map(|item| match item {
        Ok(PemItem::PrivateKey(key)) => Some(key),
        _ => None,
    });
    match (chain.is_empty(), key) {
        (false, Some(key)) => Ok(ClientCert::new_with_certs(&chain, key)),
        (true, _) => Err(tier(format!("there is no certificate in {reference}"))),
        (false, None) => Err(tier(format!("there is no private key for the certificate in {reference}"))),
    }
}

/// What an exchange answered, read for its tier.
pub(crate) fn read(tier: Tier, gateway: &Gateway, answer: &Answer) -> Result<Credential, Failure> {
    let (name, complaint) = (tier.name(), answer.complaint());
    match (answer.status, tier) {
        (200, _) => Credential::parse(&answer.body, clock::now()),
        (401 | 403, Tier::Pat) => Err(Failure::new(
            Exit::Credential,
            format!("{gateway} refuses the personal access token ({complaint})"),
        )),
        (401 | 403, Tier::Session) => Err(self::tier(format!(
            "{gateway} refuses the session ({complaint}): sp-cowork-auth login --browser"
        ))),
        (401 | 403, Tier::Mtls) => {
            Err(self::tier(format!("{gateway} refuses the certificate ({complaint})")))
        }
        (404, Tier::Session | Tier::Mtls) => {
            Err(self::tier(format!("{gateway} does not offer the tier {name} ({complaint})")))
        }
        _ => Err(answer.unexpected(gateway)),
    }
}

fn tier(message: String) -> Failure {
    Failure::new(Exit::Tier, message)
}
