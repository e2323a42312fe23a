//! The child's side: limits on itself first, then read, configure, snapshot, compile, answer.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Resource;
use wasmtime::component::{Component, Instance};
use wasmtime::{Engine, Store};

use super::{Answer, Compiled, Job, MAX_CODE, frame_head, read_frame, snapshot};
use crate::component::engine::{self, Fuel};
use crate::component::fault::Fault;
use crate::component::inspect::MAX_BYTES;
use crate::component::link::Linkers;
use crate::component::program;
use crate::component::state::{Scene, State};

/// Bytes of data: heap, stacks, compiled code. Not address space, of which the pool reserves much.
const MAX_DATA: u64 = 2 << 30;
/// Seconds of CPU time. A JavaScript engine of 12 MB takes 35.
pub(super) const MAX_CPU: u64 = 120;
/// Bytes of one file: what memory images are made of.
const MAX_FILE: u64 = 512 << 20;
/// Open files.
const MAX_FILES: u64 = 64;
/// Live guests: one, and room for its parts.
const POOL: u32 = 8;
/// Stack of the thread that works: the compiler recurses.
const STACK: usize = 16 << 20;

/// What `sallyport compile-component` runs: a job on standard input, the answer on standard output.
pub fn compile_child() -> ExitCode {
    program::take_name();
    if limit_self().is_err() {
        return ExitCode::from(2);
    }
    let mut frame = Vec::new();
    let most = (MAX_BYTES + super::MAX_HEAD) as u64 + 4;
    if std::io::stdin().lock().take(most).read_to_end(&mut frame).is_err() {
        return ExitCode::from(3);
    }
    let Some((job, start)) = read_frame::<Job>(&frame) else { return ExitCode::from(4) };
    if job.yields && program::yield_to(program::NICE).is_err() {
        return ExitCode::from(8);
    }
    // A thread of its own: the caller may have a runtime, and this needs one.
    let worker = thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || work(&job, frame.get(start..).unwrap_or_default()));
    let Ok(Ok((answer, code))) = worker.map(thread::JoinHandle::join) else { return ExitCode::from(5) };
    let Some(head) = frame_head(&answer) else { return ExitCode::from(6) };
    let mut out = std::io::stdout().lock();
    match out.write_all(&head).and_then(|()| out.write_all(&code)).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(7),
    }
}

/// Does the job, in this process.
fn work(job: &Job, component: &[u8]) -> (Answer, Vec<u8>) {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Answer::Failed { message: error.to_string() })
        .and_then(|runtime| runtime.block_on(compile(job, component)));
    match done {
        Ok(Compiled { code, .. }) if code.len() > MAX_CODE => {
            (Answer::Failed { message: "the compiled code is too large".to_owned() }, Vec::new())
        }
        Ok(Compiled { snapshotted, code }) => (Answer::Compiled { snapshotted }, code),
        Err(answer) => (answer, Vec::new()),
    }
}

// === private helpers ===

fn limit_self() -> std::io::Result<()> {
    let limits = [
        (Resource::Core, 0),
        (Resource::Data, MAX_DATA),
        (Resource::Cpu, MAX_CPU),
        (Resource::Fsize, MAX_FILE),
        (Resource::Nofile, MAX_FILES),
    ];
    for (resource, limit) in limits {
        program::limit(resource, limit)?;
    }
    Ok(())
}

async fn compile(job: &Job, component: &[u8]) -> Result<Compiled, Answer> {
    let engine =
        engine::engine(POOL, job.fuel).map_err(|error| Answer::Failed { message: error.to_string() })?;
    if job.snapshot {
        let draft = engine::draft(POOL).map_err(|error| Answer::Failed { message: error.to_string() })?;
        engine::start_clock(&draft).map_err(|error| Answer::Failed { message: error.to_string() })?;
        if let Some(snapshot) = snapshot::take(&draft, job, component).await? {
            let code = engine.precompile_component(&snapshot).map_err(|error| failed(&error))?;
            return Ok(Compiled { snapshotted: true, code });
        }
    }
    engine::start_clock(&engine).map_err(|error| Answer::Failed { message: error.to_string() })?;
    let component = Component::new(&engine, component).map_err(|error| failed(&error))?;
    configure(&engine, job.fuel, job, &component).await?;
    let code = component.serialize().map_err(|error| failed(&error))?;
    Ok(Compiled { snapshotted: false, code })
}

/// Makes an instance and runs `configure` in it.
pub(super) async fn configure(
    engine: &Engine,
    fuel: Fuel,
    job: &Job,
    component: &Component,
) -> Result<(Store<State>, Instance), Answer> {
    let limits = job.limits.configuring();
    let scene = Scene {
        component: Arc::from("configure"),
        tenant: String::new(),
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
        Ok((_, Err(message))) => Err(Answer::Refused { message: message.chars().take(4_096).collect() }),
        Err(error) => {
            let left = store.data_mut().leave().log.unwrap_or_default();
            let message = format!("{} {left}", Fault::of(&error, &limits));
            Err(Answer::Faulted { message: message.trim_end().to_owned() })
        }
    }
}

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

fn failed(error: &wasmtime::Error) -> Answer {
    Answer::Failed { message: format!("{error:#}").chars().take(4_096).collect() }
}
