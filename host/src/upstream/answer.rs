//! Answers of upstreams: the head, and the body as it comes, whatever the connection speaks.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::h1::{self, H1Connection};
use super::origin::Origin;
use crate::component::contract::provider::TransportFault;
use crate::config::SecretString;

/// The head of an upstream's answer, and its body to come.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// The body.
    pub body: AnswerBody,
    /// What was made of the credential for this request: an upstream that repeats it is not to be handed through.
    pub shown: Vec<SecretString>,
}

/// A body that arrives in pieces. Dropped, its connection is closed.
#[derive(Debug)]
pub struct AnswerBody {
    source: BodySource,
    idle: Idle,
    /// Pieces that were read and given back.
    unread: VecDeque<Bytes>,
}

/// What a body is read from.
#[derive(Debug)]
enum BodySource {
    Http1(Box<h1::H1Body>),
    Http2(Incoming),
}

/// How long may pass until something comes. One timer for all waits of a body: it is set anew when it rings, and not with each piece.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What went wrong on the way to an upstream, or back.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// No connection: name, TCP, or TLS.
    #[error("no connection")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// It ended before the answer did.
    #[error("the connection ended before the answer did")]
    Early,
    /// The answer is not read, since it may be read in two ways or in none.
    #[error("the answer cannot be read")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// HTTP/2 failed.
    #[error("HTTP/2 failed")]
    Http2(#[source] hyper::Error),
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke.
    #[error("the upstream broke off")]
    Closed(#[source] Broken),
    /// Nothing came for too long.
    #[error("the upstream fell silent")]
    Silent,
}

// === impl Answer ===

impl Answer {
    /// One on a connection of its own.
    pub(super) fn own(head: h1::Head, connection: H1Connection, origin: Arc<Origin>, idle: Duration) -> Self {
        let h1::Head { status, headers, body, reusable } = head;
        let source = BodySource::Http1(Box::new(h1::H1Body::new(connection, body, reusable, origin)));
        Self { status, headers, body: AnswerBody::new(source, idle), shown: Vec::new() }
    }

    /// One on a connection with others.
    pub(super) fn shared(response: http::Response<Incoming>, idle: Duration) -> Self {
        let (head, incoming) = response.into_parts();
        let body = AnswerBody::new(BodySource::Http2(incoming), idle);
        Self { status: head.status, headers: head.headers, body, shown: Vec::new() }
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    fn new(source: BodySource, idle: Duration) -> Self {
        Self { source, idle: Idle { limit: idle, timer: None }, unread: VecDeque::new() }
    }

    /// Gives pieces back: they come next, in this order.
    pub fn unread(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces.into_iter().rev() {
            self.unread.push_front(piece);
        }
    }

    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Self { source, idle, unread } = self;
        if let Some(piece) = unread.pop_front() {
            return Ok(Some(piece));
        }
        match source {
            BodySource::Http1(body) => idle.within(body.chunk()).await?.map_err(BodyError::Closed),
            BodySource::Http2(incoming) => loop {
                match idle.within(incoming.frame()).await? {
                    None => return Ok(None),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Ok(Some(data)),
                        // Trailers and empty pieces mean nothing here.
                        _ => {}
                    },
                    Some(Err(error)) => return Err(BodyError::Closed(Broken::Http2(error))),
                }
            },
        }
    }
}

// === impl Idle ===

impl Idle {
    /// What the future says, if it says so in time.
    async fn within<T>(&mut self, future: impl Future<Output = T>) -> Result<T, BodyError> {
        let mut future = pin!(future);
        let mut until = None;
        poll_fn(|context| {
            if let Poll::Ready(said) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(said));
            }
            let until = *until.get_or_insert_with(|| Instant::now() + self.limit);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            while timer.as_mut().poll(context).is_ready() {
                if Instant::now() >= until {
                    return Poll::Ready(Err(BodyError::Silent));
                }
                timer.as_mut().reset(until);
            }
            Poll::Pending
        })
        .await
    }
}

// === impl BodyError ===

impl BodyError {
    /// In the words of the contract.
    pub fn fault(&self) -> TransportFault {
        match self {
            Self::Closed(_) => TransportFault::Closed,
            Self::Silent => TransportFault::TimedOut,
        }
    }
}
