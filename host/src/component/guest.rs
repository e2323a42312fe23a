//! What it takes to run a component's code in this process, be it the gateway or a worker: the engine with its places, and
//! the guest that is linked to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sallyport_protocol::package::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component as Loaded;

use super::engine::{Fuel, INSTANCES_PER_GUEST, TABLES_PER_GUEST};
use super::fault::Fault;
use super::lane::SlowLane;
use super::limits::Limits;
use super::link::{Linked, Linkers};
use super::world::Needs;

/// Quick calls after which a guest that was slow is taken for quick again.
const SLOW_FOR: u32 = 64;

/// The engine of a process, and how many guests it lets live at once.
pub(super) struct Runner {
    pub(super) engine: Engine,
    pub(super) fuel: Fuel,
    pub(super) linkers: Linkers,
    pub(super) places: Arc<Semaphore>,
    pub(super) lane: Arc<SlowLane>,
}

/// What is to be said about code besides the code, to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// What it is linked with besides what its kind gets.
    pub(super) needs: Needs,
    pub(super) limits: Limits,
    /// Its configuration, where it has to be configured for every call.
    pub(super) config: Option<String>,
    /// How many core modules it is made of.
    pub(super) modules: u32,
}

/// Code that can be called.
pub(super) struct Guest {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) limits: Limits,
    pub(super) config: Option<String>,
    pub(super) linked: Linked,
    /// How many places of the pool an instance takes.
    pub(super) weight: u32,
    /// For how many calls more it is taken for slow.
    slow: AtomicU32,
}

/// Why code cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Unfit {
    /// It does not fit this host.
    Link(String),
    /// It did not survive being instantiated.
    Trial(Fault),
}

// === impl Runner ===

impl Runner {
    /// `pool` guests at once.
    pub(super) fn new(engine: Engine, fuel: Fuel, pool: u32, linkers: Linkers, lane: SlowLane) -> Self {
        Self {
            engine,
            fuel,
            linkers,
            places: Arc::new(Semaphore::new(usize::try_from(pool).unwrap_or(usize::MAX))),
            lane: Arc::new(lane),
        }
    }
}

// === impl Guest ===

impl Guest {
    pub(super) fn link(linkers: &Linkers, load: Load, loaded: &Loaded) -> wasmtime::Result<Self> {
        let Load { name, kind, needs: links, limits, config, modules } = load;
        let needs =
            loaded.resources_required().map_or((1, 0), |needs| (needs.num_memories, needs.num_tables));
        Ok(Self {
            name: Arc::from(name),
            kind,
            limits,
            config,
            linked: linkers.link(kind, links, loaded)?,
            weight: needs
                .0
                .max(needs.1.div_ceil(TABLES_PER_GUEST))
                .max(modules.div_ceil(INSTANCES_PER_GUEST))
                .max(1),
            slow: AtomicU32::new(0),
        })
    }

    /// The same under other limits, configured with `config` in every instance, if there is one.
    pub(super) fn with_limits(&self, limits: Limits, config: Option<String>) -> Self {
        Self {
            name: Arc::clone(&self.name),
            kind: self.kind,
            limits,
            config: config.or_else(|| self.config.clone()),
            linked: self.linked.clone(),
            weight: self.weight,
            slow: AtomicU32::new(self.slow.load(Ordering::Relaxed)),
        }
    }

    /// Whether it is known not to finish within a tick. A provider that is quick to begin and never ends is slow.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed) > 0
    }

    /// Remembers how a call went. Calls at the same time may count as one: it is an estimate.
    pub(super) fn was_slow(&self, slow: bool) {
        let left = self.slow.load(Ordering::Relaxed);
        if slow {
            self.slow.store(SLOW_FOR, Ordering::Relaxed);
        } else if left > 0 {
            self.slow.store(left - 1, Ordering::Relaxed);
        }
    }
}
