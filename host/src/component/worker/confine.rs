//! A worker's own limits, taken before it hears a word: nothing inherited, nothing to open, nobody to talk to but the gateway.
//!
//! What cannot be done without the kernel's help is done as far as the kernel helps, and reported: [`Confinement`] says which
//! parts hold.

use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Signal};
use serde::{Deserialize, Serialize};

use crate::component::program;

/// Bytes of data: memories of guests, heap, compiled code.
const MAX_DATA: u64 = 2 << 30;
/// Bytes of one file: what memory images are made of.
const MAX_FILE: u64 = 512 << 20;
/// Open files: one for each memory image.
const MAX_FILES: u64 = 512;

/// Which of the kernel's walls stand around a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// No file can be opened and no socket connected (Landlock).
    pub landlock: bool,
    /// No system call but those that running guests takes (seccomp).
    pub seccomp: bool,
}

// === impl Confinement ===

impl Confinement {
    /// Every wall stands.
    pub fn is_whole(self) -> bool {
        self.landlock && self.seccomp
    }
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match (self.landlock, self.seccomp) {
            (true, true) => "Landlock and seccomp",
            (true, false) => "Landlock alone: this kernel has no seccomp filters",
            (false, true) => "seccomp alone: this kernel has no Landlock, or only part of it",
            (false, false) => "neither Landlock nor seccomp: this kernel has none",
        })
    }
}

/// First of all: limits of this process, its end with its parent, and no file from before. Nothing else is open yet.
pub(super) fn begin() -> std::io::Result<()> {
    close_inherited()?;
    let limits = [
        (Resource::Core, 0),
        (Resource::Data, MAX_DATA),
        (Resource::Fsize, MAX_FILE),
        (Resource::Nofile, MAX_FILES),
    ];
    for (resource, limit) in limits {
        program::limit(resource, limit)?;
    }
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    program::yield_to(program::NICE)
}

/// No file and no socket from here on, for this thread and all that it starts.
#[cfg(target_os = "linux")]
pub(super) fn landlock() -> bool {
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
        RulesetStatus, Scope,
    };
    // The newest that is asked for; an older kernel gives what it has.
    let abi = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    restricted.is_ok_and(|status| status.no_new_privs && status.ruleset == RulesetStatus::FullyEnforced)
}

/// Last of all, with every thread there that will ever be: no system call but the ones that it takes to run guests.
#[cfg(target_os = "linux")]
pub(super) fn seccomp() -> bool {
    let Ok(filter) = filter() else { return false };
    seccompiler::apply_filter_all_threads(&filter).is_ok() && is_walled()
}

/// What is believed is what was tried: neither a file nor a socket.
#[cfg(target_os = "linux")]
fn is_walled() -> bool {
    let file = std::fs::File::open("/proc/self/status");
    let socket = std::os::unix::net::UnixDatagram::unbound();
    file.is_err() && socket.is_err()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn landlock() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(super) fn seccomp() -> bool {
    false
}

/// What a confined worker finds when it looks at itself, and what comes of everything that it may not do.
#[cfg(target_os = "linux")]
#[derive(Debug, Serialize)]
pub(super) struct ConfinementTrial {
    /// What is open besides the three pipes, before anything of the worker's own is.
    files: Vec<String>,
    /// Whether others of its user may look at its memory.
    dumpable: bool,
    /// What was tried behind the walls, and the error that came of it; `None` where nothing stopped it.
    tried: Vec<(&'static str, Option<i32>)>,
}

#[cfg(target_os = "linux")]
impl ConfinementTrial {
    /// Looks at this process, right after [`begin`].
    pub(super) fn look() -> std::io::Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let number: i32 = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(-1);
            let held = std::fs::read_link(entry.path())?.display().to_string();
            // The listing itself is open while it is read.
            if number > 2 && !held.ends_with("/fd") {
                files.push(held);
            }
        }
        let dumpable = rustix::process::dumpable_behavior()? != DumpableBehavior::NotDumpable;
        Ok(Self { files, dumpable, tried: Vec::new() })
    }

    /// Tries everything that can be tried without `unsafe`. Nothing of it does harm where it succeeds.
    pub(super) fn attempt(&mut self) {
        use std::os::unix::process::CommandExt as _;
        use std::process::Command;
        fn error<T>(tried: std::io::Result<T>) -> Option<i32> {
            tried.err().map(|error| error.raw_os_error().unwrap_or(0))
        }
        self.tried = vec![
            ("open", error(std::fs::File::open("/proc/self/status"))),
            ("unlink", error(std::fs::remove_file("/nowhere/at/all"))),
            ("socket", error(std::os::unix::net::UnixDatagram::unbound())),
            (
                "kill",
                error(rustix::process::test_kill_process(rustix::process::getpid()).map_err(Into::into)),
            ),
            ("thread", error(std::thread::Builder::new().spawn(|| ()).map(std::thread::JoinHandle::join))),
            ("process", error(Command::new("/bin/true").spawn().and_then(|mut child| child.wait()))),
            ("execve", error::<()>(Err(Command::new("/nowhere/at/all").exec()))),
        ];
    }
}

// === private helpers ===

/// The gateway opens nothing that a child inherits; whoever started the gateway may have.
#[expect(unsafe_code, reason = "nothing of this process is open yet, so nobody owns what is closed")]
fn close_inherited() -> std::io::Result<()> {
    let listing = Path::new(if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" });
    let listed: Vec<i32> = std::fs::read_dir(listing)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in listed {
        // The listing itself was among them, and is closed already.
        if listing.join(descriptor.to_string()).symlink_metadata().is_ok() {
            // SAFETY: this runs before anything else of this process opens a file or starts a thread.
            unsafe { rustix::io::close(descriptor) };
        }
    }
    Ok(())
}

/// What is not on the list fails with "operation not permitted".
#[cfg(target_os = "linux")]
fn filter() -> Result<seccompiler::BpfProgram, seccompiler::BackendError> {
    use std::collections::BTreeMap;

    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        TargetArch,
    };

    /// `PAGEMAP_SCAN`, with which the pool finds the pages that a guest wrote.
    const PAGEMAP_SCAN: u64 = 0xc060_6610;

    let only = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let own = u64::try_from(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or(0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        system_calls().into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_ioctl, vec![only(1, PAGEMAP_SCAN)?]);
    // To abort, and to hurt nobody else.
    rules.insert(libc::SYS_tgkill, vec![only(0, own)?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    filter.try_into()
}

/// What running guests takes: the two pipes, memory, waiting, time, randomness and the signals that traps are made of.
#[cfg(target_os = "linux")]
fn system_calls() -> Vec<i64> {
    let mut calls = vec![
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_brk,
        // Memory images are files that have no name.
        libc::SYS_memfd_create,
        libc::SYS_ftruncate,
        libc::SYS_fcntl,
        libc::SYS_fstat,
        libc::SYS_lseek,
        libc::SYS_futex,
        // A thread that was made just before the walls begins with these.
        libc::SYS_rseq,
        libc::SYS_set_robust_list,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.push(libc::SYS_epoll_wait);
    calls.sort_unstable();
    calls
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What would let a guest that broke out reach other processes, files, the network or the kernel's rarer parts.
    #[test]
    fn nothing_is_allowed_that_reaches_out_of_the_process() {
        let forbidden = [
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_mkdirat,
            libc::SYS_fchmodat,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_accept4,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_ioctl,
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_mount,
            libc::SYS_setuid,
            libc::SYS_setrlimit,
            libc::SYS_prlimit64,
            libc::SYS_setpriority,
        ];
        let allowed = system_calls();
        let let_through: Vec<_> = forbidden.iter().filter(|call| allowed.contains(call)).collect();
        assert!(let_through.is_empty(), "system calls by number: {let_through:?}");
    }
}
