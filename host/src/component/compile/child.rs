//! The child's side: limits on itself first, then read, configure, snapshot, compile, answer.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::thread;

use rustix::process::Resource;
use wasmtime::component::Component;

use super::configure::{configure, failed};
use super::{Compiled, CompilerAnswer, Job, MAX_CODE, frame_head, read_frame, snapshot};
use crate::component::engine;
use crate::component::inspect::MAX_BYTES;
use crate::component::program;

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
fn work(job: &Job, component: &[u8]) -> (CompilerAnswer, Vec<u8>) {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CompilerAnswer::Failed { message: error.to_string() })
        .and_then(|runtime| runtime.block_on(compile(job, component)));
    match done {
        Ok(Compiled { code, .. }) if code.len() > MAX_CODE => {
            (CompilerAnswer::Failed { message: "the compiled code is too large".to_owned() }, Vec::new())
        }
        Ok(Compiled { snapshotted, code }) => (CompilerAnswer::Compiled { snapshotted }, code),
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

async fn compile(job: &Job, component: &[u8]) -> Result<Compiled, CompilerAnswer> {
    let engine = engine::engine(POOL, job.fuel)
        .map_err(|error| CompilerAnswer::Failed { message: error.to_string() })?;
    if job.snapshot {
        let draft =
            engine::draft(POOL).map_err(|error| CompilerAnswer::Failed { message: error.to_string() })?;
        engine::start_clock(&draft).map_err(|error| CompilerAnswer::Failed { message: error.to_string() })?;
        if let Some(snapshot) = snapshot::take(&draft, job, component).await? {
            let code = engine.precompile_component(&snapshot).map_err(|error| failed(&error))?;
            return Ok(Compiled { snapshotted: true, code });
        }
    }
    engine::start_clock(&engine).map_err(|error| CompilerAnswer::Failed { message: error.to_string() })?;
    let component = Component::new(&engine, component).map_err(|error| failed(&error))?;
    configure(&engine, job.fuel, job, &component).await?;
    let code = component.serialize().map_err(|error| failed(&error))?;
    Ok(Compiled { snapshotted: false, code })
}
