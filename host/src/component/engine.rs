//! The one engine: which features guests may use, how many may live at once, and the clock that interrupts them.

use std::hash::{Hash, Hasher};
use std::thread;

use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    ProfilingStrategy, Strategy, WasmBacktraceDetails,
};

use super::inspect;
use super::limits::{INSTANCES, MEMORIES, SLOT_BYTES, STACK_BYTES, TABLE_ELEMENTS, TABLES};
use super::meter::TICK;

/// Live guests when nothing else is said.
pub const DEFAULT_POOL: u32 = 2_000;
/// Live guests at most: beyond it the kernel's limit of memory mappings decides.
pub const MAX_POOL: u32 = 4_000;

/// Mappings that a live guest costs at most: its memory (image, grown part, guard), stack and tables.
const MAPS_PER_GUEST: u64 = 14;
/// Mappings left to everything else in the process.
const MAPS_OF_OTHERS: u64 = 8_192;
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// Core instances per live guest, on average over the pool: the guest's module and the two shims of a usual component.
pub(crate) const INSTANCES_PER_GUEST: u32 = 3;
/// Tables per live guest, on average over the pool.
pub(crate) const TABLES_PER_GUEST: u32 = 2;

/// Whether the work of guests is counted. It makes them a quarter slower, so a gateway times them instead; what a developer
/// is told should be the same on every machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fuel {
    /// Not counted.
    #[default]
    Off,
    /// Counted, and never used up.
    Counted,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The pool is empty or larger than allowed.
    #[error("a pool of {pool} guests is not between 1 and {MAX_POOL}")]
    Pool {
        /// What was asked for.
        pool: u32,
    },
    /// The kernel would run out of mappings first.
    #[error("a pool of {pool} guests needs vm.max_map_count of {needed}, it is {found}")]
    MapCount {
        /// What was asked for.
        pool: u32,
        /// What the kernel would have to allow.
        needed: u64,
        /// What it allows.
        found: u64,
    },
    /// wasmtime refused.
    #[error("the engine could not be made: {0}")]
    Engine(String),
    /// No thread for the clock.
    #[error("the epoch clock could not be started")]
    Clock(#[source] std::io::Error),
}

/// An engine with room for `pool` live guests.
pub(crate) fn engine(pool: u32, fuel: Fuel) -> Result<Engine, EngineError> {
    if pool == 0 || pool > MAX_POOL {
        return Err(EngineError::Pool { pool });
    }
    check_map_count(pool, std::fs::read_to_string(MAX_MAP_COUNT).ok().as_deref())?;
    Engine::new(config(pool).consume_fuel(fuel == Fuel::Counted))
        .map_err(|error| EngineError::Engine(format!("{error:#}")))
}

/// An engine that compiles fast code slowly is a waste for code that runs once: this one does not optimise. What it compiles
/// cannot be loaded by [`engine`].
pub(crate) fn draft(pool: u32) -> Result<Engine, EngineError> {
    Engine::new(config(pool).cranelift_opt_level(OptLevel::None))
        .map_err(|error| EngineError::Engine(format!("{error:#}")))
}

/// Moves the epoch until the engine is gone.
pub(crate) fn start_clock(engine: &Engine) -> Result<(), EngineError> {
    let weak = engine.weak();
    let tick = move || {
        loop {
            thread::sleep(TICK);
            match weak.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    };
    thread::Builder::new().name("guest-epoch".to_owned()).spawn(tick).map(drop).map_err(EngineError::Clock)
}

/// What compiled code has to agree with to be loaded by this engine: settings, wasmtime's version, processor.
pub(crate) fn compatibility(engine: &Engine) -> [u8; 32] {
    struct Keyed(blake3::Hasher);
    impl Hasher for Keyed {
        fn finish(&self) -> u64 {
            self.0.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Keyed(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    *hasher.0.finalize().as_bytes()
}

// === private helpers ===

fn config(pool: u32) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .profiler(ProfilingStrategy::None)
        .epoch_interruption(true)
        .consume_fuel(false)
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(STACK_BYTES * 2)
        .memory_init_cow(true)
        .memory_reservation(4 << 30)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .debug_info(false)
        .generate_address_map(false);
    // Whatever the first look refuses, the compiler refuses too.
    config.wasm_features(!inspect::features(), false).shared_memory(false);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(pool)));
    config
}

fn pooling(pool: u32) -> PoolingAllocationConfig {
    let mut pooling = PoolingAllocationConfig::new();
    let scan = if PoolingAllocationConfig::is_pagemap_scan_available() { Enabled::Yes } else { Enabled::No };
    pooling
        .total_component_instances(pool)
        .total_core_instances(pool.saturating_mul(INSTANCES_PER_GUEST).max(INSTANCES))
        .total_memories(pool.max(MEMORIES))
        .total_tables(pool.saturating_mul(TABLES_PER_GUEST).max(TABLES))
        .total_stacks(pool)
        .max_core_instances_per_component(INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memory_size(SLOT_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(pool.min(1_000))
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(16 << 10)
        .pagemap_scan(scan);
    pooling
}

fn check_map_count(pool: u32, setting: Option<&str>) -> Result<(), EngineError> {
    let Some(found) = setting.and_then(|text| text.trim().parse::<u64>().ok()) else { return Ok(()) };
    let needed = u64::from(pool) * MAPS_PER_GUEST + MAPS_OF_OTHERS;
    if found < needed { Err(EngineError::MapCount { pool, needed, found }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pool_and_the_largest_one_fit_a_kernel_as_it_comes() {
        check_map_count(DEFAULT_POOL, Some("65530\n")).unwrap();
        check_map_count(MAX_POOL, Some("65530\n")).unwrap();
    }

    #[test]
    fn a_kernel_with_too_few_mappings_is_named() {
        let error = check_map_count(4_000, Some("30000")).unwrap_err();
        assert_eq!(error.to_string(), "a pool of 4000 guests needs vm.max_map_count of 64192, it is 30000");
    }

    #[test]
    fn a_pool_beyond_the_cap_is_refused() {
        assert!(matches!(engine(MAX_POOL + 1, Fuel::Off), Err(EngineError::Pool { pool: 4_001 })));
        assert!(matches!(engine(0, Fuel::Off), Err(EngineError::Pool { pool: 0 })));
    }
}
