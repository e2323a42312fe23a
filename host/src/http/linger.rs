//! The end of a connection on which a request was answered before all of it had come. Closed at once, the system would reset it, and a
//! client that is still sending would lose the answer: it would see a broken pipe where it was told why. So the gateway says that it
//! has ended, and reads what still comes for a while without keeping it (RFC 9112, section 9.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

/// Whoever sends nothing for so long has noticed, or is gone.
const SILENCE: Duration = Duration::from_secs(2);
/// Longest time for all of it.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// Most bytes that are read for nothing.
pub(super) const MOST: usize = 64 * 1024 * 1024;

/// A stream that comes back when the connection on it is done.
pub(super) struct Lent<S> {
    stream: Option<S>,
    back: Option<oneshot::Sender<S>>,
}

/// The body of a request, and whether it was read to its end.
pub(super) struct ReadBody {
    body: Incoming,
    ended: Arc<AtomicBool>,
}

/// Whether a request's body was read to its end.
#[derive(Clone)]
pub(super) struct BodyEnd(Arc<AtomicBool>);

/// Lends a stream to a connection.
pub(super) fn lend<S>(stream: S) -> (Lent<S>, oneshot::Receiver<S>) {
    let (back, returned) = oneshot::channel();
    (Lent { stream: Some(stream), back: Some(back) }, returned)
}

/// Says that the gateway has ended, and reads what the client still sends until it closes, falls silent or sends too much.
pub(super) async fn read_out(stream: impl Read + Write + Unpin) {
    let mut stream = TokioIo::new(stream);
    let read = async {
        let mut bytes = vec![0; 64 * 1024];
        let mut left = MOST;
        // Where the client is gone already there is nothing to say, and nothing comes.
        drop(stream.shutdown().await);
        while let Ok(Ok(read @ 1..)) = tokio::time::timeout(SILENCE, stream.read(&mut bytes)).await {
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    drop(tokio::time::timeout(LONGEST, read).await);
}

// === impl Lent ===

impl<S> Lent<S> {
    fn poll<T>(
        self: Pin<&mut Self>,
        poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        S: Unpin,
    {
        match &mut self.get_mut().stream {
            Some(stream) => poll(Pin::new(stream)),
            // It goes back when this is dropped, and not before.
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Nobody waits for it: then it is closed here.
            drop(back.send(stream));
        }
    }
}

impl<S: Read + Unpin> Read for Lent<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(context, into))
    }
}

impl<S: Write + Unpin> Write for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Write::is_write_vectored)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(context, slices))
    }
}

// === impl ReadBody ===

impl ReadBody {
    /// A body that is watched.
    pub(super) fn of(body: Incoming) -> (Self, BodyEnd) {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, ended: Arc::clone(&ended) }, BodyEnd(ended))
    }
}

impl Body for ReadBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl BodyEnd ===

impl BodyEnd {
    /// Whether all of it was read.
    pub(super) fn is_reached(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
