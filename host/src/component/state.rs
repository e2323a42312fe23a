//! What a store holds for one call: the limits, what was used of them, and what the guest left behind.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store};

use super::capability::EgressCall;
use super::capability::inert::Inert;
use super::contract::{Attribute, Counters, Grants};
use super::engine::Fuel;
use super::fault::Stop;
use super::limits::{INSTANCES, Limits, MEMORIES, NOTE_BYTES, TABLE_ELEMENTS, TABLES};
use super::meter::Meter;

/// Who calls which component, and when: all that a guest can learn of its caller and of time.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The component's name, which its counters are kept under.
    pub(crate) component: Arc<str>,
    /// The tenant whose counters they are.
    pub(crate) tenant: Arc<str>,
    /// What random bytes grow from, so that a decision can be replayed.
    pub(crate) seed: String,
    /// Wall clock shown to the guest; frozen for the whole call.
    pub(crate) now: Duration,
    /// When the call began, since 1970: which day and month its money belongs to.
    pub(crate) began: Duration,
    /// Egress grants, for a hook that has some.
    pub(crate) grants: Arc<Grants>,
    /// Where counters are kept; none while configuring.
    pub(crate) counters: Option<Arc<dyn Counters>>,
}

/// The data of one store.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) limits: Limits,
    pub(crate) scene: Scene,
    pub(crate) meter: Arc<Meter>,
    /// Requests that it made.
    pub(crate) egress_calls: Vec<EgressCall>,
    memory: usize,
    host_calls: u32,
    notes: Vec<Attribute>,
    note_bytes: usize,
    notes_dropped: u32,
    inert: Option<Box<Inert>>,
}

/// What a guest left behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Left {
    pub(crate) notes: Vec<Attribute>,
    pub(crate) log: Option<String>,
    pub(crate) egress_calls: Vec<EgressCall>,
}

// === impl State ===

impl State {
    /// A fresh store under `limits`.
    pub(crate) fn store(engine: &Engine, fuel: Fuel, limits: Limits, scene: Scene) -> Store<Self> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let state = Self {
            table,
            limits,
            scene,
            meter: Arc::new(Meter::new()),
            egress_calls: Vec::new(),
            memory: 0,
            host_calls: 0,
            notes: Vec::new(),
            note_bytes: 0,
            notes_dropped: 0,
            inert: None,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        if fuel == Fuel::Counted {
            // Refused only by an engine that does not count.
            drop(store.set_fuel(u64::MAX));
        }
        store.set_hostcall_fuel(limits.copied);
        store.set_max_component_handles(limits.handles);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            let state = context.data();
            state.within_limits()?;
            Ok(state.meter.tick()?)
        });
        store
    }

    /// Bytes of linear memory, all memories together. They only grow.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Counts one host call.
    pub(crate) fn host_call(&mut self) -> Result<(), Stop> {
        self.count_host_call();
        self.within_limits()
    }

    fn count_host_call(&mut self) {
        self.host_calls = self.host_calls.saturating_add(1);
    }

    pub(crate) fn within_limits(&self) -> Result<(), Stop> {
        let limit = self.limits.host_calls;
        if self.host_calls > limit { Err(Stop::HostCalls(limit)) } else { Ok(()) }
    }

    /// Keeps a note, or counts it as dropped.
    pub(crate) fn note(&mut self, what: Attribute) {
        let size = what.name.len().saturating_add(what.value.len());
        match self.note_bytes.checked_add(size) {
            Some(sum) if sum <= NOTE_BYTES => {
                self.note_bytes = sum;
                self.notes.push(what);
            }
            _ => self.notes_dropped = self.notes_dropped.saturating_add(1),
        }
    }

    /// The inert system interfaces, made when a guest first asks. Their calls cannot fail, so going beyond the limit of
    /// host calls stops the guest at the next tick.
    pub(crate) fn inert(&mut self) -> (&mut Inert, &mut ResourceTable) {
        self.count_host_call();
        let Self { inert, table, limits, scene, .. } = self;
        (inert.get_or_insert_with(|| Box::new(Inert::new(limits, &scene.seed, scene.now))), table)
    }

    /// Takes what the guest left behind.
    pub(crate) fn leave(&mut self) -> Left {
        let mut notes = std::mem::take(&mut self.notes);
        if self.notes_dropped > 0 {
            let value = std::mem::take(&mut self.notes_dropped).to_string();
            notes.push(Attribute { name: "notes_dropped".to_owned(), value });
        }
        let egress_calls = std::mem::take(&mut self.egress_calls);
        Left { notes, log: self.inert.as_ref().and_then(|inert| inert.log()), egress_calls }
    }
}

impl ResourceLimiter for State {
    /// Counts the growth of all memories together. More than the limit stops the guest: a guest that is told `-1` goes on
    /// to abort in ways that hide the cause.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            let declared = maximum.unwrap_or_default();
            if declared < self.limits.memory {
                return Ok(false);
            }
        }
        let sum = self.memory.saturating_add(desired.saturating_sub(current));
        if sum > self.limits.memory {
            return Err(Stop::Memory(self.limits.memory).into());
        }
        self.memory = sum;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            return Err(Stop::Table.into());
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}
