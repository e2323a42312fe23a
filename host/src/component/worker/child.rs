//! The worker's side: confined first, then guests are loaded and called as the gateway says, until its pipe is closed.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::confine::{self, Confinement};
use super::frame::{
    self, CallReport, EgressUse, HostCall, HostReply, MAX_ORDER_BYTES, Order, SceneFacts, WorkerReport,
};
use super::{Load, POOL};
use crate::component::cache::Trusted;
use crate::component::compile::Compiled;
use crate::component::contract::{
    BodyView, Bucket, Budget, Counters, CountersUnreachable, Counting, Egress, Fetched, Grants, Segment,
    egress,
};
use crate::component::engine::{self, EngineError, Fuel};
use crate::component::fault::Fault;
use crate::component::guest::{Guest, Runner, Unfit};
use crate::component::lane::{Share, SlowLane};
use crate::component::link::Linkers;
use crate::component::program;
use crate::component::question::{GuestReply, Question};
use crate::component::ran::Ran;
use crate::component::state::Scene;

/// What the gateway told, and the bytes that came with it.
type GatewayReply = (HostReply, Vec<u8>);

/// Everything that a worker holds.
struct WorkerState {
    runner: Runner,
    guests: Mutex<HashMap<u32, Arc<Guest>>>,
    /// Calls whose guest waits for the gateway to tell it something.
    asking: Mutex<HashMap<u64, Waiting>>,
    out: Mutex<()>,
}

/// Who waits: a thread, or a guest that lets others have it meanwhile.
enum Waiting {
    Thread(mpsc::Sender<GatewayReply>),
    Guest(oneshot::Sender<GatewayReply>),
}

/// One of the egress grants of a guest: the gateway sends its requests.
struct GrantedEgress {
    link: Arc<GatewayLink>,
    grant: String,
}

/// The way from the guest of one call to the gateway. The guest's thread waits for what it asks.
struct GatewayLink {
    state: Arc<WorkerState>,
    call: u64,
    body_bytes: usize,
    body: OnceLock<Vec<u8>>,
}

/// What `sallyport run-components` runs: orders on standard input, reports on standard output.
pub fn worker_child() -> ExitCode {
    program::take_name();
    if confine::begin().is_err() {
        return ExitCode::from(2);
    }
    let Ok((state, runtime, confinement)) = open() else { return ExitCode::from(3) };
    state.say(&WorkerReport::Ready(confinement));
    let mut input = io::stdin().lock();
    loop {
        let mut head = [0; 4];
        if input.read_exact(&mut head).is_err() {
            // The gateway is done with this worker. Guests that still run end with the process.
            std::process::exit(0);
        }
        let Some(length) = frame::length(head, MAX_ORDER_BYTES) else { return ExitCode::from(4) };
        let mut bytes = vec![0; length];
        if input.read_exact(&mut bytes).is_err() {
            return ExitCode::from(5);
        }
        let Some((order, rest)) = frame::decode::<Order<'static>>(&bytes) else { return ExitCode::from(6) };
        state.handle(&runtime, order, rest);
    }
}

/// What `sallyport try-worker` runs: a worker up to where it would hear its first order, which then tries what it may not do
/// and says as JSON what came of it. For tests and for whoever wants to see it.
#[cfg(target_os = "linux")]
pub fn worker_trial() -> ExitCode {
    program::take_name();
    if confine::begin().is_err() {
        return ExitCode::from(2);
    }
    let Ok(mut trial) = confine::ConfinementTrial::look() else { return ExitCode::from(3) };
    let Ok((_shop, _runtime, confinement)) = open() else { return ExitCode::from(3) };
    trial.attempt();
    let report = serde_json::json!({ "confinement": confinement, "trial": trial });
    match writeln!(io::stdout(), "{report}") {
        // Threads that are behind the walls cannot be waited for.
        Ok(()) => std::process::exit(0),
        Err(_) => ExitCode::from(4),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn worker_trial() -> ExitCode {
    ExitCode::from(3)
}

/// Everything that needs files or threads, then the walls.
fn open() -> Result<(Arc<WorkerState>, Runtime, Confinement), WorkerStartError> {
    let threads = (thread::available_parallelism().map_or(1, NonZero::get) / 2).max(1);
    let engine = engine::engine(POOL, Fuel::Off)?;
    let linkers = Linkers::new(&engine).map_err(WorkerStartError::Link)?;
    let landlock = confine::landlock();
    let runner = Runner::new(engine, Fuel::Off, POOL, linkers, SlowLane::start(threads, Share::Leftover)?);
    engine::start_clock(&runner.engine)?;
    let (began, begun) = mpsc::channel();
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(1)
        .enable_time()
        .on_thread_start(move || {
            // Whoever waits for it hears of it while it waits.
            let _heard = began.send(()).is_ok();
        })
        .build()?;
    // Behind the walls no thread can begin.
    for _ in 0..threads {
        begun.recv().map_err(|_| WorkerStartError::Thread)?;
    }
    let seccomp = confine::seccomp();
    let state = Arc::new(WorkerState {
        runner,
        guests: Mutex::default(),
        asking: Mutex::default(),
        out: Mutex::default(),
    });
    Ok((state, runtime, Confinement { landlock, seccomp }))
}

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
enum WorkerStartError {
    /// No engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The host's functions do not fit the contract.
    #[error("the host's functions could not be linked")]
    Link(#[source] wasmtime::Error),
    /// No thread or no runtime.
    #[error("the worker has no threads")]
    Threads(#[from] io::Error),
    /// A thread ended before it began to work.
    #[error("a thread of the worker ended")]
    Thread,
}

// === impl WorkerState ===

impl WorkerState {
    fn handle(self: &Arc<Self>, runtime: &Runtime, order: Order<'static>, bytes: &[u8]) {
        match order {
            Order::Load { guest, load, scene } => {
                let (state, code) = (Arc::clone(self), bytes.to_vec());
                runtime.spawn(async move {
                    let fit = state.load(guest, load.into_owned(), scene, code).await;
                    state.say(&WorkerReport::Loaded { guest, fit });
                });
            }
            Order::Unload { guest } => drop(locked(&self.guests).remove(&guest)),
            Order::Call { call, guest, scene, question } => {
                let state = Arc::clone(self);
                runtime.spawn(async move {
                    let answer = state.call(call, guest, scene, *question).await;
                    state.say(&WorkerReport::Answered { call, answer });
                });
            }
            Order::HostReply { call, told } => {
                let (waiting, reply) = (locked(&self.asking).remove(&call), (told, bytes.to_vec()));
                match waiting {
                    Some(Waiting::Thread(waiting)) => drop(waiting.send(reply)),
                    Some(Waiting::Guest(waiting)) => drop(waiting.send(reply)),
                    None => {}
                }
            }
        }
    }

    async fn load(&self, guest: u32, load: Load, scene: SceneFacts, code: Vec<u8>) -> Result<(), Unfit> {
        let link = |error: &wasmtime::Error| Unfit::Link(format!("{error:#}").chars().take(4_096).collect());
        let scene = scene_of(Arc::from(load.name.as_str()), scene, None);
        // The gateway checked this code's MAC, or had it compiled itself, before it put it into the pipe.
        let trusted = Trusted::fresh(Compiled { snapshotted: load.config.is_none(), code });
        let loaded = trusted.load(&self.runner.engine).map_err(|error| link(&error))?;
        let made = Guest::link(&self.runner.linkers, load, &loaded).map_err(|error| link(&error))?;
        let made = Arc::new(made);
        self.runner.try_out(&made, scene).await.map_err(Unfit::Trial)?;
        locked(&self.guests).insert(guest, made);
        Ok(())
    }

    async fn call(
        self: &Arc<Self>,
        call: u64,
        guest: u32,
        scene: SceneFacts,
        question: Question<'static>,
    ) -> CallReport {
        let found = locked(&self.guests).get(&guest).map(Arc::clone);
        let Some(guest) = found else {
            return report(&Grants::new(), Ran::failed(Fault::Worker { what: "no such guest".to_owned() }));
        };
        let asks_about_body = question.body_bytes();
        let body_bytes = asks_about_body.unwrap_or(0);
        let link = Arc::new(GatewayLink { state: Arc::clone(self), call, body_bytes, body: OnceLock::new() });
        let grants: Grants = scene.grants.iter().map(|grant| link.egress(grant)).collect();
        let scene = Scene {
            grants: Arc::new(grants),
            ..scene_of(Arc::clone(&guest.name), scene, Some(Arc::clone(&link) as _))
        };
        let grants = Arc::clone(&scene.grants);
        let body = asks_about_body.map(|_| link as Arc<dyn BodyView>);
        report(&grants, self.runner.ask(&guest, scene, question, body).await)
    }

    /// Says it, or ends: without the gateway there is nothing left to do.
    fn say(&self, report: &WorkerReport) {
        let Some(frame) = frame::encode(report, &[]) else { std::process::exit(7) };
        let _whole = locked(&self.out);
        let out = io::stdout();
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(out.as_fd(), rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                _ => std::process::exit(8),
            }
        }
    }
}

// === impl GatewayLink ===

impl GatewayLink {
    fn ask(&self, host_call: HostCall) -> GatewayReply {
        let (tell, told) = mpsc::channel();
        locked(&self.state.asking).insert(self.call, Waiting::Thread(tell));
        self.state.say(&WorkerReport::HostCalls { call: self.call, host_call });
        // The sender is held until there is an answer; an answer of another kind is not the gateway's.
        told.recv().unwrap_or_else(|_| std::process::exit(9))
    }

    /// Asks for what takes long: the guest waits, its thread does not.
    async fn ask_for_long(&self, host_call: HostCall) -> GatewayReply {
        let (tell, told) = oneshot::channel();
        locked(&self.state.asking).insert(self.call, Waiting::Guest(tell));
        self.state.say(&WorkerReport::HostCalls { call: self.call, host_call });
        told.await.unwrap_or_else(|_| std::process::exit(9))
    }

    fn egress(self: &Arc<Self>, grant: &str) -> (String, Arc<dyn Egress>) {
        (grant.to_owned(), Arc::new(GrantedEgress { link: Arc::clone(self), grant: grant.to_owned() }))
    }
}

// === impl GrantedEgress ===

impl Egress for GrantedEgress {
    fn fetch(&self, request: egress::Request) -> BoxFuture<'_, Fetched> {
        Box::pin(async move {
            match self.link.ask_for_long(HostCall::Fetch { grant: self.grant.clone(), request }).await.0 {
                HostReply::Fetched(result, took) => Fetched { result, took },
                _ => std::process::exit(10),
            }
        })
    }
}

// === what a guest sees ===

impl BodyView for GatewayLink {
    fn bytes(&self) -> &[u8] {
        self.body.get_or_init(|| self.ask(HostCall::Body).1)
    }

    fn len(&self) -> usize {
        self.body_bytes
    }

    fn texts(&self) -> Vec<Segment> {
        match self.ask(HostCall::Texts).0 {
            HostReply::Texts(texts) => texts,
            _ => std::process::exit(10),
        }
    }
}

/// Whose counters they are the gateway knows by the call.
impl Counters for GatewayLink {
    fn take<'a>(&'a self, bucket: Bucket<'a>, cost: u32) -> Counting<'a, Result<u32, Duration>> {
        let Bucket { key, limit, window, .. } = bucket;
        Box::pin(async move {
            match self.ask_for_long(HostCall::Take { key: key.to_owned(), cost, limit, window }).await.0 {
                HostReply::Taken(taken) => Ok(taken),
                HostReply::Unreachable => Err(CountersUnreachable),
                _ => std::process::exit(10),
            }
        })
    }

    fn correct<'a>(&'a self, bucket: Bucket<'a>, taken: u32, used: u32) -> Counting<'a, ()> {
        let Bucket { key, limit, window, .. } = bucket;
        Box::pin(async move {
            match self
                .ask_for_long(HostCall::Correct { key: key.to_owned(), taken, used, limit, window })
                .await
                .0
            {
                HostReply::Corrected => Ok(()),
                HostReply::Unreachable => Err(CountersUnreachable),
                _ => std::process::exit(10),
            }
        })
    }

    fn reserve<'a>(
        &'a self,
        budget: Budget<'a>,
        micro: u64,
        cap: u64,
    ) -> Counting<'a, Result<u64, Duration>> {
        let Budget { key, window, .. } = budget;
        Box::pin(async move {
            match self.ask_for_long(HostCall::Reserve { key: key.to_owned(), window, micro, cap }).await.0 {
                HostReply::Reserved(reserved) => Ok(reserved),
                HostReply::Unreachable => Err(CountersUnreachable),
                _ => std::process::exit(10),
            }
        })
    }

    fn release<'a>(&'a self, budget: Budget<'a>, reserved: u64, spent: u64) -> Counting<'a, ()> {
        let Budget { key, window, .. } = budget;
        Box::pin(async move {
            match self
                .ask_for_long(HostCall::Release { key: key.to_owned(), window, reserved, spent })
                .await
                .0
            {
                HostReply::Released => Ok(()),
                HostReply::Unreachable => Err(CountersUnreachable),
                _ => std::process::exit(10),
            }
        })
    }
}

// === private helpers ===

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scene_of(component: Arc<str>, facts: SceneFacts, counters: Option<Arc<dyn Counters>>) -> Scene {
    let SceneFacts { tenant, seed, now, began, grants: _ } = facts;
    Scene { component, tenant, seed, now, began, grants: Arc::default(), counters }
}

fn report(grants: &Grants, ran: Ran<GuestReply>) -> CallReport {
    let Ran { result, micros, memory, notes, log, egress_calls, .. } = ran;
    let egress_calls = egress_calls.into_iter().map(|egress_call| {
        if grants.contains_key(&egress_call.grant) {
            EgressUse::Granted
        } else {
            EgressUse::NoSuchGrant(egress_call.grant)
        }
    });
    CallReport { result, micros, memory, notes, log, egress_calls: egress_calls.collect() }
}
