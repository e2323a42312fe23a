//! The upstream side: the only module that dials out. It owns scheme, authority and credential; a provider component says the
//! rest, and what it may not say is refused here.

mod connect;
mod egress;
mod head;
mod refusals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sallyport_protocol::messages::index::Span;
use sallyport_protocol::messages::splice::{self, Splice};

use crate::component::contract::Edit;
use crate::component::contract::provider::{Auth, RequestBody, TransportFault, UpstreamRequest};
use crate::config::{Endpoint, ExposeSecret as _, Patience, Route, SecretString, is_plain_path};
use crate::limits::Limit;

use self::connect::Within;
use self::refusals::Refusals;

pub use self::egress::Outside;
pub use self::head::{for_client, for_guest, travelling};

/// Most headers that a provider may send. A map of headers that grows without bound panics.
const MOST_HEADERS: usize = 128;
/// Longest path and query that a provider may ask for.
const LONGEST_PATH: usize = 8 * 1024;
/// How long a connection may take: name, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// Dials upstreams.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client<Within<HttpsConnector<HttpConnector>>, Full<Bytes>>,
    refusals: Arc<Refusals>,
}

/// The head of an upstream's answer, and its body to come.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// The body.
    pub body: AnswerBody,
}

/// A body that arrives in pieces. Dropped, its connection is closed.
#[derive(Debug)]
pub struct AnswerBody {
    incoming: hyper::body::Incoming,
    idle: Duration,
}

/// Where a request goes, and as whom.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The route's endpoint.
    pub endpoint: &'a Endpoint,
    /// The route's credential, if it names one.
    pub credential: Option<&'a SecretString>,
    /// How long to wait.
    pub patience: Patience,
}

/// Why a request was not sent, or brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The provider asked for something it may not ask for.
    #[error("the provider's request is not allowed: {0}")]
    NotAllowed(&'static str),
    /// The upstream could not be reached, or broke off.
    #[error("the upstream did not answer ({fault:?})")]
    Transport {
        /// How, in the words of the contract.
        fault: TransportFault,
        /// Why.
        #[source]
        cause: Option<hyper_util::client::legacy::Error>,
    },
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke.
    #[error("the upstream broke off")]
    Closed(#[source] hyper::Error),
    /// Nothing came for too long.
    #[error("the upstream fell silent")]
    Silent,
}

/// The limits of the upstream side.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "upstream";
    let patience = Patience::default();
    vec![
        Limit::time(PART, "connecting to an upstream", CONNECT, "502"),
        Limit::time(PART, "until the head of an answer", patience.first_byte, "504")
            .set_by("gateway.routes[].timeouts.first_byte_ms"),
        Limit::time(
            PART,
            "between two pieces of an answer",
            patience.idle,
            "504, or the stream ends with an error",
        )
        .set_by("gateway.routes[].timeouts.idle_ms"),
        Limit::count(PART, "headers of a provider's request", MOST_HEADERS as u64, "502 `provider_contract`"),
        Limit::bytes(PART, "path and query of a provider's request", LONGEST_PATH, "502 `provider_contract`"),
    ]
}

// === impl Upstream ===

impl Upstream {
    /// A client with the system's certificate authorities. No proxy, no redirects.
    pub fn new() -> std::io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let connector = Within { inner: connector, limit: CONNECT };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .build(connector);
        Ok(Self { client, refusals: Arc::default() })
    }

    /// Notes that the upstream of this route refused the gateway's credential.
    pub fn refused(&self, route: &Route, status: u16) {
        if self.refusals.note(&route.provider, route.api_key_secret.as_deref(), Instant::now()) {
            let credential = route.api_key_secret.as_deref().unwrap_or("none");
            tracing::warn!(
                provider = route.provider,
                credential,
                status,
                "the upstream refuses the gateway's credential: check the secret that the route names"
            );
        }
    }

    /// Notes that it takes it.
    pub fn accepted(&self, route: &Route) {
        self.refusals.clear(&route.provider, route.api_key_secret.as_deref());
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
        let request = build(to, wanted, original)?;
        let sent = tokio::time::timeout(to.patience.first_byte, self.client.request(request)).await;
        match sent {
            Ok(Ok(response)) => {
                let (head, incoming) = response.into_parts();
                let body = AnswerBody { incoming, idle: to.patience.idle };
                Ok(Answer { status: head.status, headers: head.headers, body })
            }
            Ok(Err(cause)) => {
                let fault = if cause.is_connect() { TransportFault::Connect } else { TransportFault::Closed };
                Err(SendError::Transport { fault, cause: Some(cause) })
            }
            Err(_) => Err(SendError::Transport { fault: TransportFault::TimedOut, cause: None }),
        }
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.incoming.frame()).await;
            match frame.map_err(|_| BodyError::Silent)? {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers and empty pieces mean nothing here.
                    _ => {}
                },
                Some(Err(error)) => return Err(BodyError::Closed(error)),
            }
        }
    }
}

impl BodyError {
    /// In the words of the contract.
    pub fn fault(&self) -> TransportFault {
        match self {
            Self::Closed(_) => TransportFault::Closed,
            Self::Silent => TransportFault::TimedOut,
        }
    }
}

// === private helpers ===

fn build(
    to: Destination<'_>,
    wanted: UpstreamRequest,
    original: &Bytes,
) -> Result<Request<Full<Bytes>>, SendError> {
    let UpstreamRequest { method, path, headers, body, auth } = wanted;
    let method = method_of(&method)?;
    let body = assemble(body, original)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri(to.endpoint, &path)?;
    if headers.len() > MOST_HEADERS {
        return Err(SendError::NotAllowed("so many headers"));
    }
    let out = request.headers_mut();
    for attribute in headers {
        let (name, value) =
            head::allowed(&attribute.name, &attribute.value).map_err(SendError::NotAllowed)?;
        out.append(name, value);
    }
    // What comes back is read on the way: an encoding would hide it.
    out.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(credential) = to.credential {
        let (name, text) = match auth {
            Auth::None => return Ok(request),
            Auth::Bearer => (header::AUTHORIZATION, format!("Bearer {}", credential.expose_secret())),
            Auth::Header(name) => (head::credential_name(&name)?, credential.expose_secret().to_owned()),
        };
        let mut value = HeaderValue::from_str(&text)
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
/// decodes it. A query is data, and holds what it likes.
fn uri(endpoint: &Endpoint, path: &str) -> Result<Uri, SendError> {
    let refused = SendError::NotAllowed("path");
    let plain = path.is_empty() || (path.starts_with('/') && !path.starts_with("//"));
    let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'\\' | b'#');
    let before = path.split('?').next().unwrap_or_default();
    if !plain
        || !is_plain_path(before)
        || climbs(before)
        || path.len() > LONGEST_PATH
        || path.bytes().any(odd)
    {
        return Err(refused);
    }
    Uri::builder()
        .scheme(endpoint.scheme.as_str())
        .authority(endpoint.authority.as_str())
        .path_and_query(endpoint.join(path))
        .build()
        .map_err(|_| refused)
}

/// Whether a segment is one that some server takes for the one above: parameters after `;` do not count there.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

fn assemble(body: RequestBody, original: &Bytes) -> Result<Bytes, SendError> {
    match body {
        RequestBody::Empty => Ok(Bytes::new()),
        RequestBody::Original => Ok(original.clone()),
        RequestBody::Bytes(bytes) => Ok(bytes.into()),
        RequestBody::Spliced(edits) => splice(original, edits),
    }
}

/// The client's bytes but for the edits. Edits ascend and do not overlap.
fn splice(original: &Bytes, edits: Vec<Edit>) -> Result<Bytes, SendError> {
    let splices = edits.into_iter().map(|Edit { offset, len, replacement }| {
        let span = Span { start: offset, end: offset.checked_add(len)? };
        Some(Splice { span, with: replacement })
    });
    let splices = splices.collect::<Option<Vec<_>>>();
    let spliced = splices.and_then(|splices| splice::apply(original, &splices).ok());
    spliced.map(Bytes::from).ok_or(SendError::NotAllowed("splice outside the body"))
}

#[cfg(test)]
mod tests;
