//! A call from its intent to its end. Whatever becomes of it, its row is closed with all that is known by then: a client that
//! leaves drops the future that serves it, and with it what is here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use sallyport_protocol::errors::ErrorCode;
use tokio::runtime::Handle;

use super::attempt::Attempts;
use super::exchange::{Begin, Exchanging};
use super::gate::Gate;
use super::refuse::RefusalCode;
use super::row::CallEnding;
use super::{Call, Pipeline, Refusal};
use crate::audit::{OpenRow, Opening, Unavailable};
use crate::config::{BreakerSettings, RouteTarget};
use crate::upstream::Breaker;

/// The status of a row whose client left before it had an answer; no client ever sees it.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A call whose row is not closed yet. Dropped, it is closed as one whose client has left.
pub(super) struct Underway {
    pipeline: Arc<Pipeline>,
    /// `None` once its end is being written, or where it has no row.
    going: Option<Box<Going>>,
}

/// What a call is made of while it goes on.
pub(super) struct Going {
    pub(super) call: Call,
    /// The targets that may be asked, until one begins to answer.
    attempts: Option<Attempts>,
    /// The provider at work, until it and its upstream are let go.
    pub(super) exchanging: Option<Exchanging>,
    /// What reads a stream along.
    pub(super) gate: Option<Gate>,
    /// The upstream whose answer began, and when it is left alone: it may break off yet.
    watched: Option<(Arc<Breaker>, Option<BreakerSettings>)>,
    row: RowState,
    /// The client had the head of its stream before anything was known of the upstream.
    early: Arc<AtomicBool>,
}

/// The row of a call: its intent is on its way to the disk, or there.
enum RowState {
    Opening(Opening),
    Open(OpenRow),
}

// === impl Underway ===

impl Underway {
    /// Begins to write the intent of a call. The call goes on once it is durable and nobody has said no.
    pub(super) async fn begin(pipeline: &Arc<Pipeline>, call: Call) -> Result<Self, Refusal> {
        let row = RowState::Opening(pipeline.audit.open(call.record.intent()));
        let attempts = Some(Attempts::of(&call));
        let going =
            Going { call, attempts, exchanging: None, gate: None, watched: None, row, early: Arc::default() };
        let mut underway = Self { pipeline: Arc::clone(pipeline), going: Some(Box::new(going)) };
        match underway.admit().await {
            Ok(()) => Ok(underway),
            Err(refusal) => Err(underway.fail(refusal).await),
        }
    }

    /// No row, no answer: both must be done before anything goes upstream, so they are awaited together.
    async fn admit(&mut self) -> Result<(), Refusal> {
        let Self { pipeline, going: Some(going) } = self else { return Err(lost()) };
        let (opened, authorized) = tokio::join!(going.row.opened(), pipeline.authorize(&mut going.call));
        if let Err(unavailable) = opened {
            self.going = None;
            return Err(Refusal::AuditUnavailable(unavailable));
        }
        authorized
    }

    /// The call, while it goes on.
    pub(super) fn going(&mut self) -> Option<&mut Going> {
        self.going.as_deref_mut()
    }

    /// The pipeline, and the call while it goes on.
    pub(super) fn parts(&mut self) -> (&Pipeline, Option<&mut Going>) {
        (&self.pipeline, self.going.as_deref_mut())
    }

    /// Asks upstreams until it is known what the client gets: once, since no other is asked after an answer has begun.
    pub(super) async fn answer(&mut self) -> Begin {
        let Self { pipeline, going: Some(going) } = self else { return Begin::Refused(lost()) };
        let Some(attempts) = going.attempts.take() else { return Begin::Refused(lost()) };
        let begin = attempts.run(pipeline, going).await;
        if !matches!(begin, Begin::Refused(_)) {
            going.call.record.first_byte(pipeline.clock.as_ref());
        }
        begin
    }

    /// Ends in `refusal`, or in the trail's failure to keep it.
    pub(super) async fn fail(self, refusal: Refusal) -> Refusal {
        let Some(going) = &self.going else { return refusal };
        let refusal = refusal.of_size(going.call.request.body.bytes.len());
        match self.end(&refusal.ending()).await {
            Ok(()) => refusal,
            Err(unavailable) => Refusal::AuditUnavailable(unavailable),
        }
    }

    /// Lets the upstream go, and closes the row.
    pub(super) async fn end(mut self, ending: &CallEnding) -> Result<(), Unavailable> {
        let Some(mut going) = self.going.take() else { return Ok(()) };
        going.let_go();
        going.tell_breaker(&self.pipeline, ending);
        going.close(&self.pipeline, ending).await
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let Some(mut going) = self.going.take() else { return };
        going.let_go();
        // Whatever broke here was not the client. Without a runtime nobody could write more than the drop of the row does.
        let Ok(runtime) = Handle::try_current() else { return };
        if std::thread::panicking() {
            return;
        }
        let pipeline = Arc::clone(&self.pipeline);
        self.pipeline.tasks.spawn_on(async move { going.left(&pipeline).await }, &runtime);
    }
}

// === impl Going ===

impl Going {
    /// What says that the head went out before anything was known of the upstream.
    pub(super) fn early(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.early)
    }

    /// What becomes of the answer that has begun is told to this breaker too.
    pub(super) fn watch(&mut self, breaker: &Arc<Breaker>, target: &RouteTarget) {
        self.watched = Some((Arc::clone(breaker), target.breaker));
    }

    /// An answer that broke off is a failure of its upstream.
    fn tell_breaker(&mut self, pipeline: &Pipeline, ending: &CallEnding) {
        let broke_off = [ErrorCode::UpstreamAnswer, ErrorCode::UpstreamError].map(RefusalCode::Own);
        if let Some((breaker, settings)) = self.watched.take()
            && self.gate.is_some()
            && ending.code.as_ref().is_some_and(|code| broke_off.contains(code))
        {
            breaker.broke_off(settings, pipeline.clock.monotonic());
        }
    }

    /// Headers of the upstream's answer that the client sees.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        self.exchanging.as_mut().map(Exchanging::take_headers).unwrap_or_default()
    }

    /// The upstream is let go, so that nothing keeps it busy, and the row says what provider and upstream did.
    pub(super) fn let_go(&mut self) {
        let Self { call: Call { record, .. }, exchanging, gate, .. } = self;
        if let Some(gate) = gate {
            record.used(gate.usage());
            if let Some(worth) = gate.provisional() {
                record.note("usage", worth);
            }
        }
        if let Some(exchanging) = exchanging.take() {
            record.provider(exchanging.part());
        }
    }

    /// Closes the row of a call whose client has left.
    async fn left(self: Box<Self>, pipeline: &Pipeline) {
        let (status, reason) = if self.gate.is_some() || self.early.load(Ordering::Relaxed) {
            (200, "the client went away")
        } else {
            (CLIENT_CLOSED_REQUEST, "the client went away before its answer began")
        };
        let ending =
            CallEnding { status: Some(status), ..CallEnding::failed(ErrorCode::ClientDisconnected, reason) };
        // Nobody is left to be told.
        drop(self.close(pipeline, &ending).await);
    }

    async fn close(self: Box<Self>, pipeline: &Pipeline, ending: &CallEnding) -> Result<(), Unavailable> {
        let Self { mut call, mut row, early, .. } = *self;
        if early.load(Ordering::Relaxed) {
            call.record.note("head_before_upstream", true);
        }
        row.opened().await?;
        match row {
            RowState::Open(open) => pipeline.finish.close(call, open, ending).await,
            RowState::Opening(_) => Ok(()),
        }
    }
}

// === impl RowState ===

impl RowState {
    /// Waits until the intent is durable.
    async fn opened(&mut self) -> Result<(), Unavailable> {
        if let Self::Opening(opening) = self {
            *self = Self::Open(opening.await?);
        }
        Ok(())
    }
}

// === private helpers ===

pub(super) fn lost() -> Refusal {
    Refusal::BadAnswer { what: "it was lost within the gateway".to_owned() }
}
