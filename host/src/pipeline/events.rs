//! Server-sent events that are made while they are read. The future that serves the call is polled by the connection that reads:
//! no task, no channel. Where a stream is silent for long, a ping goes out, whatever the call is waiting for.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sallyport_protocol::messages::event::StreamEvent;
use tokio::time::{Instant, Sleep};

/// The events of a stream. Dropped before its end, because the client has left, it ends its call.
pub struct Events {
    /// The rest of the call; `None` at its end.
    call: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    slot: Arc<Slot>,
    /// After so much silence there is a ping.
    quiet: Duration,
    /// When the client was given something last.
    spoke: Instant,
    /// Fires no later than a ping is due; set anew when it fires, not with each event.
    alive: Pin<Box<Sleep>>,
}

/// Longer than any answer takes.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Where a call leaves the bytes that its client reads next. There is room for one piece.
#[derive(Default)]
pub(super) struct Slot {
    piece: Mutex<Option<Bytes>>,
    /// What was left is not all that there should have been.
    cut: AtomicBool,
}

// === impl Slot ===

impl Slot {
    /// Leaves a piece; goes on once it was taken.
    pub(super) async fn send(&self, bytes: Bytes) {
        self.leave(bytes);
        // Who takes it polls the call again.
        poll_fn(|_| if self.lock().is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Leaves the last piece.
    pub(super) fn leave(&self, bytes: Bytes) {
        *self.lock() = Some(bytes);
    }

    /// Nothing more comes, and who reads has to see that something is missing.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> Option<Bytes> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Bytes>> {
        self.piece.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Events ===

impl Events {
    /// The events that `call` leaves in `slot`, with pings after so much silence.
    pub(super) fn new(
        slot: Arc<Slot>,
        quiet: Duration,
        call: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let spoke = Instant::now();
        let alive = Box::pin(tokio::time::sleep_until(spoke + quiet));
        Self { call: Some(Box::pin(call)), slot, quiet, spoke, alive }
    }

    /// The bytes that `call` leaves in `slot`, and nothing else, however long that takes.
    pub(super) fn plain(slot: Arc<Slot>, call: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::new(slot, NEVER, call)
    }

    /// Whether what was read is not all that there should have been.
    pub fn is_cut(&self) -> bool {
        self.slot.cut.load(Ordering::Relaxed)
    }

    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(call) = &mut self.call else { return Poll::Ready(self.slot.take()) };
        if call.as_mut().poll(context).is_ready() {
            self.call = None;
            return Poll::Ready(self.slot.take());
        }
        if let Some(bytes) = self.slot.take() {
            self.spoke = Instant::now();
            return Poll::Ready(Some(bytes));
        }
        while self.alive.as_mut().poll(context).is_ready() {
            let (now, due) = (Instant::now(), self.spoke + self.quiet);
            if now >= due {
                self.spoke = now;
                self.alive.as_mut().reset(now + self.quiet);
                let mut ping = Vec::new();
                StreamEvent::Ping.write(&mut ping);
                return Poll::Ready(Some(ping.into()));
            }
            self.alive.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(events: &mut Events) -> Option<String> {
        let bytes = poll_fn(|context| events.poll_next(context)).await?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_a_call_leaves_is_read_in_order_and_its_silence_is_filled() {
        let slot = Arc::new(Slot::default());
        let quiet = Duration::from_millis(40);
        let left = Arc::clone(&slot);
        let mut events = Events::new(slot, quiet, async move {
            left.send("a".into()).await;
            left.send("b".into()).await;
            tokio::time::sleep(quiet * 5).await;
            left.send("c".into()).await;
            left.leave("d".into());
        });
        let mut heard = Vec::new();
        while let Some(text) = next(&mut events).await {
            let name = if text.contains("event: ping") { "ping".to_owned() } else { text };
            heard.push((name, Instant::now()));
        }
        for pair in heard.windows(2) {
            if let [(_, before), (name, at)] = pair
                && name == "ping"
            {
                // After that much silence, not after that much time since the last ping was due.
                assert!(*at - *before >= quiet, "{heard:?}");
            }
        }
        heard.dedup_by(|(one, _), (other, _)| one == other);
        let names: Vec<_> = heard.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "ping", "c", "d"]);
        assert_eq!(next(&mut events).await, None);
    }

    #[tokio::test]
    async fn who_drops_the_events_drops_the_call() {
        let slot = Arc::new(Slot::default());
        let kept = Arc::new(());
        let (held, left) = (Arc::clone(&kept), Arc::clone(&slot));
        let mut events = Events::new(slot, Duration::from_mins(1), async move {
            left.send("a".into()).await;
            std::future::pending::<()>().await;
            drop(held);
        });
        assert_eq!(next(&mut events).await.as_deref(), Some("a"));
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(events);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
