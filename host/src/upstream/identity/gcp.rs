//! Access tokens of Google Cloud.

use std::time::Duration;

use http::{HeaderName, Method, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::super::Upstream;
use super::fetch::{self, IdentityError};
use super::{FreshIdentity, Given};
use crate::assertion::AssertionAlgorithm;
use crate::config::{GcpCredential, GcpSource, ServiceAccount, WorkloadIdentity};

/// How long an assertion, and a token of an impersonated account, may live: the longest that Google allows
/// (<https://developers.google.com/identity/protocols/oauth2/service-account#httprest>).
const HOUR: i64 = 3_600;
const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// What the impersonation of a service account gives out
/// (<https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    expire_time: String,
}

/// Fetches a token.
pub(super) async fn mint(upstream: &Upstream, gcp: &GcpCredential) -> Result<FreshIdentity, IdentityError> {
    let (token, lifetime) = match &gcp.source {
        GcpSource::ServiceAccount(account) => of_account(upstream, account, &gcp.scope).await?,
        GcpSource::WorkloadIdentity(workload) => of_workload(upstream, workload, &gcp.scope).await?,
        GcpSource::Metadata { url } => {
            let asked = fetch::request(Method::GET, url, &[(METADATA_FLAVOR, "Google")], String::new())?;
            fetch::token_in(&fetch::ask(upstream, asked).await?)?
        }
    };
    Ok(FreshIdentity { given: Given::Token(token.as_str().into()), lifetime })
}

// === private helpers ===

/// RFC 7523, section 2.1, as Google wants it.
async fn of_account(
    upstream: &Upstream,
    account: &ServiceAccount,
    scope: &str,
) -> Result<(Zeroizing<String>, Duration), IdentityError> {
    let now = upstream.clock.now().unix_timestamp();
    let claims = json!({
        "iss": account.email,
        "scope": scope,
        "aud": account.token_url.to_string(),
        "iat": now,
        "exp": now + HOUR,
    });
    let mut head = Map::new();
    head.extend(account.key_id.clone().map(|id| ("kid".to_owned(), Value::from(id))));
    let assertion = account
        .key
        .assertion(AssertionAlgorithm::Rs256, head, &claims)
        .ok_or_else(|| IdentityError::Own("the account's key does not sign".to_owned()))?;
    let form =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
    fetch::token(upstream, &account.token_url, &form).await
}

/// RFC 8693, and then, where the configuration says so, the service account that the workload may act as.
async fn of_workload(
    upstream: &Upstream,
    workload: &WorkloadIdentity,
    scope: &str,
) -> Result<(Zeroizing<String>, Duration), IdentityError> {
    let subject = subject_token(workload)?;
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", workload.audience.as_str()),
        ("scope", scope),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", workload.subject_token_type.as_str()),
        ("subject_token", subject.trim()),
    ];
    let federated = fetch::token(upstream, &workload.token_url, &form).await?;
    let Some(url) = &workload.impersonation_url else { return Ok(federated) };
    let bearer = Zeroizing::new(format!("Bearer {}", federated.0.as_str()));
    let headers = [(header::AUTHORIZATION, bearer.as_str()), (header::CONTENT_TYPE, "application/json")];
    let body = json!({"scope": [scope], "lifetime": format!("{HOUR}s")}).to_string();
    let answer = fetch::ask(upstream, fetch::request(Method::POST, url, &headers, body)?).await?;
    let answer: Impersonated = serde_json::from_slice(&answer)
        .map_err(|_| IdentityError::Unusable("it is no JSON with an accessToken"))?;
    let token = Zeroizing::new(answer.access_token);
    fetch::check_token(&token)?;
    let end = OffsetDateTime::parse(&answer.expire_time, &Rfc3339)
        .map_err(|_| IdentityError::Unusable("its end is no time"))?;
    let lifetime = Duration::try_from(end - upstream.clock.now())
        .map_err(|_| IdentityError::Unusable("the token is over as it comes"))?;
    Ok((token, lifetime))
}

fn subject_token(workload: &WorkloadIdentity) -> Result<Zeroizing<String>, IdentityError> {
    let text = fetch::file(&workload.subject_token_file)?;
    let Some(field) = &workload.subject_token_field else { return Ok(text) };
    let fields: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let token = fields.get(field).and_then(Value::as_str).filter(|token| !token.is_empty());
    token.map(|token| Zeroizing::new(token.to_owned())).ok_or_else(|| {
        IdentityError::Own(format!(
            "{} is no JSON with the field {field}",
            workload.subject_token_file.display()
        ))
    })
}
