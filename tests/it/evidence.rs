//! Evidence: decisions that were recorded come out the same again, and a policy is tried on what was recorded before it decides.

use std::path::Path;

use sallyport_protocol::canonical;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::postgres::Server;
use sallyport_tests::upstream::{Script, Turn, Upstream};
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until_true};
use serde_json::{Value, json};

use crate::{ask, hello, tell};

/// An access key in the shape that scanners know; it opens nothing.
const KEY: &str = "AKIAQ3EGRFZXNDOMVWJK";
/// What a user says and nobody else does.
const CANARY: &str = "the canary sings at dawn";

fn recording(config: Config) -> Config {
    config.set("/evidence", json!({"record": "calls"}))
}

/// A policy, a policy that counts, a scanner, and a hook.
fn governed(config: Config) -> Config {
    let rules = json!({"rules": [{"name": "no-opus", "effect": "deny", "models": ["claude-opus-*"]}]});
    let limits = json!({"limits": [{"per": "user", "requests": 4, "window": "1h"}]});
    let blocked =
        json!({"tools": ["Bash"], "input_contains": ["rm -rf"], "reason": "deleting is not for machines"});
    recording(config)
        .component("sallyport/scope", rules)
        .component("sallyport/rate-limit", limits)
        .component("sallyport/secret-scan", json!({"action": "deny"}))
        .component("sallyport/block-tool", blocked)
}

fn trace(reply: &Reply) -> String {
    reply.header("x-trace-id").unwrap_or_else(|| panic!("an answer without a trace: {reply}")).to_owned()
}

fn steps(replayed: &Value) -> Vec<(String, String, String)> {
    let steps = replayed["calls"][0]["steps"].as_array().unwrap();
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or("-").to_owned();
    steps.iter().map(|step| (text(step, "name"), text(step, "recorded"), text(step, "same"))).collect()
}

fn admin_rows(app: &TestApp, code: &str) -> Vec<Value> {
    let mut rows = app.audit_rows();
    rows.retain(|row| row["kind"] == "admin" && row["payload"]["code"] == code);
    rows
}

/// Calls that are let through, denied by each kind of component, and stopped half-way; then all of them once more.
async fn every_decision_comes_out_the_same(app: &TestApp) {
    let allowed = app.messages(hello()).await;
    let again = app.messages(hello()).await;
    let by_policy = app.messages(ask("claude-opus-4-5", "Hello")).await;
    let by_scanner = app.messages(ask("claude-sonnet-4-5", &format!("deploy with {KEY}"))).await;
    let rm = json!({"command": "rm -rf /"});
    app.upstream.script(Script::Turn(vec![Turn::Tool("toolu_01".into(), "Bash".into(), rm)]));
    let by_hook = app.messages(ask("claude-sonnet-4-5", "Clean up.")).await;
    let by_counter = app.messages(hello()).await;
    let statuses = [&allowed, &again, &by_policy, &by_scanner, &by_hook, &by_counter].map(|it| it.status);
    assert_eq!(statuses, [200, 200, 451, 451, 200, 429]);
    for reply in [&allowed, &by_policy, &by_counter] {
        assert_eq!(app.row_of(reply).await["payload"]["evidence"], "kept");
    }
    app.stop();

    let expected = [
        (&allowed, "sallyport/secret-scan", "nothing found"),
        (&again, "sallyport/rate-limit", "allow"),
        (&by_policy, "sallyport/scope", "deny model_not_allowed"),
        (&by_scanner, "sallyport/secret-scan", "aws"),
        (&by_hook, "sallyport/block-tool", "block"),
        (&by_counter, "sallyport/rate-limit", "deny"),
    ];
    for (reply, decider, said) in expected {
        let replayed = app.cli_json(&["audit", "replay", &trace(reply)]);
        assert_eq!(replayed["same"], true, "{replayed}");
        let steps = steps(&replayed);
        assert!(steps.iter().all(|(_, _, same)| same == "same"), "{replayed}");
        let decided =
            |(name, recorded, _): &(String, String, String)| name == decider && recorded.starts_with(said);
        assert!(steps.iter().any(decided), "{decider} said {said}: {steps:?}");
        let fuel = replayed["calls"][0]["steps"][0]["fuel"].as_u64().unwrap();
        assert!(fuel > 0, "fuel is counted");
    }
    let once_more = app.cli_json(&["audit", "replay", &trace(&by_hook)]);
    assert_eq!(once_more, app.cli_json(&["audit", "replay", &trace(&by_hook)]), "fuel included");
    assert!(app.cli(&["audit", "replay", &trace(&by_hook)]).contains("same"));
    let rows = admin_rows(app, "evidence.replay");
    assert_eq!(rows.len(), 9, "who opens what a user sent leaves a row");
    assert!(rows.iter().all(|row| row["tenant_id"] == "default" && row["client_id"] == "sp_cli"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_of_a_call_comes_out_the_same_again() {
    let app = TestApp::with(governed).await;
    every_decision_comes_out_the_same(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn which_route_a_predicate_chose_comes_out_the_same_again() {
    let region = |name: &str| {
        json!({"model_pattern": "claude-*", "provider": "echo", "region": name, "predicate": "sallyport/region",
            "predicate_config": {"default": "us"}})
    };
    let app = TestApp::with(|config| recording(config).route(region("us")).route(region("eu"))).await;
    let reply = app.messages(hello()).await;
    assert_eq!((reply.status, app.upstream.seen()), (200, 0), "{reply}");
    assert_eq!(app.row_of(&reply).await["payload"]["evidence"], "kept");
    app.stop();
    let replayed = app.cli_json(&["audit", "replay", &trace(&reply)]);
    let step = |said: &str| ("sallyport/region".to_owned(), said.to_owned(), "same".to_owned());
    assert_eq!(steps(&replayed), [step("no match"), step("match")], "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_chance_decided_comes_out_the_same_again() {
    let app = TestApp::with(recording).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.hostile("12-random-verdict", "dice", "1.0.0", 1)).await;
    admin.post("components/acme/dice/activate", json!({"version": "1.0.0"})).await;
    let (one, two) = (app.messages(hello()).await, app.messages(hello()).await);
    let mut codes = Vec::new();
    for reply in [&one, &two] {
        assert_eq!(reply.status, 451, "{reply}");
        codes.push(app.row_of(reply).await["payload"]["code"].as_str().unwrap().to_owned());
    }
    assert_ne!(codes[0], codes[1], "each call has chances of its own");
    app.stop();
    for (reply, code) in [&one, &two].into_iter().zip(codes) {
        let replayed = app.cli_json(&["audit", "replay", &trace(reply)]);
        let step = ("acme/dice".to_owned(), format!("deny {code}"), "same".to_owned());
        assert_eq!(steps(&replayed), [step], "{replayed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_in_a_worker_comes_out_the_same_in_a_command() {
    let app = TestApp::with(|config| governed(config).set("/components/isolation", json!("process"))).await;
    every_decision_comes_out_the_same(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_comes_out_the_same_again_on_postgresql_too() {
    let Some(server) = Server::start().unwrap() else {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        tell("skipped: a replay on PostgreSQL (no PostgreSQL server is installed)");
        return;
    };
    let url = server.url().to_owned();
    let mut app =
        TestApp::on(Upstream::start(), |config| governed(config).set("/database", json!({"url": url}))).await;
    app.token = Admin::of(&app).token;
    every_decision_comes_out_the_same(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_deleted_when_its_days_are_over_and_a_row_says_so() {
    let Some(server) = Server::start().unwrap() else {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        tell("skipped: evidence whose days are over (no PostgreSQL server is installed)");
        return;
    };
    let url = server.url().to_owned();
    let mut app = TestApp::on(Upstream::start(), |config| {
        config
            .set("/evidence", json!({"record": "calls", "keep_days": 2}))
            .set("/database", json!({"url": url}))
    })
    .await;
    app.token = Admin::of(&app).token;
    let (old, new) = (trace(&app.messages(hello()).await), trace(&app.messages(hello()).await));
    app.stop();
    for kept in [&old, &new] {
        app.cli(&["audit", "replay", kept]);
    }
    let three_days = 3 * 24 * 3600 * 1000;
    let older =
        format!("UPDATE call_evidence SET recorded_ms = recorded_ms - {three_days} WHERE trace_id = '{old}'");
    server.execute(&older).unwrap();
    app.launch().await;
    until_true("it is deleted", SOON, || app.log().contains("old evidence was deleted")).await;
    app.stop();
    let rows = admin_rows(&app, "evidence.expire");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["payload"]["detail"], json!({"calls": 1, "keep_days": 2}), "{}", rows[0]);
    app.cli_fails(&["audit", "replay", &old]);
    app.cli(&["audit", "replay", &new]);
    app.launch().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_in_the_database_under_a_seal() {
    let app = TestApp::with(governed).await;
    let reply = app.messages(ask("claude-sonnet-4-5", CANARY)).await;
    let request = app.row_of(&reply).await["payload"]["request_id"].as_str().unwrap().to_owned();
    let trace = trace(&reply);
    app.stop();
    app.cli(&["audit", "replay", &trace]);
    let database = app.home().join("sallyport.sqlite");
    for file in files(app.home()) {
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(position(&bytes, CANARY.as_bytes()), None, "{} holds a prompt in clear", file.display());
        if file == database {
            assert_eq!(position(&bytes, b"no-opus"), None, "a configuration is in clear");
        }
    }

    // Somebody who holds the file changes one byte of the record.
    flip(&database, &trace, &request);
    let (_, complaint) = app.cli_fails(&["audit", "replay", &trace]);
    assert!(complaint.contains("the seal is broken"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_replayed_with_the_components_of_its_time_whatever_is_in_force_now() {
    let app = TestApp::with(recording).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    let pushed = admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    let old = pushed["versions"][0]["digest"].as_str().unwrap().to_owned();
    admin.push(acme.copy_of("scope", "1.1.0", 2)).await;
    let none = json!({"rules": [{"name": "none", "effect": "deny", "models": ["*"]}]});
    let scope = "components/acme/scope";
    admin.post(&format!("{scope}/activate"), json!({"version": "1.0.0", "config": none})).await;
    let denied = app.messages(hello()).await;
    assert_eq!(denied.status, 451);
    admin.post(&format!("{scope}/activate"), json!({"version": "1.1.0", "config": {"rules": []}})).await;
    assert_eq!(app.messages(hello()).await.status, 200);
    admin.post("revocations", json!({"digest": old, "reason": "it was too strict"})).await;
    app.stop();
    let replayed = app.cli_json(&["audit", "replay", &trace(&denied)]);
    let step = &replayed["calls"][0]["steps"][0];
    assert_eq!((&step["version"], &step["digest"]), (&json!("1.0.0"), &json!(old)), "{replayed}");
    assert_eq!((&step["same"], &step["replayed"]), (&json!("same"), &json!("deny model_not_allowed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_kept_any_more_is_named() {
    let vendor = Vendor::new("acme", 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scope.sallyport");
    std::fs::write(&file, vendor.copy_of("scope", "1.0.0", 1)).unwrap();
    let with_file = |config: Config| {
        let trust = vendor.trust(&["policy"]);
        let publisher = json!({"key": trust["public_key"], "namespace": "acme", "kinds": ["policy"]});
        let config =
            recording(config).set("/components", json!({"publishers": [publisher], "packages": [file]}));
        config.component("acme/scope", json!({"rules": []}))
    };
    let app = TestApp::with(with_file).await;
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 200);
    app.stop();
    assert_eq!(app.cli_json(&["audit", "replay", &trace(&reply)])["same"], true, "from the file");
    app.change(|config| config.no_components().set("/components", json!({})));
    let (said, _) = app.cli_fails(&["audit", "replay", &trace(&reply)]);
    assert!(said.contains("acme/scope cannot be run again: the package is not kept any more"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_evidence_says_why() {
    let app = TestApp::start().await;
    let off = app.messages(hello()).await;
    assert_eq!(app.row_of(&off).await["payload"].get("evidence"), None);
    app.reload(|config| config.set("/evidence", json!({"record": "calls", "max_body_bytes": 1024})));
    let swapped = || std::future::ready((!admin_rows(&app, "bundle.swap").is_empty()).then_some(()));
    sallyport_tests::wait::until("the configuration is read", SOON, swapped).await;
    let large = app.messages(ask("claude-sonnet-4-5", &"word ".repeat(300))).await;
    assert_eq!(large.status, 200, "evidence never stands in the way of a call");
    assert_eq!(app.row_of(&large).await["payload"]["evidence"], "too_large");
    let kept = app.messages(hello()).await;
    assert_eq!(app.row_of(&kept).await["payload"]["evidence"], "kept");
    app.stop();
    let why = |trace: &str, tenant: &str| app.cli_fails(&["audit", "replay", trace, "--tenant", tenant]).1;
    assert!(why(&trace(&off), "default").contains("not recorded when the call was made"));
    assert!(why(&trace(&large), "default").contains("too large to be kept"));
    assert!(why("t_00000000000000000000000000000099", "default").contains("no call has the trace"));
    assert!(why(&trace(&kept), "other").contains("no call has the trace"), "another tenant sees nothing");
    app.cli(&["audit", "replay", &trace(&kept), "--tenant", "default"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_policy_is_tried_on_what_was_recorded_and_shows_whom_it_would_deny() {
    let app = TestApp::with(governed).await;
    let haiku = app.messages(ask("claude-haiku-4-5", "Hello")).await;
    let sonnet = app.messages(hello()).await;
    let opus = app.messages(ask("claude-opus-4-5", "Hello")).await;
    let secret = app.messages(ask("claude-sonnet-4-5", &format!("deploy with {KEY}"))).await;
    assert_eq!([&haiku, &sonnet, &opus, &secret].map(|it| it.status), [200, 200, 451, 451]);
    app.stop();
    let stricter = json!({"rules": [{"name": "no-haiku", "effect": "deny", "models": ["claude-haiku-*"]}]});
    let file = app.home().join("stricter.json");
    std::fs::write(&file, stricter.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let tried = |more: &[&str]| {
        let usual = ["policy", "try", "sallyport/scope", "--configuration", file, "--since", "7d"];
        app.cli_json(&[&usual, more].concat())
    };
    let shown = tried(&[]);
    let traces = |key: &str| -> Vec<String> {
        let lines = shown[key].as_array().unwrap();
        lines.iter().map(|line| line["trace"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(traces("newly_denied"), [trace(&haiku)], "{shown}");
    assert_eq!(traces("newly_allowed"), [trace(&opus)], "it takes the place of what denied it");
    assert_eq!(
        (&shown["calls"], &shown["was_denied"], &shown["is_denied"]),
        (&json!(4), &json!(2), &json!(2))
    );
    assert_eq!(shown["faults"], 0);
    assert!(shown["fuel"]["p50"].as_u64().unwrap() > 0 && shown["micros"]["p95"].is_u64());
    assert_eq!(tried(&["--tenant", "other"])["calls"], 0);
    let rows = admin_rows(&app, "policy.try");
    assert_eq!(rows.len(), 1, "where nothing is opened nothing is said: {rows:#?}");
    assert_eq!(
        (&rows[0]["tenant_id"], &rows[0]["payload"]["detail"]["calls"]),
        (&json!("default"), &json!(4))
    );

    let limits = json!({"limits": [{"per": "user", "requests": 1, "window": "1h"}]});
    std::fs::write(file, limits.to_string()).unwrap();
    let usual = ["policy", "try", "sallyport/rate-limit", "--configuration", file, "--since", "7d"];
    let shown = app.cli_json(&usual);
    assert_eq!(
        shown["newly_denied"][0]["trace"],
        trace(&sonnet),
        "its counters empty from call to call: {shown}"
    );
    let (_, complaint) = app.cli_fails(&["policy", "try", "sallyport/block-tool", "--since", "7d"]);
    assert!(complaint.contains("hook cannot be tried on recorded calls"), "{complaint}");
    let (_, complaint) = app.cli_fails(&["policy", "try", "sallyport/scope", "--since", "long ago"]);
    assert!(complaint.contains("--since"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_shredded_can_be_read_by_nobody_again() {
    let app = TestApp::with(governed).await;
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let theirs = acme.call(&hello()).await;
    let ours = app.messages(hello()).await;
    app.stop();
    app.cli(&["audit", "replay", &trace(&theirs)]);
    app.cli(&["tenant", "shred-evidence", "acme"]);
    let (_, complaint) = app.cli_fails(&["audit", "replay", &trace(&theirs)]);
    assert!(complaint.contains("its key was shredded"), "{complaint}");
    app.cli(&["audit", "replay", &trace(&ours)]);
    let rows = admin_rows(&app, "evidence.shred");
    assert_eq!((rows.len(), &rows[0]["tenant_id"]), (1, &json!("acme")));
    app.cli_fails(&["tenant", "shred-evidence", "acme"]);
}

// === private helpers ===

/// Every file of a home but its keys.
fn files(home: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(home).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("keys") => {}
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Changes one byte of a sealed record in the file of the database. In a row the seal stands behind trace, request and six
/// bytes of time; it begins with its form and the id of the tenant's key, which is stored as text besides.
fn flip(database: &Path, trace: &str, request: &str) {
    let mut bytes = std::fs::read(database).unwrap();
    let row = [trace.as_bytes(), request.as_bytes()].concat();
    let sealed = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(&row))
        .map(|at| at + row.len() + 6)
        .find(|at| {
            bytes[*at] == 1 && position(&bytes, canonical::hex(&bytes[at + 1..at + 9]).as_bytes()).is_some()
        })
        .unwrap();
    bytes[sealed + 40] ^= 1;
    std::fs::write(database, bytes).unwrap();
}
