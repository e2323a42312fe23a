//! Running `configure` in the compiler's child: one instance of the component is made and given its configuration.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, Instance};
use wasmtime::{Engine, Store};

use super::{CompilerAnswer, Job};
use crate::component::engine::Fuel;
use crate::component::fault::Fault;
use crate::component::link::Linkers;
use crate::component::state::{Scene, State};

/// Makes an instance and runs `configure` in it.
pub(super) async fn configure(
    engine: &Engine,
    fuel: Fuel,
    job: &Job,
    component: &Component,
) -> Result<(Store<State>, Instance), CompilerAnswer> {
    let limits = job.limits.configuring();
    let scene = Scene {
        component: Arc::from("configure"),
        tenant: Arc::default(),
        seed: "configure".to_owned(),
        now: Duration::ZERO,
        began: Duration::ZERO,
        grants: Arc::default(),
        counters: None,
    };
    let pre = Linkers::new(engine)
        .and_then(|linkers| linkers.link_any(job.kind, job.needs, component))
        .map_err(|error| failed(&error))?;
    let mut store = State::store(engine, fuel, limits, scene);
    let meter = Arc::clone(&store.data().meter);
    meter.grant(limits.cpu, limits.cpu_total);
    let run = async {
        let instance = pre.instantiate_async(&mut store).await?;
        let answer = call_configure(&mut store, &instance, job).await?;
        Ok((instance, answer))
    };
    let ran: wasmtime::Result<_> = meter.run_alone(run).await;
    match ran {
        Ok((instance, Ok(()))) => Ok((store, instance)),
        Ok((_, Err(message))) => {
            Err(CompilerAnswer::Refused { message: message.chars().take(4_096).collect() })
        }
        Err(error) => {
            let left = store.data_mut().leave().log.unwrap_or_default();
            let message = format!("{} {left}", Fault::of(&error, &limits));
            Err(CompilerAnswer::Faulted { message: message.trim_end().to_owned() })
        }
    }
}

/// How an error of the engine is reported to the gateway.
pub(super) fn failed(error: &wasmtime::Error) -> CompilerAnswer {
    CompilerAnswer::Failed { message: format!("{error:#}").chars().take(4_096).collect() }
}

// === private helpers ===

async fn call_configure(
    store: &mut Store<State>,
    instance: &Instance,
    job: &Job,
) -> wasmtime::Result<Result<(), String>> {
    let missing = || wasmtime::format_err!("the component does not export {}", job.configurable);
    let interface = instance.get_export_index(&mut *store, None, &job.configurable).ok_or_else(missing)?;
    let function =
        instance.get_export_index(&mut *store, Some(&interface), "configure").ok_or_else(missing)?;
    let function = instance.get_typed_func::<(&str,), (Result<(), String>,)>(&mut *store, function)?;
    let (answer,) = function.call_async(&mut *store, (job.config.as_str(),)).await?;
    Ok(answer)
}
