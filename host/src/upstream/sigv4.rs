//! AWS Signature Version 4 in a header, for every service but S3
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>). Some hundred lines of our own: AWS's
//! crate brings its runtime along, and another version of `http`, and HMAC and SHA-256 are linked anyway.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;
use zeroize::Zeroizing;

use super::percent;
use super::pieces::Pieces;
use crate::config::{AwsKeys, ExposeSecret as _, SecretString};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// Headers of this prefix are signed; of the others only those that say where the request goes and what it is. What stands between the
/// gateway and the service may add more.
const AMAZONS: &str = "x-amz";

/// What a signature is good for, besides its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct SigningScope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) now: OffsetDateTime,
}

/// Signs a request whose headers are complete, and whose authority is written as it will be sent. `None`: a key, or the time, cannot
/// stand in a header. What was signed with is returned, so that nobody repeats it.
pub(super) fn sign(
    request: &mut Request<Pieces>,
    keys: &AwsKeys,
    scope: SigningScope<'_>,
) -> Option<SecretString> {
    let time = scope.now.to_utc();
    let stamp = time.format(format_description!("[year][month][day]T[hour][minute][second]Z")).ok()?;
    let date = stamp.get(..8)?;
    let headers = request.headers_mut();
    headers.insert(DATE, HeaderValue::from_str(&stamp).ok()?);
    headers.remove(SESSION_TOKEN);
    if let Some(token) = &keys.session_token {
        headers.insert(SESSION_TOKEN, sensitive(token.expose_secret())?);
    }
    let (canonical, signed) = canonical(request)?;
    let SigningScope { region, service, .. } = scope;
    let within = format!("{date}/{region}/{service}/aws4_request");
    let wanted = format!("{ALGORITHM}\n{stamp}\n{within}\n{}", hex(&Sha256::digest(canonical)));

    let secret = Zeroizing::new(format!("AWS4{}", keys.secret_access_key.expose_secret()));
    let mut key = Zeroizing::new(mac(secret.as_bytes(), date)?);
    for part in [region, service, "aws4_request"] {
        key = Zeroizing::new(mac(key.as_slice(), part)?);
    }
    let signature = hex(&mac(key.as_slice(), &wanted)?);
    let id = &keys.access_key_id;
    let value = sensitive(&format!(
        "{ALGORITHM} Credential={id}/{within}, SignedHeaders={signed}, Signature={signature}"
    ))?;
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Some(signature.into())
}

// === private helpers ===

/// The request as both sides write it down to sign it, and the names of the headers that are part of it.
fn canonical(request: &Request<Pieces>) -> Option<(String, String)> {
    let uri = request.uri();
    let mut out = format!("{}\n", request.method());
    // The path is encoded once more than it is sent: S3 alone does not. `/` separates; one in a name is sent as `%2F`.
    let path = uri.path();
    percent::encode_into(&mut out, if path.is_empty() { b"/" } else { path.as_bytes() }, b"/");
    out.push('\n');
    out.push_str(&query(uri.query().unwrap_or_default()));
    out.push('\n');

    let mut signed: BTreeMap<&str, String> = BTreeMap::new();
    signed.insert(header::HOST.as_str(), uri.authority()?.as_str().to_owned());
    let names = request.headers().keys().map(HeaderName::as_str);
    for name in names.filter(|name| *name == header::CONTENT_TYPE.as_str() || name.starts_with(AMAZONS)) {
        signed.insert(name, values(request.headers(), name)?);
    }
    for (name, value) in &signed {
        out.extend([name, ":", value, "\n"]);
    }
    let names = signed.keys().copied().collect::<Vec<_>>().join(";");
    let mut body = Sha256::new();
    request.body().iter().for_each(|piece| body.update(piece));
    out.extend(["\n", &names, "\n", &hex(&body.finalize())]);
    Some((out, names))
}

/// All values of a header, each without the spaces around it and with single ones inside.
fn values(headers: &HeaderMap, name: &str) -> Option<String> {
    let plain = |value: &HeaderValue| {
        Some(value.to_str().ok()?.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
    };
    let values: Option<Vec<_>> = headers.get_all(name).iter().map(plain).collect();
    Some(values?.join(","))
}

/// The parameters in order, each encoded anew.
fn query(query: &str) -> String {
    let encoded = |text: &str| {
        let mut out = String::new();
        percent::encode_into(&mut out, &percent::decode(text), b"");
        out
    };
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let mut parameters: Vec<(String, String)> = parameters
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    parameters.sort();
    parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn mac(key: &[u8], text: &str) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

fn hex(bytes: &[u8]) -> String {
    sallyport_protocol::canonical::hex(bytes)
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
