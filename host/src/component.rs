//! The component host: the only module that names wasmtime. It admits signed components, keeps them ready, and runs each
//! call in a fresh sandbox under limits.

use std::path::PathBuf;
use std::sync::Arc;

use sallyport_protocol::canonical;
use tokio::sync::Semaphore;
use wasmtime::Engine;

use crate::clock::{Clock, Entropy};

use self::cache::Cache;
use self::compile::Compiler;
use self::contract::Counters;
use self::lane::SlowLane;
use self::link::Linkers;

pub use self::admit::{AdmitError, Component};
pub use self::bundle::{Bundle, Entry, Mode, Stage, Trial};
pub use self::call::{Ended, Exchange, ExchangeRequest, Ran};
pub use self::capability::Errand;
pub use self::compile::can_be_snapshotted;
pub use self::compile::{CompileError, VERB as COMPILE_VERB, compile_child};
pub use self::engine::{DEFAULT_POOL, EngineError, Fuel, MAX_POOL};
pub use self::fault::Fault;
pub use self::first_party::{Embedded, first_party, first_party_publisher};
pub use self::inspect::{InspectError, Structure, inspect};
pub use self::limits::Limits;
pub use self::registry::Registry;
pub use self::rehearse::{Rehearsal, SelfTestError};
pub use self::tally::{Counted, Said, Tally};
pub use self::world::{Needs, VERSION as WORLD_VERSION, WorldError, check as check_world, kind_of};

mod admit;
mod bindings;
mod bundle;
mod cache;
mod call;
mod capability;
mod compile;
pub mod contract;
mod engine;
mod fault;
pub mod first_party;
mod inspect;
mod lane;
mod limits;
mod link;
mod meter;
mod registry;
mod rehearse;
pub mod sample;
mod state;
mod tally;
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
    /// The binary that compiles when called with [`COMPILE_VERB`]: this one.
    pub compiler: PathBuf,
    /// Components signed with a development key are welcome.
    pub development: bool,
    /// Whether guests' work is counted besides being timed.
    pub fuel: Fuel,
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
    engine: Engine,
    compatibility: [u8; 32],
    linkers: Linkers,
    cache: Arc<Cache>,
    compiler: Compiler,
    places: Arc<Semaphore>,
    lane: Arc<SlowLane>,
    counters: Arc<dyn Counters>,
    clock: Arc<dyn Clock>,
}

// === impl Components ===

impl Components {
    /// Makes the engine and starts its clock.
    pub fn start(
        settings: Settings,
        counters: Arc<dyn Counters>,
        _entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StartError> {
        let engine = engine::engine(settings.pool, settings.fuel)?;
        engine::start_clock(&engine)?;
        let linkers = Linkers::new(&engine).map_err(|error| StartError::Link(format!("{error:#}")))?;
        let cache = Cache::open(settings.cache_dir.clone(), settings.cache_key)
            .map_err(|cause| StartError::Cache { path: settings.cache_dir.clone(), cause })?;
        Ok(Arc::new(Self {
            compatibility: engine::compatibility(&engine),
            compiler: Compiler::new(settings.compiler.clone()),
            places: Arc::new(Semaphore::new(usize::try_from(settings.pool).unwrap_or(usize::MAX))),
            lane: Arc::new(SlowLane::start(workers()).map_err(StartError::Lane)?),
            cache: Arc::new(cache),
            settings,
            engine,
            linkers,
            counters,
            clock,
        }))
    }

    /// How many guests live, and how many may.
    pub fn capacity(&self) -> Capacity {
        let limit = self.settings.pool;
        let free = u32::try_from(self.places.available_permits()).unwrap_or(limit);
        Capacity { live: limit.saturating_sub(free), limit }
    }
}

impl std::fmt::Debug for Components {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Components").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pool, cache_dir, cache_key: _, compiler, development, fuel } = self;
        out.debug_struct("Settings")
            .field("pool", pool)
            .field("cache_dir", cache_dir)
            .field("compiler", compiler)
            .field("development", development)
            .field("fuel", fuel)
            .finish_non_exhaustive()
    }
}

// === private helpers ===

/// SHA-256 of a configuration in canonical JSON. No configuration is an empty one.
fn canonical_digest(config: &serde_json::Value) -> String {
    if config.is_null() { canonical::digest(&serde_json::json!({})) } else { canonical::digest(config) }
}

/// Threads that serve requests.
fn workers() -> usize {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.metrics().num_workers(),
        Err(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}
