//! `cargo xtask demo`: from a fresh checkout to an answered, audited call.

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::process::{Background, cargo, output, run};
use crate::{build_guests, say};

const START_TIMEOUT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
const QUESTION: &str = "Hello from the other side of the gate.";

/// How to show it.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Stop after the conversation instead of serving on
    #[arg(long)]
    once: bool,
    /// End with one line of JSON: answer, `trace_id`, rows, components, `base_url`
    #[arg(long)]
    json: bool,
    /// The port to listen on; a free one unless given
    #[arg(long)]
    port: Option<u16>,
}

/// A gateway's home and how to call its command.
struct Home {
    binary: PathBuf,
    directory: PathBuf,
}

/// What came back for a message.
struct Answer {
    text: String,
    trace: String,
}

// === impl Demo ===

impl Demo {
    /// Builds, serves, asks, shows.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        say("building the components and the gateway (the first time takes some minutes)");
        build_guests(root)?;
        run(&mut cargo(root, &["build", "--workspace", "--bin", "sallyport"]))?;

        let port = match self.port {
            Some(port) => port,
            None => free_port()?,
        };
        let base_url = format!("http://127.0.0.1:{port}");
        let home = Home::fresh(root, port)?;
        let mut gateway = Background::start(&mut home.command(&["serve"]))?;
        wait_until_ready(&mut gateway, &base_url)?;
        say(&format!("serving on {base_url}"));

        let pat = home.ask(&["gateway", "pat", "create", "--user", "admin", "--name", "demo"])?;
        let pat = text_at(&pat, "token")?;
        let issued = exchange(&base_url, &pat)?;
        let anthropic = anthropic_key();
        let model = if anthropic { "claude-sonnet-4-5" } else { "claude-echo" };
        let answer = converse(&base_url, &issued, model)?;
        let rows = home.lineage(&answer.trace)?;
        let components = components(&rows);

        say(&format!("\nyou      {QUESTION}\n{model}  {}\n", answer.text));
        say(&format!("what the audit trail has about {}:", answer.trace));
        say(&home.run_text(&["audit", "lineage", &answer.trace])?);
        say(&environment(&base_url, &pat));
        if self.json {
            let line = json!({
                "answer": answer.text,
                "trace_id": answer.trace,
                "rows": rows.len(),
                "components": components,
                "base_url": base_url,
            });
            writeln!(std::io::stdout(), "{line}")?;
        }
        if self.once {
            return gateway.stop();
        }
        say("serving until Ctrl-C");
        let ended = gateway.wait()?;
        ensure!(ended.success(), "the gateway ended: {ended}");
        Ok(())
    }
}

// === impl Home ===

impl Home {
    /// Made anew, so that every run starts from nothing.
    fn fresh(root: &Path, port: u16) -> Result<Self> {
        let directory = root.join("target/demo");
        if directory.exists() {
            fs::remove_dir_all(&directory).context("cannot remove what the last run left")?;
        }
        let home = Self { binary: root.join("target/debug/sallyport"), directory };
        home.run_text(&["init"])?;
        let file = home.directory.join("sallyport.yaml");
        let mut config = fs::read_to_string(&file).context("cannot read the configuration")?;
        ensure!(config.contains("listen: 127.0.0.1:8080"), "the configuration names no address to replace");
        config = config.replace("listen: 127.0.0.1:8080", &format!("listen: 127.0.0.1:{port}"));
        if anthropic_key() {
            let route = "  routes:\n    - model_pattern: \"claude-*\"\n      provider: anthropic\n      \
                         endpoint: \"https://api.anthropic.com\"\n      api_key_secret: anthropic\n";
            config = config.replacen("  routes:\n", route, 1);
            // Written into the file that is there, so that its mode stays.
            fs::write(home.directory.join("secrets.yaml"), "anthropic: { env: ANTHROPIC_API_KEY }\n")?;
        }
        fs::write(&file, config).context("cannot write the configuration")?;
        Ok(home)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--home").arg(&self.directory).args(arguments);
        command
    }

    fn run_text(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let text = output(self.command(arguments).arg("--json"))?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} did not answer in JSON"))
    }

    /// The rows of a trace. They reach the database a moment after the answer, which waits for the spool alone.
    fn lineage(&self, trace: &str) -> Result<Vec<Value>> {
        let started = Instant::now();
        loop {
            let rows = match self.ask(&["audit", "lineage", trace]) {
                Ok(Value::Array(rows)) => rows,
                Ok(Value::Object(mut answer)) => match answer.remove("rows") {
                    Some(Value::Array(rows)) => rows,
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            };
            let closed = rows.iter().any(|row| row.get("kind").and_then(Value::as_str) == Some("cost"));
            if closed {
                return Ok(rows);
            }
            ensure!(started.elapsed() < START_TIMEOUT, "the audit trail has no cost row for {trace}");
            thread::sleep(POLL);
        }
    }
}

fn anthropic_key() -> bool {
    std::env::var_os("ANTHROPIC_API_KEY").is_some_and(|key| !key.is_empty())
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

fn wait_until_ready(gateway: &mut Background, base_url: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Some(status) = gateway.ended()? {
            bail!("the gateway ended before it was ready: {status}");
        }
        if ureq::get(format!("{base_url}/ready")).call().is_ok() {
            return Ok(());
        }
        ensure!(started.elapsed() < START_TIMEOUT, "the gateway is not ready after {START_TIMEOUT:?}");
        thread::sleep(POLL);
    }
}

/// A token for an access token and the headers that belong to it.
fn exchange(base_url: &str, pat: &str) -> Result<Value> {
    let mut answer = ureq::post(format!("{base_url}/v1/auth/cowork/pat"))
        .header("authorization", format!("Bearer {pat}"))
        .send_empty()
        .context("the token was not exchanged")?;
    let text = answer.body_mut().read_to_string()?;
    serde_json::from_str(&text).context("the exchange did not answer in JSON")
}

/// One streamed message.
fn converse(base_url: &str, issued: &Value, model: &str) -> Result<Answer> {
    let token = text_at(issued, "token")?;
    let mut request = ureq::post(format!("{base_url}/v1/messages"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("anthropic-version", "2023-06-01");
    for (name, value) in issued.get("headers").and_then(Value::as_object).into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap_or_default());
    }
    let body = json!({
        "model": model,
        "max_tokens": 256,
        "stream": true,
        "messages": [{ "role": "user", "content": QUESTION }],
    });
    let answer = request.send(body.to_string()).context("the message was not answered")?;
    let trace = answer.headers().get("x-trace-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
    let trace = trace.context("the answer has no x-trace-id")?;

    let mut text = String::new();
    let mut ended = false;
    for line in BufReader::new(answer.into_body().into_reader()).lines() {
        let line = line.context("the stream broke")?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).context("an event is not JSON")?;
        match event.get("type").and_then(Value::as_str) {
            Some("content_block_delta") => {
                text.push_str(event.pointer("/delta/text").and_then(Value::as_str).unwrap_or_default());
            }
            Some("message_stop") => ended = true,
            Some("error") => bail!("the gateway sent an error: {event}"),
            _ => {}
        }
    }
    ensure!(ended && !text.is_empty(), "the stream did not end as it should");
    Ok(Answer { text, trace })
}

/// The components that the rows name, each once.
fn components(rows: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = rows
        .iter()
        .filter_map(|row| row.pointer("/payload/components")?.as_array())
        .flatten()
        .filter_map(|component| component.get("name")?.as_str().map(ToOwned::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn text_at(value: &Value, key: &str) -> Result<String> {
    value
        .get(key)
        .and_then(Value::as_str)
        .map(ToOwned::to_owned)
        .with_context(|| format!("there is no {key}"))
}

fn environment(base_url: &str, pat: &str) -> String {
    format!(
        "Claude Code and the Python and TypeScript SDKs:\n  export ANTHROPIC_BASE_URL={base_url}\n  \
         export ANTHROPIC_AUTH_TOKEN={pat}\n"
    )
}
