//! A provider as it describes itself: where it is asked, and with which keys it signs. Both are fetched when they are needed, kept for a
//! while, and fetched once for all who wait; a provider that fails is left alone for a moment.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

use super::id_token::{self, Expected, IdTokenFault, Person, ProviderKeys};
use super::{AskFault, IdentityQuestion, IdentityServers, OidcFault, OidcProvider, is_fresh, unix};
use crate::clock::Clock;

/// How long what a provider says of itself is believed.
pub(in crate::auth) const METADATA_LIFETIME: Duration = Duration::from_hours(1);
/// How long its keys are: one that it withdraws is believed no longer.
pub(in crate::auth) const KEYS_LIFETIME: Duration = Duration::from_mins(15);
/// How long a provider is left alone that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest ID token that is looked at.
const LONGEST_TOKEN: usize = 48 * 1024;

/// A provider that is configured, and what is known of it.
pub(in crate::auth) struct KnownProvider {
    pub(in crate::auth) settings: Arc<OidcProvider>,
    metadata: Mutex<KeptAnswer<ProviderMetadata>>,
    keys: Mutex<KeptAnswer<ProviderKeys>>,
}

/// What was fetched last, and whether the last attempt failed. Times are of the monotonic clock.
struct KeptAnswer<T> {
    value: Option<(Duration, Arc<T>)>,
    failed: Option<(Duration, FetchFault)>,
}

/// A failure that is told to whoever comes within the pause.
#[derive(Clone)]
enum FetchFault {
    Server(AskFault),
    Metadata(&'static str),
}

/// What a provider says of itself (`OpenID` Connect Discovery 1.0, section 3), as far as it is needed.
#[derive(Debug)]
pub(super) struct ProviderMetadata {
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    /// Whether it takes the client's secret in the form alone.
    secret_in_form: bool,
    /// Whether it says in each answer who answers (RFC 9207).
    pub(super) names_itself: bool,
}

#[derive(Deserialize)]
struct MetadataDocument {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What comes for a code (`OpenID` Connect Core 1.0, section 3.1.3.3). The access token is not for the gateway to use.
#[derive(Deserialize)]
struct ExchangeAnswer {
    id_token: String,
}

// === impl KnownProvider ===

impl KnownProvider {
    pub(super) fn new(settings: Arc<OidcProvider>) -> Self {
        Self { settings, metadata: Mutex::default(), keys: Mutex::default() }
    }

    /// What it says of itself.
    pub(super) async fn metadata(
        &self,
        servers: &dyn IdentityServers,
        clock: &dyn Clock,
    ) -> Result<Arc<ProviderMetadata>, OidcFault> {
        let mut kept = self.metadata.lock().await;
        if let Some(known) = kept.known(clock.monotonic(), METADATA_LIFETIME, Duration::ZERO) {
            return known;
        }
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let asked = clock.monotonic();
        let fetched = match servers.ask(IdentityQuestion::document(&url)).await {
            Ok(body) => ProviderMetadata::read(&body, issuer).map_err(FetchFault::Metadata),
            Err(fault) => Err(FetchFault::Server(fault)),
        };
        kept.store(fetched, asked, clock.monotonic())
    }

    /// What an ID token says, if this provider signed it for this sign-in. Keys that were fetched before the token came are fetched again
    /// where they do not fit: a provider exchanges its keys as it likes.
    pub(super) async fn verified(
        &self,
        servers: &dyn IdentityServers,
        metadata: &ProviderMetadata,
        token: &str,
        nonce: &str,
        clock: &dyn Clock,
        began: Duration,
    ) -> Result<Person, OidcFault> {
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce,
            name_claim: &self.settings.name_claim,
            groups_claim: &self.settings.groups_claim,
        };
        let token = id_token::IdToken::parse(token)?;
        let keys = self.keys(servers, metadata, clock, Duration::ZERO).await?;
        let signed = match keys.check(&token) {
            Err(IdTokenFault::UnknownKey | IdTokenFault::Signature) => {
                let newer = self.keys(servers, metadata, clock, began).await?;
                newer.check(&token)
            }
            checked => checked,
        };
        signed?;
        Ok(token.person(&expected, unix(clock.now()))?)
    }

    /// Its keys; `since`: fetched no earlier than this.
    async fn keys(
        &self,
        servers: &dyn IdentityServers,
        metadata: &ProviderMetadata,
        clock: &dyn Clock,
        since: Duration,
    ) -> Result<Arc<ProviderKeys>, OidcFault> {
        let mut kept = self.keys.lock().await;
        if let Some(known) = kept.known(clock.monotonic(), KEYS_LIFETIME, since) {
            return known;
        }
        let asked = clock.monotonic();
        let fetched = match servers.ask(IdentityQuestion::document(&metadata.jwks_uri)).await {
            Ok(body) => ProviderKeys::read(&body).map_err(FetchFault::Metadata),
            Err(fault) => Err(FetchFault::Server(fault)),
        };
        kept.store(fetched, asked, clock.monotonic())
    }
}

// === impl ProviderMetadata ===

impl ProviderMetadata {
    fn read(body: &[u8], issuer: &str) -> Result<Self, &'static str> {
        let document: MetadataDocument =
            serde_json::from_slice(body).map_err(|_| "its metadata are no JSON with what is needed")?;
        if document.issuer != issuer {
            return Err("its metadata name another issuer");
        }
        // A provider behind TLS leads nowhere in clear. One in clear is on this machine, for a laboratory.
        let wanted = if issuer.starts_with("https://") { "https://" } else { "http" };
        let endpoints = [&document.authorization_endpoint, &document.token_endpoint, &document.jwks_uri];
        let plain = |url: &str| {
            url.starts_with(wanted)
                && url.len() <= 2048
                && !url.contains('#')
                && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\".contains(&byte))
                && url.parse::<http::Uri>().is_ok_and(|uri| {
                    uri.authority().is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'))
                })
        };
        if !endpoints.into_iter().all(|url| plain(url)) {
            return Err("an endpoint is no plain address, or in clear");
        }
        let challenges = document.code_challenge_methods_supported;
        if challenges.is_some_and(|methods| !methods.iter().any(|it| it == "S256")) {
            return Err("it does not take PKCE with S256");
        }
        let methods = document.token_endpoint_auth_methods_supported;
        let takes = |wanted: &str| methods.as_ref().is_some_and(|it| it.iter().any(|it| it == wanted));
        Ok(Self {
            secret_in_form: takes("client_secret_post") && !takes("client_secret_basic"),
            authorization_endpoint: document.authorization_endpoint,
            token_endpoint: document.token_endpoint,
            jwks_uri: document.jwks_uri,
            names_itself: document.authorization_response_iss_parameter_supported,
        })
    }

    /// Where a browser is sent.
    pub(super) fn authorization_url(&self, fields: &[(&str, &str)]) -> String {
        let mut url = self.authorization_endpoint.clone();
        for (name, value) in fields {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(name);
            url.push('=');
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    url.push(char::from(byte));
                } else {
                    url.push('%');
                    url.push_str(&sallyport_protocol::canonical::hex(&[byte]).to_ascii_uppercase());
                }
            }
        }
        url
    }

    /// The ID token for a code.
    pub(super) async fn exchange(
        &self,
        servers: &dyn IdentityServers,
        settings: &OidcProvider,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Zeroizing<String>, OidcFault> {
        let field = |text: &str| Zeroizing::new(text.to_owned());
        let mut form = vec![
            ("grant_type", field("authorization_code")),
            ("code", field(code)),
            ("redirect_uri", field(redirect_uri)),
            ("code_verifier", field(verifier)),
        ];
        let mut basic = None;
        match &settings.client_secret {
            Some(secret) if self.secret_in_form => {
                form.extend([("client_id", field(&settings.client_id)), ("client_secret", secret.clone())]);
            }
            Some(secret) => basic = Some((settings.client_id.clone(), secret.clone())),
            None => form.push(("client_id", field(&settings.client_id))),
        }
        let question = IdentityQuestion { url: self.token_endpoint.clone(), form: Some(form), basic };
        let body = servers.ask(question).await?;
        let read: Result<ExchangeAnswer, _> = serde_json::from_slice(&body);
        let mut answer = read.map_err(|_| AskFault::Unusable("it is no JSON with an id_token"))?;
        if answer.id_token.len() > LONGEST_TOKEN {
            answer.id_token.zeroize();
            return Err(IdTokenFault::TooLarge.into());
        }
        Ok(Zeroizing::new(answer.id_token))
    }
}

// === impl KeptAnswer ===

impl<T> KeptAnswer<T> {
    /// What is known now: something that is fresh enough, or that the provider failed a moment ago.
    fn known(&self, now: Duration, lifetime: Duration, since: Duration) -> Option<Result<Arc<T>, OidcFault>> {
        if let Some((at, value)) = &self.value
            && *at >= since
            && is_fresh(*at, now, lifetime)
        {
            return Some(Ok(Arc::clone(value)));
        }
        let (at, fault) = self.failed.as_ref()?;
        is_fresh(*at, now, PAUSE).then(|| Err(fault.clone().into()))
    }

    /// Keeps what came of a question: an answer is as old as the question.
    fn store(
        &mut self,
        fetched: Result<T, FetchFault>,
        asked: Duration,
        now: Duration,
    ) -> Result<Arc<T>, OidcFault> {
        match fetched {
            Ok(value) => {
                let value = Arc::new(value);
                self.value = Some((asked, Arc::clone(&value)));
                self.failed = None;
                Ok(value)
            }
            Err(fault) => {
                self.failed = Some((now, fault.clone()));
                Err(fault.into())
            }
        }
    }
}

impl<T> Default for KeptAnswer<T> {
    fn default() -> Self {
        Self { value: None, failed: None }
    }
}

// === impl FetchFault ===

impl From<FetchFault> for OidcFault {
    fn from(kept: FetchFault) -> Self {
        match kept {
            FetchFault::Server(fault) => Self::Server(fault),
            FetchFault::Metadata(what) => Self::Metadata(what),
        }
    }
}
