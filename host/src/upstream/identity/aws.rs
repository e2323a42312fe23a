//! Keys of AWS that live for an hour: from STS for the token of another identity provider, and from the machine's metadata.

use std::time::Duration;

use http::{HeaderName, Method};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::super::Upstream;
use super::fetch::{self, IdentityError};
use super::{FreshIdentity, Given};
use crate::config::{AwsCredential, AwsKeys, AwsSource, TokenUrl};

/// Proves to the metadata service that whoever asks can send a `PUT`, which a forwarding proxy's victim cannot
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html>).
const METADATA_TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const METADATA_TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const METADATA_CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

/// What the metadata service gives out.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    code: Option<String>,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

/// Fetches keys.
pub(super) async fn mint(upstream: &Upstream, aws: &AwsCredential) -> Result<FreshIdentity, IdentityError> {
    match &aws.source {
        AwsSource::Keys(keys) => {
            Ok(FreshIdentity { given: Given::Keys(keys.clone()), lifetime: super::LONGEST })
        }
        AwsSource::WebIdentity { role_arn, session_name, token_file, sts } => {
            let token = fetch::file(token_file)?;
            // <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
            let form = [
                ("Action", "AssumeRoleWithWebIdentity"),
                ("Version", "2011-06-15"),
                ("RoleArn", role_arn),
                ("RoleSessionName", session_name),
                ("WebIdentityToken", token.trim()),
            ];
            let answer = fetch::ask(upstream, fetch::posted(sts, &form)?).await?;
            let text = std::str::from_utf8(&answer).unwrap_or_default();
            let part = |name| {
                element(text, name).ok_or(IdentityError::Unusable("it holds no credentials of a role"))
            };
            keys(
                upstream,
                part("AccessKeyId")?,
                part("SecretAccessKey")?,
                part("SessionToken")?,
                part("Expiration")?,
            )
        }
        AwsSource::Metadata { url } => from_metadata(upstream, url).await,
    }
}

/// The text of the first element of this name that holds nothing but text. STS answers in XML; keys, tokens and times hold none of its
/// special characters.
pub(super) fn element<'t>(xml: &'t str, name: &str) -> Option<&'t str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    (!text.contains(['<', '&'])).then(|| text.trim()).filter(|text| !text.is_empty())
}

// === private helpers ===

async fn from_metadata(upstream: &Upstream, url: &TokenUrl) -> Result<FreshIdentity, IdentityError> {
    let below = |path: &str| url.below(path).ok_or(IdentityError::Unusable("the role's name is none"));
    let lifetime = [(METADATA_TOKEN_TTL, "300")];
    let asked = fetch::request(Method::PUT, &below("/latest/api/token")?, &lifetime, String::new())?;
    let token = fetch::ask(upstream, asked).await?;
    let token = std::str::from_utf8(&token).unwrap_or_default().trim();
    fetch::check_token(token)?;
    let proof = [(METADATA_TOKEN, token)];
    let asked = fetch::request(Method::GET, &below(METADATA_CREDENTIALS)?, &proof, String::new())?;
    let roles = fetch::ask(upstream, asked).await?;
    let role =
        std::str::from_utf8(&roles).ok().and_then(|roles| roles.lines().next()).unwrap_or_default().trim();
    // <https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html>: what a role's name is made of.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if role.is_empty() || role.len() > 64 || !role.bytes().all(plain) {
        return Err(IdentityError::Unusable("the machine has no role"));
    }
    let asked = fetch::request(
        Method::GET,
        &below(&format!("{METADATA_CREDENTIALS}{role}"))?,
        &proof,
        String::new(),
    )?;
    let answer = fetch::ask(upstream, asked).await?;
    let role: RoleCredentials = serde_json::from_slice(&answer)
        .map_err(|_| IdentityError::Unusable("it holds no credentials of a role"))?;
    if role.code.is_some_and(|code| code != "Success") {
        return Err(IdentityError::Unusable("it holds no credentials of a role"));
    }
    let [secret, token] = [role.secret_access_key, role.token].map(Zeroizing::new);
    keys(upstream, &role.access_key_id, &secret, &token, &role.expiration)
}

fn keys(
    upstream: &Upstream,
    id: &str,
    secret: &str,
    session: &str,
    expiration: &str,
) -> Result<FreshIdentity, IdentityError> {
    for part in [id, session] {
        fetch::check_token(part)?;
    }
    let end = OffsetDateTime::parse(expiration, &Rfc3339)
        .map_err(|_| IdentityError::Unusable("its end is no time"))?;
    let lifetime = Duration::try_from(end - upstream.clock.now())
        .map_err(|_| IdentityError::Unusable("the keys are over as they come"))?;
    let keys = AwsKeys {
        access_key_id: id.to_owned(),
        secret_access_key: secret.into(),
        session_token: Some(session.into()),
    };
    Ok(FreshIdentity { given: Given::Keys(keys), lifetime })
}
