//! Egress of hooks: requests to an endpoint that an administrator granted, with the credential of the grant, and only to addresses of the
//! public internet unless the grant says otherwise.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use tokio::sync::Semaphore;

use super::client::{FetchError, FetchLimits, HttpClient, Outbound};
use super::{AddressPolicy, head};
use crate::clock::Clock;
use crate::component::contract::egress::{EgressFault, Request as Wanted, Response};
use crate::component::contract::{Attribute, Egress, Fetched};
use crate::config::{EgressAuth, EgressSettings, ExposeSecret as _, is_plain_path};

/// Requests of all hooks at once: each holds a place of the pool while it waits.
const AT_ONCE: usize = 256;
/// Headers of one request.
const MOST_HEADERS: usize = 64;
/// Bytes of all names and values of one request's headers.
const HEADER_BYTES: usize = 16 * 1024;
/// Longest path and query.
const LONGEST_PATH: usize = 8 * 1024;

/// Sends the requests of hooks.
#[derive(Clone)]
pub struct EgressClient {
    public: HttpClient,
    /// For grants that an administrator opened to any address.
    private: HttpClient,
    turns: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

/// What one hook may send.
struct EgressGrant {
    settings: EgressSettings,
    client: EgressClient,
}

// === impl EgressClient ===

impl EgressClient {
    /// With connections of its own.
    pub fn new(outbound: &Outbound, clock: Arc<dyn Clock>) -> Self {
        Self {
            public: outbound.client(AddressPolicy::Public),
            private: outbound.client(AddressPolicy::Any),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            clock,
        }
    }

    /// A grant as it is configured.
    pub fn grant(&self, settings: &EgressSettings) -> Arc<dyn Egress> {
        Arc::new(EgressGrant { settings: settings.clone(), client: self.clone() })
    }
}

impl std::fmt::Debug for EgressClient {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let free = self.turns.available_permits();
        out.debug_struct("EgressClient").field("free", &free).finish_non_exhaustive()
    }
}

// === impl EgressGrant ===

impl Egress for EgressGrant {
    fn fetch(&self, request: Wanted) -> BoxFuture<'_, Fetched> {
        Box::pin(async move {
            let began = self.client.clock.monotonic();
            let result = self.answer(request).await;
            Fetched { result, took: self.client.clock.monotonic().saturating_sub(began) }
        })
    }
}

impl EgressGrant {
    async fn answer(&self, wanted: Wanted) -> Result<Response, EgressFault> {
        let request = self.build(wanted)?;
        let Ok(_turn) = self.client.turns.try_acquire() else {
            return Err(EgressFault::Other("too many requests at once".to_owned()));
        };
        let answer = self.exchange(request).await?;
        if self.repeats_credential(&answer) {
            return Err(EgressFault::Other("the answer repeats the credential".to_owned()));
        }
        Ok(answer)
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response, EgressFault> {
        let client = if self.settings.allow_private { &self.client.private } else { &self.client.public };
        let limits = FetchLimits { timeout: self.settings.timeout, max_bytes: self.settings.max_response };
        let mut answer = client.fetch(request, limits).await.map_err(|error| {
            tracing::warn!(egress.name = self.settings.name, "no answer to a hook's request: {error:?}");
            match error {
                FetchError::Unreachable(_) => EgressFault::Unreachable,
                FetchError::Closed(_) => EgressFault::Closed,
                FetchError::TimedOut => EgressFault::TimedOut,
                FetchError::TooLarge(_) => EgressFault::TooLarge,
            }
        })?;
        let headers = head::for_guest(&answer.headers);
        Ok(Response { status: answer.status.as_u16(), headers, body: std::mem::take(&mut *answer.body) })
    }

    /// The request, if the grant covers it.
    fn build(&self, wanted: Wanted) -> Result<Request<Bytes>, EgressFault> {
        let refused = |what: &str| EgressFault::NotAllowed(what.to_owned());
        let Wanted { method, path, headers, body } = wanted;
        if !self.settings.methods.contains(&method) {
            return Err(refused("method"));
        }
        if !self.covers(&path) {
            return Err(refused("path"));
        }
        if body.len() > self.settings.max_request {
            return Err(EgressFault::TooLarge);
        }
        let endpoint = &self.settings.endpoint;
        let uri = Uri::builder()
            .scheme(endpoint.scheme.as_str())
            .authority(endpoint.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|_| refused("path"))?;
        let mut request = Request::new(Bytes::from(body));
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
            let (name, value) = head::allowed(name, value.clone())?;
            headers.append(name, value);
        }
        let (name, text) = match &self.settings.auth {
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
        let below = path.strip_prefix(self.settings.path_prefix.as_str());
        let below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        path.starts_with('/')
            && below
            && path.len() <= LONGEST_PATH
            && is_plain_path(path)
            && !path.bytes().any(odd)
    }

    fn repeats_credential(&self, answer: &Response) -> bool {
        let (EgressAuth::Bearer(secret) | EgressAuth::Header(_, secret)) = &self.settings.auth else {
            return false;
        };
        let secret = secret.expose_secret();
        !secret.is_empty()
            && (memchr::memmem::find(&answer.body, secret.as_bytes()).is_some()
                || answer.headers.iter().any(|header| header.value.contains(secret)))
    }
}

#[cfg(test)]
mod tests;
