//! The accept loops: HTTP/1.1 and HTTP/2 on each listener, with limits on how many may be connected, how long a connection may say
//! nothing and how long a head may take, and a drain at the end.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Version, header};
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{ActiveRequest, Connection, ConnectionLimits, Connections};
use super::error::ApiError;
use super::linger::{self, ReadBody};
use super::listen::{HttpListener, Peer, is_among};
use super::metrics::ListenerCounts;
use super::threads::{ServingThreads, SharedExecutor};
use super::{Edge, HttpSettings, router, secure};
use crate::tls::{Encrypted, Handshake, Tls};

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

/// Serves on every listener until `shutdown`, then lets running answers end.
pub(crate) async fn serve(
    listeners: Vec<HttpListener>,
    edge: Arc<Edge>,
    threads: &ServingThreads,
    tasks: &TaskTracker,
    shutdown: CancellationToken,
) {
    let settings = **edge.settings.load();
    let total = settings.connections.total.min(places_for(open_files()));
    let open = TaskTracker::new();
    let accepting = listeners.into_iter().map(|listener| {
        let limits = ConnectionLimits { total: listener.share(total), ..settings.connections };
        let listening = Arc::new(Listening {
            builder: builder(&settings),
            router: router(Arc::clone(&edge), listener.surface),
            edge: Arc::clone(&edge),
            settings,
            shutdown: shutdown.clone(),
            tls: listener.tls.clone(),
            counts: Arc::clone(edge.counts.of(listener.surface.name())),
        });
        accept(listener, listening, limits, threads, tasks, &open)
    });
    futures_util::future::join_all(accepting).await;
    open.close();
    if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
        tracing::warn!("some answers did not end within {DRAIN:?} and are cut");
    }
}

/// Accepts connections of one listener until the gateway is told to end.
async fn accept(
    listener: HttpListener,
    listening: Arc<Listening>,
    limits: ConnectionLimits,
    threads: &ServingThreads,
    tasks: &TaskTracker,
    open: &TaskTracker,
) {
    let connections = Connections::new(limits);
    loop {
        let (stream, address) = tokio::select! {
            () = listening.shutdown.cancelled() => break,
            accepted = listener.socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(connection) = enter(&listener, &connections, address, &listening.edge) else {
            listening.counts.turn_away();
            continue;
        };
        let listening = Arc::clone(&listening);
        let handshake = listener.handshake();
        let (runtime, assigned) = threads.assign();
        let served = async move {
            let _assigned = assigned;
            let _counted = listening.counts.enter();
            // From here on its events come to the thread that serves it.
            let stream = match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!("a connection could not be served: {error}");
                    return;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("a connection keeps its delay: {error}");
            }
            let peer = Peer { address, certificate: None };
            match handshake {
                None => listening.answer(TokioIo::new(stream), peer, connection).await,
                // On the heap: a connection in clear need not have room for it.
                Some(handshake) => {
                    Box::pin(listening.answer_encrypted(handshake, stream, peer, connection)).await;
                }
            }
        };
        tasks.spawn_on(open.track_future(served), &runtime);
    }
}

/// What all connections of a listener share.
struct Listening {
    builder: Builder<SharedExecutor>,
    router: Router,
    edge: Arc<Edge>,
    settings: HttpSettings,
    shutdown: CancellationToken,
    tls: Option<Arc<Tls>>,
    counts: Arc<ListenerCounts>,
}

/// The body of an answer, which keeps its connection busy to the last byte.
struct BusyBody {
    body: Body,
    _request: ActiveRequest,
}

// === impl Listening ===

impl Listening {
    /// Shakes hands and answers. A handshake holds a place like a head that does not come, and no longer than one.
    async fn answer_encrypted(
        self: Arc<Self>,
        handshake: Handshake,
        stream: TcpStream,
        peer: Peer,
        connection: Arc<Connection>,
    ) {
        let begun = tokio::select! {
            begun = secure::begin(handshake, stream, &self.edge) => begun,
            () = self.shutdown.cancelled() => None,
            () = connection.overdue(self.settings.head_timeout, self.settings.idle_timeout) => None,
        };
        let Some(Encrypted { stream, client }) = begun else {
            self.counts.fail_handshake();
            return;
        };
        let peer = Peer { certificate: client.map(Arc::new), ..peer };
        self.answer(TokioIo::new(stream), peer, connection).await;
    }

    /// Answers the requests of one connection until it ends or has to go. `stream` carries bytes of HTTP, whatever is below them.
    async fn answer<S>(self: Arc<Self>, stream: S, peer: Peer, connection: Arc<Connection>)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let active = connection.begin();
            // HTTP/2 ends one request without ending its connection.
            let shares_connection = request.version() >= Version::HTTP_2;
            let (head, body) = request.into_parts();
            let (body, end) = ReadBody::of(body);
            let mut request = hyper::Request::from_parts(head, body);
            request.extensions_mut().insert(Arc::clone(&connection));
            request.extensions_mut().insert(peer.clone());
            let answer = router.call(request);
            let listening = Arc::clone(&self);
            async move {
                let mut response = listening.in_our_shape(answer.await?);
                listening.counts.answer(response.status());
                if !shares_connection && !end.is_reached() {
                    // The next request would begin behind what nobody read.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(
                    response.map(|body| Body::new(BusyBody { body, _request: active })),
                )
            }
        });
        let (stream, returned) = linger::lend(stream);
        let ended = {
            let mut served = pin!(self.builder.serve_connection(stream, service));
            tokio::select! {
                ended = served.as_mut() => ended,
                () = self.ends(&peer) => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
                () = connection.overdue(self.settings.head_timeout, self.settings.idle_timeout) => {
                    served.as_mut().graceful_shutdown();
                    drop(tokio::time::timeout(CLOSE_TIMEOUT, served).await);
                    return;
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended early: {error}");
            return;
        }
        let Ok(stream) = returned.await else { return };
        tokio::select! {
            () = linger::read_out(stream) => {}
            () = self.shutdown.cancelled() => {}
            () = connection.overdue(self.settings.head_timeout, self.settings.idle_timeout) => {}
        }
    }

    /// Resolves when a connection takes no more requests: the gateway is told to end, or the client's certificate is taken no more.
    async fn ends(&self, peer: &Peer) {
        let distrusted = async {
            match (&self.tls, &peer.certificate) {
                (Some(tls), Some(certificate)) => tls.distrusts(certificate).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = distrusted => tracing::info!("a connection ends: the certificate of its client is taken no more"),
        }
    }

    /// Every error of ours is JSON; a text is the router's, about a path or a query that it could not read.
    fn in_our_shape(&self, response: Response) -> Response {
        let is_text = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
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

fn builder(settings: &HttpSettings) -> Builder<SharedExecutor> {
    let mut builder = Builder::new(SharedExecutor::current());
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

/// A place for a new connection, if its address may have one.
fn enter(
    listener: &HttpListener,
    connections: &Arc<Connections>,
    peer: SocketAddr,
    edge: &Edge,
) -> Option<Arc<Connection>> {
    let config = edge.pipeline.config();
    let proxies = &config.server.trusted_proxies;
    if !listener.takes(peer.ip(), proxies) {
        tracing::debug!("a connection in clear was closed: it is not from a proxy in server.trusted_proxies");
        return None;
    }
    let counted = (!is_among(peer.ip(), proxies)).then(|| peer.ip());
    let connection = connections.enter(counted, Instant::now());
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
