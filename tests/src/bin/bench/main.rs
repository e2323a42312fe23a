//! The benchmark: the gateway against a bare proxy, one run, one machine, one upstream. Upstream, proxy and load generator are
//! processes of their own (this binary again), so that the CPU time of the gateway is its own.
//!
//! `cargo run --release -p sallyport-tests --bin bench -- [--json] [--quick] [--neighbours | --swaps | --guests | --kit] [--languages] [--cells=a,b]`
//!
//! `bench gate` counts what needs no quiet machine.

#![expect(clippy::indexing_slicing, reason = "a JSON value is indexed: what is missing is null")]
#![expect(clippy::cast_precision_loss, reason = "nanoseconds and bytes of a benchmark fit a float")]

mod gate;
mod guests;
mod kit;
mod neighbours;
mod swap;
mod table;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::load::{Body, Job};
use sallyport_tests::process::{Cpu, resident};
use sallyport_tests::proxy;
use sallyport_tests::upstream::{Script, Seen, Step, Upstream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How many requests each measurement takes.
#[derive(Debug, Clone, Copy)]
struct Scale {
    unary: usize,
    parallel: usize,
    streams: usize,
    megabytes: usize,
    open: usize,
}

/// A part of the benchmark in a process of its own; it ends when its standard input does.
struct Part {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match words.as_slice() {
            ["part", "upstream"] => part_upstream().await,
            ["part", "proxy", upstream] => part_proxy(upstream.parse()?).await,
            ["part", "load"] => part_load().await,
            ["part", "spin"] => part_spin(),
            ["part", "allocations"] => say(&gate::allocations().await?.to_string()),
            ["gate"] => gate::run().await,
            options => {
                let has = |option: &str| options.contains(&option);
                let cells = options.iter().find_map(|option| option.strip_prefix("--cells="));
                let beside = has("--neighbours");
                let report = if beside {
                    neighbours::measure(has("--quick")).await?
                } else {
                    measured(&has, cells).await?
                };
                let mut out = std::io::stdout().lock();
                if has("--json") {
                    writeln!(out, "{report:#}")?;
                    Ok(())
                } else if beside {
                    neighbours::table(&mut out, &report)
                } else {
                    show(&mut out, &report)
                }
            }
        }
    })
}

/// What was asked for: one part alone, or all of them.
async fn measured(has: &impl Fn(&str) -> bool, cells: Option<&str>) -> anyhow::Result<Value> {
    let (quick, all) = (has("--quick"), !has("--swaps") && !has("--guests") && !has("--kit"));
    let mut report = if all { measure(quick).await? } else { json!({"quick": quick}) };
    if all || has("--kit") {
        report["kit"] = kit::measure(quick, cells).await?;
    }
    report["profile"] = json!(if cfg!(debug_assertions) { "dev" } else { "release" });
    if all || has("--swaps") {
        report["swaps"] = swap::measure(quick).await?;
    }
    if all || has("--guests") {
        report["guests"] = guests::measure(quick, has("--languages")).await?;
    }
    Ok(report)
}

/// For a person: what the report holds.
fn show(out: &mut impl std::io::Write, report: &Value) -> anyhow::Result<()> {
    writeln!(out, "profile: {}; one run", report["profile"].as_str().unwrap_or("?"))?;
    if report["proxy"].is_object() {
        table::table(out, report)?;
    }
    if report["kit"].is_object() {
        kit::table(out, &report["kit"])?;
    }
    if report["swaps"].is_object() {
        swap::table(out, &report["swaps"])?;
    }
    if report["guests"].is_object() {
        guests::table(out, &report["guests"])?;
    }
    Ok(())
}

// === the parts ===

/// What the upstream answers is in the model's name, so that no other channel is needed.
fn by_model(seen: &Seen) -> Script {
    let has = |mark: &[u8]| seen.body.windows(mark.len()).any(|window| window == mark);
    // The model is near the start or the end of a body; a megabyte between them is not worth looking at.
    if seen.body.len() > 1 << 16 {
        Script::text("Read.")
    } else if has(b"bench-idle") {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let start = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",",
            "\"model\":\"bench\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n"
        );
        let chunk = format!("{head}{:x}\r\n{start}\r\n", start.len());
        Script::Steps(vec![Step::Write(chunk.into()), Step::Hang])
    } else if has(b"-burst") {
        pieces(&seen.target, Duration::ZERO)
    } else if has(b"-paced") {
        pieces(&seen.target, Duration::from_millis(5))
    } else if has(b"\"stream\":true") {
        Script::Chunks(200, Duration::ZERO)
    } else {
        Script::text(&"The gateway hands every token on. ".repeat(24))
    }
}

/// A stream of 200 pieces, each in a write of its own.
fn pieces(target: &str, pause: Duration) -> Script {
    let text = "the gateway hands every token on without waiting for more, ok 000";
    let (start, piece, end) = if target.contains("chat/completions") {
        let chunk = |delta: Value, finish: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": [choice]});
            format!("data: {chunk}\n\n")
        };
        let usage = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": [],
            "usage": {"prompt_tokens": 512, "completion_tokens": 2400, "total_tokens": 2912}});
        let end = format!("{}data: {usage}\n\ndata: [DONE]\n\n", chunk(json!({}), json!("stop")));
        let start = chunk(json!({"role": "assistant", "content": ""}), Value::Null);
        (start, chunk(json!({"content": text}), Value::Null), end)
    } else {
        let event =
            |data: Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default());
        let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "bench", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": {"input_tokens": 512, "output_tokens": 1}});
        let start = event(json!({"type": "message_start", "message": message}))
            + &event(
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            );
        let piece = event(
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        );
        let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
        let end = event(json!({"type": "content_block_stop", "index": 0}))
            + &event(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2400}}))
            + &event(json!({"type": "message_stop"}));
        (start, piece, end)
    };
    let chunk = |bytes: &str| Bytes::from(format!("{:x}\r\n{bytes}\r\n", bytes.len()));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = [head.as_bytes(), &chunk(&start)].concat();
    let last = [&chunk(&end)[..], b"0\r\n\r\n"].concat();
    Script::Steps(vec![
        Step::Write(first.into()),
        Step::Repeat(chunk(&piece), 200, pause),
        Step::Write(last.into()),
    ])
}

async fn part_upstream() -> anyhow::Result<()> {
    let upstream = Upstream::start_forgetful();
    upstream.choose(by_model);
    say(&upstream.address.to_string())?;
    until_input_ends().await
}

async fn part_proxy(upstream: SocketAddr) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.to_string())?;
    tokio::select! {
        () = proxy::serve(listener, upstream) => Ok(()),
        ended = until_input_ends() => ended,
    }
}

/// Reads one job a line, does it, answers one report a line.
async fn part_load() -> anyhow::Result<()> {
    say("ready")?;
    let mut lines = input_lines();
    let mut open = Vec::new();
    while let Some(line) = lines.recv().await {
        let job: Value = serde_json::from_str(&line)?;
        let address: SocketAddr = job["address"].as_str().context("a job has an address")?.parse()?;
        let token = job["token"].as_str().unwrap_or_default();
        let count = |name: &str| usize::try_from(job[name].as_u64().unwrap_or(1)).unwrap_or(1);
        let model = job["model"].as_str().unwrap_or_default();
        let lasts = job["lasts_ms"].as_u64().map(Duration::from_millis);
        let first = job["first"].as_u64().and_then(|first| usize::try_from(first).ok());
        if job["kind"] == "hold" {
            // A client of its own for each, so that no two share a connection.
            for _ in 0..count("requests") {
                let client = sallyport_tests::client::Client::new(address);
                let bearer = format!("Bearer {token}");
                let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
                let mut stream = client.try_open("POST", "/v1/messages", &headers, ask(model, true)).await?;
                anyhow::ensure!(stream.next().await?.is_some(), "a held stream begins");
                open.push(stream);
            }
            say(&json!({"open": open.len()}).to_string())?;
            continue;
        }
        let body = match job["kind"].as_str() {
            Some("conversation") => {
                Body::Conversation { model: model.to_owned(), bytes: count("bytes"), turn: count("turn") }
            }
            Some("grows") => Body::Grows(model.to_owned()),
            Some("unseen") => Body::Unseen(model.to_owned()),
            Some("kit") => Body::Same(ask_more(model, false)),
            Some("kit-stream") => Body::Same(ask_more(model, true)),
            kind => Body::Same(ask(model, kind == Some("stream"))),
        };
        let mut job = Job::messages(address, token, body, count("connections"), count("requests"));
        if model.starts_with("gpt") && token.is_empty() {
            "/v1/chat/completions".clone_into(&mut job.target);
        }
        job.lasts = lasts.unwrap_or(job.lasts);
        job.first = first.unwrap_or(job.first);
        say(&job.run().await.to_json().to_string())?;
    }
    Ok(())
}

/// Spins on one core until standard input ends.
fn part_spin() -> anyhow::Result<()> {
    say("spinning")?;
    let mut lines = input_lines();
    while !matches!(lines.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)) {
        for turn in 0..1_000_000_u32 {
            std::hint::black_box(turn);
        }
    }
    Ok(())
}

fn ask(model: &str, stream: bool) -> Bytes {
    let messages = json!([{"role": "user", "content": "A short question, as they are asked all day."}]);
    json!({"max_tokens": 64, "messages": messages, "model": model, "stream": stream}).to_string().into()
}

/// A short conversation of about 1.9 KB.
fn ask_more(model: &str, stream: bool) -> Bytes {
    let line = "The quarterly report says \"revenue grew by 12%\", yet the table on page 3 shows 11.4%. Please check both numbers.\n";
    let system = "You are a careful assistant inside a company. Cite the file and the line, and never invent a number. ".repeat(5);
    let answer =
        "Understood. I compared both sources and will list the differences by file and line, shortest first.";
    let messages = json!([
        {"role": "user", "content": line.repeat(4)},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        {"role": "user", "content": [{"type": "text", "text": line.repeat(5)}]},
    ]);
    let metadata = json!({"user_id": "user_9f8e7d6c5b4a"});
    let body = json!({"model": model, "max_tokens": 1024, "stream": stream, "system": system, "metadata": metadata, "temperature": 0.2,
        "messages": messages});
    body.to_string().into()
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// Standard input by lines: a thread of its own reads, since it blocks.
fn input_lines() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn until_input_ends() -> anyhow::Result<()> {
    let mut lines = input_lines();
    while lines.recv().await.is_some() {}
    Ok(())
}

// === impl Part ===

impl Part {
    /// Starts a part; what it says first.
    async fn start(arguments: &[&str]) -> anyhow::Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("part")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("a pipe was asked for")?;
        let output = BufReader::new(child.stdout.take().context("a pipe was asked for")?).lines();
        let mut part = Self { child, input, output };
        let first = part.hear().await?;
        Ok((part, first))
    }

    async fn hear(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(Duration::from_mins(5), self.output.next_line()).await??;
        line.context("a part of the benchmark ended early")
    }

    async fn tell(&mut self, job: &Value) -> anyhow::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        Ok(self.input.write_all(format!("{job}\n").as_bytes()).await?)
    }

    async fn ask(&mut self, job: &Value) -> anyhow::Result<Value> {
        self.tell(job).await?;
        let report: Value = serde_json::from_str(&self.hear().await?)?;
        if report["failures"].as_u64().unwrap_or(0) > 0 {
            bail!("{job} failed: {report}");
        }
        Ok(report)
    }
}

// === measuring ===

/// One thing to measure: who is asked, with which token, and whose CPU counts.
struct Target {
    address: SocketAddr,
    token: String,
    pid: Option<u32>,
}

/// A job's report with the CPU time the target spent on each answer, in nanoseconds.
async fn run(load: &mut Part, target: &Target, mut job: Value) -> anyhow::Result<Value> {
    job["address"] = json!(target.address.to_string());
    job["token"] = json!(target.token);
    let before = target.pid.map(Cpu::of).transpose()?;
    let mut report = load.ask(&job).await?;
    if let (Some(pid), Some(before)) = (target.pid, before) {
        let spent = Cpu::of(pid)?.since(&before).as_nanos();
        let answers = u128::from(report["answers"].as_u64().unwrap_or(1).max(1));
        report["cpu"] = json!(u64::try_from(spent / answers)?);
    }
    Ok(report)
}

async fn measure(quick: bool) -> anyhow::Result<Value> {
    let scale = if quick {
        Scale { unary: 300, parallel: 2_000, streams: 50, megabytes: 10, open: 100 }
    } else {
        Scale { unary: 3_000, parallel: 20_000, streams: 500, megabytes: 100, open: 1_000 }
    };
    let (upstream, address) = Part::start(&["upstream"]).await?;
    let direct = Target { address: address.parse()?, token: String::new(), pid: None };
    let (bare, address) = Part::start(&["proxy", &address]).await?;
    let bare_target = Target { address: address.parse()?, token: String::new(), pid: bare.child.id() };
    let (mut load, _) = Part::start(&["load"]).await?;

    let mut report = json!({"quick": quick});
    report["direct"] = unary(&mut load, &direct, scale).await?;
    report["proxy"] = all(&mut load, &bare_target, scale).await?;
    for (name, policies) in [("off", false), ("on", true)] {
        let url = format!("http://{}", direct.address);
        let app = TestApp::with(|config| governed(config.upstream(&url), policies)).await;
        let target = Target { address: app.address(), token: app.token.clone(), pid: Some(app.pid()) };
        let idle = resident(app.pid())?;
        let mut measured = all(&mut load, &target, scale).await?;
        measured["components"] = components(&app);
        measured["rss_idle"] = json!(idle);
        measured["rss_after_load"] = json!(resident(app.pid())?);
        if policies {
            let job = json!({"kind": "hold", "model": "claude-bench-idle", "requests": scale.open});
            let before = resident(app.pid())?;
            run(&mut load, &target, job).await?;
            let with = resident(app.pid())?;
            measured["streams_open"] = json!(scale.open);
            measured["rss_streams"] = json!(with);
            measured["bytes_per_stream"] = json!(with.saturating_sub(before) / scale.open as u64);
            // These streams have no end: nothing to drain.
            app.kill();
        }
        report[format!("policies_{name}")] = measured;
    }
    drop((upstream, bare));
    Ok(report)
}

/// The bundle of a careful organisation: five entries that let this load pass.
fn governed(config: Config, policies: bool) -> Config {
    if !policies {
        return config;
    }
    let rule = json!({"rules": [{"name": "none", "effect": "deny", "models": ["forbidden-*"]}]});
    let limit = json!({"limits": [{"per": "user", "requests": 4_000_000, "window": "1s"}]});
    config
        .component("sallyport/scope", rule)
        .component("sallyport/scope", json!({"entitlements": {"*": ["*"]}}))
        .component("sallyport/rate-limit", limit)
        .component("sallyport/secret-scan", json!({"action": "deny"}))
        .component("sallyport/block-tool", json!({"tools": ["Forbidden"]}))
}

async fn unary(load: &mut Part, target: &Target, scale: Scale) -> anyhow::Result<Value> {
    let job = |connections: usize, requests: usize| json!({"model": "claude-bench", "connections": connections, "requests": requests});
    run(load, target, job(1, scale.unary / 10)).await?;
    let one = run(load, target, job(1, scale.unary)).await?;
    let many = run(load, target, job(64, scale.parallel)).await?;
    Ok(json!({"one": one, "many": many}))
}

async fn all(load: &mut Part, target: &Target, scale: Scale) -> anyhow::Result<Value> {
    let mut report = unary(load, target, scale).await?;
    let stream =
        |model: &str| json!({"kind": "stream", "model": model, "connections": 4, "requests": scale.streams});
    report["stream"] = run(load, target, stream("claude-bench")).await?;
    report["stream_translated"] = run(load, target, stream("gpt-bench")).await?;
    report["translated"] =
        run(load, target, json!({"model": "gpt-bench", "connections": 1, "requests": scale.unary})).await?;
    for turn in [1, 2] {
        let job = json!({"kind": "conversation", "model": "claude-bench", "bytes": 1 << 20, "turn": turn, "connections": 1, "requests": scale.megabytes});
        report[format!("megabyte_turn_{turn}")] = run(load, target, job).await?;
    }
    Ok(report)
}

/// The median time of a fresh call of each component, from the audit rows, in microseconds.
fn components(app: &TestApp) -> Value {
    let mut micros: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in app.audit_rows() {
        for component in row["payload"]["components"].as_array().into_iter().flatten() {
            if let (Some(name), Some(spent)) = (component["name"].as_str(), component["micros"].as_u64()) {
                micros.entry(name.to_owned()).or_default().push(spent);
            }
        }
    }
    let median = |list: &mut Vec<u64>| {
        list.sort_unstable();
        list.get(list.len() / 2).copied().unwrap_or(0)
    };
    micros
        .iter_mut()
        .map(|(name, list)| (name.clone(), json!(median(list))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Median and tail of what was timed, in nanoseconds.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |per_mille: usize| {
        let place = times.len().saturating_sub(1) * per_mille / 1000;
        u64::try_from(times.get(place).copied().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    };
    json!({"p50": at(500), "p90": at(900), "p99": at(990), "max": at(1000)})
}
