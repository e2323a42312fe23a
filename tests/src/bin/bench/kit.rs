//! `--kit`: the gateway beside nginx and beside nothing, cell by cell in turns, judged against what it may cost. A ratio to nginx of
//! the same round holds on a busy machine and on a slower one; milliseconds do not. Each cell has its time, so that the whole takes
//! eight minutes on any machine.

mod nginx;
mod promises;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process::{Cpu, private, proportional, resident, tree};
use serde_json::{Value, json};

use self::nginx::Nginx;
use crate::{Part, gate, governed};

/// One kind of load.
struct Cell {
    name: &'static str,
    /// What the load's process sends, and what the upstream answers: see `by_model`.
    kind: &'static str,
    model: &'static str,
    connections: usize,
}

/// Who is measured.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    token: String,
    /// Its process, the children of which count too; nothing, where nobody stands between.
    pid: Option<u32>,
}

/// How long a cell is measured, and for how long before that what it needs is warmed up.
#[derive(Clone, Copy)]
struct CellTime {
    warm: Duration,
    measured: Duration,
}

const CELLS: [Cell; 12] = [
    Cell { name: "msg_c1", kind: "kit", model: "claude-bench", connections: 1 },
    Cell { name: "msg_c16", kind: "kit", model: "claude-bench", connections: 16 },
    Cell { name: "msg_c64", kind: "kit", model: "claude-bench", connections: 64 },
    Cell { name: "msg_c256", kind: "kit", model: "claude-bench", connections: 256 },
    Cell { name: "msg1m_grows_c1", kind: "grows", model: "claude-bench", connections: 1 },
    Cell { name: "msg1m_unseen_c1", kind: "unseen", model: "claude-bench", connections: 1 },
    Cell { name: "sse_c16", kind: "kit-stream", model: "claude-burst", connections: 16 },
    Cell { name: "sse5ms_c32", kind: "kit-stream", model: "claude-paced", connections: 32 },
    Cell { name: "tr_c1", kind: "kit", model: "gpt-bench", connections: 1 },
    Cell { name: "tr_c16", kind: "kit", model: "gpt-bench", connections: 16 },
    Cell { name: "trsse_c16", kind: "kit-stream", model: "gpt-burst", connections: 16 },
    Cell { name: "trsse5ms_c32", kind: "kit-stream", model: "gpt-paced", connections: 32 },
];

const SPAN: CellTime = CellTime { warm: Duration::from_millis(400), measured: Duration::from_secs(2) };
const QUICK: CellTime = CellTime { warm: Duration::from_millis(50), measured: Duration::from_millis(200) };
/// Streams that wait, one to a connection.
const WAITING: u32 = 1_000;
/// Requests of a job have numbers of their own: more than any job sends, and whole rounds of a conversation that grows.
const NUMBERS: u64 = 1 << 20;

/// Measures every cell on every subject, in rounds; of `asked`, names with commas between, only these cells, and nothing else.
pub(crate) async fn measure(quick: bool, asked: Option<&str>) -> anyhow::Result<Value> {
    let rounds = if quick { 1 } else { 3 };
    let time = if quick { QUICK } else { SPAN };
    let (upstream, address) = Part::start(&["upstream"]).await?;
    let (mut load, _) = Part::start(&["load"]).await?;
    let nginx = Nginx::start(&address).await?;
    let url = format!("http://{address}");
    let off = TestApp::with(|config| config.upstream(&url)).await;
    let on = TestApp::with(|config| governed(config.upstream(&url), true)).await;
    let mut subjects =
        vec![Subject { name: "direct", address: address.parse()?, token: String::new(), pid: None }];
    if let Some((nginx, address)) = &nginx {
        let (token, pid) = (String::new(), Some(nginx.pid()));
        subjects.push(Subject { name: "nginx", address: *address, token, pid });
    }
    for (name, app) in [("off", &off), ("on", &on)] {
        let (address, token, pid) = (app.address(), app.token.clone(), Some(app.pid()));
        subjects.push(Subject { name, address, token, pid });
    }
    let side = [load.child.id(), upstream.child.id()];
    let mut cells: BTreeMap<&str, BTreeMap<&str, Vec<Value>>> = BTreeMap::new();
    let mut jobs = 0;
    for round in 0..rounds {
        for cell in
            CELLS.iter().filter(|cell| asked.is_none_or(|asked| asked.split(',').any(|it| it == cell.name)))
        {
            // Who begins changes from round to round.
            for turn in 0..subjects.len() {
                let subject = &subjects[(turn + 2 * round) % subjects.len()];
                let alone = cell.connections == 1;
                let pinned: Vec<u32> = side.into_iter().flatten().chain(subject.pid).collect();
                if alone {
                    pin(&pinned, Some(cores() - 1));
                }
                let report = one(&mut load, subject, cell, time, &mut jobs).await;
                if alone {
                    pin(&pinned, None);
                }
                let report = report.with_context(|| format!("{} of {}", cell.name, subject.name))?;
                cells.entry(cell.name).or_default().entry(subject.name).or_default().push(report);
            }
        }
    }
    if asked.is_some() {
        return Ok(json!({"rounds": rounds, "cells": cells}));
    }
    let peak_mib = resident_peak(on.pid())?;
    drop((on, off, nginx));
    let mut memory = waiting(&mut load, &url, if quick { WAITING / 10 } else { WAITING }).await?;
    memory["peak_mib"] = json!(peak_mib);
    let (counts, skipped) = gate::of_a_call().await?;
    Ok(json!({"rounds": rounds, "cells": cells, "memory": memory, "counts": counts, "skipped": skipped}))
}

/// For a person: the medians, and what was promised.
pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    promises::table(out, report, CELLS.iter().map(|cell| cell.name))
}

// === private helpers ===

/// One cell of one subject: what the load's process says of it, and the CPU that it took.
async fn one(
    load: &mut Part,
    subject: &Subject,
    cell: &Cell,
    time: CellTime,
    jobs: &mut u64,
) -> anyhow::Result<Value> {
    // Nobody translates before the upstream but the gateway.
    let model =
        if subject.token.is_empty() { cell.model.replace("gpt-", "claude-") } else { cell.model.to_owned() };
    let mut job = |lasts: Duration| {
        *jobs += 1;
        json!({
            "kind": cell.kind, "connections": cell.connections, "address": subject.address.to_string(), "token": subject.token,
            "model": model, "requests": NUMBERS, "first": *jobs * NUMBERS, "lasts_ms": u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
        })
    };
    let (warm, measured) = (job(time.warm), job(time.measured));
    load.ask(&warm).await?;
    let processes = subject.pid.map(tree).unwrap_or_default();
    let before = processes.iter().map(|pid| Cpu::of(*pid)).collect::<Result<Vec<_>, _>>()?;
    let mut report = load.ask(&measured).await?;
    let mut spent = Duration::ZERO;
    for (pid, before) in processes.iter().zip(&before) {
        spent += Cpu::of(*pid)?.since(before);
    }
    let answers = report["answers"].as_f64().unwrap_or(1.0);
    report["cpu_us"] = json!(spent.as_secs_f64() * 1e6 / answers);
    report["mib"] = json!(processes.iter().map(|pid| proportional(*pid)).sum::<Result<u64, _>>()? >> 20);
    Ok(report)
}

/// What streams take of which each sent its first piece and then nothing, in a gateway that began just before.
async fn waiting(load: &mut Part, upstream: &str, streams: u32) -> anyhow::Result<Value> {
    let app = TestApp::with(|config| governed(config.upstream(upstream), true)).await;
    let (address, token) = (app.address().to_string(), app.token.clone());
    let warm = json!({"kind": "kit", "model": "claude-bench", "connections": 16, "requests": 500, "address": address, "token": token});
    load.ask(&warm).await?;
    let before = private(app.pid())?;
    let hold = json!({"kind": "hold", "model": "claude-bench-idle", "requests": streams, "address": address, "token": token});
    load.ask(&hold).await?;
    let each = private(app.pid())?.saturating_sub(before) as f64 / f64::from(streams);
    let memory =
        json!({"streams": streams, "stream_kib": each / 1024.0, "streams_mib": resident(app.pid())? >> 20});
    // These streams have no end: nothing to drain.
    app.kill();
    Ok(memory)
}

/// Puts all threads of these processes and of their children on one core, or on any.
fn pin(processes: &[u32], core: Option<usize>) {
    let on = core.map_or_else(|| format!("0-{}", cores() - 1), |core| core.to_string());
    for pid in processes.iter().flat_map(|pid| tree(*pid)) {
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-c", "-p", &on, &pid.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        // Without it, calls one after the other are measured across cores.
        drop(taskset.status());
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The most that a process ever had in memory, in mebibytes.
fn resident_peak(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    Ok(kib >> 10)
}
