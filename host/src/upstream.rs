//! The upstream side: the only module that dials out. It owns scheme, authority and credential; a provider component says the
//! rest, and what it may not say is refused here.

mod address;
mod answer;
mod breaker;
mod client;
mod client_documents;
mod collector;
mod connect;
mod egress;
mod h1;
mod h2;
mod head;
mod identity;
mod origin;
mod percent;
mod pieces;
mod refusals;
mod sigv4;
mod trusted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use sallyport_protocol::package::CredentialForm;

use crate::clock::Clock;
use crate::component::contract::provider::{Auth, RequestBody, TransportFault, UpstreamRequest};
use crate::config::{
    AwsCredential, AwsSource, CloudCredential, CloudIdentity, Endpoint, ExposeSecret as _, RouteCredential,
    RouteTarget, Scheme, SecretString, Timeouts, is_plain_path,
};
use crate::limits::Limit;

use self::breaker::Breakers;
use self::identity::{Given, Identities};
use self::pieces::Pieces;
use self::refusals::Refusals;

pub use self::address::AddressPolicy;
pub use self::answer::{Answer, AnswerBody, BodyError, Broken};
pub use self::breaker::{Breaker, BreakerPass, UpstreamState};
pub use self::client::{FetchError, FetchLimits, HttpClient, Outbound, WholeAnswer};
pub use self::client_documents::DocumentClient;
pub use self::collector::{Collector, CollectorFull, Export, ExportCounts};
pub use self::egress::EgressClient;
pub use self::head::{for_client, for_guest, passed_on, retry_after, travelling};
pub use self::identity::IdentityError;
pub use self::trusted::TrustedServers;

/// Most headers that a provider may send. A map of headers that grows without bound panics.
const MOST_HEADERS: usize = 128;
/// Longest path and query that a provider may ask for.
const LONGEST_PATH: usize = 8 * 1024;
/// A slash within a segment of a path, in the form of RFC 3986, section 6.2.2.1.
const ENCODED_SLASH: &str = "%2F";

/// Sends what providers ask for, and what the identity servers of clouds are asked.
#[derive(Clone)]
pub struct Upstream {
    clock: Arc<dyn Clock>,
    client: HttpClient,
    identities: Arc<Identities>,
    refusals: Arc<Refusals>,
    breakers: Arc<Breakers>,
}

/// Where a request goes, and as whom.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The route's endpoint.
    pub endpoint: &'a Endpoint,
    /// The route's credential, if it names one.
    pub credential: Option<UpstreamCredential<'a>>,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// As whom a request is sent.
#[derive(Debug, Clone, Copy)]
pub enum UpstreamCredential<'a> {
    /// A text that is sent as it is.
    Text {
        /// What is secret.
        secret: &'a SecretString,
        /// The form in which the upstream takes it.
        form: &'a CredentialForm,
    },
    /// An identity in a cloud, of which is made what is sent.
    Cloud {
        /// The identity.
        credential: &'a Arc<CloudCredential>,
        /// The region that AWS signatures name.
        region: Option<&'a str>,
    },
}

/// Why a request was not sent, or brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The provider asked for something it may not ask for.
    #[error("the provider's request is not allowed: {0}")]
    NotAllowed(&'static str),
    /// The gateway has no identity to show: nothing was sent.
    #[error("the gateway has no identity to show")]
    Identity(#[source] IdentityError),
    /// The upstream could not be reached, or broke off.
    #[error("the upstream did not answer ({fault:?})")]
    Transport {
        /// How, in the words of the contract.
        fault: TransportFault,
        /// Why.
        #[source]
        cause: Option<Broken>,
    },
}

/// The limits of the upstream side.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "upstream";
    let timeouts = Timeouts::default();
    vec![
        Limit::time(PART, "connecting to an upstream", timeouts.connect, "the next target, or 502")
            .set_by("gateway.routes[].timeouts.connect_ms"),
        Limit::time(
            PART,
            "an upstream's `retry-after` that is believed",
            breaker::LONGEST_PAUSE,
            "it is asked again",
        ),
        Limit::time(PART, "until the head of an answer", timeouts.first_byte, "504")
            .set_by("gateway.routes[].timeouts.first_byte_ms"),
        Limit::time(
            PART,
            "between two pieces of an answer",
            timeouts.idle,
            "504, or the stream ends with an error",
        )
        .set_by("gateway.routes[].timeouts.idle_ms"),
        Limit::bytes(
            PART,
            "telemetry that waits for the collector",
            collector::MOST_BYTES,
            "429 `telemetry_full`",
        ),
        Limit::bytes(
            PART,
            "the same of one tenant",
            collector::MOST_BYTES / collector::TENANT_PART,
            "429 `telemetry_full`",
        ),
        Limit::count(PART, "headers of a provider's request", MOST_HEADERS as u64, "502 `provider_contract`"),
        Limit::bytes(PART, "path and query of a provider's request", LONGEST_PATH, "502 `provider_contract`"),
        Limit::bytes(PART, "head of an answer of HTTP/1.1", h1::MOST_HEAD_BYTES, "502"),
        Limit::count(PART, "headers of an answer of HTTP/1.1", h1::MOST_ANSWER_HEADERS as u64, "502"),
        Limit::count(
            PART,
            "unused connections kept to one upstream",
            origin::MOST_IDLE as u64,
            "the connection is closed after its answer",
        ),
        Limit::time(PART, "wait for an identity server", identity::TIMEOUT, "503 `credential_unavailable`"),
        Limit::bytes(
            PART,
            "an identity server's answer",
            identity::MAX_ANSWER_BYTES,
            "502 `upstream_credential`",
        ),
        Limit::count(
            PART,
            "identities of clouds whose tokens are kept",
            identity::MOST as u64,
            "the token of the one that was not used for the longest time is fetched again",
        ),
    ]
}

// === impl Upstream ===

impl Upstream {
    /// To any address: routes say where upstreams are.
    pub fn new(outbound: &Outbound, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            client: outbound.client(AddressPolicy::Any),
            identities: Arc::default(),
            refusals: Arc::default(),
            breakers: Arc::default(),
        }
    }

    /// Notes that the upstream of this target refused the gateway's credential. What a cloud gave out for a while is not shown again.
    pub fn refused(&self, target: &RouteTarget, credential: Option<&RouteCredential>, status: u16) {
        if let Some(RouteCredential::Cloud(cloud)) = credential {
            self.identities.doubt(cloud, self.clock.now());
        }
        if self.refusals.note(&target.provider, target.api_key_secret.as_deref(), Instant::now()) {
            let credential = target.api_key_secret.as_deref().unwrap_or("none");
            tracing::warn!(
                provider = target.provider,
                credential,
                status,
                "the upstream refuses the gateway's credential: check the secret that the route names"
            );
        }
    }

    /// Notes that there was no credential to show it. Why is logged where it is fetched, once for all who wait.
    pub fn without_identity(&self, target: &RouteTarget) {
        self.refusals.note(&target.provider, target.api_key_secret.as_deref(), Instant::now());
    }

    /// Notes that it takes it.
    pub fn accepted(&self, target: &RouteTarget) {
        self.refusals.clear(&target.provider, target.api_key_secret.as_deref());
    }

    /// What is known of how this target's upstream does.
    pub fn breaker(&self, target: &RouteTarget) -> Arc<Breaker> {
        self.breakers.of(target)
    }

    /// Forgets how upstreams did that are none of these targets'.
    pub fn keep<'a>(&self, targets: impl Iterator<Item = &'a Arc<RouteTarget>>) {
        self.breakers.keep(targets);
    }

    /// How each upstream does whose calls are watched.
    pub fn states(&self, now: Duration) -> Vec<UpstreamState> {
        self.breakers.states(now)
    }

    /// The providers and credentials that were refused when they were last used.
    pub fn refusals(&self) -> Vec<String> {
        self.refusals.list()
    }

    /// Sends what a provider asked for, with the route's credential. `original` is the client's body.
    pub async fn send(
        &self,
        to: Destination<'_>,
        wanted: UpstreamRequest,
        original: &Bytes,
    ) -> Result<Answer, SendError> {
        let proves = matches!(wanted.auth, Auth::Credential);
        let mut request = build(to, wanted, original)?;
        let sending = async {
            let shown = match to.credential.filter(|_| proves) {
                Some(UpstreamCredential::Cloud { credential, region }) => {
                    self.prove(&mut request, credential, region).await?
                }
                Some(UpstreamCredential::Text { .. }) | None => Vec::new(),
            };
            let Endpoint { scheme, authority, .. } = to.endpoint;
            let answer = self.client.exchange(*scheme, authority, to.timeouts, &request).await?;
            Ok(Answer { shown, ..answer })
        };
        let sent = tokio::time::timeout(to.timeouts.first_byte, sending).await;
        sent.unwrap_or(Err(SendError::Transport { fault: TransportFault::TimedOut, cause: None }))
    }

    /// Makes of an identity what this request carries. What of it an upstream could repeat is returned.
    async fn prove(
        &self,
        request: &mut Request<Pieces>,
        credential: &Arc<CloudCredential>,
        region: Option<&str>,
    ) -> Result<Vec<SecretString>, SendError> {
        const UNFIT: SendError = SendError::NotAllowed("credential that cannot stand in a header");
        let given = match &credential.identity {
            CloudIdentity::Aws(AwsCredential { source: AwsSource::Keys(keys), .. }) => {
                Given::Keys(keys.clone())
            }
            _ => self.identities.get(self, credential).await.map_err(SendError::Identity)?,
        };
        match (given, &credential.identity) {
            (Given::Keys(keys), CloudIdentity::Aws(aws)) => {
                let region = region.ok_or(SendError::NotAllowed("AWS signature without a region"))?;
                let scope = sigv4::SigningScope { region, service: &aws.service, now: self.clock.now() };
                let signature = sigv4::sign(request, &keys, scope).ok_or(UNFIT)?;
                Ok(std::iter::once(signature).chain(keys.session_token).collect())
            }
            (Given::Token(token), _) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| UNFIT)?;
                value.set_sensitive(true);
                request.headers_mut().insert(header::AUTHORIZATION, value);
                Ok(vec![token])
            }
            (Given::Keys(_), _) => Err(UNFIT),
        }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Upstream").finish_non_exhaustive()
    }
}

// === impl SendError ===

impl From<Broken> for SendError {
    fn from(broken: Broken) -> Self {
        let connecting = matches!(broken, Broken::Connect(_));
        let fault = if connecting { TransportFault::Connect } else { TransportFault::Closed };
        Self::Transport { fault, cause: Some(broken) }
    }
}

// === private helpers ===

fn build(
    to: Destination<'_>,
    wanted: UpstreamRequest,
    original: &Bytes,
) -> Result<Request<Pieces>, SendError> {
    let UpstreamRequest { method, path, headers, body, auth } = wanted;
    let method = method_of(&method)?;
    let body = assemble(body, original)?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri(to.endpoint, &path)?;
    if headers.len() > MOST_HEADERS {
        return Err(SendError::NotAllowed("so many headers"));
    }
    let out = request.headers_mut();
    for attribute in headers {
        let (name, value) = head::allowed(&attribute.name, attribute.value).map_err(SendError::NotAllowed)?;
        out.append(name, value);
    }
    // What comes back is read on the way: an encoding would hide it.
    out.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    match auth {
        Auth::None => return Ok(request),
        Auth::Credential => {}
        Auth::Other(_) => return Err(SendError::NotAllowed("way to authenticate")),
    }
    if let Some(UpstreamCredential::Text { secret, form }) = to.credential {
        let (name, text) = match form {
            CredentialForm::Bearer => (header::AUTHORIZATION, format!("Bearer {}", secret.expose_secret())),
            CredentialForm::Header(name) => (head::credential_name(name)?, secret.expose_secret().to_owned()),
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| SendError::NotAllowed("credential with control characters"))?;
        value.set_sensitive(true);
        out.insert(name, value);
    }
    Ok(request)
}

/// The methods that ask something of a resource. `CONNECT` and `TRACE` do other things, and nobody knows what one does that is
/// not registered.
fn method_of(method: &str) -> Result<Method, SendError> {
    match method {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        _ => Err(SendError::NotAllowed("method")),
    }
}

/// The provider says the path, the host everything before it: nothing in the path may reach beyond, however the upstream
/// decodes it. A query is data, and holds what it likes. A slash in a name (`%2F`: ARNs have some) is one that separates to servers that
/// decode it, so what is looked at is the path as those read it.
fn uri(endpoint: &Endpoint, path: &str) -> Result<Uri, SendError> {
    let refused = SendError::NotAllowed("path");
    let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'\\' | b'#');
    let before = path.split('?').next().unwrap_or_default().replace(ENCODED_SLASH, "/");
    let plain = path.is_empty() || (path.starts_with('/') && !before.starts_with("//"));
    if !plain
        || !is_plain_path(&before)
        || climbs(&before)
        || path.len() > LONGEST_PATH
        || path.bytes().any(odd)
    {
        return Err(refused);
    }
    Uri::builder()
        .scheme(endpoint.scheme.as_str())
        .authority(without_usual_port(endpoint))
        .path_and_query(endpoint.join(path))
        .build()
        .map_err(|_| refused)
}

/// The authority as it is sent: a port that goes without saying is left out, since a signature covers the name as it stands there.
fn without_usual_port(endpoint: &Endpoint) -> &str {
    let usual = if endpoint.scheme == Scheme::Https { ":443" } else { ":80" };
    endpoint.authority.strip_suffix(usual).unwrap_or(&endpoint.authority)
}

/// Whether a segment is one that some server takes for the one above: parameters after `;` do not count there.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

fn assemble(body: RequestBody, original: &Bytes) -> Result<Pieces, SendError> {
    match body {
        RequestBody::Empty => Ok(Pieces::default()),
        RequestBody::Original => Ok(original.clone().into()),
        RequestBody::Bytes(bytes) => Ok(Bytes::from(bytes).into()),
        RequestBody::Spliced(edits) => {
            Pieces::spliced(original, edits).ok_or(SendError::NotAllowed("splice outside the body"))
        }
        RequestBody::Other(_) => Err(SendError::NotAllowed("body")),
    }
}

#[cfg(test)]
mod tests;
