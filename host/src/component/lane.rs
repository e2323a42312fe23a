//! The slow lane: threads of their own for guests that do not finish within a tick. They have a lower priority than the
//! threads that serve requests, so that a guest which computes for long takes only what nobody else wants, and the calls
//! beside it are served as if it were not there.
//!
//! Guests never wait for anything but time on a processor, so a lane runs one at a time, to its end, in the order in which
//! they came. A caller that is gone is noticed at the next tick.

use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::oneshot;

/// How much nicer the threads are: a tenth of a processor where everybody wants it.
const NICE: i32 = 10;

/// Where guests go on that did not finish within a tick.
#[derive(Debug)]
pub(crate) struct SlowLane {
    jobs: Sender<Job>,
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
            thread::Builder::new().name(format!("guest-slow-{number}")).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs a guest to its end; nothing if the lane is closing. Dropped, the guest is dropped at its next tick.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        guest: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            if let Some(value) = drive(guest, || answer.is_closed()) {
                // The caller may have gone just now.
                drop(answer.send(value));
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

/// Polls a guest until it is done or nobody wants its answer.
fn drive<T>(guest: impl Future<Output = T>, gone: impl Fn() -> bool) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut guest = pin!(guest);
    while !gone() {
        match guest.as_mut().poll(&mut context) {
            Poll::Ready(value) => return Some(value),
            Poll::Pending => thread::park(),
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
