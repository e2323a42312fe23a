//! The clients that people use, unmodified: the official SDKs and Claude Code, through the gateway. Asked for with
//! `SALLYPORT_CLIENTS=1`, since they come from package registries; where they are asked for and cannot be had, the story fails.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use sallyport_tests::gateway::{TestApp, profile_dir};
use sallyport_tests::upstream::{Script, Upstream};
use serde_json::json;
use tokio::process::Command;

/// How long an install or a session may take.
const LIMIT: Duration = Duration::from_mins(3);

fn wanted(name: &str) -> bool {
    let wanted = std::env::var_os("SALLYPORT_CLIENTS").is_some();
    if !wanted {
        crate::tell(&format!("skipped: {name} (set SALLYPORT_CLIENTS=1 to install it and run this story)"));
    }
    wanted
}

/// `target/clients`: what is installed stays for the next run.
fn cache() -> PathBuf {
    let target = profile_dir().parent().unwrap().to_owned();
    let dir = target.join("clients");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

async fn run(mut command: Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(LIMIT, command.output()).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

/// Runs an install step, which was asked for and has to succeed.
async fn install(name: &str, command: Command) {
    match run(command).await {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} cannot be installed: {said}");
        }
        Err(error) => panic!("{name} cannot be installed: {error}"),
    }
}

/// A Python with the `anthropic` package.
async fn python() -> PathBuf {
    python_with("python", "import anthropic").await
}

/// A Python with what stands in `tests/clients/<folder>/requirements.txt`, of which `probe` says whether it is there.
async fn python_with(folder: &str, probe: &str) -> PathBuf {
    let venv = cache().join(folder);
    let python = venv.join("bin/python");
    if !python.exists() {
        let mut command = Command::new("python3");
        command.args(["-m", "venv"]).arg(&venv);
        install("Python", command).await;
    }
    let mut there = Command::new(&python);
    there.args(["-c", probe]);
    if !run(there).await.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new(&python);
        command
            .args(["-m", "pip", "install", "--quiet"])
            .arg("--requirement")
            .arg(scripts().join(folder).join("requirements.txt"));
        install("what Python needs", command).await;
    }
    python
}

/// A directory with the npm packages.
async fn node() -> PathBuf {
    let dir = cache().join("node");
    if !dir.join("node_modules/@anthropic-ai/sdk").exists() {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(scripts().join("node/package.json"), dir.join("package.json")).unwrap();
        let mut command = Command::new("npm");
        command.args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(&dir);
        install("the npm packages", command).await;
    }
    std::fs::copy(scripts().join("node/story.mjs"), dir.join("story.mjs")).unwrap();
    dir
}

/// The native binary of Claude Code: the package's launcher is only linked to it by an install script, which may not run.
async fn claude_code() -> PathBuf {
    let modules = node().await.join("node_modules/@anthropic-ai");
    let packages = std::fs::read_dir(modules).unwrap();
    packages
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("claude"))
        .find(|path| path.is_file() && path.to_string_lossy().contains("claude-code-"))
        .unwrap_or_else(|| panic!("Claude Code has no binary for this machine"))
}

/// One session of `claude -p` in a home of its own.
async fn claude(binary: &Path, url: &str, token: &str, prompt: &str) -> Output {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("notes.txt"), "the answer is 42\n").unwrap();
    let mut command = Command::new(binary);
    command
        .args([
            "-p",
            prompt,
            "--output-format",
            "json",
            "--model",
            "claude-sonnet-4-5",
            "--allowedTools",
            "Bash,Read",
            "--max-turns",
            "5",
        ])
        .current_dir(home.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("ANTHROPIC_BASE_URL", url)
        .env("ANTHROPIC_AUTH_TOKEN", token)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        .env("API_TIMEOUT_MS", "60000");
    run(command).await.unwrap()
}

#[track_caller]
fn result(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("no result: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// A tool loop that does not take the client's own system prompt for a tool result.
fn bash_loop(upstream: &Upstream, command: &str) {
    let call = json!({"command": command, "description": "a step"});
    upstream.script(Script::tool_loop("Bash", call, "The tool has spoken."));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_talks_streams_counts_and_lists() {
    if !wanted("the Python SDK") {
        return;
    }
    let python = python().await;
    let app = TestApp::start().await;
    let mut command = Command::new(python);
    command.arg(scripts().join("python/story.py")).arg(app.url()).arg(&app.token);
    let output = run(command).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_talks_streams_counts_and_lists() {
    if !wanted("the TypeScript SDK") {
        return;
    }
    let dir = node().await;
    let app = TestApp::start().await;
    let mut command = Command::new("node");
    command.arg("story.mjs").arg(app.url()).arg(&app.token).current_dir(dir);
    let output = run(command).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_finishes_against_the_scripted_upstream_itself() {
    if !wanted("Claude Code") {
        return;
    }
    let binary = claude_code().await;
    let upstream = Upstream::start();
    bash_loop(&upstream, "cat notes.txt");
    let output = claude(&binary, &upstream.url(), "token", "Read the notes").await;
    assert_eq!(result(&output)["result"], "The tool has spoken.");
    let last = upstream.requests().into_iter().rfind(|seen| seen.target.starts_with("/v1/messages")).unwrap();
    assert!(
        String::from_utf8_lossy(&last.body).contains("the answer is 42"),
        "the tool's output is in the second turn"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_says_hello_through_the_gateway() {
    if !wanted("Claude Code") {
        return;
    }
    let binary = claude_code().await;
    let app = TestApp::start().await;
    let result = result(&claude(&binary, &app.url(), &app.token, "Say hello").await);
    assert_eq!(
        (&result["result"], &result["is_error"]),
        (&json!("Hello from upstream."), &json!(false)),
        "{result}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_runs_a_tool_loop_through_the_gateway_on_both_wires() {
    if !wanted("Claude Code") {
        return;
    }
    let binary = claude_code().await;
    let app = TestApp::start().await;
    bash_loop(&app.upstream, "cat notes.txt");
    let anthropic = result(&claude(&binary, &app.url(), &app.token, "Read the notes").await);
    assert_eq!(anthropic["result"], "The tool has spoken.", "{anthropic}");

    let upstream = Upstream::start();
    let endpoint = format!("{}/v1/chat/completions", upstream.url());
    let app = TestApp::on(upstream, |config| {
        config.route(json!({"model_pattern": "claude-*", "provider": "openai", "endpoint": endpoint,
            "upstream_model": "gpt-5", "api_key_secret": "upstream"}))
    })
    .await;
    bash_loop(&app.upstream, "cat notes.txt");
    let openai = result(&claude(&binary, &app.url(), &app.token, "Read the notes").await);
    assert_eq!(openai["result"], "The tool has spoken.", "{openai}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_does_not_run_a_tool_that_a_hook_blocks() {
    if !wanted("Claude Code") {
        return;
    }
    let binary = claude_code().await;
    let hook = json!({"tools": ["Bash"], "reason": "no shell on this machine"});
    let app = TestApp::with(|config| config.component("sallyport/block-tool", hook)).await;
    bash_loop(&app.upstream, "touch ran-anyway");
    let result = result(&claude(&binary, &app.url(), &app.token, "Run it").await);
    assert!(result["result"].as_str().unwrap().contains("no shell on this machine"), "{result}");
    let ran = app
        .upstream
        .requests()
        .iter()
        .any(|seen| String::from_utf8_lossy(&seen.body).contains("\"tool_result\""));
    assert!(!ran, "the tool ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_providers_send_and_read_fits_the_vendors_own_software() {
    if !wanted("the golden cases against the SDKs of OpenAI, Google and AWS") {
        return;
    }
    let python = python_with("wires", "import botocore, openai, google.genai").await;
    let mut command = Command::new(python);
    command
        .arg(scripts().join("wires/check.py"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    let output = run(command).await.unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    crate::tell(&said);
}
