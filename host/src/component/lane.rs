//! The slow lane: threads of their own for guests that do not finish within a tick. They have a lower priority than the
//! threads that serve requests, so that a guest which computes for long takes only what nobody else wants, and the calls
//! beside it are served as if it were not there.
//!
//! A lane runs one guest at a time, in the order in which they came, to its end or until it waits for the host: what waits
//! gives its turn back. A caller that is gone is noticed at the next tick. In a worker, a thread rests after guests that had to be
//! stopped, so that a tenant whose guests never end does not keep a processor busy for everybody.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How much processor time guests that take long get beside threads that serve requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share {
    /// A tenth.
    Tenth,
    /// What is idle (`SCHED_IDLE`). A thread that serves requests preempts such a thread as soon as it wakes, where it would have to
    /// wait for the end of a slice of some milliseconds otherwise. Guests that have to be stopped get about a tenth of its time.
    Leftover,
}

/// How much nicer than others a thread is that has a tenth.
const NICE: i32 = 10;

/// A guest that had to be stopped costs its thread so many times the time that it ran.
const PRICE: u32 = 10;
/// Time that a thread may owe before it rests: one guest of many that does not end costs the others nothing.
const CREDIT: Duration = Duration::from_millis(200);

/// A guest that a lane can run.
pub(crate) trait LaneGuest: Future + Unpin {
    /// Whether it was only interrupted since this was asked last.
    fn ticked(&self) -> bool;

    /// How long it ran, if it was stopped for that.
    fn overran(&self) -> Option<Duration>;
}

/// Where guests go on that did not finish within a tick.
#[derive(Debug)]
pub(crate) struct SlowLane {
    jobs: Sender<LaneJob>,
}

/// What came of a guest's turn.
pub(crate) enum Turn<G, T> {
    /// It is done.
    Done(T),
    /// It waits for the host.
    Waits(G),
}

/// Runs a guest, and says how long it ran if it was stopped for that.
type LaneJob = Box<dyn FnOnce() -> Option<Duration> + Send>;

/// When the time has passed that a thread owes.
struct Debt(Instant);

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

// === impl SlowLane ===

impl SlowLane {
    /// A lane beside a runtime of `workers` threads: half as many. They are there, with their priority, when this returns.
    pub(crate) fn start(workers: usize, share: Share) -> io::Result<Self> {
        let (jobs, queue) = channel::<LaneJob>();
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
                work(&queue, share);
            })?;
        }
        drop(ready);
        // The end of the channel is the last thread's word.
        readied.iter().for_each(drop);
        Ok(Self { jobs })
    }

    /// Gives a guest its turn; nothing if the lane is closing. Dropped, the guest is dropped at its next tick.
    pub(crate) async fn run<G>(&self, guest: G) -> Option<Turn<G, G::Output>>
    where
        G: LaneGuest<Output: Send> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            let (turn, overran) = drive(guest, || answer.is_closed());
            if let Some(turn) = turn {
                // The caller may have gone just now.
                drop(answer.send(turn));
            }
            overran
        });
        self.jobs.send(job).ok()?;
        answered.await.ok()
    }
}

// === impl Debt ===

impl Debt {
    /// How long to rest now, at `now`, after a guest that was stopped when it had run for `ran`.
    fn owe(&mut self, ran: Duration, now: Instant) -> Duration {
        self.0 = self.0.max(now) + ran * PRICE;
        self.0.duration_since(now).saturating_sub(CREDIT)
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
fn work(queue: &Mutex<Receiver<LaneJob>>, share: Share) {
    let mut debt = Debt(Instant::now());
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        if let (Some(ran), Share::Leftover) = (job(), share) {
            thread::sleep(debt.owe(ran, Instant::now()));
        }
    }
}

/// Polls a guest until it is done, waits for the host, or nobody wants its answer; and says how long it ran, if it was stopped.
fn drive<G: LaneGuest>(
    mut guest: G,
    gone: impl Fn() -> bool,
) -> (Option<Turn<G, G::Output>>, Option<Duration>) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    while !gone() {
        match Pin::new(&mut guest).poll(&mut context) {
            Poll::Ready(value) => return (Some(Turn::Done(value)), guest.overran()),
            Poll::Pending if guest.ticked() => thread::park(),
            Poll::Pending => return (Some(Turn::Waits(guest)), None),
        }
    }
    (None, None)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a guest may run for that decides.
    const RAN: Duration = Duration::from_millis(20);

    #[test]
    fn one_guest_that_does_not_end_costs_no_rest() {
        let start = Instant::now();
        let mut debt = Debt(start);
        for second in 0..10 {
            assert_eq!(debt.owe(RAN, start + Duration::from_secs(second)), Duration::ZERO);
        }
    }

    #[test]
    fn guests_that_never_end_have_a_tenth_of_their_thread() {
        let start = Instant::now();
        let (mut debt, mut now, mut worked) = (Debt(start), start, Duration::ZERO);
        for _ in 0..100 {
            now += RAN;
            worked += RAN;
            now += debt.owe(RAN, now);
        }
        let share = worked.as_secs_f64() / now.duration_since(start).as_secs_f64();
        assert!((0.1..0.102).contains(&share), "{share}");
    }
}
