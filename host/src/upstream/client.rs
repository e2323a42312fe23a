//! The one client of the gateway and its command line, and what all clients share: which addresses are dialled, whose certificates are
//! believed, how long a connection may take to come about and how many are kept. Callers say only what differs: where a request goes,
//! how long its answer may take and how large it may be. No proxy, no redirects.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use zeroize::Zeroizing;

use super::address::{AddressPolicy, Lookup, SystemLookup};
use super::answer::{Answer, BodyError, Broken};
use super::connect::{Connector, Protocol, ServerTrust};
use super::h1::{Failed, H1Connection};
use super::h2;
use super::origin::Origins;
use super::pieces::Pieces;
use super::trusted::TrustedServers;
use crate::config::{Scheme, Timeouts};

/// What clients are made of: certificates of authorities, read once, and a resolver.
#[derive(Clone)]
pub struct Outbound {
    trust: ServerTrust,
    lookup: Arc<dyn Lookup>,
}

/// Sends requests. Its connections serve no other client: what one of them left behind on a connection reaches no one else.
#[derive(Debug, Clone)]
pub struct HttpClient {
    connector: Connector,
    origins: Arc<Origins>,
}

/// What an answer that is read whole may cost.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// How long it may take, from the lookup of the name to the last byte.
    pub timeout: Duration,
    /// Most bytes of its body.
    pub max_bytes: usize,
}

/// An answer that was read whole.
#[derive(Debug)]
pub struct WholeAnswer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// The body, which may hold a secret.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There was no connection: nothing was sent.
    #[error("the server cannot be reached")]
    Unreachable(#[source] Broken),
    /// The connection broke. Nobody knows what the server made of the request.
    #[error("the server broke off")]
    Closed(#[source] Broken),
    /// It took too long.
    #[error("the server did not answer in time")]
    TimedOut,
    /// It is larger than the caller reads.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
}

// === impl Outbound ===

impl Outbound {
    /// With these certificates and the system's resolver.
    pub fn new(trusted: &TrustedServers) -> io::Result<Self> {
        Self::with(trusted, Arc::new(SystemLookup))
    }

    pub(super) fn with(trusted: &TrustedServers, lookup: Arc<dyn Lookup>) -> io::Result<Self> {
        Ok(Self { trust: ServerTrust::new(trusted)?, lookup })
    }

    /// A client with connections of its own.
    pub fn client(&self, addresses: AddressPolicy) -> HttpClient {
        let connector = Connector::new(self.trust.clone(), Arc::clone(&self.lookup), addresses);
        HttpClient { connector, origins: Arc::default() }
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outbound").finish_non_exhaustive()
    }
}

// === impl HttpClient ===

impl HttpClient {
    /// Sends a request and reads its answer whole. One of which a byte was written is not sent again, and nothing is followed that
    /// points elsewhere.
    pub async fn fetch(
        &self,
        request: Request<Bytes>,
        limits: FetchLimits,
    ) -> Result<WholeAnswer, FetchError> {
        let mut request = request.map(Pieces::from);
        // What comes is read: an encoding would hide it.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let fetching = async {
            let Answer { status, headers, mut body, .. } = self.ask(&request, limits.timeout).await?;
            let mut whole = Zeroizing::new(Vec::new());
            while let Some(piece) = body.chunk().await? {
                if whole.len().saturating_add(piece.len()) > limits.max_bytes {
                    return Err(FetchError::TooLarge(limits.max_bytes));
                }
                whole.extend_from_slice(&piece);
            }
            Ok(WholeAnswer { status, headers, body: whole })
        };
        tokio::time::timeout(limits.timeout, fetching).await.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn ask(&self, request: &Request<Pieces>, timeout: Duration) -> Result<Answer, FetchError> {
        let uri = request.uri();
        let scheme = if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let timeouts = Timeouts { idle: timeout, ..Timeouts::default() };
        Ok(self.exchange(scheme, authority, timeouts, request).await?)
    }

    /// Sends a request where a connection takes it. One of which a single byte was written is not sent again. How long the head of the
    /// answer may take is for the caller to say.
    pub(super) async fn exchange(
        &self,
        scheme: Scheme,
        authority: &str,
        timeouts: Timeouts,
        request: &Request<Pieces>,
    ) -> Result<Answer, Broken> {
        let idle = timeouts.idle;
        let origin = self.origins.of(scheme, authority);
        if let Some(mut sender) = origin.shared() {
            match h2::ask(&mut sender, request.clone()).await {
                Ok(response) => return Ok(Answer::shared(response, idle)),
                Err(Failed::Unsent(_)) => origin.forget_shared(),
                Err(Failed::Lost(broken)) => return Err(broken),
            }
        }
        while let Some(mut connection) = origin.take() {
            match connection.ask(request).await {
                Ok(head) => return Ok(Answer::own(head, connection, origin, idle)),
                Err(Failed::Unsent(_)) => {}
                Err(Failed::Lost(broken)) => return Err(broken),
            }
        }
        let (stream, protocol) = self.connector.connect(request.uri(), timeouts.connect).await?;
        if protocol == Protocol::Http1 {
            let mut connection = H1Connection::new(stream);
            let head = connection.ask(request).await?;
            return Ok(Answer::own(head, connection, origin, idle));
        }
        let mut sender = origin.share(h2::begin(stream).await?);
        Ok(Answer::shared(h2::ask(&mut sender, request.clone()).await?, idle))
    }
}

// === impl FetchError ===

impl From<Broken> for FetchError {
    fn from(broken: Broken) -> Self {
        if matches!(broken, Broken::Connect(_)) { Self::Unreachable(broken) } else { Self::Closed(broken) }
    }
}

impl From<BodyError> for FetchError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Closed(broken) => Self::Closed(broken),
            BodyError::Silent => Self::TimedOut,
        }
    }
}

// === impl Broken ===

impl From<Failed> for Broken {
    fn from((Failed::Unsent(broken) | Failed::Lost(broken)): Failed) -> Self {
        broken
    }
}

#[cfg(test)]
mod tests;
