//! Workers: processes of this same binary that run tenants' guests, without keys, database, network or files. One for each
//! tenant, so that whatever a guest breaks is its own tenant's; one more for components that belong to no tenant.
//!
//! A worker starts when a component moves in, and goes when the last one has moved out. One that ends, hangs or says what no
//! worker says is replaced: the calls it had fail with [`Fault::Worker`], the next ones find its successor, which has the
//! same guests. What the gateway knows of a guest's answer is what the worker says, so a worker is believed nothing that its
//! guest could not have said itself.

mod child;
mod confine;
mod frame;
mod process;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sallyport_protocol::id::TenantId;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::frame::{Answer, Question, Said};
use self::process::{Asked, Process};
use super::call::Ran;
use super::capability::Errand;
use super::contract::{BodyView, Call, hook, policy, scanner};
use super::fault::Fault;
use super::guest::Unfit;
use super::limits::Limits;
use super::state::Scene;

pub use self::child::{worker_child, worker_trial};
pub use self::confine::Confinement;
pub(super) use self::frame::Facts;
pub(super) use super::guest::Load;

/// The argument that makes the binary a worker.
pub const VERB: &str = "run-components";

/// Live guests of one worker.
const POOL: u32 = 64;
/// How long a worker may take until it has all of its guests.
const START: Duration = Duration::from_secs(20);
/// A worker that lived so long did not die of what it did first.
const STEADY: Duration = Duration::from_secs(30);
/// The wait before a start that follows two deaths; doubled with each further one.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait before a start.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// All workers of a gateway.
pub(super) struct Workers {
    program: PathBuf,
    tasks: TaskTracker,
    hired: Mutex<HashMap<Option<TenantId>, Weak<Worker>>>,
}

/// The worker of one tenant, through all of its processes.
pub(super) struct Worker {
    owner: Option<TenantId>,
    program: PathBuf,
    tasks: TaskTracker,
    running: ArcSwapOption<Process>,
    /// Starts come one at a time.
    starting: tokio::sync::Mutex<Record>,
    guests: Mutex<BTreeMap<u32, Arc<Kept>>>,
    next: AtomicU32,
    places: Arc<Semaphore>,
}

/// How the processes before this one ended.
#[derive(Default)]
struct Record {
    deaths: u32,
    not_before: Option<Instant>,
}

/// What a fresh process is given for one guest. The code stays here, so that a restart needs no disk.
struct Kept {
    load: Load,
    code: Vec<u8>,
    scene: Facts,
}

/// A component's place in a worker; dropped, it is free.
pub(super) struct Seat {
    worker: Arc<Worker>,
    guest: u32,
    kept: Arc<Kept>,
}

/// How workers are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roll {
    /// Workers that there should be.
    pub hired: usize,
    /// Those whose process runs.
    pub running: usize,
    /// Those that every wall of the kernel stands around.
    pub confined: usize,
}

/// Starts a worker that has nothing to do, and says what it is confined by.
pub async fn try_worker(program: &Path) -> Result<Confinement, Fault> {
    let tasks = TaskTracker::new();
    let process = Process::launch(program, "try", &tasks, Weak::new())?;
    let confinement = tokio::time::timeout(START, process.ready()).await.map_err(|_| slow())?;
    drop(process);
    tasks.close();
    tasks.wait().await;
    confinement
}

// === impl Workers ===

impl Workers {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program, tasks: TaskTracker::new(), hired: Mutex::default() }
    }

    /// The worker of `owner`.
    pub(super) fn of(&self, owner: Option<&TenantId>) -> Arc<Worker> {
        let mut hired = locked(&self.hired);
        if let Some(worker) = hired.get(&owner.cloned()).and_then(Weak::upgrade) {
            return worker;
        }
        hired.retain(|_, worker| worker.strong_count() > 0);
        let worker = Arc::new(Worker {
            owner: owner.cloned(),
            program: self.program.clone(),
            tasks: self.tasks.clone(),
            running: ArcSwapOption::empty(),
            starting: tokio::sync::Mutex::default(),
            guests: Mutex::default(),
            next: AtomicU32::new(0),
            places: Arc::new(Semaphore::new(usize::try_from(POOL).unwrap_or(usize::MAX))),
        });
        hired.insert(owner.cloned(), Arc::downgrade(&worker));
        worker
    }

    pub(super) fn roll(&self) -> Roll {
        let mut roll = Roll::default();
        for worker in locked(&self.hired).values().filter_map(Weak::upgrade) {
            roll.hired += 1;
            if let Some(process) = worker.alive() {
                roll.running += 1;
                roll.confined += usize::from(process.confinement().is_some_and(Confinement::is_whole));
            }
        }
        roll
    }

    /// Process ids of the workers that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        let hired = locked(&self.hired);
        let alive = hired.values().filter_map(Weak::upgrade).filter_map(|worker| worker.alive());
        alive.filter_map(|process| process.pid()).collect()
    }

    /// Dismisses every worker and waits for its end. None is started any more.
    pub(super) async fn close(&self) {
        self.tasks.close();
        for worker in locked(&self.hired).values().filter_map(Weak::upgrade) {
            worker.running.store(None);
        }
        self.tasks.wait().await;
    }
}

// === impl Worker ===

impl Worker {
    /// Makes code callable in this worker.
    pub(super) async fn take_in(
        self: &Arc<Self>,
        load: Load,
        code: Vec<u8>,
        scene: Facts,
    ) -> Result<Seat, Unfit> {
        let kept = Arc::new(Kept { load, code, scene });
        let guest = self.next.fetch_add(1, Ordering::Relaxed);
        // Held until the guest is on the list of what a successor is given.
        let mut record = self.starting.lock().await;
        let process = self.start(&mut record).await.map_err(Unfit::Trial)?;
        let loaded = tokio::time::timeout(START, process.load(guest, &kept)).await;
        loaded.unwrap_or_else(|_| Err(Unfit::Trial(process.stop(slow()))))?;
        locked(&self.guests).insert(guest, Arc::clone(&kept));
        drop(record);
        Ok(Seat { worker: Arc::clone(self), guest, kept })
    }

    fn alive(&self) -> Option<Arc<Process>> {
        self.running.load_full().filter(|process| process.is_open())
    }

    async fn process(self: &Arc<Self>) -> Result<Arc<Process>, Fault> {
        if let Some(process) = self.alive() {
            return Ok(process);
        }
        let mut record = self.starting.lock().await;
        self.start(&mut record).await
    }

    /// The process that runs; a new one with the same guests where there is none.
    async fn start(self: &Arc<Self>, record: &mut Record) -> Result<Arc<Process>, Fault> {
        if let Some(process) = self.alive() {
            return Ok(process);
        }
        if self.tasks.is_closed() {
            return Err(Fault::Worker { what: "the gateway is closing".to_owned() });
        }
        if record.not_before.is_some_and(|earliest| Instant::now() < earliest) {
            return Err(Fault::Worker {
                what: "it ended again and again, and waits for its next start".to_owned(),
            });
        }
        let process = Process::launch(&self.program, &self.name(), &self.tasks, Arc::downgrade(self))?;
        let furnish = async {
            let confinement = process.ready().await?;
            if !confinement.is_whole() {
                tracing::warn!(worker = self.name(), %confinement, "a worker process is not wholly confined");
            }
            let guests: Vec<_> =
                locked(&self.guests).iter().map(|(guest, kept)| (*guest, Arc::clone(kept))).collect();
            for (guest, kept) in guests {
                process.load(guest, &kept).await.map_err(|unfit| match unfit {
                    Unfit::Link(what) => Fault::Worker { what },
                    Unfit::Trial(fault) => fault,
                })?;
            }
            Ok(())
        };
        let furnished = tokio::time::timeout(START, furnish).await;
        if let Err(fault) = furnished.unwrap_or_else(|_| Err(slow())) {
            return Err(process.stop(fault));
        }
        tracing::info!(worker = self.name(), pid = process.pid(), "worker process started");
        self.running.store(Some(Arc::clone(&process)));
        Ok(process)
    }

    /// A process of this worker ended that nobody had dismissed: there shall be another one.
    async fn ended(self: Arc<Self>, lived: Duration) {
        let pause = {
            let mut record = self.starting.lock().await;
            record.deaths = if lived >= STEADY { 1 } else { record.deaths.saturating_add(1) };
            let pause = pause(record.deaths);
            record.not_before = Some(Instant::now() + pause);
            pause
        };
        tokio::time::sleep(pause).await;
        if let Err(fault) = self.process().await {
            tracing::warn!(worker = self.name(), %fault, "worker process not started");
        }
    }

    fn name(&self) -> String {
        self.owner.as_ref().map_or_else(|| "operator".to_owned(), ToString::to_string)
    }

    async fn call(
        self: &Arc<Self>,
        seat: &Seat,
        scene: &Scene,
        question: Question<'_>,
        body: Option<Arc<dyn BodyView>>,
    ) -> Result<(Answer, Vec<Errand>), Fault> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Fault::Exhausted)?;
        let process = self.process().await?;
        let asked = Asked::new(&seat.kept.load, scene, &question, body, place);
        process.call(seat.guest, Facts::from(scene), question, asked).await
    }
}

// === impl Seat ===

impl Seat {
    pub(super) async fn check(
        &self,
        scene: Scene,
        call: &Call,
        body: &Arc<dyn BodyView>,
    ) -> Ran<policy::Verdict> {
        let question = Question::Check { call: Cow::Borrowed(call), body_bytes: body.len() };
        self.ask(&scene, question, Some(Arc::clone(body)), |said| match said {
            Said::Verdict(verdict) => Some(verdict),
            _ => None,
        })
        .await
    }

    pub(super) async fn settle(&self, scene: Scene, call: &Call, spent: &policy::Settlement) -> Ran<()> {
        let question = Question::Settle { call: Cow::Borrowed(call), spent: spent.clone() };
        self.ask(&scene, question, None, |said| matches!(said, Said::Settled).then_some(())).await
    }

    pub(super) async fn scan(
        &self,
        scene: Scene,
        kind: scanner::TextKind,
        text: &str,
    ) -> Ran<Vec<scanner::Finding>> {
        let question = Question::Scan { kind, text: Cow::Borrowed(text) };
        self.ask(&scene, question, None, |said| match said {
            Said::Findings(findings) => Some(findings),
            _ => None,
        })
        .await
    }

    pub(super) async fn matches(&self, scene: Scene, call: &Call, body: &Arc<dyn BodyView>) -> Ran<bool> {
        let question = Question::Matches { call: Cow::Borrowed(call), body_bytes: body.len() };
        self.ask(&scene, question, Some(Arc::clone(body)), |said| match said {
            Said::Matches(matches) => Some(matches),
            _ => None,
        })
        .await
    }

    pub(super) async fn on_event(&self, scene: Scene, what: &hook::Occurrence) -> Ran<hook::Outcome> {
        self.ask(&scene, Question::Event(Cow::Borrowed(what)), None, |said| match said {
            Said::Outcome(outcome) => Some(outcome),
            _ => None,
        })
        .await
    }

    /// The same code in the same worker, under other limits, configured with `config` in every instance, if there is one.
    pub(super) async fn on_stage(&self, limits: Limits, config: Option<String>) -> Result<Self, Fault> {
        let Kept { load, code, scene } = self.kept.as_ref();
        let config = config.or_else(|| load.config.clone());
        let load = Load { limits, config, ..load.clone() };
        let staged = self.worker.take_in(load, code.clone(), scene.clone()).await;
        staged.map_err(|unfit| match unfit {
            Unfit::Link(what) => Fault::Worker { what },
            Unfit::Trial(fault) => fault,
        })
    }

    async fn ask<T>(
        &self,
        scene: &Scene,
        question: Question<'_>,
        body: Option<Arc<dyn BodyView>>,
        read: impl FnOnce(Said) -> Option<T>,
    ) -> Ran<T> {
        match self.worker.call(self, scene, question, body).await {
            Ok((Answer { result, micros, memory, notes, log, errands: _ }, errands)) => {
                let result = result.and_then(|said| {
                    read(said)
                        .ok_or_else(|| Fault::Worker { what: "an answer to another question".to_owned() })
                });
                let (fuel, taken, now) = (None, Vec::new(), scene.now);
                Ran { result, micros, memory, fuel, notes, taken, now, log, errands }
            }
            Err(fault) => Ran::failed(fault),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        locked(&self.worker.guests).remove(&self.guest);
        if let Some(process) = self.worker.alive() {
            process.unload(self.guest);
        }
    }
}

// === private helpers ===

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slow() -> Fault {
    Fault::Worker { what: format!("it was not ready after {START:?}") }
}

/// How long to wait after so many deaths in a row.
fn pause(deaths: u32) -> Duration {
    match deaths.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => BACKOFF.saturating_mul(1 << doublings.min(10)).min(MAX_BACKOFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_no_time_and_the_tenth_ten_seconds() {
        let pauses: Vec<u64> =
            (1..=10).map(|deaths| u64::try_from(pause(deaths).as_millis()).unwrap()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(pause(u32::MAX), MAX_BACKOFF);
    }
}
