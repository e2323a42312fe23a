//! The beginning of a connection on a listener that speaks TLS: the handshake, which may take so long and no longer, and a word to
//! clients that came without TLS.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{Edge, error, linger};
use crate::causes::Causes;
use crate::tls::{Encrypted, Handshake, HandshakeError};

/// How long a handshake may take. It counts to the time for the first head as well.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Shakes hands; nothing if there is nobody to talk to afterwards.
pub(super) async fn begin(handshake: Handshake, stream: TcpStream, edge: &Edge) -> Option<Encrypted> {
    match tokio::time::timeout(HANDSHAKE, handshake.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(HandshakeError::InClear(stream))) => {
            tracing::debug!("a client came without TLS to a listener that speaks TLS");
            say_it_is_encrypted(stream, &edge.request_id()).await;
            None
        }
        Ok(Err(error)) => {
            tracing::debug!("a connection ended before it was encrypted: {}", Causes(&error));
            None
        }
        Err(_) => {
            tracing::debug!("a handshake took longer than {HANDSHAKE:?}");
            None
        }
    }
}

/// A client whose base URL begins with `http://` is told so, in clear: what it has sent was read by everybody anyway.
async fn say_it_is_encrypted(mut stream: TcpStream, request_id: &str) {
    let body = error::without_tls(request_id);
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_ok() {
        linger::read_out(TokioIo::new(stream)).await;
    }
}
