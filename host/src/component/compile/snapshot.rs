//! Snapshots: a component whose memory already holds what `configure` built, so that every fresh instance starts with it.

use wasmtime::component::{Component, Instance, Lift, WasmList};
use wasmtime::{Engine, Store};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use super::configure::configure;
use super::{CompilerAnswer, Job};
use crate::component::engine::Fuel;
use crate::component::limits::CONFIGURE_CPU;
use crate::component::state::State;

/// Whether the structure of a component allows a snapshot: its core modules lie in it and not in components of its own, and
/// nothing in them is beyond copying.
pub fn possible(component: &[u8]) -> bool {
    Wizer::new().keep_init_func(true).instrument_component(component).is_ok()
}

/// The configured component, or `None` where its structure does not allow a snapshot.
pub(super) async fn take(
    engine: &Engine,
    job: &Job,
    component: &[u8],
) -> Result<Option<Vec<u8>>, CompilerAnswer> {
    let mut wizer = Wizer::new();
    wizer.keep_init_func(true);
    let Ok((context, instrumented)) = wizer.instrument_component(component) else { return Ok(None) };
    let instrumented = Component::new(engine, &instrumented).map_err(|error| failed(&error))?;
    let (store, instance) = configure(engine, Fuel::Off, job, &instrumented).await?;
    store.data().meter.grant(CONFIGURE_CPU, CONFIGURE_CPU * 2);
    let mut source = SnapshotSource { store, instance, failed: None };
    let snapshot = wizer.snapshot_component(&context, &mut source).await;
    match (source.failed, snapshot) {
        (Some(error), _) | (None, Err(error)) => Err(failed(&error)),
        (None, Ok(snapshot)) => Ok(Some(snapshot)),
    }
}

/// Where the state is read from. Reading cannot fail in wizer's eyes, so what fails is kept.
struct SnapshotSource {
    store: Store<State>,
    instance: Instance,
    failed: Option<wasmtime::Error>,
}

// === impl SnapshotSource ===

impl SnapshotSource {
    async fn call<R: Lift + Send + Sync + 'static>(
        &mut self,
        interface: &str,
        function: &str,
    ) -> wasmtime::Result<R> {
        let missing = || wasmtime::format_err!("the instrumented component does not export {interface}");
        let index = self.instance.get_export_index(&mut self.store, None, interface).ok_or_else(missing)?;
        let index =
            self.instance.get_export_index(&mut self.store, Some(&index), function).ok_or_else(missing)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, index)?;
        Ok(function.call_async(&mut self.store, ()).await?.0)
    }

    async fn value<R: Lift + Send + Sync + Default + 'static>(
        &mut self,
        interface: &str,
        function: &str,
    ) -> R {
        match self.call(interface, function).await {
            Ok(value) => value,
            Err(error) => {
                self.failed = Some(error);
                R::default()
            }
        }
    }
}

impl ComponentInstanceState for SnapshotSource {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        match self.call::<WasmList<u8>>(instance, func).await {
            Ok(list) => contents(list.as_le_slice(&self.store)),
            Err(error) => {
                self.failed = Some(error);
                contents(&[]);
            }
        }
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.value(instance, func).await
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.value(instance, func).await
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.value::<f32>(instance, func).await.to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.value::<f64>(instance, func).await.to_bits()
    }
}

// === private helpers ===

fn failed(error: &wasmtime::Error) -> CompilerAnswer {
    CompilerAnswer::Failed {
        message: format!("the snapshot failed: {error:#}").chars().take(4_096).collect(),
    }
}
