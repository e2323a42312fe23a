//! HTTP/2, which hyper speaks: one connection for all calls to an origin.

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::Broken;
use super::connect::Stream;
use super::h1::Failed;
use super::pieces::Pieces;

/// Sends requests on a connection that others use too.
pub(super) type Sender = http2::SendRequest<Pieces>;

/// Begins to speak HTTP/2 on a connection, which ends with its last sender.
pub(super) async fn begin(stream: Stream) -> Result<Sender, Broken> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Broken::Http2)?;
    TokioExecutor::new().execute(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection to an upstream ended: {error}");
        }
    });
    Ok(sender)
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn ask(sender: &mut Sender, request: Request<Pieces>) -> Result<Response<Incoming>, Failed> {
    if let Err(error) = sender.ready().await {
        return Err(Failed::Unsent(Broken::Http2(error)));
    }
    sender.try_send_request(request).await.map_err(|mut error| {
        // The library hands a request back that it did not begin to send.
        let unsent = error.take_message().is_some();
        let broken = Broken::Http2(error.into_error());
        if unsent { Failed::Unsent(broken) } else { Failed::Lost(broken) }
    })
}
