//! `gate`: what needs no quiet machine. System calls and allocations of a call, and instructions of what reads
//! every request, each with a bound that fails the build. A tool that is not installed skips its part, by name.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use sallyport_tests::gateway::{TestApp, binary};
use sallyport_tests::process::signal;
use serde_json::{Value, json};

use crate::{Part, governed};

/// What may not be exceeded, by the name of what is counted. Each is what was counted when it was set, and a margin for what depends
/// on how threads meet.
const BOUNDS: [(&str, f64); 7] = [
    ("unary: futex", 10.0),
    ("unary: pwrite64", 12.0),
    ("unary: writes to sockets", 3.0),
    ("unary: allocations", 350.0),
    ("burst of 200: writes to sockets", 6.0),
    ("burst of 200: allocations", 385.0),
    ("instructions of an index over 1 MiB", 10_000_000.0),
];

/// Calls whose system calls are counted.
const CALLS: u32 = 500;
const STREAMS: u32 = 50;
/// The allocator's entries, counted in a file that the benchmark reads.
const COUNTER: &str = include_str!("count.c");
/// In which the gate tells its own child where the count is.
const COUNT: &str = "SALLYPORT_BENCH_COUNT";

/// Counts everything, prints it with its bounds, and fails where one is exceeded.
pub(crate) async fn run() -> anyhow::Result<()> {
    let (mut counted, mut skipped) = of_a_call().await?;
    if works("valgrind", "--version") {
        counted.extend(instructions()?);
    } else {
        skipped.push("instructions: valgrind is not installed");
    }
    let mut out = std::io::stdout().lock();
    let mut exceeded = false;
    for (name, bound) in BOUNDS {
        let Some(is) = counted.get(name) else { continue };
        let verdict = if *is <= bound { "pass" } else { "MISS" };
        exceeded |= *is > bound;
        writeln!(out, "{name:<44}{is:>14.1}{bound:>14.1}  {verdict}")?;
    }
    for what in skipped {
        writeln!(out, "skipped: {what}")?;
    }
    ensure!(!exceeded, "a call costs more than it may");
    Ok(())
}

/// System calls and allocations of a call, and why some are not known.
pub(crate) async fn of_a_call() -> anyhow::Result<(BTreeMap<String, f64>, Vec<&'static str>)> {
    let mut counted = BTreeMap::new();
    let mut skipped = Vec::new();
    if works("strace", "-V") {
        counted.extend(system_calls().await?);
    } else {
        skipped.push("system calls: strace is not installed");
    }
    if works("cc", "--version") {
        counted.extend(in_child(&["part", "allocations"])?);
    } else {
        skipped.push("allocations: there is no C compiler");
    }
    Ok((counted, skipped))
}

/// A gateway with everything on, its upstream, and who calls it.
struct Stand {
    app: TestApp,
    load: Part,
    _upstream: Part,
}

// === impl Stand ===

impl Stand {
    async fn start() -> anyhow::Result<Self> {
        let (upstream, address) = Part::start(&["upstream"]).await?;
        let (load, _) = Part::start(&["load"]).await?;
        let url = format!("http://{address}");
        let app = TestApp::with(|config| governed(config.upstream(&url), true)).await;
        let mut stand = Self { app, load, _upstream: upstream };
        stand.unary(200).await?;
        stand.streams(10).await?;
        Ok(stand)
    }

    async fn unary(&mut self, calls: u32) -> anyhow::Result<()> {
        self.ask("kit", "claude-bench", calls).await
    }

    /// Streams of 200 pieces that the upstream writes at once.
    async fn streams(&mut self, streams: u32) -> anyhow::Result<()> {
        self.ask("stream", "claude-bench", streams).await
    }

    async fn ask(&mut self, kind: &str, model: &str, calls: u32) -> anyhow::Result<()> {
        let (address, token) = (self.app.address().to_string(), &self.app.token);
        let job = json!({"kind": kind, "model": model, "connections": 1, "requests": calls, "address": address, "token": token});
        self.load.ask(&job).await?;
        // What drains behind a call belongs to it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }
}

// === system calls ===

async fn system_calls() -> anyhow::Result<BTreeMap<String, f64>> {
    let mut stand = Stand::start().await?;
    let mut counted = BTreeMap::new();
    let tracer = Tracer::attach(stand.app.pid()).await?;
    stand.unary(CALLS).await?;
    let calls = tracer.end()?;
    let each = |name: &str| f64::from(calls.get(name).copied().unwrap_or(0)) / f64::from(CALLS);
    counted.insert("unary: futex".to_owned(), each("futex"));
    counted.insert("unary: pwrite64".to_owned(), each("pwrite64"));
    counted.insert("unary: writes to sockets".to_owned(), each("writev") + each("sendto"));
    let tracer = Tracer::attach(stand.app.pid()).await?;
    stand.streams(STREAMS).await?;
    let calls = tracer.end()?;
    let each = |name: &str| f64::from(calls.get(name).copied().unwrap_or(0)) / f64::from(STREAMS);
    counted.insert("burst of 200: writes to sockets".to_owned(), each("writev") + each("sendto"));
    Ok(counted)
}

/// `strace` at work on a process.
struct Tracer {
    child: std::process::Child,
    table: tempfile::NamedTempFile,
}

// === impl Tracer ===

impl Tracer {
    async fn attach(pid: u32) -> anyhow::Result<Self> {
        let table = tempfile::NamedTempFile::new()?;
        let child = Command::new("strace")
            .args(["-f", "-c", "-q", "-o"])
            .arg(table.path())
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()?;
        let status = format!("/proc/{pid}/status");
        for _ in 0..200 {
            if std::fs::read_to_string(&status)?
                .lines()
                .any(|line| line == format!("TracerPid:\t{}", child.id()))
            {
                return Ok(Self { child, table });
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("strace may not look at the gateway")
    }

    /// How often each system call was made meanwhile.
    fn end(mut self) -> anyhow::Result<BTreeMap<String, u32>> {
        signal(self.child.id(), "INT")?;
        self.child.wait()?;
        let table = std::fs::read_to_string(self.table.path())?;
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some(((*words.last()?).to_owned(), words.get(3)?.parse().ok()?))
        };
        let calls: BTreeMap<_, _> = table.lines().filter_map(line).collect();
        ensure!(calls.contains_key("futex"), "strace counted nothing:\n{table}");
        Ok(calls)
    }
}

// === allocations ===

/// Runs a part of this binary in front of a gateway whose allocations are counted.
fn in_child(part: &[&str]) -> anyhow::Result<BTreeMap<String, f64>> {
    let folder = tempfile::tempdir()?;
    let (source, library) = (folder.path().join("count.c"), folder.path().join("count.so"));
    std::fs::write(&source, COUNTER)?;
    let compiled =
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]).status()?;
    ensure!(compiled.success(), "the counter of allocations does not compile");
    let count = folder.path().join("count");
    std::fs::write(&count, [0; 8])?;
    // The gateway under test has an environment of its own: a script stands for it.
    let script = folder.path().join("sallyport");
    let text = format!(
        "#!/bin/sh\nLD_PRELOAD={} {COUNT}={} exec {} \"$@\"\n",
        library.display(),
        count.display(),
        binary().display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let output = Command::new(std::env::current_exe()?)
        .args(part)
        .env("SALLYPORT_BIN", &script)
        .env(COUNT, &count)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{part:?} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// In that child: allocations of a call, and of a stream.
pub(crate) async fn allocations() -> anyhow::Result<Value> {
    let file = PathBuf::from(std::env::var_os(COUNT).context("the gate says where the count is")?);
    let now = || -> anyhow::Result<u64> {
        let bytes = std::fs::read(&file)?;
        Ok(u64::from_le_bytes(bytes.as_slice().try_into().context("a count has eight bytes")?))
    };
    let mut stand = Stand::start().await?;
    let before = now()?;
    stand.unary(CALLS).await?;
    let between = now()?;
    stand.streams(STREAMS).await?;
    let after = now()?;
    ensure!(between > before, "nothing was counted");
    let each = |count: u64, of: u32| count as f64 / f64::from(of);
    Ok(json!({
        "unary: allocations": each(between - before, CALLS),
        "burst of 200: allocations": each(after - between, STREAMS),
    }))
}

// === instructions ===

fn instructions() -> anyhow::Result<BTreeMap<String, f64>> {
    let program = example(&std::env::current_exe()?);
    ensure!(program.exists(), "{} is not built", program.display());
    let (few, many) = (1, 3);
    let each = (cost(&program, many)? - cost(&program, few)?) / f64::from(many - few);
    Ok(BTreeMap::from([("instructions of an index over 1 MiB".to_owned(), each)]))
}

/// The program that indexes: built by `cargo xtask bench --gate` with optimisation, whatever this one was built with.
fn example(own: &Path) -> PathBuf {
    let target = own.ancestors().nth(2).unwrap_or(own);
    target.join("release/examples/index")
}

/// Instructions of a whole run.
fn cost(program: &Path, times: u32) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(times.to_string())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} does not run in valgrind: {said:.2000}", program.display());
    let line = said.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind counts")?;
    Ok(line.1.trim().parse()?)
}

fn works(program: &str, question: &str) -> bool {
    Command::new(program)
        .arg(question)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
}
