//! Hostile components behind a whole gateway: what a provider wants to send that is not its to send never leaves, and what
//! a policy repeats never reaches the log.

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::hostile;
use sallyport_tests::upstream::{Script, Upstream};
use serde_json::{Value, json};

use crate::ask;
use crate::crowds::{CROWD, rounds};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[16; 32])
}

/// Packages under names of their own, in a directory that the configuration names.
struct Crate {
    directory: tempfile::TempDir,
    files: Vec<String>,
}

impl Crate {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), files: Vec::new() }
    }

    fn pack(&mut self, name: &str, source: &str, blanks: &[(&str, &str)]) {
        let (kind, component) = hostile::component_with(source, blanks);
        let statement = hostile::statement(name, kind.unwrap());
        let file = self.directory.path().join(format!("{name}.sallyport"));
        std::fs::write(&file, Package::build(statement, &key(), &component).unwrap()).unwrap();
        self.files.push(file.display().to_string());
    }

    fn configure(&self, config: Config) -> Config {
        let kinds: Vec<&str> = [Kind::Provider, Kind::Policy].iter().map(|kind| kind.as_str()).collect();
        let publisher: Value =
            json!({"key": public_key_text(&key().verifying_key()), "namespace": "hostile", "kinds": kinds});
        let prices = json!([{"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1}]);
        let config = config.set("/prices/models", prices);
        config.set("/components", json!({"packages": self.files, "publishers": [publisher]}))
    }
}

/// Each provider is asked once; none of them reaches the upstream, and honest calls go on. What sends nothing odd does
/// reach it.
async fn nothing_is_sent(mut packages: Crate, names: &[String]) {
    packages.pack("plain-header", "16-header", &[("name", "x-note"), ("value", "fine")]);
    packages.pack("plain-path", "17-path", &[("path", "/v1/messages?beta=true")]);
    let plain = ["plain-header".to_owned(), "plain-path".to_owned()];
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| {
        names.iter().chain(&plain).fold(packages.configure(config), |config, name| {
            config.route(json!({"model_pattern": name, "provider": name, "endpoint": url}))
        })
    })
    .await;
    for name in names {
        let reply = app.messages(ask(name, "Hello")).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (502, "api_error"), "{name}: {reply}");
        assert_eq!(app.upstream.seen(), 0, "{name} reached the upstream");
        assert_eq!(app.row_of(&reply).await["payload"]["code"], "provider_contract", "{name}");
    }
    for (number, name) in plain.iter().enumerate() {
        app.messages(ask(name, "Hello")).await;
        assert_eq!(app.upstream.seen(), number + 1, "{name} did not reach the upstream");
    }
    crowd(&app, names).await;
    assert_eq!(app.upstream.seen(), plain.len(), "one of a crowd reached the upstream");
    let reply = app.messages(crate::hello()).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert!(app.is_up());
}

/// All of them again and again and eight at once, beside honest calls: as often as a crowd's single guest, for these are slow.
async fn crowd(app: &TestApp, names: &[String]) {
    let hostile = async {
        let attackers = (0..CROWD).map(|_| async {
            for name in names.iter().cycle().take(names.len() * rounds().div_ceil(CROWD)) {
                let reply = app.messages(ask(name, "Hello")).await;
                assert_eq!(
                    (reply.status, reply.error_type().as_str()),
                    (502, "api_error"),
                    "{name}: {reply}"
                );
            }
        });
        futures_util::future::join_all(attackers).await;
    };
    let mut hostile = std::pin::pin!(hostile);
    loop {
        tokio::select! {
            () = &mut hostile => return,
            reply = app.messages(ask("echo", "Hello")) => assert_eq!(reply.status, 200, "beside a crowd: {reply}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_16_headers_that_belong_to_the_host_never_leave() {
    let mut packages = Crate::new();
    let mut names = Vec::new();
    for (number, (name, value)) in [
        ("x-note", "a\r\nx-api-key: stolen"),
        ("x-note", "a\nb"),
        ("x-note", "a\u{0}b"),
        ("x\r\nevil", "a"),
        ("", "a"),
        ("content-length", "0"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("trailer", "x-late"),
        ("host", "evil.example"),
        ("authorization", "Bearer mine"),
        ("x-api-key", "mine"),
        ("proxy-authorization", "Basic mine"),
        ("connection", "x-note"),
        ("keep-alive", "timeout=1"),
        ("upgrade", "h2c"),
        ("cookie", "a=b"),
        ("via", "1.1 evil"),
        ("Forwarded", "for=evil"),
        ("expect", "100-continue"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "Basic"),
        ("accept-encoding", "gzip"),
        ("content-encoding", "gzip"),
    ]
    .into_iter()
    .enumerate()
    {
        let package = format!("header-{number}");
        packages.pack(&package, "16-header", &[("name", name), ("value", value)]);
        names.push(package);
    }
    nothing_is_sent(packages, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_17_paths_that_lead_elsewhere_never_leave() {
    let mut packages = Crate::new();
    let mut names = Vec::new();
    for (number, path) in [
        "http://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/a#b",
        "user:secret@evil.example/",
        "@evil.example",
        "/a/../../admin",
        "/./a",
        "/a b",
        "/a\r\nx-evil: b",
        "/\u{e9}",
        "v1/messages",
        ":80/",
    ]
    .into_iter()
    .enumerate()
    {
        let package = format!("path-{number}");
        packages.pack(&package, "17-path", &[("path", path)]);
        names.push(package);
    }
    packages.pack("path-long", "17-path-of-a-megabyte", &[]);
    names.push("path-long".to_owned());
    nothing_is_sent(packages, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_13_a_hundred_thousand_headers_are_not_sent_and_break_nothing() {
    let mut packages = Crate::new();
    packages.pack("headers", "13-headers-100k", &[]);
    nothing_is_sent(packages, &["headers".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_26_what_a_policy_writes_stands_in_one_row_and_makes_no_line_of_the_log() {
    let mut packages = Crate::new();
    packages.pack("inject", "26-log-injection", &[]);
    let app = TestApp::with(|config| packages.configure(config).component("hostile/inject", json!({}))).await;
    let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    assert_eq!(reply.status, 200, "{reply}");
    let row = app.row_of(&reply).await;
    app.stop();
    let log = app.log();
    for line in log.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(!line.contains("all is well") || parsed["target"] == "guest", "{line}");
    }
    let siem = std::fs::read_to_string(app.home().join("siem.jsonl")).unwrap();
    assert!(row.to_string().contains("all is well"), "{row}");
    for text in [log, siem] {
        let odd: Vec<char> = text.chars().filter(|char| char.is_control() && *char != '\n').collect();
        assert!(odd.is_empty(), "{odd:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_27_what_a_policy_repeats_never_reaches_the_log() {
    let canary = "canary-4c1f9e-do-not-log";
    let mut packages = Crate::new();
    packages.pack("echo", "27-secret-echo", &[]);
    let app = TestApp::with(|config| packages.configure(config).component("hostile/echo", json!({}))).await;
    let reply = app.messages(ask("claude-sonnet-4-5", canary)).await;
    assert_ne!(reply.status, 200, "a policy that traps is a no: {reply}");
    assert!(!String::from_utf8_lossy(&reply.body).contains(canary), "{reply}");
    assert_eq!(app.upstream.seen(), 0);
    let row = app.row_of(&reply).await;
    assert_eq!(row["outcome"], "denied", "{row}");
    let log = app.log();
    assert!(!log.is_empty() && !log.contains(canary), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_27_what_a_policy_repeats_in_its_reason_is_its_own_words_and_stands_nowhere_else() {
    let canary = "canary-91be07-in-a-reason";
    let mut packages = Crate::new();
    packages.pack("echo", "27-secret-in-reason", &[]);
    let app = TestApp::with(|config| packages.configure(config).component("hostile/echo", json!({}))).await;
    let reply = app.messages(ask("claude-sonnet-4-5", canary)).await;
    assert_eq!((reply.status, app.upstream.seen()), (451, 0), "{reply}");
    assert!(
        String::from_utf8_lossy(&reply.body).contains(canary),
        "it really repeats what was said: {reply}"
    );
    let row = app.row_of(&reply).await;
    assert_eq!(row["payload"]["code"], "denied", "a prompt is no code: {row}");
    app.stop();
    let lines = app.siem_lines();
    assert!(lines.iter().any(|line| line["trace_id"] == row["trace_id"]), "{lines:?}");
    for mut written in lines.into_iter().chain([row]) {
        let said = without_its_words(&mut written);
        assert!(!written.to_string().contains(canary), "beside {said} words of the policy: {written}");
    }
    let log = app.log();
    assert!(!log.is_empty() && !log.contains(canary), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_reads_what_hooks_put_in_and_what_scanners_left() {
    let key = "AKIAQ3EGRFZXNDOMVWJK";
    let mut packages = Crate::new();
    packages.pack("echo", "27-secret-in-reason", &[]);
    let context = json!([{"name": "house", "on": ["UserPromptSubmit"], "then": {"add_context": "the rules of the house"}}]);
    let bundle = json!([
        {"component": "hostile/echo"},
        {"component": "sallyport/event-rules", "config": {"rules": context}},
        {"component": "sallyport/secret-scan", "rewrite": true, "config": {"action": "redact"}},
    ]);
    let app = TestApp::with(|config| packages.configure(config).set("/bundle", bundle)).await;
    // It refuses with the body that it was shown.
    let refused = app.messages(ask("claude-sonnet-4-5", &format!("deploy with {key} today"))).await;
    assert_eq!((refused.status, app.upstream.seen()), (451, 0), "{refused}");
    assert_eq!(refused.header("x-sallyport-policy"), Some("hostile/echo"), "{refused}");
    let shown = refused.json()["error"]["message"].to_string();
    assert!(shown.contains("deploy with [redacted:aws_access_key] today"), "{shown}");
    assert!(shown.contains("the rules of the house"), "{shown}");
    assert!(!shown.contains(key), "{shown}");
}

/// Takes the reason of a refusal out wherever they stand; how many there were.
fn without_its_words(value: &mut Value) -> usize {
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|name, _| name != "reason");
            before - fields.len() + fields.values_mut().map(without_its_words).sum::<usize>()
        }
        Value::Array(items) => items.iter_mut().map(without_its_words).sum(),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_forwarded_after_a_look_at_its_head_comes_whole() {
    let mut packages = Crate::new();
    packages.pack("forwarder", "00-honest-forwarder", &[]);
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| {
        let route = json!({"model_pattern": "forwarded", "provider": "forwarder", "endpoint": url, "forward_user_id": true});
        packages.configure(config).route(route)
    })
    .await;
    // More than is told at once, so that some of it came with the look and some after it.
    let text = "0123456789".repeat(60_000);
    let answer = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "forwarded", "stop_reason": "end_turn",
        "stop_sequence": null, "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 1, "output_tokens": 1}});
    let json = [("content-type".to_owned(), "application/json".to_owned())].to_vec();
    let body = ask("forwarded", "Hello");
    for _ in 0..3 {
        app.upstream.next(Script::Status(200, json.clone(), answer.to_string().into()));
        let reply = app.messages(body.clone()).await;
        assert_eq!(reply.status, 200, "{}", reply.status);
        assert!(
            reply.body == answer.to_string().as_bytes(),
            "{} of {} bytes",
            reply.body.len(),
            answer.to_string().len()
        );
        assert_eq!(app.row_of(&reply).await["payload"]["components"][0]["calls"], 2);
    }
}
