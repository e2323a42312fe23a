//! A connection of HTTP/1.1 that the call owns: no task stands behind it and nothing is handed over. A request leaves in one write,
//! what a read brings is one piece of the body, and the connection goes back to where it is kept once the answer is over.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, header};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};
use tokio_util::either::Either;

use self::reader::{Framing, Heads, Malformed};
use super::Broken;
use super::connect::{Socket as _, Stream};
use super::origin::Origin;
use super::pieces::Pieces;

mod reader;
#[cfg(test)]
mod tests;

pub(super) use self::reader::{HEAD_BYTES as MOST_HEAD_BYTES, Head, MOST_HEADERS as MOST_ANSWER_HEADERS};

/// Room for one read: as little as an event needs, and more where reads fill it.
const LEAST_ROOM: usize = 8 * 1024;
const MOST_ROOM: usize = 64 * 1024;

/// A connection, and what was read from it and belongs to nobody yet.
#[derive(Debug)]
pub(super) struct H1Connection {
    stream: Stream,
    buffer: BytesMut,
    room: usize,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// No byte of it was taken by the connection: another one may have it.
    Unsent(Broken),
    /// Some of it was, and nobody knows what the upstream made of it.
    Lost(Broken),
}

/// The body of an answer. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(super) struct H1Body {
    /// Gone once the body is over.
    connection: Option<H1Connection>,
    framing: Framing,
    reusable: bool,
    origin: Arc<Origin>,
}

// === impl H1Connection ===

impl H1Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: BytesMut::new(), room: LEAST_ROOM }
    }

    /// Whether the upstream keeps it open and said nothing since the last answer. Asked of the system itself: what the runtime knows
    /// may be older than the upstream's leave.
    pub(super) fn is_live(&self) -> bool {
        let socket = self.stream.socket();
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let said = rustix::net::recv(socket, &mut [0_u8; 1], flags);
        self.buffer.is_empty() && matches!(said, Err(rustix::io::Errno::AGAIN))
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn ask(&mut self, request: &Request<Pieces>) -> Result<Head, Failed> {
        let head = head_of(request);
        let mut slices = Vec::with_capacity(1 + request.body().len());
        slices.push(IoSlice::new(&head));
        slices.extend(request.body().iter().map(|piece| IoSlice::new(piece)));
        let mut heads = Heads::new(request.method() == Method::HEAD);
        if let Some(early) = self.write(&mut slices, &mut heads).await? {
            return Ok(early);
        }
        self.head(&mut heads).await.map_err(Failed::Lost)
    }

    /// Writes all of it. An upstream that answers before it has read everything is heard: its answer ends the writing where it is
    /// an error, and waits for the rest where it is none.
    async fn write(&mut self, slices: &mut [IoSlice<'_>], heads: &mut Heads) -> Result<Option<Head>, Failed> {
        let mut left = slices;
        let mut begun = false;
        let mut early = None;
        let written = poll_fn(|context| {
            loop {
                let stream = Pin::new(&mut self.stream);
                let written = if left.is_empty() {
                    match stream.poll_flush(context) {
                        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        Poll::Pending => Poll::Pending,
                    }
                } else {
                    stream.poll_write_vectored(context, left)
                };
                match written {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(Broken::Io(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(count)) => {
                        begun = true;
                        IoSlice::advance_slices(&mut left, count);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Io(error))),
                    Poll::Pending if early.is_some() => return Poll::Pending,
                    Poll::Pending => {
                        // The upstream reads no more for now. Perhaps it says why.
                        if ready!(self.poll_fill(context)).map_err(Broken::Io)? == 0 {
                            return Poll::Ready(Err(Broken::Early));
                        }
                        early = heads.next(&mut self.buffer)?;
                        if early.as_ref().is_some_and(|head| head.status.as_u16() >= 300) {
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            }
        })
        .await;
        let whole = left.is_empty();
        match written {
            Ok(()) => Ok(early.map(|head| Head { reusable: head.reusable && whole, ..head })),
            Err(broken) if !begun => Err(Failed::Unsent(broken)),
            // It may have answered before it left.
            Err(broken) => match early {
                Some(head) => Ok(Some(Head { reusable: false, ..head })),
                None => match self.head(heads).await {
                    Ok(head) => Ok(Some(Head { reusable: false, ..head })),
                    Err(_) => Err(Failed::Lost(broken)),
                },
            },
        }
    }

    async fn head(&mut self, heads: &mut Heads) -> Result<Head, Broken> {
        loop {
            if let Some(head) = heads.next(&mut self.buffer)? {
                return Ok(head);
            }
            if self.fill().await.map_err(Broken::Io)? == 0 {
                return Err(Broken::Early);
            }
        }
    }

    /// Reads what is there, or waits for it; 0 at the connection's end. Nothing is lost where the future is dropped.
    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_readable(context)).await?;
        self.make_room();
        let count = self.stream.read_buf(&mut self.buffer).await?;
        self.fit(count);
        Ok(count)
    }

    /// The same, polled.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; 1024];
        let mut piece = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        self.buffer.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Waits until there may be something to read. A stream waits for most of its life, and holds no room meanwhile. What is encrypted
    /// may have been read from the socket already.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Either::Left(stream) = &self.stream else { return Poll::Ready(Ok(())) };
        let readable = stream.poll_read_ready(context);
        if readable.is_pending() && self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        readable
    }

    fn make_room(&mut self) {
        self.buffer.reserve(self.room);
    }

    /// Makes the next read larger where this one filled its room, and smaller where it needed little of it.
    fn fit(&mut self, count: usize) {
        if count >= self.room {
            self.room = (self.room * 2).min(MOST_ROOM);
        } else if count < self.room / 4 {
            self.room = (self.room / 2).max(LEAST_ROOM);
        }
    }
}

// === impl Broken ===

impl From<Malformed> for Broken {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(Box::new(malformed))
    }
}

// === impl H1Body ===

impl H1Body {
    /// The body that follows `head` on `connection`, which is `origin`'s.
    pub(super) fn new(
        connection: H1Connection,
        framing: Framing,
        reusable: bool,
        origin: Arc<Origin>,
    ) -> Self {
        let mut body = Self { connection: Some(connection), framing, reusable, origin };
        if body.framing.is_over() {
            body.end();
        }
        body
    }

    /// The next piece: all that one read brought, without its framing. `None` at the end. Nothing is lost where the future is
    /// dropped.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let Some(connection) = &mut self.connection else { return Ok(None) };
            let piece = self.framing.take(&mut connection.buffer)?;
            if self.framing.is_over() {
                self.end();
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            let Some(connection) = &mut self.connection else { return Ok(None) };
            if connection.fill().await.map_err(Broken::Io)? == 0 {
                if !self.framing.may_end() {
                    return Err(Broken::Early);
                }
                self.connection = None;
            }
        }
    }

    /// Lets the connection go: back to where it is kept, or, where something follows the body that nobody asked for, away.
    fn end(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.reusable
            && connection.buffer.is_empty()
        {
            self.origin.keep(connection);
        }
    }
}

// === private helpers ===

/// The head of a request as it goes over the wire.
fn head_of(request: &Request<Pieces>) -> Vec<u8> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let length = request.body().iter().map(Bytes::len).sum::<usize>();
    let mut head = Vec::with_capacity(256 + target.len() + size_of_headers(request.headers()));
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\nhost: "] {
        head.extend_from_slice(part.as_bytes());
    }
    head.extend_from_slice(host(uri).as_bytes());
    for (name, value) in request.headers() {
        for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            head.extend_from_slice(part);
        }
    }
    // A request that usually has no body says nothing of one that it does not have.
    if length > 0 || !matches!(*request.method(), Method::GET | Method::HEAD) {
        for part in
            [b"\r\n", header::CONTENT_LENGTH.as_str().as_bytes(), b": ", length.to_string().as_bytes()]
        {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// The authority without the port that goes without saying.
fn host(uri: &http::Uri) -> &str {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let usual = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    authority.strip_suffix(usual).unwrap_or(authority)
}

fn size_of_headers(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}
