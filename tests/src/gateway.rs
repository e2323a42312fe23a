//! The real gateway under test: the `sallyport` binary as a child in a home of its own, in front of a scripted upstream.
//! When a story ends, every call that was answered must have its row in the audit: no story can forget to ask.

mod binary;
mod config;

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Protocol, Reply, Stream};
use crate::process;
use crate::tls;
use crate::upstream::{self, Upstream};
use crate::wait::{SOON, until};

pub use binary::{binary, profile_dir};
pub use config::{Config, UPSTREAM_KEY};

/// How long the gateway may take to start: it compiles the components that its cache does not hold.
const START: Duration = Duration::from_mins(2);

/// A gateway, its upstream and a user with a token.
#[derive(Debug)]
pub struct TestApp {
    /// The upstream that every route leads to unless the story says otherwise.
    pub upstream: Upstream,
    /// A personal access token of `admin`.
    pub token: String,
    home: TempDir,
    config: Mutex<Config>,
    running: Mutex<Option<Running>>,
    answered: Mutex<Vec<String>>,
}

/// The child process.
#[derive(Debug)]
struct Running {
    child: Child,
    client: Client,
}

// === impl TestApp ===

impl TestApp {
    /// A gateway with the usual routes and no policies.
    pub async fn start() -> Self {
        Self::with(|config| config).await
    }

    /// A gateway with what the story wants of it.
    pub async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        Self::on(Upstream::start(), change).await
    }

    /// A gateway in front of this upstream.
    pub async fn on(upstream: Upstream, change: impl FnOnce(Config) -> Config) -> Self {
        let home = binary::home();
        let token =
            std::fs::read_to_string(home.path().join("admin.token")).expect("the template holds a token");
        let config = change(Config::usual(&upstream.url(), home.path()));
        let app = Self {
            upstream,
            token,
            home,
            config: Mutex::new(config),
            running: Mutex::new(None),
            answered: Mutex::default(),
        };
        app.launch().await;
        app
    }

    /// Starts the process on what the home holds now. `kill` or `stop` came before.
    pub async fn launch(&self) {
        self.launch_until(200).await;
    }

    /// The same, until `/ready` says this status.
    pub async fn launch_until(&self, status: u16) {
        lock(&self.config).write(self.home.path());
        let address_file = self.home.path().join("address");
        if address_file.exists() {
            std::fs::remove_file(&address_file).expect("the old address can be removed");
        }
        let mut child = serve(self.home.path());
        let client = until("the gateway writes its address", START, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the gateway ended with {status} at start:\n{}", self.log());
            }
            let text = std::fs::read_to_string(&address_file).unwrap_or_default();
            std::future::ready(client_of(&text))
        })
        .await;
        until("the gateway is ready", START, || async {
            client
                .try_send("GET", "/ready", &[], Bytes::new())
                .await
                .ok()
                .filter(|reply| reply.status == status)
        })
        .await;
        *lock(&self.running) = Some(Running { child, client });
    }

    /// Starts the process, which has to end by itself: what it said.
    pub fn launch_fails(&self) -> String {
        lock(&self.config).write(self.home.path());
        let before = self.log().len();
        let mut child = serve(self.home.path());
        let deadline = Instant::now() + START;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                child.kill().expect("the process can be killed");
                panic!("the gateway runs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.log().get(before..).unwrap_or_default().to_owned()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.client().address()
    }

    /// `http://127.0.0.1:<port>`, or `https` where it speaks TLS.
    pub fn url(&self) -> String {
        self.client().url()
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Gives this gateway a binary of its own, for all that is started from now on.
    pub fn install(&self) {
        let bytes = std::fs::read(binary()).expect("the binary can be read");
        self.replace_binary(&bytes);
    }

    /// Puts a file in the place of this gateway's own binary, as an upgrade does.
    pub fn replace_binary(&self, bytes: &[u8]) {
        let mut new = tempfile::NamedTempFile::new_in(self.home.path()).expect("the home can be written");
        new.write_all(bytes).expect("the home can be written");
        let executable = Permissions::from_mode(0o755);
        new.as_file().set_permissions(executable).expect("one's own file can be made executable");
        new.persist(own_binary(self.home.path())).expect("a file takes another one's place");
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.with_running(|running| running.child.id())
    }

    /// Whether the process still runs.
    pub fn is_up(&self) -> bool {
        self.with_running(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// A client without credentials.
    pub fn client(&self) -> Client {
        self.with_running(|running| running.client.clone())
    }

    /// `POST /v1/messages` as `admin`, to the end.
    pub async fn messages(&self, body: Value) -> Reply {
        self.post("/v1/messages", &[], body.to_string()).await
    }

    /// The same with a stream asked for, to the first byte.
    pub async fn messages_stream(&self, mut body: Value) -> Stream {
        body["stream"] = Value::Bool(true);
        self.open("/v1/messages", &[], body.to_string()).await
    }

    /// Exact bytes as `admin`, with headers besides the usual ones.
    pub async fn post(&self, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let reply = self.open(target, headers, body).await.whole().await;
        if reply.status == 200 && reply.complete && target.split('?').next() == Some("/v1/messages") {
            let trace =
                reply.header("x-trace-id").unwrap_or_else(|| panic!("an answer without a trace: {reply}"));
            lock(&self.answered).push(trace.to_owned());
        }
        reply
    }

    /// The same, to the answer's head.
    pub async fn open(&self, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Stream {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("content-type", "application/json"), ("anthropic-version", "2023-06-01")];
        if !headers.iter().any(|(name, _)| matches!(*name, "authorization" | "x-api-key")) {
            all.push(("authorization", &bearer));
        }
        all.extend_from_slice(headers);
        self.client().try_open("POST", target, &all, body.into()).await.expect("the gateway answers")
    }

    /// `GET` as `admin`.
    pub async fn get(&self, target: &str) -> Reply {
        self.client()
            .send("GET", target, &[("authorization", &format!("Bearer {}", self.token))], Bytes::new())
            .await
    }

    /// The story takes rows away, with the database that they were in: the calls so far need none when it ends.
    pub fn forgives_rows(&self) {
        lock(&self.answered).clear();
    }

    /// Runs the CLI on this home; stops the test if it fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = cli(self.home.path(), arguments);
        assert!(
            output.status.success(),
            "sallyport {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the CLI on this home and reads its JSON.
    pub fn cli_json(&self, arguments: &[&str]) -> Value {
        let out = self.cli(&[arguments, &["--json"]].concat());
        parse_json(&out)
    }

    /// Runs the CLI on this home, which has to fail: what it printed, and what it complained about.
    pub fn cli_fails(&self, arguments: &[&str]) -> (String, String) {
        let output = cli(self.home.path(), arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(1), "sallyport {arguments:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    /// Runs the CLI on this home, whose configuration it has to refuse: what it printed.
    pub fn cli_refused(&self, arguments: &[&str]) -> String {
        let output = cli(self.home.path(), arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(3), "sallyport {arguments:?}: {text}");
        text
    }

    /// Every audit row, oldest first.
    pub fn audit_rows(&self) -> Vec<Value> {
        let listed = self.cli_json(&["audit", "tail", "--lines", "1000000"]);
        let mut rows = match listed {
            Value::Array(rows) => rows,
            // One row alone is one line.
            Value::Object(map) if map.contains_key("trace_id") => vec![Value::Object(map)],
            Value::Object(mut map) => map
                .remove("rows")
                .or_else(|| map.remove("events"))
                .and_then(|v| v.as_array().cloned())
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        rows.sort_by_key(|row| row["id"].as_i64());
        rows
    }

    /// The rows of one trace once its inference row is there.
    pub async fn lineage(&self, trace: &str) -> Vec<Value> {
        until("the trace has its row", SOON, || {
            let listed = self.cli_json(&["audit", "lineage", trace]);
            let rows = listed.as_array().cloned().unwrap_or_default();
            std::future::ready(rows.iter().any(|row| row["kind"] == "inference").then_some(rows))
        })
        .await
    }

    /// The one inference row of an answer.
    pub async fn row_of(&self, reply: &Reply) -> Value {
        let trace =
            reply.header("x-trace-id").unwrap_or_else(|| panic!("an answer without a trace: {reply}"));
        let rows = self.lineage(trace).await;
        let mut inference = rows.into_iter().filter(|row| row["kind"] == "inference");
        let row = inference.next().expect("the trace has an inference row");
        assert_eq!(inference.next(), None, "a call has one inference row");
        row
    }

    /// The lines of the SIEM file so far.
    pub fn siem_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.home.path().join("siem.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What the process has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Ends the process without a warning.
    pub fn kill(&self) {
        if let Some(mut running) = lock(&self.running).take() {
            running.child.kill().expect("the process can be killed");
            running.child.wait().expect("the process can be waited for");
        }
    }

    /// Asks the process to end, and waits for it.
    pub fn stop(&self) {
        if let Some(mut running) = lock(&self.running).take() {
            process::signal(running.child.id(), "TERM").expect("the process runs");
            end(&mut running.child, Duration::from_secs(20));
        }
    }

    /// How the process ended, once it has; something told it to.
    pub async fn ended(&self) -> ExitStatus {
        let status = until("the gateway has ended", SOON, || {
            let ended = self.with_running(|running| running.child.try_wait());
            std::future::ready(ended.expect("the process can be waited for"))
        })
        .await;
        drop(lock(&self.running).take());
        status
    }

    /// Writes another configuration and asks the process to read it.
    pub fn reload(&self, change: impl FnOnce(Config) -> Config) {
        self.change(change);
        process::signal(self.pid(), "HUP").expect("the process runs");
    }

    /// Writes another configuration for the commands that follow, while nothing runs.
    pub fn change(&self, change: impl FnOnce(Config) -> Config) {
        let mut config = lock(&self.config);
        *config = change(config.clone());
        config.write(self.home.path());
    }

    /// Writes bytes that are no configuration, and asks the process to read them.
    pub fn reload_broken(&self, text: &str) {
        std::fs::write(self.home.path().join("sallyport.yaml"), text).expect("the home can be written");
        process::signal(self.pid(), "HUP").expect("the process runs");
    }

    fn with_running<T>(&self, look: impl FnOnce(&mut Running) -> T) -> T {
        look(lock(&self.running).as_mut().expect("the gateway runs"))
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint_log(&self.log());
            self.kill();
            return;
        }
        self.stop();
        let answered = lock(&self.answered).split_off(0);
        if answered.is_empty() {
            return;
        }
        let rows = self.audit_rows();
        let mut counts = HashMap::new();
        for row in rows.iter().filter(|row| row["kind"] == "inference") {
            *counts.entry(row["trace_id"].as_str().unwrap_or_default()).or_insert(0) += 1;
        }
        for trace in answered {
            let count = counts.get(trace.as_str()).copied().unwrap_or(0);
            assert_eq!(count, 1, "the answered call {trace} has {count} rows");
        }
    }
}

/// A client for what a file of an address says; it believes the authority of the stories, and shows a certificate of theirs if it is
/// asked for one.
pub fn client_of(text: &str) -> Option<Client> {
    let text = text.trim();
    match text.strip_prefix("https://") {
        Some(address) => {
            let config = tls::believing(&tls::authority().pem(), Some(&tls::authority().client("stories")));
            Some(Client::secure(address.parse().ok()?, config, Protocol::Http1))
        }
        None => Some(Client::new(text.parse().ok()?)),
    }
}

/// Runs the CLI on a home.
fn cli(home: &Path, arguments: &[&str]) -> Output {
    let mut command = command(home);
    command.args(arguments).output().expect("the binary runs")
}

/// A gateway's own binary, where it has one.
fn own_binary(home: &Path) -> PathBuf {
    home.join("sallyport")
}

fn command(home: &Path) -> Command {
    let own = own_binary(home);
    let mut command = Command::new(if own.exists() { &own } else { binary() });
    command.arg("--home").arg(home).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("SSL_CERT_FILE", upstream::authority());
    command.stdin(Stdio::null());
    command
}

/// Starts `serve`; what it says goes to `<home>/log`.
fn serve(home: &Path) -> Child {
    let path: PathBuf = home.join("log");
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the home can be written");
    let again = log.try_clone().expect("a file can be shared");
    command(home)
        .arg("serve")
        .env("RUST_LOG", "info")
        .stdout(log)
        .stderr(again)
        .spawn()
        .expect("the binary starts")
}

/// Waits for a child that was asked to end; one that does not listen is killed, which fails the test.
fn end(child: &mut Child, limit: Duration) {
    let deadline = Instant::now() + limit;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            child.kill().expect("the process can be killed");
            panic!("the gateway did not end within {limit:?} of SIGTERM");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// JSON, or one JSON value a line.
fn parse_json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|_| {
        let lines = out.lines().filter(|line| !line.trim().is_empty());
        Value::Array(
            lines
                .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {out}")))
                .collect(),
        )
    })
}

#[expect(clippy::print_stderr, reason = "a failed story shows what the gateway said last")]
fn eprint_log(log: &str) {
    let lines: Vec<&str> = log.lines().rev().take(40).collect();
    for line in lines.iter().rev() {
        eprintln!("gateway: {line}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
