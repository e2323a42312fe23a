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
use super::frame::{self, Answer, Facts, MOST_TOLD, Order, Question, Report, Said, Told, Went, Wish};
use super::{Load, POOL};
use crate::component::cache::Trusted;
use crate::component::call::Ran;
use crate::component::compile::Compiled;
use crate::component::contract::{
    BodyView, Bucket, Budget, Counters, Egress, Fetched, Grants, Segment, egress,
};
use crate::component::engine::{self, Fuel};
use crate::component::fault::Fault;
use crate::component::guest::{Guest, Runner, Unfit};
use crate::component::lane::{Share, SlowLane};
use crate::component::link::Linkers;
use crate::component::program;
use crate::component::state::Scene;

/// What the gateway told, and the bytes that came with it.
type Reply = (Told, Vec<u8>);

/// Everything that a worker holds.
struct Shop {
    runner: Runner,
    guests: Mutex<HashMap<u32, Arc<Guest>>>,
    /// Calls whose guest waits for the gateway to tell it something.
    asking: Mutex<HashMap<u64, Waiting>>,
    out: Mutex<()>,
}

/// Who waits: a thread, or a guest that lets others have it meanwhile.
enum Waiting {
    Thread(mpsc::Sender<Reply>),
    Guest(oneshot::Sender<Reply>),
}

/// One of the ways out of a guest: to the gateway, which dials.
struct Way {
    line: Arc<Line>,
    grant: String,
}

/// The way from the guest of one call to the gateway. The guest's thread waits for what it asks.
struct Line {
    shop: Arc<Shop>,
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
    let Ok((shop, runtime, confinement)) = open() else { return ExitCode::from(3) };
    shop.say(&Report::Ready(confinement));
    let mut input = io::stdin().lock();
    loop {
        let mut head = [0; 4];
        if input.read_exact(&mut head).is_err() {
            // The gateway is done with this worker. Guests that still run end with the process.
            std::process::exit(0);
        }
        let Some(length) = frame::length(head, MOST_TOLD) else { return ExitCode::from(4) };
        let mut bytes = vec![0; length];
        if input.read_exact(&mut bytes).is_err() {
            return ExitCode::from(5);
        }
        let Some((order, rest)) = frame::decode::<Order<'static>>(&bytes) else { return ExitCode::from(6) };
        shop.obey(&runtime, order, rest);
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
    let Ok(mut trial) = confine::Trial::look() else { return ExitCode::from(3) };
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
fn open() -> anyhow::Result<(Arc<Shop>, Runtime, Confinement)> {
    let threads = (thread::available_parallelism().map_or(1, NonZero::get) / 2).max(1);
    let engine = engine::engine(POOL, Fuel::Off)?;
    let linkers = Linkers::new(&engine).map_err(|error| anyhow::anyhow!("{error:#}"))?;
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
        begun.recv()?;
    }
    let seccomp = confine::seccomp();
    let shop =
        Arc::new(Shop { runner, guests: Mutex::default(), asking: Mutex::default(), out: Mutex::default() });
    Ok((shop, runtime, Confinement { landlock, seccomp }))
}

// === impl Shop ===

impl Shop {
    fn obey(self: &Arc<Self>, runtime: &Runtime, order: Order<'static>, bytes: &[u8]) {
        match order {
            Order::Load { guest, load, scene } => {
                let (shop, code) = (Arc::clone(self), bytes.to_vec());
                runtime.spawn(async move {
                    let fit = shop.load(guest, load.into_owned(), scene, code).await;
                    shop.say(&Report::Loaded { guest, fit });
                });
            }
            Order::Unload { guest } => drop(locked(&self.guests).remove(&guest)),
            Order::Call { call, guest, scene, question } => {
                let shop = Arc::clone(self);
                runtime.spawn(async move {
                    let answer = shop.call(call, guest, scene, *question).await;
                    shop.say(&Report::Answered { call, answer });
                });
            }
            Order::Told { call, told } => {
                let (waiting, reply) = (locked(&self.asking).remove(&call), (told, bytes.to_vec()));
                match waiting {
                    Some(Waiting::Thread(waiting)) => drop(waiting.send(reply)),
                    Some(Waiting::Guest(waiting)) => drop(waiting.send(reply)),
                    None => {}
                }
            }
        }
    }

    async fn load(&self, guest: u32, load: Load, scene: Facts, code: Vec<u8>) -> Result<(), Unfit> {
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
        scene: Facts,
        question: Question<'static>,
    ) -> Answer {
        let found = locked(&self.guests).get(&guest).map(Arc::clone);
        let Some(guest) = found else {
            return answer(
                &Grants::new(),
                Ran::<()>::failed(Fault::Worker { what: "no such guest".to_owned() }),
                |()| Said::Settled,
            );
        };
        let body_bytes = match &question {
            Question::Check { body_bytes, .. } | Question::Matches { body_bytes, .. } => *body_bytes,
            _ => 0,
        };
        let line = Arc::new(Line { shop: Arc::clone(self), call, body_bytes, body: OnceLock::new() });
        let grants: Grants = scene.grants.iter().map(|grant| line.way(grant)).collect();
        let scene = Scene {
            grants: Arc::new(grants),
            ..scene_of(Arc::clone(&guest.name), scene, Some(Arc::clone(&line) as _))
        };
        let grants = Arc::clone(&scene.grants);
        match question {
            Question::Check { call, .. } => {
                let body: Arc<dyn BodyView> = line;
                answer(&grants, self.runner.check(&guest, scene, &call, &body).await, Said::Verdict)
            }
            Question::Settle { call, spent } => {
                answer(&grants, self.runner.settle(&guest, scene, &call, &spent).await, |()| Said::Settled)
            }
            Question::Scan { kind, text } => {
                answer(&grants, self.runner.scan(&guest, scene, kind, &text).await, Said::Findings)
            }
            Question::Matches { call, .. } => {
                let body: Arc<dyn BodyView> = line;
                answer(&grants, self.runner.matches(&guest, scene, &call, &body).await, Said::Matches)
            }
            Question::Event(what) => {
                answer(&grants, self.runner.on_event(&guest, scene, &what).await, Said::Outcome)
            }
        }
    }

    /// Says it, or ends: without the gateway there is nothing left to do.
    fn say(&self, report: &Report) {
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

// === impl Line ===

impl Line {
    fn ask(&self, wish: Wish) -> Reply {
        let (tell, told) = mpsc::channel();
        locked(&self.shop.asking).insert(self.call, Waiting::Thread(tell));
        self.shop.say(&Report::Wishes { call: self.call, wish });
        // The sender is held until there is an answer; an answer of another kind is not the gateway's.
        told.recv().unwrap_or_else(|_| std::process::exit(9))
    }

    /// Asks for what takes long: the guest waits, its thread does not.
    async fn ask_for_long(&self, wish: Wish) -> Reply {
        let (tell, told) = oneshot::channel();
        locked(&self.shop.asking).insert(self.call, Waiting::Guest(tell));
        self.shop.say(&Report::Wishes { call: self.call, wish });
        told.await.unwrap_or_else(|_| std::process::exit(9))
    }

    fn way(self: &Arc<Self>, grant: &str) -> (String, Arc<dyn Egress>) {
        (grant.to_owned(), Arc::new(Way { line: Arc::clone(self), grant: grant.to_owned() }))
    }
}

// === impl Way ===

impl Egress for Way {
    fn fetch(&self, request: egress::Request) -> BoxFuture<'_, Fetched> {
        Box::pin(async move {
            match self.line.ask_for_long(Wish::Fetch { grant: self.grant.clone(), request }).await.0 {
                Told::Fetched(result, took) => Fetched { result, took },
                _ => std::process::exit(10),
            }
        })
    }
}

// === what a guest sees ===

impl BodyView for Line {
    fn bytes(&self) -> &[u8] {
        self.body.get_or_init(|| self.ask(Wish::Body).1)
    }

    fn len(&self) -> usize {
        self.body_bytes
    }

    fn texts(&self) -> Vec<Segment> {
        match self.ask(Wish::Texts).0 {
            Told::Texts(texts) => texts,
            _ => std::process::exit(10),
        }
    }
}

impl Counters for Line {
    /// Whose counters they are the gateway knows by the call.
    fn take(&self, bucket: &Bucket<'_>, cost: u32) -> Result<u32, Duration> {
        let Bucket { key, limit, window, .. } = *bucket;
        match self.ask(Wish::Take { key: key.to_owned(), cost, limit, window }).0 {
            Told::Taken(taken) => taken,
            _ => std::process::exit(10),
        }
    }

    fn correct(&self, bucket: &Bucket<'_>, taken: u32, used: u32) {
        let Bucket { key, limit, window, .. } = *bucket;
        match self.ask(Wish::Correct { key: key.to_owned(), taken, used, limit, window }).0 {
            Told::Corrected => {}
            _ => std::process::exit(10),
        }
    }

    fn reserve(&self, budget: &Budget<'_>, micro: u64, cap: u64) -> Result<u64, Duration> {
        let Budget { key, window, .. } = *budget;
        match self.ask(Wish::Reserve { key: key.to_owned(), window, micro, cap }).0 {
            Told::Reserved(reserved) => reserved,
            _ => std::process::exit(10),
        }
    }

    fn release(&self, budget: &Budget<'_>, reserved: u64, spent: u64) {
        let Budget { key, window, .. } = *budget;
        match self.ask(Wish::Release { key: key.to_owned(), window, reserved, spent }).0 {
            Told::Released => {}
            _ => std::process::exit(10),
        }
    }
}

// === private helpers ===

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scene_of(component: Arc<str>, facts: Facts, counters: Option<Arc<dyn Counters>>) -> Scene {
    let Facts { tenant, seed, now, began, grants: _ } = facts;
    Scene { component, tenant, seed, now, began, grants: Arc::default(), counters }
}

fn answer<T>(grants: &Grants, ran: Ran<T>, said: impl FnOnce(T) -> Said) -> Answer {
    let Ran { result, micros, memory, notes, log, errands, .. } = ran;
    let errands = errands.into_iter().map(|errand| {
        if grants.contains_key(&errand.grant) { Went::Out } else { Went::Nowhere(errand.grant) }
    });
    Answer { result: result.map(said), micros, memory, notes, log, errands: errands.collect() }
}
