//! The component host: the only module that names wasmtime. It admits signed components, keeps them ready, and runs each
//! call in a fresh sandbox under limits.

use std::path::PathBuf;
use std::sync::Arc;

use sallyport_protocol::canonical;

use crate::clock::Clock;

use self::cache::Cache;
use self::compile::Compiler;
use self::contract::Counters;
use self::guest::Runner;
use self::lane::{Share, SlowLane};
use self::link::Linkers;
use self::worker::Workers;

pub use self::admit::{Admission, AdmitError, Code, SelfTest};
pub use self::budget::HourlyBudget;
pub use self::bundle::{Bundle, BundleError, Entry, Mode, Stage, Trial};
pub use self::call::{Exchange, ExchangeRequest};
pub use self::capability::EgressCall;
pub use self::compile::can_be_snapshotted;
pub use self::compile::{CompileError, VERB as COMPILE_VERB, compile_child};
pub use self::engine::{DEFAULT_POOL, EngineError, Fuel, MAX_POOL};
pub use self::executor::{Isolation, RunsIn};
pub use self::fault::Fault;
pub use self::inspect::{InspectError, Structure, inspect};
pub use self::limits::Limits;
pub use self::program::own as own_program;
pub use self::ran::Ran;
pub use self::reads::Reads;
pub use self::ready::Component;
pub use self::registry::Registry;
pub use self::rehearse::{Rehearsal, SelfTestError};
pub use self::tally::{Counted, Said, Tally};
pub use self::worker::{
    Confinement, VERB as WORKER_VERB, WorkerStatus, try_worker, worker_child, worker_trial,
};
pub use self::world::{Needs, VERSION as WORLD_VERSION, WorldError, check as check_world, kind_of};

mod admit;
mod ask;
mod bindings;
mod budget;
mod bundle;
mod cache;
mod call;
mod capability;
mod compile;
pub mod conformance;
pub mod contract;
mod engine;
mod executor;
mod facts;
mod fault;
mod guest;
mod inspect;
mod lane;
mod limits;
mod link;
mod meter;
mod program;
mod question;
mod ran;
mod reads;
mod ready;
mod recorder;
mod registry;
mod rehearse;
pub mod request;
pub mod sample;
mod state;
mod tally;
mod worker;
mod world;

/// How the component host is set up.
#[derive(Clone)]
pub struct Settings {
    /// Live guests at most.
    pub pool: u32,
    /// Where compiled code is kept.
    pub cache_dir: PathBuf,
    /// What compiled code is authenticated with.
    pub cache_key: [u8; 32],
    /// The binary that compiles when called with [`COMPILE_VERB`], and runs guests when called with [`WORKER_VERB`]: this
    /// one.
    pub compiler: PathBuf,
    /// Components signed with a development key are welcome.
    pub development: bool,
    /// Whether guests' work is counted besides being timed.
    pub fuel: Fuel,
    /// Seconds of compiling that a tenant's components may take in an hour.
    pub compile_seconds: u32,
}

/// Why the component host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The host's functions do not fit the contract.
    #[error("the host's functions could not be linked: {0}")]
    Link(String),
    /// No thread for guests that take long.
    #[error("the threads for guests that take long could not be started")]
    Lane(#[source] std::io::Error),
    /// The directory for compiled code cannot be made.
    #[error("the directory for compiled components, {path}, could not be made")]
    Cache {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// How many guests live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Places taken.
    pub live: u32,
    /// Places there are.
    pub limit: u32,
}

/// The component host.
pub struct Components {
    settings: Settings,
    compatibility: [u8; 32],
    runner: Runner,
    cache: Arc<Cache>,
    compiler: Compiler,
    workers: Workers,
    counters: Arc<dyn Counters>,
    clock: Arc<dyn Clock>,
}

/// The limits of components.
pub(crate) fn limits() -> Vec<crate::limits::Limit> {
    [limits::table(), compile::limits()].concat()
}

// === impl Components ===

impl Components {
    /// Makes the engine and starts its clock.
    pub fn start(
        settings: Settings,
        counters: Arc<dyn Counters>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StartError> {
        let engine = engine::engine(settings.pool, settings.fuel)?;
        engine::start_clock(&engine)?;
        let compatibility = engine::compatibility(&engine);
        let linkers = Linkers::new(&engine).map_err(|error| StartError::Link(format!("{error:#}")))?;
        let lane = SlowLane::start(threads(), Share::Tenth).map_err(StartError::Lane)?;
        let runner = Runner::new(engine, settings.fuel, settings.pool, linkers, lane);
        let cache = Cache::open(settings.cache_dir.clone(), settings.cache_key)
            .map_err(|cause| StartError::Cache { path: settings.cache_dir.clone(), cause })?;
        Ok(Arc::new(Self {
            compatibility,
            runner,
            compiler: Compiler::new(settings.compiler.clone(), settings.compile_seconds, Arc::clone(&clock)),
            workers: Workers::new(settings.compiler.clone()),
            cache: Arc::new(cache),
            settings,
            counters,
            clock,
        }))
    }

    /// How many guests live, and how many may.
    pub fn capacity(&self) -> Capacity {
        let limit = self.settings.pool;
        let free = u32::try_from(self.runner.places.available_permits()).unwrap_or(limit);
        Capacity { live: limit.saturating_sub(free), limit }
    }

    /// How the worker processes are doing.
    pub fn worker_status(&self) -> WorkerStatus {
        self.workers.worker_status()
    }

    /// Process ids of the workers that run.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.workers.pids()
    }

    /// Ends the worker processes. What ran in them answers no more.
    pub async fn close(&self) {
        self.workers.close().await;
    }
}

impl std::fmt::Debug for Components {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Components").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pool, cache_dir, cache_key: _, compiler, development, fuel, compile_seconds } = self;
        out.debug_struct("Settings")
            .field("pool", pool)
            .field("cache_dir", cache_dir)
            .field("compiler", compiler)
            .field("development", development)
            .field("fuel", fuel)
            .field("compile_seconds", compile_seconds)
            .finish_non_exhaustive()
    }
}

// === private helpers ===

/// SHA-256 of a configuration in canonical JSON. No configuration is an empty one.
fn canonical_digest(config: &serde_json::Value) -> String {
    if config.is_null() { canonical::digest(&serde_json::json!({})) } else { canonical::digest(config) }
}

/// Threads that serve requests.
fn threads() -> usize {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.metrics().num_workers(),
        Err(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}
