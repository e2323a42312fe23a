//! The server's side of a handshake.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ClientAuth;
use super::client::ClientCertificate;
use super::files::Material;
use crate::clock::Clock;

/// What clients may choose, in the order of our liking.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The first byte of every record of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// A connection behind its handshake.
pub(crate) struct Encrypted {
    /// What it carries.
    pub(crate) stream: TlsStream<TcpStream>,
    /// What the client showed, where it was asked and showed something. It was verified.
    pub(crate) client: Option<ClientCertificate>,
}

/// How a listener shakes hands at this moment.
#[derive(Clone)]
pub(crate) struct Handshake(Arc<ServerConfig>);

/// Why a connection has no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It begins like HTTP in clear; it comes back, so that it can be told.
    #[error("it begins in clear, like HTTP without TLS")]
    InClear(TcpStream),
    /// It begins like nothing that is known here, or it ended before it began.
    #[error("it does not begin with a handshake")]
    Stranger,
    /// The client's certificate was verified, and names somebody in a way that cannot be read.
    #[error("the names in the client's certificate cannot be read")]
    Unreadable,
    /// The handshake failed.
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

/// The gateway's clock, as the TLS library asks it.
struct Time(Arc<dyn Clock>);

// === impl Handshake ===

impl Handshake {
    /// With the certificate of `material`, asking clients for theirs as `auth` says. TLS 1.2 and 1.3, and no data before the handshake is
    /// over.
    pub(super) fn new(
        material: &Material,
        auth: ClientAuth,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let time = Arc::new(Time(Arc::clone(clock)));
        let builder =
            ServerConfig::builder_with_details(provider, time).with_protocol_versions(&[&TLS13, &TLS12])?;
        let verifier = material.clients.as_ref().and_then(|clients| clients.verifier(auth)).cloned();
        let builder = match (verifier, auth) {
            (Some(verifier), _) => builder.with_client_cert_verifier(verifier),
            (None, ClientAuth::Off) => builder.with_no_client_auth(),
            (None, _) => return Err(rustls::Error::General("no authority of clients is named".to_owned())),
        };
        let shown = Arc::new(SingleCertAndKey::from(Arc::clone(&material.shown)));
        let mut config = builder.with_cert_resolver(shown);
        if auth != ClientAuth::Off {
            // A session that is taken up again would bring a certificate that nobody looks at any more.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands. It takes as long as the client wants: whoever calls sets a limit.
    pub(crate) async fn accept(self, stream: TcpStream) -> Result<Encrypted, HandshakeError> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first == [HANDSHAKE_RECORD] => {}
            Ok(1) if first.iter().all(u8::is_ascii_alphabetic) => {
                return Err(HandshakeError::InClear(stream));
            }
            Ok(_) => return Err(HandshakeError::Stranger),
            Err(error) => return Err(HandshakeError::Failed(error)),
        }
        let stream = TlsAcceptor::from(self.0).accept(stream).await.map_err(HandshakeError::Failed)?;
        let client = match stream.get_ref().1.peer_certificates() {
            None | Some([]) => None,
            Some(chain) => Some(ClientCertificate::read(chain).ok_or(HandshakeError::Unreadable)?),
        };
        Ok(Encrypted { stream, client })
    }
}

// === impl Time ===

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        unix(self.0.now())
    }
}

impl std::fmt::Debug for Time {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Time").finish_non_exhaustive()
    }
}

/// A moment, as the TLS library counts it.
pub(super) fn unix(at: OffsetDateTime) -> Option<UnixTime> {
    let since = at - OffsetDateTime::UNIX_EPOCH;
    Some(UnixTime::since_unix_epoch(since.try_into().ok()?))
}
