//! What the kernel knows of a process: CPU time and memory. Linux only, as the benchmark is.

use std::collections::HashMap;
use std::time::Duration;

/// CPU time of each thread of a process at one moment, to the nanosecond.
#[derive(Debug, Clone)]
pub struct Cpu {
    threads: HashMap<String, u64>,
}

// === impl Cpu ===

impl Cpu {
    /// Reads it now.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let mut threads = HashMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            // A thread may end between the listing and the look at it.
            if let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) {
                let nanos = text.split_whitespace().next().and_then(|v| v.parse().ok()).unwrap_or(0);
                threads.insert(entry.file_name().to_string_lossy().into_owned(), nanos);
            }
        }
        Ok(Self { threads })
    }

    /// What was used since an earlier moment; threads that ended in between are not counted.
    pub fn since(&self, earlier: &Self) -> Duration {
        let nanos =
            self.threads.iter().map(|(id, now)| now.saturating_sub(*earlier.threads.get(id).unwrap_or(&0)));
        Duration::from_nanos(nanos.sum())
    }
}

/// A process and all that it started, and they.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the look at it.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut all = vec![root];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        all.extend(children.get(pid).into_iter().flatten().copied());
        at += 1;
    }
    all
}

/// Resident memory in bytes, with what is shared counted in parts.
pub fn proportional(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    Ok(kib * 1024)
}

/// Resident memory in bytes.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0);
    Ok(kib * 1024)
}

/// Resident memory in bytes that the process wrote and shares with no other. Pages of its binary, which it may be the only
/// one to have mapped just now, are not among them.
pub fn private(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_Dirty:"));
    let kib = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.sum::<u64>() * 1024)
}

/// How many file descriptors the process holds that are sockets.
pub fn sockets(pid: u32) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed between the listing and the look at it.
        if let Ok(target) = std::fs::read_link(entry?.path())
            && target.to_string_lossy().starts_with("socket:")
        {
            count += 1;
        }
    }
    Ok(count)
}

/// Sends a signal by name: `HUP`, `TERM`, `KILL`.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    anyhow::ensure!(status.success(), "no process {pid} to send {name} to");
    Ok(())
}
