//! The processes beside the gateway: its compiler and its workers run this very binary, each with a verb of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit};
use tokio::process::{Child, Command};

/// How much later than the gateway's own threads those get their turn that work for a tenant.
pub(super) const NICE: i32 = 5;
/// What the binary and its processes are called.
const NAME: &str = "sallyport";

/// The binary that this process runs. Where the system has such a path it is the running image itself: an upgrade that puts
/// another file in its place does not mix two versions in one gateway.
pub fn own() -> io::Result<PathBuf> {
    let image = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && image.exists() { Ok(image.to_owned()) } else { std::env::current_exe() }
}

/// Starts `program` to do `verb`, with pipes to it and nothing of this process' environment. Dropped, it is killed.
pub(super) fn start(program: &Path, verb: &str) -> io::Result<Child> {
    Command::new(program)
        .arg0(NAME)
        .arg(verb)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Takes a limit upon itself: never a wider one than this process was given.
pub(super) fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let given = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Some(most.min(given));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    Ok(())
}

/// Puts this process behind those of niceness below `nice`. One that is nicer already stays so: to be less nice takes a
/// privilege, and nobody asked for it.
pub(super) fn yield_to(nice: i32) -> io::Result<()> {
    let now = getpriority_process(None)?;
    if now < nice {
        setpriority_process(None, nice)?;
    }
    Ok(())
}

/// The kernel names a process after the path that it was started by, which need not tell an operator anything.
pub(super) fn take_name() {
    // Only for those who look at a list of processes.
    let _named = std::fs::write("/proc/self/comm", NAME).is_ok();
}
