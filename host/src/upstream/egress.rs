//! Ways out for hooks: requests to a place that an admin chose, as whom the admin said, and to no other address than that place
//! has on the public internet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;

use self::dial::{Dial, Lookup, System};
use super::head;
use crate::clock::Clock;
use crate::component::contract::egress::{EgressFault, Request as Wanted, Response};
use crate::component::contract::{Attribute, Egress, Fetched};
use crate::config::{EgressAuth, EgressSettings as Way, ExposeSecret as _, is_plain_path};

mod dial;

/// Requests of all hooks at once: each holds a place of the pool while it waits.
const AT_ONCE: usize = 256;
/// Headers of one request.
const MOST_HEADERS: usize = 64;
/// Bytes of all names and values of one request's headers.
const HEADER_BYTES: usize = 16 * 1024;
/// Longest path and query.
const LONGEST_PATH: usize = 8 * 1024;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);

type Dialler = Client<HttpsConnector<Dial>, Full<Bytes>>;

/// The world outside, as hooks may reach it. No proxy, no redirects.
#[derive(Clone)]
pub struct Outside {
    /// Dials addresses of the public internet alone.
    public: Dialler,
    /// Dials any address, for ways that an admin opened.
    private: Dialler,
    turns: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

/// One way out.
struct EgressGrant {
    way: Way,
    outside: Outside,
}

// === impl Outside ===

impl Outside {
    /// With the system's certificate authorities and its resolver.
    pub fn new(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Self::with(clock, Arc::new(System))
    }

    fn with(clock: Arc<dyn Clock>, lookup: Arc<dyn Lookup>) -> std::io::Result<Self> {
        Ok(Self {
            public: dialler(Dial::new(Arc::clone(&lookup), false))?,
            private: dialler(Dial::new(lookup, true))?,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            clock,
        })
    }

    /// A way out as it is configured.
    pub fn way(&self, way: &Way) -> Arc<dyn Egress> {
        Arc::new(EgressGrant { way: way.clone(), outside: self.clone() })
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outside").field("free", &self.turns.available_permits()).finish_non_exhaustive()
    }
}

// === impl EgressGrant ===

impl Egress for EgressGrant {
    fn fetch(&self, request: Wanted) -> BoxFuture<'_, Fetched> {
        Box::pin(async move {
            let began = self.outside.clock.monotonic();
            let result = self.answer(request).await;
            Fetched { result, took: self.outside.clock.monotonic().saturating_sub(began) }
        })
    }
}

impl EgressGrant {
    async fn answer(&self, wanted: Wanted) -> Result<Response, EgressFault> {
        let request = self.build(wanted)?;
        let Ok(_turn) = self.outside.turns.try_acquire() else {
            return Err(EgressFault::Other("too many requests at once".to_owned()));
        };
        let answered = tokio::time::timeout(self.way.timeout, self.exchange(request)).await;
        let answer = answered.map_err(|_| EgressFault::TimedOut)??;
        if self.repeats_credential(&answer) {
            return Err(EgressFault::Other("the answer repeats the credential".to_owned()));
        }
        Ok(answer)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, EgressFault> {
        let dialler = if self.way.allow_private { &self.outside.private } else { &self.outside.public };
        let answer = dialler.request(request).await.map_err(|error| {
            let fault = if error.is_connect() { EgressFault::Unreachable } else { EgressFault::Closed };
            tracing::warn!(egress.name = self.way.name, "no answer from outside: {error:?}");
            fault
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.way.max_response).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { EgressFault::TooLarge } else { EgressFault::Closed }
        })?;
        let headers = head::for_guest(&head.headers);
        Ok(Response { status: head.status.as_u16(), headers, body: body.to_bytes().to_vec() })
    }

    /// The request, if the way covers it.
    fn build(&self, wanted: Wanted) -> Result<Request<Full<Bytes>>, EgressFault> {
        let refused = |what: &str| EgressFault::NotAllowed(what.to_owned());
        let Wanted { method, path, headers, body } = wanted;
        if !self.way.methods.contains(&method) {
            return Err(refused("method"));
        }
        if !self.covers(&path) {
            return Err(refused("path"));
        }
        if body.len() > self.way.max_request {
            return Err(EgressFault::TooLarge);
        }
        let endpoint = &self.way.endpoint;
        let uri = Uri::builder()
            .scheme(endpoint.scheme.as_str())
            .authority(endpoint.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|_| refused("path"))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| refused("method"))?;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers(&headers).map_err(refused)?;
        Ok(request)
    }

    fn headers(&self, wanted: &[Attribute]) -> Result<HeaderMap, &'static str> {
        let bytes: usize = wanted.iter().map(|it| it.name.len().saturating_add(it.value.len())).sum();
        if wanted.len() > MOST_HEADERS || bytes > HEADER_BYTES {
            return Err("too many headers");
        }
        let mut headers = HeaderMap::with_capacity(wanted.len() + 2);
        for Attribute { name, value } in wanted {
            let (name, value) = head::allowed(name, value)?;
            headers.append(name, value);
        }
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (name, text) = match &self.way.auth {
            EgressAuth::None => return Ok(headers),
            EgressAuth::Bearer(secret) => {
                (header::AUTHORIZATION, format!("Bearer {}", secret.expose_secret()))
            }
            EgressAuth::Header(name, secret) => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "credential")?;
                (name, secret.expose_secret().to_owned())
            }
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| "credential")?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(headers)
    }

    /// Whether the path lies below the prefix, whole segments of it.
    fn covers(&self, path: &str) -> bool {
        let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || byte == b'#';
        let below = path.strip_prefix(self.way.path_prefix.as_str());
        let below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        path.starts_with('/')
            && below
            && path.len() <= LONGEST_PATH
            && is_plain_path(path)
            && !path.bytes().any(odd)
    }

    fn repeats_credential(&self, answer: &Response) -> bool {
        let (EgressAuth::Bearer(secret) | EgressAuth::Header(_, secret)) = &self.way.auth else {
            return false;
        };
        let secret = secret.expose_secret();
        !secret.is_empty()
            && (memchr::memmem::find(&answer.body, secret.as_bytes()).is_some()
                || answer.headers.iter().any(|header| header.value.contains(secret)))
    }
}

// === private helpers ===

fn dialler(dial: Dial) -> std::io::Result<Dialler> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()?
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(dial);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}

#[cfg(test)]
mod tests;
