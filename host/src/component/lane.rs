//! The slow lane: threads of their own for guests that do not finish within a tick. They have a lower priority than the
//! threads that serve requests, so that a guest which computes for long takes only what nobody else wants, and the calls
//! beside it are served as if it were not there.
//!
//! A lane runs one guest at a time, in the order in which they came, to its end or until it waits for the host: what waits
//! gives its turn back. A caller that is gone is noticed at the next tick.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How much nicer the threads are: a tenth of a processor where everybody wants it.
const NICE: i32 = 10;

/// Where guests go on that did not finish within a tick.
#[derive(Debug)]
pub(crate) struct SlowLane {
    jobs: Sender<Job>,
}

/// What came of a guest's turn.
pub(crate) enum Turn<G, T> {
    /// It is done.
    Done(T),
    /// It waits for the host.
    Waits(G),
}

type Job = Box<dyn FnOnce() + Send>;

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

// === impl SlowLane ===

impl SlowLane {
    /// A lane beside a runtime of `workers` threads: half as many.
    pub(crate) fn start(workers: usize) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..(workers / 2).max(1) {
            let queue = Arc::clone(&queue);
            // What a guest asks of the host may need the runtime's clock and sockets.
            let runtime = Handle::try_current().ok();
            thread::Builder::new().name(format!("guest-slow-{number}")).spawn(move || {
                let _entered = runtime.as_ref().map(Handle::enter);
                work(&queue);
            })?;
        }
        Ok(Self { jobs })
    }

    /// Gives a guest its turn; nothing if the lane is closing. `ticked` says, once, whether the guest was only interrupted.
    /// Dropped, the guest is dropped at its next tick.
    pub(crate) async fn run<G>(&self, guest: G, ticked: fn(&G) -> bool) -> Option<Turn<G, G::Output>>
    where
        G: Future<Output: Send> + Unpin + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            if let Some(turn) = drive(guest, ticked, || answer.is_closed()) {
                // The caller may have gone just now.
                drop(answer.send(turn));
            }
        });
        self.jobs.send(job).ok()?;
        answered.await.ok()
    }
}

// === impl Unpark ===

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

// === private helpers ===

/// A thread of the lane.
fn work(queue: &Mutex<Receiver<Job>>) {
    step_back();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// Polls a guest until it is done, waits for the host, or nobody wants its answer.
fn drive<G: Future + Unpin>(
    mut guest: G,
    ticked: fn(&G) -> bool,
    gone: impl Fn() -> bool,
) -> Option<Turn<G, G::Output>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    while !gone() {
        match Pin::new(&mut guest).poll(&mut context) {
            Poll::Ready(value) => return Some(Turn::Done(value)),
            Poll::Pending if ticked(&guest) => thread::park(),
            Poll::Pending => return Some(Turn::Waits(guest)),
        }
    }
    None
}

/// Gives this thread a lower priority. Where that cannot be had, the lane is only as narrow as its threads are few.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "guests that compute for long run at the priority of all others");
    }
}
