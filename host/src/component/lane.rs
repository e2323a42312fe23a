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

/// What is left of a processor for what computes for long, where everybody wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share {
    /// A tenth.
    Tenth,
    /// Nothing to speak of. Threads that serve requests take the processor from such a thread as soon as they wake, where one with
    /// a share may first finish its slice of some milliseconds: what others see of it is next to nothing.
    Leftover,
}

/// How much nicer than others a thread is that has a tenth.
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
    /// A lane beside a runtime of `workers` threads: half as many. They are there, with their priority, when this returns.
    pub(crate) fn start(workers: usize, share: Share) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (ready, readied) = channel::<()>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..(workers / 2).max(1) {
            let (queue, ready) = (Arc::clone(&queue), ready.clone());
            // What a guest asks of the host may need the runtime's clock and sockets.
            let runtime = Handle::try_current().ok();
            thread::Builder::new().name(format!("guest-slow-{number}")).spawn(move || {
                let _entered = runtime.as_ref().map(Handle::enter);
                step_back(share);
                // Whoever starts the lane waits for it.
                drop(ready);
                work(&queue);
            })?;
        }
        drop(ready);
        // The end of the channel is the last thread's word.
        readied.iter().for_each(drop);
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
fn step_back(share: Share) {
    #[cfg(target_os = "linux")]
    {
        let stepped = match share {
            Share::Tenth => rustix::process::setpriority_process(None, NICE).map_err(io::Error::from),
            Share::Leftover => idle(),
        };
        if let Err(error) = stepped {
            tracing::warn!(%error, "guests that compute for long run at the priority of all others");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = share;
}

/// The policy `SCHED_IDLE` of sched(7), for this thread.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix does not have the call")]
fn idle() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param`, which lives until the call returns.
    let answer = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
