//! New connections: name lookup, TCP and TLS, which together may take so long and no longer. A server that takes a connection and
//! says nothing would hold a call for minutes. Nothing else of the gateway dials.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service as _;

use super::address::{AddressPolicy, CheckedLookup, Lookup};
use super::{Broken, TrustedServers};

/// What a server may choose, in the order of our liking.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// In clear, or not.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Whose certificates are believed, ready to be used.
#[derive(Clone)]
pub(super) struct ServerTrust(TlsConnector);

/// Dials.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<CheckedLookup>,
    trust: ServerTrust,
    addresses: AddressPolicy,
}

/// What the other side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The socket below a stream.
pub(super) trait Socket {
    /// The socket.
    fn socket(&self) -> &TcpStream;
}

// === impl ServerTrust ===

impl ServerTrust {
    pub(super) fn new(trusted: &TrustedServers) -> io::Result<Self> {
        let mut tls = trusted.config()?;
        tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self(TlsConnector::from(Arc::new(tls))))
    }
}

// === impl Connector ===

impl Connector {
    /// One that dials these addresses alone.
    pub(super) fn new(trust: ServerTrust, lookup: Arc<dyn Lookup>, addresses: AddressPolicy) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(CheckedLookup::new(lookup, addresses));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, trust, addresses }
    }

    /// A connection to the authority of `uri`, if it comes about within `limit`.
    pub(super) async fn connect(&self, uri: &Uri, limit: Duration) -> Result<(Stream, Protocol), Broken> {
        let connecting = tokio::time::timeout(limit, self.dial(uri.clone())).await;
        connecting.unwrap_or_else(|_| Err(Broken::Connect(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    async fn dial(&self, uri: Uri) -> Result<(Stream, Protocol), Broken> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned());
        let refused = |error: io::Error| Broken::Connect(error.into());
        // An address is not looked up: it is checked before it is dialled, and what was dialled once more, however it was spelled.
        if let Ok(address) = bare.parse::<IpAddr>() {
            self.addresses.check(address).map_err(refused)?;
        }
        let mut tcp = self.tcp.clone();
        let stream = tcp.call(uri).await.map_err(|error| Broken::Connect(error.into()))?.into_inner();
        if self.addresses == AddressPolicy::Public {
            stream.peer_addr().and_then(|peer| self.addresses.check(peer.ip())).map_err(refused)?;
        }
        if !secure {
            return Ok((Either::Left(stream), Protocol::Http1));
        }
        let name = name.map_err(|error| Broken::Connect(error.into()))?;
        let stream = self.trust.0.connect(name, stream).await.map_err(refused)?;
        let chosen = stream.get_ref().1.alpn_protocol();
        let protocol = if chosen == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        Ok((Either::Right(Box::new(stream)), protocol))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connector").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

// === impl Stream ===

impl Socket for Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Either::Left(stream) => stream,
            Either::Right(stream) => stream.get_ref().0,
        }
    }
}
