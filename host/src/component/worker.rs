//! Workers: processes of this same binary that run tenants' guests, without keys, database, network or files. One for each
//! tenant, so that whatever a guest breaks is its own tenant's; one more for components that belong to no tenant.
//!
//! A worker starts with its first component, and ends with its last one. One that ends, hangs or breaks the protocol is replaced:
//! the calls it had fail with [`Fault::Worker`], and the next ones go to a new process with the same guests. What a worker says is
//! as untrusted as what its guests say: the gateway checks all of it.

mod child;
mod confine;
mod frame;
mod process;

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

use self::frame::CallReport;
use self::process::{PendingCall, Process};
use super::capability::EgressCall;
use super::contract::BodyView;
use super::fault::Fault;
use super::guest::Unfit;
use super::limits::Limits;
use super::question::{GuestReply, Question};
use super::ran::Ran;
use super::state::Scene;

pub use self::child::{worker_child, worker_trial};
pub use self::confine::Confinement;
pub(super) use self::frame::SceneFacts;
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
    registered: Mutex<HashMap<Option<TenantId>, Weak<Worker>>>,
}

/// The worker of one tenant, through all of its processes.
pub(super) struct Worker {
    owner: Option<TenantId>,
    program: PathBuf,
    tasks: TaskTracker,
    running: ArcSwapOption<Process>,
    /// Starts come one at a time.
    starting: tokio::sync::Mutex<Restarts>,
    guests: Mutex<BTreeMap<u32, Arc<GuestImage>>>,
    next: AtomicU32,
    places: Arc<Semaphore>,
}

/// How the processes before this one ended.
#[derive(Default)]
struct Restarts {
    deaths: u32,
    not_before: Option<Instant>,
}

/// What a fresh process is given for one guest. The code stays here, so that a restart needs no disk.
struct GuestImage {
    load: Load,
    code: Vec<u8>,
    scene: SceneFacts,
}

/// A component's place in a worker; dropped, it is free.
pub(super) struct GuestHandle {
    worker: Arc<Worker>,
    guest: u32,
    image: Arc<GuestImage>,
}

/// How workers are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerStatus {
    /// Workers that there should be.
    pub registered: usize,
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
        Self { program, tasks: TaskTracker::new(), registered: Mutex::default() }
    }

    /// The worker of `owner`.
    pub(super) fn of(&self, owner: Option<&TenantId>) -> Arc<Worker> {
        let mut registered = locked(&self.registered);
        if let Some(worker) = registered.get(&owner.cloned()).and_then(Weak::upgrade) {
            return worker;
        }
        registered.retain(|_, worker| worker.strong_count() > 0);
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
        registered.insert(owner.cloned(), Arc::downgrade(&worker));
        worker
    }

    pub(super) fn worker_status(&self) -> WorkerStatus {
        let mut status = WorkerStatus::default();
        for worker in locked(&self.registered).values().filter_map(Weak::upgrade) {
            status.registered += 1;
            if let Some(process) = worker.alive() {
                status.running += 1;
                status.confined += usize::from(process.confinement().is_some_and(Confinement::is_whole));
            }
        }
        status
    }

    /// Process ids of the workers that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        let registered = locked(&self.registered);
        let alive = registered.values().filter_map(Weak::upgrade).filter_map(|worker| worker.alive());
        alive.filter_map(|process| process.pid()).collect()
    }

    /// Dismisses every worker and waits for its end. None is started any more.
    pub(super) async fn close(&self) {
        self.tasks.close();
        for worker in locked(&self.registered).values().filter_map(Weak::upgrade) {
            worker.running.store(None);
        }
        self.tasks.wait().await;
    }
}

// === impl Worker ===

impl Worker {
    /// Makes code callable in this worker.
    pub(super) async fn load_guest(
        self: &Arc<Self>,
        load: Load,
        code: Vec<u8>,
        scene: SceneFacts,
    ) -> Result<GuestHandle, Unfit> {
        let image = Arc::new(GuestImage { load, code, scene });
        let guest = self.next.fetch_add(1, Ordering::Relaxed);
        // Held until the guest is on the list of what a successor is given.
        let mut record = self.starting.lock().await;
        let process = self.start(&mut record).await.map_err(Unfit::Trial)?;
        let loaded = tokio::time::timeout(START, process.load(guest, &image)).await;
        loaded.unwrap_or_else(|_| Err(Unfit::Trial(process.stop(slow()))))?;
        locked(&self.guests).insert(guest, Arc::clone(&image));
        drop(record);
        Ok(GuestHandle { worker: Arc::clone(self), guest, image })
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
    async fn start(self: &Arc<Self>, record: &mut Restarts) -> Result<Arc<Process>, Fault> {
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
        let prepare = async {
            let confinement = process.ready().await?;
            if !confinement.is_whole() {
                tracing::warn!(worker = self.name(), %confinement, "a worker process is not wholly confined");
            }
            let guests: Vec<_> =
                locked(&self.guests).iter().map(|(guest, image)| (*guest, Arc::clone(image))).collect();
            for (guest, image) in guests {
                process.load(guest, &image).await.map_err(|unfit| match unfit {
                    Unfit::Link(what) => Fault::Worker { what },
                    Unfit::Trial(fault) => fault,
                })?;
            }
            Ok(())
        };
        let prepared = tokio::time::timeout(START, prepare).await;
        if let Err(fault) = prepared.unwrap_or_else(|_| Err(slow())) {
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
        handle: &GuestHandle,
        scene: &Scene,
        question: Question<'_>,
        body: Option<Arc<dyn BodyView>>,
    ) -> Result<(CallReport, Vec<EgressCall>), Fault> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Fault::Exhausted)?;
        let process = self.process().await?;
        let pending_call = PendingCall::new(&handle.image.load, scene, &question, body, place);
        process.call(handle.guest, SceneFacts::from(scene), question, pending_call).await
    }
}

// === impl GuestHandle ===

impl GuestHandle {
    /// The same code in the same worker, under other limits, configured with `config` in every instance, if there is one.
    pub(super) async fn with_limits(&self, limits: Limits, config: Option<String>) -> Result<Self, Fault> {
        let GuestImage { load, code, scene } = self.image.as_ref();
        let config = config.or_else(|| load.config.clone());
        let load = Load { limits, config, ..load.clone() };
        let loaded = self.worker.load_guest(load, code.clone(), scene.clone()).await;
        loaded.map_err(|unfit| match unfit {
            Unfit::Link(what) => Fault::Worker { what },
            Unfit::Trial(fault) => fault,
        })
    }

    /// Puts a question to the guest.
    pub(super) async fn ask(
        &self,
        scene: &Scene,
        question: Question<'_>,
        body: Option<Arc<dyn BodyView>>,
    ) -> Ran<GuestReply> {
        match self.worker.call(self, scene, question, body).await {
            Ok((CallReport { result, micros, memory, notes, log, egress_calls: _ }, egress_calls)) => {
                let (fuel, taken, now) = (None, Vec::new(), scene.now);
                Ran { result, micros, memory, fuel, notes, taken, now, log, egress_calls }
            }
            Err(fault) => Ran::failed(fault),
        }
    }
}

impl Drop for GuestHandle {
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
