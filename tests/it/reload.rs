//! SIGHUP: what runs goes on as it began, what is new is in force, and a mistake changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use sallyport_tests::client::{Client, assert_legal};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process;
use sallyport_tests::upstream::{Script, Turn, anthropic_stream};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::workers::child_of;
use crate::{ask, hello};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_runs_during_a_reload_ends_as_it_began() {
    let app = TestApp::start().await;
    let whole = anthropic_stream("claude-sonnet-4-5", &[Turn::Text("a long story".into())]);
    let (first, rest) = whole.split_at(whole.find("event: content_block_delta").unwrap());
    let gate = Arc::new(Semaphore::new(1));
    app.upstream.next(Script::gated(&[first, rest], &gate));
    let mut stream = app.messages_stream(hello()).await;
    let mut events = vec![stream.next().await.unwrap().unwrap()];
    app.reload(|config| config.route(json!({"model_pattern": "claude-*", "provider": "echo"})));
    until("the reload is done", SOON, || async {
        (app.messages(hello()).await.text() != "Hello from upstream.").then_some(())
    })
    .await;
    gate.add_permits(1);
    while let Some(event) = stream.next().await.unwrap() {
        events.push(event);
    }
    assert_legal(&events);
    assert!(events.iter().any(|event| event.data.contains("story")), "the old upstream served it to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_keeps_the_old_configuration_and_says_why() {
    let app = TestApp::start().await;
    let log_before = app.log().len();
    app.reload_broken(r#"{"gateway": {"enabled": true, "routes": [{"model_pattern": "*", "provider": "no-such-provider"}]}, "typo": 1}"#);
    until_true("the log says why", SOON, || {
        let log = app.log();
        let new = log.split_at(log_before.min(log.len())).1;
        new.contains("typo") && new.contains("no-such-provider")
    })
    .await;
    assert_eq!(app.messages(hello()).await.text(), "Hello from upstream.");
    assert!(app.is_up());
    // The commands that look at the trail read the file too.
    app.reload(|config| config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_rejects_its_configuration_fails_the_reload() {
    let app = TestApp::start().await;
    app.reload(|config| config.component("sallyport/scope", json!({"no_such_key": 1})));
    until_true("the log says why", SOON, || app.log().contains("no_such_key")).await;
    assert_eq!(app.messages(ask("claude-sonnet-4-5", "Hello")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_takes_its_time_holds_up_its_reload_and_nobody_else() {
    let app = TestApp::start().await;
    let (asked, answer) = (app.home().join("asked"), app.home().join("answer"));
    let slowly = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done; echo key",
        asked.display(),
        answer.display()
    );
    app.reload(|config| config.secret("slow", json!({"command": ["sh", "-c", slowly]})));
    until_true("the secret is asked for", SOON, || asked.exists()).await;

    let newcomer = Client::new(app.address());
    let ready = newcomer.try_send("GET", "/ready", &[], Bytes::new()).await.unwrap();
    assert_eq!(ready.status, 200);
    assert!(!app.log().contains("took longer"), "and not when the command had been given up");

    std::fs::write(&answer, "").unwrap();
    until_true("the reload is done", SOON, || app.log().contains("read again and is in force")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_end_while_it_compiles_what_it_read_ends_and_takes_the_compiler_along() {
    let app = TestApp::start().await;
    let rules = json!({"rules": [{"name": "nothing", "effect": "deny", "models": ["*"]}]});
    app.reload(|config| config.component("sallyport/scope", rules));
    let compiler = child_of(app.pid(), "compile-component").await;
    // So that it is still at work however fast this machine is.
    process::signal(compiler, "STOP").unwrap();
    app.stop();
    let gone = format!("/proc/{compiler}");
    until_true("the compiler is gone", SOON, || !std::path::Path::new(&gone).exists()).await;
    assert!(!app.log().contains("read again and is in force"));
    app.launch().await;
    assert_eq!(app.messages(hello()).await.status, 451, "what was read is in force from the next start on");
}
