//! The accept loop: HTTP/1.1 and HTTP/2 on one port, with limits on how many may be connected, how long a connection may say
//! nothing and how long a head may take, and a drain at the end.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{ActiveRequest, Connection, Connections};
use super::error::ApiError;
use super::{Edge, Settings, router};

/// Requests at once on one HTTP/2 connection.
pub(super) const STREAMS: u32 = 256;
/// Longest head of a request.
pub(super) const HEAD_BYTES: usize = 64 * 1024;
/// How long running answers may take to end.
pub(super) const DRAIN: Duration = Duration::from_secs(30);
/// How long to wait before accepting again after the system refused, for lack of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that has to go may take to say so to its client.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Open files that are not connections of clients or upstreams: the database, the spool, workers.
const OTHER_FILES: u64 = 256;

/// Serves until `shutdown`, then lets running answers end.
pub(crate) async fn serve(
    listener: TcpListener,
    edge: Arc<Edge>,
    tasks: &TaskTracker,
    shutdown: CancellationToken,
) {
    let settings = **edge.settings.load();
    let mut limits = settings.connections;
    limits.total = limits.total.min(places_for(open_files()));
    let listening = Arc::new(Listening {
        builder: builder(&settings),
        router: router(Arc::clone(&edge)),
        edge,
        settings,
        shutdown: shutdown.clone(),
    });
    let connections = Connections::new(limits);
    let open = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(connection) = enter(&connections, peer.ip()) else { continue };
        let listening = Arc::clone(&listening);
        tasks.spawn(open.track_future(async move { listening.answer(stream, connection).await }));
    }
    drop(listener);
    open.close();
    if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
        tracing::warn!("some answers did not end within {DRAIN:?} and are cut");
    }
}

/// What all connections of a listener share.
struct Listening {
    builder: Builder<TokioExecutor>,
    router: Router,
    edge: Arc<Edge>,
    settings: Settings,
    shutdown: CancellationToken,
}

/// The body of an answer, which keeps its connection busy to the last byte.
struct BusyBody {
    body: Body,
    _request: ActiveRequest,
}

// === impl Listening ===

impl Listening {
    /// Answers the requests of one connection until it ends or has to go.
    async fn answer(self: Arc<Self>, stream: TcpStream, connection: Arc<Connection>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("a connection keeps its delay: {error}");
        }
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
            let active = connection.begin();
            request.extensions_mut().insert(Arc::clone(&connection));
            let answer = router.call(request);
            let listening = Arc::clone(&self);
            async move {
                let response = listening.in_our_shape(answer.await?);
                Ok::<_, std::convert::Infallible>(
                    response.map(|body| Body::new(BusyBody { body, _request: active })),
                )
            }
        });
        let mut served = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
            () = connection.overdue(self.settings.head_timeout, self.settings.idle_timeout) => {
                served.as_mut().graceful_shutdown();
                drop(tokio::time::timeout(CLOSE_TIMEOUT, served).await);
                return;
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended early: {error}");
        }
    }

    /// Every error of ours is JSON; a text is the router's, about a path or a query that it could not read.
    fn in_our_shape(&self, response: Response) -> Response {
        let is_text = |value: &header::HeaderValue| value.as_bytes().starts_with(b"text/plain");
        if !response.status().is_client_error()
            || !response.headers().get(header::CONTENT_TYPE).is_some_and(is_text)
        {
            return response;
        }
        ApiError::unreadable("the path or the query cannot be read", &self.edge.request_id()).into_response()
    }
}

// === impl BusyBody ===

impl http_body::Body for BusyBody {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === private helpers ===

fn builder(settings: &Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(HEAD_BYTES * 4);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

fn enter(connections: &Arc<Connections>, peer: IpAddr) -> Option<Arc<Connection>> {
    let connection = connections.enter(peer, Instant::now());
    if connection.is_none() {
        tracing::debug!("a connection was closed: its address, or the gateway, holds too many");
    }
    connection
}

/// How many files this process may open, after it asked for as many as the system grants.
fn open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("the limit of open files stays: {error}");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections of clients so many files allow: each may need one of an upstream besides.
fn places_for(files: u64) -> usize {
    usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX).max(16)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_connection_has_a_file_for_its_upstream() {
        assert_eq!(super::places_for(1024), 384);
        assert_eq!(super::places_for(100), 16);
        assert!(super::places_for(u64::MAX) > 1_000_000);
    }
}
