//! What one call of a component costs in each language that the kit has and in each tier, and the memory of an instance that
//! lives. The component host runs in this process, so that nothing but the call is measured.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::SigningKey;
use sallyport::clock::SystemClock;
use sallyport::component::contract::hook::{Event, Occurrence, ToolCall};
use sallyport::component::contract::provider::RequestKind;
use sallyport::component::contract::{BodyView, Bucket, Budget, Call, InstantCounters, Principal, Segment};
use sallyport::component::{Admission, Component, Components, ExchangeRequest, Fuel, RunsIn, Settings};
use sallyport::shipped::{first_party, first_party_publisher};
use sallyport_protocol::package::{Kind, Package, Verified};
use sallyport_tests::gateway::{binary, profile_dir};
use sallyport_tests::hostile;
use sallyport_tests::process::{Cpu, private, resident};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::spread;

/// A hook of ours, and what it is configured with.
pub(crate) const SHIPPED: &str = "sallyport/block-tool";
/// Languages of the kit, and the tool that each of them needs.
const LANGUAGES: [(&str, &str); 4] = [("rust", "cargo"), ("js", "npm"), ("ts", "npm"), ("python", "python3")];

/// Calls of a shipped hook in both tiers, with `languages` of the kit's sample hook in each language too, and providers that
/// live on.
pub(crate) async fn measure(quick: bool, languages: bool) -> anyhow::Result<Value> {
    let calls = if quick { 200 } else { 2_000 };
    let (mut measured, mut skipped) = (Vec::new(), Vec::new());
    let config =
        json!({"tools": ["Bash"], "input_contains": ["rm -rf"], "reason": "deleting needs a person"});
    for tier in [RunsIn::Shared, RunsIn::Process] {
        let shipped = shipped(SHIPPED)?;
        measured.push(calls_of("rust, shipped", tier, &shipped, &config, calls).await?);
    }
    if languages {
        let config = json!({"tools": ["Bash"], "words": ["rm -rf"], "reason": "deleting needs a person"});
        for (language, tool) in LANGUAGES {
            match built(language, tool) {
                Ok(hook) => {
                    for tier in [RunsIn::Shared, RunsIn::Process] {
                        measured.push(calls_of(language, tier, &hook, &config, calls).await?);
                    }
                }
                Err(error) => skipped.push(json!({"language": language, "why": format!("{error:#}")})),
            }
        }
    }
    let mut live = Vec::new();
    for provider in ["sallyport/anthropic", "sallyport/openai"] {
        live.push(living(provider, if quick { 50 } else { 500 }).await?);
    }
    Ok(json!({"calls": measured, "skipped": skipped, "live": live}))
}

pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    let columns = ["p50 us", "p99 us", "guest us", "CPU us", "memory KiB", "worker KiB"];
    write!(out, "\n{:<32}", "a fresh call of a hook")?;
    for column in columns {
        write!(out, "{column:>12}")?;
    }
    writeln!(out)?;
    for call in report["calls"].as_array().into_iter().flatten() {
        let name =
            format!("{}, {}", call["guest"].as_str().unwrap_or("?"), call["tier"].as_str().unwrap_or("?"));
        write!(out, "{name:<32}")?;
        for (pointer, unit) in [
            ("/time/p50", 1e3),
            ("/time/p99", 1e3),
            ("/guest_time/p50", 1e3),
            ("/cpu", 1e3),
            ("/memory", 1024.0),
            ("/worker_private", 1024.0),
        ] {
            match call.pointer(pointer).and_then(Value::as_f64) {
                Some(value) => write!(out, "{:>12.0}", value / unit)?,
                None => write!(out, "{:>12}", "-")?,
            }
        }
        writeln!(out)?;
    }
    for skipped in report["skipped"].as_array().into_iter().flatten() {
        let text = |name: &str| skipped[name].as_str().unwrap_or("?").to_owned();
        writeln!(out, "skipped: {}: {}", text("language"), text("why"))?;
    }
    for live in report["live"].as_array().into_iter().flatten() {
        let name = format!("{}, {} live instances", live["guest"].as_str().unwrap_or("?"), live["instances"]);
        let kib = |what: &str| live[what].as_f64().unwrap_or_default() / 1024.0;
        let (each, memory) = (kib("bytes_each"), kib("memory"));
        writeln!(out, "{name:<44}{each:>10.0} KiB resident each, {memory:.0} KiB of linear memory")?;
    }
    Ok(())
}

/// A component host, and where it keeps its code.
pub(crate) struct Host {
    pub(crate) components: Arc<Components>,
    _directory: TempDir,
}

struct NoCounters;

/// The smallest body.
struct Hello;

// === impl Host ===

impl Host {
    pub(crate) fn start(pool: u32) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let settings = Settings {
            pool,
            cache_dir: directory.path().join("code"),
            cache_key: [9; 32],
            compiler: binary().to_owned(),
            development: true,
            fuel: Fuel::Off,
            compile_seconds: u32::MAX,
        };
        let clock = Arc::new(SystemClock::default());
        let components = Components::start(settings, Arc::new(NoCounters), clock)?;
        Ok(Self { components, _directory: directory })
    }

    pub(crate) async fn admit(
        &self,
        tier: RunsIn,
        guest: &Verified,
        config: &Value,
    ) -> anyhow::Result<Arc<Component>> {
        Ok(self.components.admit(guest, config, Admission::new(tier, None)).await?)
    }

    /// CPU time of this process and of its workers so far.
    fn cpu(&self) -> anyhow::Result<Vec<(u32, Cpu)>> {
        let mut pids = self.components.worker_pids();
        pids.push(std::process::id());
        pids.into_iter().map(|pid| Ok((pid, Cpu::of(pid)?))).collect()
    }

    fn cpu_since(&self, before: &[(u32, Cpu)]) -> anyhow::Result<Duration> {
        let now = self.cpu()?;
        ensure!(now.len() == before.len(), "a worker came or went while it was measured");
        Ok(now.iter().zip(before).map(|((_, now), (_, before))| now.since(before)).sum())
    }
}

// === impl NoCounters ===

impl InstantCounters for NoCounters {
    fn take(&self, bucket: &Bucket<'_>, _: u32) -> Result<u32, Duration> {
        Ok(bucket.limit)
    }

    fn correct(&self, _: &Bucket<'_>, _: u32, _: u32) {}

    fn reserve(&self, _: &Budget<'_>, _: u64, cap: u64) -> Result<u64, Duration> {
        Ok(cap)
    }

    fn release(&self, _: &Budget<'_>, _: u64, _: u64) {}
}

// === impl Hello ===

impl BodyView for Hello {
    fn bytes(&self) -> &[u8] {
        br#"{"model":"claude-opus-4","messages":[]}"#
    }

    fn texts(&self) -> Vec<Segment> {
        Vec::new()
    }
}

// === measuring ===

/// One hook in one tier: the caller's time, the guest's own, CPU of all processes, and memory. A host of its own, so that its
/// worker holds nothing else.
async fn calls_of(
    name: &str,
    tier: RunsIn,
    guest: &Verified,
    config: &Value,
    calls: u32,
) -> anyhow::Result<Value> {
    let host = Host::start(64)?;
    let hook = host.admit(tier, guest, config).await.with_context(|| format!("the hook in {name}"))?;
    let what = harmless();
    for _ in 0..calls / 10 {
        host.components.on_event(&hook, &what).await.result?;
    }
    let (mut times, mut guests, mut memory) = (Vec::new(), Vec::new(), 0);
    let before = host.cpu()?;
    for _ in 0..calls {
        let began = Instant::now();
        let ran = host.components.on_event(&hook, &what).await;
        times.push(began.elapsed());
        guests.push(Duration::from_micros(ran.micros.into()));
        memory = memory.max(ran.memory);
        ran.result?;
    }
    let cpu = host.cpu_since(&before)? / calls;
    let worker = host.components.worker_pids().first().copied().map(private).transpose()?;
    host.components.close().await;
    Ok(json!({
        "guest": name, "tier": if tier == RunsIn::Shared { "in process" } else { "worker" },
        "calls": calls, "time": spread(times), "guest_time": spread(guests),
        "cpu": u64::try_from(cpu.as_nanos())?, "memory": memory, "worker_private": worker,
        "component_bytes": guest.component().len(), "snapshotted": hook.is_snapshotted(),
    }))
}

/// Providers, each at work on a call that does not end: what the process keeps for one of them.
async fn living(name: &str, instances: u32) -> anyhow::Result<Value> {
    let host = Host::start(instances + 64)?;
    let provider = host.admit(RunsIn::Shared, &shipped(name)?, &json!({})).await?;
    let begin = async || -> anyhow::Result<_> {
        let (exchange, _) = host.components.exchange(&provider, request()).await?;
        Ok(exchange)
    };
    // What the first call alone needs is no part of an instance.
    drop(begin().await?);
    let pid = std::process::id();
    let before = resident(pid)?;
    let mut held = Vec::new();
    for _ in 0..instances {
        held.push(begin().await?);
    }
    let with = resident(pid)?;
    let memory = held.iter().map(sallyport::component::Exchange::memory).max();
    Ok(json!({
        "guest": name, "instances": instances,
        "bytes_each": with.saturating_sub(before) / u64::from(instances), "memory": memory,
    }))
}

// === what is measured ===

/// A component that ships with the gateway.
pub(crate) fn shipped(name: &str) -> anyhow::Result<Verified> {
    let embedded = first_party().into_iter().find(|embedded| embedded.name == name);
    let package = Package::parse(embedded.with_context(|| format!("{name} does not ship"))?.bytes)?;
    let publisher = first_party_publisher().context("what ships has a publisher")?;
    // Signed on this machine, today.
    let now = package.statement().not_before + Duration::from_hours(1);
    Ok(package.verify(&[publisher], now, &semver::Version::new(0, 1, 0), None, None)?)
}

/// The kit's sample hook in a language, built by the kit with the tools of this machine.
fn built(language: &str, tool: &str) -> anyhow::Result<Verified> {
    if Command::new(tool).arg("--version").output().is_err() {
        bail!("{tool} is not installed");
    }
    let folder = tempfile::tempdir()?;
    kit(
        folder.path(),
        &["new", &format!("acme/no-shell-{language}"), "--lang", language, "--dir", "project"],
    )?;
    let report = kit(folder.path(), &["build", "--dir", "project"])?;
    let wasm = PathBuf::from(report["wasm"].as_str().context("a build says what it made")?);
    let component = std::fs::read(folder.path().join(wasm))?;
    let key = SigningKey::from_bytes(&[29; 32]);
    let statement = hostile::statement(&format!("no-shell-{language}"), Kind::Hook);
    let package = hostile::package(statement, &key, &component);
    let host = semver::Version::new(0, 1, 0);
    Ok(package.verify(&[hostile::publisher(&key)], hostile::NOW, &host, None, None)?)
}

/// Runs `sallyport component`, and says why it did not work where it did not.
fn kit(folder: &Path, words: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(binary());
    command.arg("--home").arg(folder.join("no-home")).arg("component").args(words).arg("--json");
    // The crates are those of this workspace; what other languages need, their own tools fetch.
    command.env("CARGO_TARGET_DIR", profile_dir().join("kit")).env("CARGO_NET_OFFLINE", "true");
    let output = command.current_dir(folder).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("the kit failed").trim());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A tool call that every hook lets pass.
pub(crate) fn harmless() -> Occurrence {
    Occurrence {
        trace: "t_00000000000000000000000000000001".to_owned(),
        principal: principal(),
        event: Event::PreToolUse(ToolCall {
            id: "toolu_1".to_owned(),
            name: "Bash".to_owned(),
            input: json!({"command": "ls"}).to_string(),
            server: None,
        }),
        in_band: true,
        raw: None,
        attributes: Vec::new(),
    }
}

fn request() -> ExchangeRequest {
    let text = str::to_owned;
    let call = Call {
        trace: "t_00000000000000000000000000000001".into(),
        time_ms: "1795608000000".into(),
        principal: principal(),
        model: "claude-opus-4".into(),
        route: "claude-*".into(),
        provider: "anthropic".into(),
        streaming: false,
        max_tokens: Some(64),
        body_bytes: 39,
        message_count: 0,
        tools: Arc::default(),
        agent: None,
        region: None,
        attributes: Vec::new(),
    };
    ExchangeRequest {
        call,
        body: Arc::new(Hello),
        upstream_model: text("claude-opus-4"),
        model_span: (9, 15),
        headers: Vec::new(),
        kind: RequestKind::Message,
        target: text("/v1/messages"),
    }
}

fn principal() -> Principal {
    Principal {
        user: "u_1".into(),
        tenant: "acme".into(),
        session: "sess_1".into(),
        client: "sp_cli".into(),
        source: "cli".into(),
        roles: Arc::default(),
        department: None,
        scopes: Arc::default(),
        attributes: Vec::new(),
    }
}
