//! `--kit`: the gateway beside nginx and beside nothing, cell by cell in turns, judged against what it may cost. A ratio to nginx of
//! the same round holds on a busy machine and on a slower one; milliseconds do not.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process::{Cpu, proportional, tree};
use serde_json::{Value, json};

use crate::{Part, governed};

/// One kind of load.
struct Cell {
    name: &'static str,
    /// What the load's process sends, and what the upstream answers: see `by_model`.
    kind: &'static str,
    model: &'static str,
    connections: usize,
    requests: usize,
}

/// Who is measured.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    token: String,
    /// Its process, the children of which count too; nothing, where nobody stands between.
    pid: Option<u32>,
}

/// What a figure has to be.
struct Promise {
    name: &'static str,
    figure: Figure,
    must: f64,
    aim: f64,
}

/// How a figure is taken from the medians of a cell.
#[derive(Clone, Copy)]
enum Figure {
    /// CPU of a subject, in that of nginx.
    Cpu(&'static str, &'static str),
    /// Calls a second with everything on, in those of nginx.
    Rate(&'static str),
    /// Added to nginx's median latency, in microseconds.
    Added(&'static str),
    /// The latency that 99 of 100 calls keep, in milliseconds.
    Tail(&'static str),
    /// Mebibytes, at most.
    Peak,
}

/// A reverse proxy that does nothing else.
struct Nginx {
    child: Child,
    _home: tempfile::TempDir,
}

const CELLS: [Cell; 11] = [
    Cell { name: "msg_c1", kind: "kit", model: "claude-bench", connections: 1, requests: 3_000 },
    Cell { name: "msg_c16", kind: "kit", model: "claude-bench", connections: 16, requests: 12_000 },
    Cell { name: "msg_c64", kind: "kit", model: "claude-bench", connections: 64, requests: 12_000 },
    Cell { name: "msg_c256", kind: "kit", model: "claude-bench", connections: 256, requests: 12_000 },
    Cell { name: "msg1m_grows_c1", kind: "grows", model: "claude-bench", connections: 1, requests: 96 },
    Cell { name: "msg1m_unseen_c1", kind: "unseen", model: "claude-bench", connections: 1, requests: 60 },
    Cell { name: "sse_c16", kind: "kit-stream", model: "claude-burst", connections: 16, requests: 1_500 },
    Cell { name: "sse5ms_c32", kind: "kit-stream", model: "claude-paced", connections: 32, requests: 96 },
    Cell { name: "tr_c16", kind: "kit", model: "gpt-bench", connections: 16, requests: 12_000 },
    Cell { name: "trsse_c16", kind: "kit-stream", model: "gpt-burst", connections: 16, requests: 1_500 },
    Cell { name: "trsse5ms_c32", kind: "kit-stream", model: "gpt-paced", connections: 32, requests: 96 },
];

const PROMISES: [Promise; 16] = [
    Promise { name: "msg_c1: CPU / nginx", figure: Figure::Cpu("msg_c1", "on"), must: 9.0, aim: 7.0 },
    Promise { name: "msg_c16: CPU / nginx", figure: Figure::Cpu("msg_c16", "on"), must: 8.0, aim: 6.0 },
    Promise {
        name: "msg_c16: calls a second / nginx",
        figure: Figure::Rate("msg_c16"),
        must: 0.17,
        aim: 0.28,
    },
    Promise {
        name: "msg_c1: median over nginx's, us",
        figure: Figure::Added("msg_c1"),
        must: 240.0,
        aim: 190.0,
    },
    Promise { name: "msg_c1: p99, ms", figure: Figure::Tail("msg_c1"), must: 0.8, aim: 0.5 },
    Promise {
        name: "msg1m_grows_c1: CPU / nginx",
        figure: Figure::Cpu("msg1m_grows_c1", "on"),
        must: 5.0,
        aim: 3.0,
    },
    Promise {
        name: "msg1m_unseen_c1: CPU / nginx",
        figure: Figure::Cpu("msg1m_unseen_c1", "on"),
        must: 9.0,
        aim: 7.0,
    },
    Promise { name: "sse_c16: CPU / nginx", figure: Figure::Cpu("sse_c16", "on"), must: 1.8, aim: 1.5 },
    Promise { name: "sse5ms_c32: CPU / nginx", figure: Figure::Cpu("sse5ms_c32", "on"), must: 1.5, aim: 1.3 },
    Promise { name: "tr_c16: CPU / nginx", figure: Figure::Cpu("tr_c16", "on"), must: 10.0, aim: 8.0 },
    Promise { name: "trsse_c16: CPU / nginx", figure: Figure::Cpu("trsse_c16", "on"), must: 2.3, aim: 1.8 },
    Promise {
        name: "policies off, msg_c16: CPU / nginx",
        figure: Figure::Cpu("msg_c16", "off"),
        must: 6.0,
        aim: 4.5,
    },
    Promise {
        name: "policies off, sse_c16: CPU / nginx",
        figure: Figure::Cpu("sse_c16", "off"),
        must: 1.6,
        aim: 1.4,
    },
    Promise {
        name: "trsse5ms_c32: CPU / nginx",
        figure: Figure::Cpu("trsse5ms_c32", "on"),
        must: 2.3,
        aim: 1.8,
    },
    Promise { name: "msg_c256: p99, ms", figure: Figure::Tail("msg_c256"), must: 150.0, aim: 100.0 },
    Promise { name: "peak of memory, MiB", figure: Figure::Peak, must: 64.0, aim: 64.0 },
];

const CONFIG: &str = "worker_processes 2; daemon off; pid nginx.pid; error_log error.log crit;
events { worker_connections 4096; }
http {
  access_log off; client_max_body_size 64m; client_body_buffer_size 2m; keepalive_requests 10000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream scripted { server UPSTREAM; keepalive 256; keepalive_requests 10000000; }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    location / { proxy_pass http://scripted; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_request_buffering off; }
  }
}
";

/// Measures every cell on every subject, `rounds` times.
pub(crate) async fn measure(quick: bool) -> anyhow::Result<Value> {
    let rounds = if quick { 1 } else { 3 };
    let (upstream, address) = Part::start(&["upstream"]).await?;
    let (mut load, _) = Part::start(&["load"]).await?;
    let nginx = Nginx::start(&address).await?;
    let url = format!("http://{address}");
    let off = TestApp::with(|config| config.upstream(&url)).await;
    let on = TestApp::with(|config| governed(config.upstream(&url), true)).await;
    let mut subjects =
        vec![Subject { name: "direct", address: address.parse()?, token: String::new(), pid: None }];
    if let Some((nginx, address)) = &nginx {
        subjects.push(Subject {
            name: "nginx",
            address: *address,
            token: String::new(),
            pid: Some(nginx.child.id()),
        });
    }
    for (name, app) in [("off", &off), ("on", &on)] {
        subjects.push(Subject {
            name,
            address: app.address(),
            token: app.token.clone(),
            pid: Some(app.pid()),
        });
    }
    let side = [load.child.id(), upstream.child.id()];
    let mut cells: BTreeMap<&str, BTreeMap<&str, Vec<Value>>> = BTreeMap::new();
    for round in 0..rounds {
        for cell in &CELLS {
            // Who begins changes from round to round.
            for turn in 0..subjects.len() {
                let subject = &subjects[(turn + 2 * round) % subjects.len()];
                let alone = cell.connections == 1;
                let pinned: Vec<u32> = side.into_iter().flatten().chain(subject.pid).collect();
                if alone {
                    pin(&pinned, Some(cores() - 1));
                }
                let report = one(&mut load, subject, cell, quick).await;
                if alone {
                    pin(&pinned, None);
                }
                let report = report.with_context(|| format!("{} of {}", cell.name, subject.name))?;
                cells.entry(cell.name).or_default().entry(subject.name).or_default().push(report);
            }
        }
    }
    let peak = resident_peak(on.pid())?;
    drop((upstream, nginx));
    Ok(json!({"rounds": rounds, "cells": cells, "peak": peak}))
}

async fn one(load: &mut Part, subject: &Subject, cell: &Cell, quick: bool) -> anyhow::Result<Value> {
    let requests = if quick { (cell.requests / 10).max(cell.connections * 2) } else { cell.requests };
    let mut job = json!({
        "kind": cell.kind, "connections": cell.connections, "address": subject.address.to_string(), "token": subject.token,
        "requests": (requests / 10).max(cell.connections),
        // Nobody translates before the upstream but the gateway.
        "model": if subject.token.is_empty() { cell.model.replace("gpt-", "claude-") } else { cell.model.to_owned() },
    });
    load.ask(&job).await?;
    job["requests"] = json!(requests);
    let processes = subject.pid.map(tree).unwrap_or_default();
    let before = processes.iter().map(|pid| Cpu::of(*pid)).collect::<Result<Vec<_>, _>>()?;
    let mut report = load.ask(&job).await?;
    let mut spent = Duration::ZERO;
    for (pid, before) in processes.iter().zip(&before) {
        spent += Cpu::of(*pid)?.since(before);
    }
    let answers = report["answers"].as_f64().unwrap_or(1.0);
    report["cpu_us"] = json!(spent.as_secs_f64() * 1e6 / answers);
    report["mib"] = json!(processes.iter().map(|pid| proportional(*pid)).sum::<Result<u64, _>>()? >> 20);
    Ok(report)
}

/// For a person: the medians, and what was promised.
pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    writeln!(
        out,
        "medians of {} rounds; CPU in us a call, of the process and its children",
        report["rounds"]
    )?;
    writeln!(
        out,
        "{:<18}{:>9}{:>9}{:>9}{:>8}{:>10}{:>10}{:>10}{:>9}",
        "", "nginx", "off", "on", "on/n.", "p50 dir.", "p50 n.", "p50 on", "p99 on"
    )?;
    let cpu = |cell: &str, who: &str| median(report, cell, who, "cpu_us");
    for cell in &CELLS {
        let Some(on) = cpu(cell.name, "on") else { continue };
        let show = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |it| format!("{it:.digits$}"))
        };
        let nginx = cpu(cell.name, "nginx");
        let time = |who: &str, what: &str| median(report, cell.name, who, what).map(|nanos| nanos / 1e3);
        writeln!(
            out,
            "{:<18}{:>9}{:>9}{:>9}{:>8}{:>10}{:>10}{:>10}{:>9}",
            cell.name,
            show(nginx, 1),
            show(cpu(cell.name, "off"), 1),
            show(Some(on), 1),
            show(nginx.map(|nginx| on / nginx), 2),
            show(time("direct", "p50"), 0),
            show(time("nginx", "p50"), 0),
            show(time("on", "p50"), 0),
            show(time("on", "p99"), 0),
        )?;
    }
    writeln!(out, "\n{:<40}{:>9}{:>9}{:>9}", "promise", "is", "must", "aim")?;
    for Promise { name, figure, must, aim } in &PROMISES {
        let Some(is) = figure.of(report) else {
            writeln!(out, "{name:<40}{:>9}{must:>9}{aim:>9}  not measured", "-")?;
            continue;
        };
        let keeps = |bound: f64| if matches!(figure, Figure::Rate(_)) { is >= bound } else { is <= bound };
        let verdict = if keeps(*aim) {
            "pass, aim met"
        } else if keeps(*must) {
            "pass"
        } else {
            "MISS"
        };
        writeln!(out, "{name:<40}{is:>9.2}{must:>9}{aim:>9}  {verdict}")?;
    }
    Ok(())
}

// === impl Figure ===

impl Figure {
    fn of(self, report: &Value) -> Option<f64> {
        let median = |cell, who, what| median(report, cell, who, what);
        match self {
            // The rounds are paired: what disturbed one subject's turn disturbed the other's.
            Self::Cpu(cell, who) => paired(report, cell, who, "cpu_us", |ours, nginx| ours / nginx),
            Self::Rate(cell) => paired(report, cell, "on", "rate", |ours, nginx| ours / nginx),
            Self::Added(cell) => paired(report, cell, "on", "p50", |ours, nginx| (ours - nginx) / 1e3),
            Self::Tail(cell) => median(cell, "on", "p99").map(|nanos| nanos / 1e6),
            Self::Peak => report["peak"].as_f64(),
        }
    }
}

fn paired(report: &Value, cell: &str, who: &str, what: &str, of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let cell = &report["cells"][cell];
    let pairs = cell[who].as_array()?.iter().zip(cell["nginx"].as_array()?);
    middle(pairs.filter_map(|(ours, nginx)| Some(of(ours[what].as_f64()?, nginx[what].as_f64()?))).collect())
}

fn median(report: &Value, cell: &str, who: &str, what: &str) -> Option<f64> {
    let rounds = report["cells"][cell][who].as_array()?;
    middle(rounds.iter().filter_map(|round| round[what].as_f64()).collect())
}

fn middle(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

// === impl Nginx ===

impl Nginx {
    /// Starts it in front of the upstream; `None` where it is not installed.
    async fn start(upstream: &str) -> anyhow::Result<Option<(Self, SocketAddr)>> {
        let home = tempfile::tempdir()?;
        // Its children run as another user and want to enter.
        Command::new("chmod").arg("755").arg(home.path()).status()?;
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = CONFIG.replace("UPSTREAM", upstream).replace("PORT", &free.port().to_string());
        std::fs::write(home.path().join("nginx.conf"), config)?;
        let Some(binary) = installed("nginx") else { return Ok(None) };
        let child = Command::new(binary)
            .arg("-c")
            .arg(home.path().join("nginx.conf"))
            .arg("-p")
            .arg(home.path())
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self { child, _home: home };
        for _ in 0..200 {
            if std::net::TcpStream::connect(free).is_ok() {
                return Ok(Some((nginx, free)));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        anyhow::bail!("nginx does not listen")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its children go with it on this signal, and on no harder one.
        drop(sallyport_tests::process::signal(self.child.id(), "TERM"));
        drop(self.child.wait());
    }
}

// === private helpers ===

/// Where a program is.
fn installed(name: &str) -> Option<std::path::PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
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
