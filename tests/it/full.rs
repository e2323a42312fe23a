//! The pool is full: whoever would have to be asked and cannot be is no yes. The call is a 529, and nothing goes upstream.

use std::sync::Arc;

use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::{Script, Step, Turn, openai_stream};
use sallyport_tests::vendor::Vendor;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{ask, hello};

/// A gateway whose pool has room for one instance of this component, or for several that are usual.
fn with_heavy(folder: &tempfile::TempDir, shipped: &str, kind: &str, config: Config) -> Config {
    let vendor = Vendor::new("acme", 1);
    let file = folder.path().join("heavy.sallyport");
    std::fs::write(&file, vendor.heavy(shipped, "heavy")).unwrap();
    let components = json!({"pool": 16, "packages": [file], "publishers": [vendor.publisher(&[kind])]});
    config.set("/components", components)
}

/// The head of a stream that its provider translates to the end, and nothing more until the gate is open.
fn held(gate: &Arc<Semaphore>) -> Script {
    let stream = openai_stream("gpt-4", &[Turn::Text("Hello.".into())]);
    let (first, rest) = stream.split_once("\n\n").unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    Script::Steps(vec![
        Step::Write(format!("{head}{first}\n\n").into()),
        Step::Gate(Arc::clone(gate)),
        Step::Write(rest.to_owned().into()),
        Step::Close,
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_a_scanner_or_a_hook_without_room_is_a_529_and_nothing_goes_upstream() {
    let gate = Arc::new(Semaphore::new(0));
    for (shipped, kind, config) in [
        ("scope", "policy", json!({"rules": []})),
        ("secret-scan", "scanner", json!({})),
        (
            "event-rules",
            "hook",
            json!({"rules": [{"name": "never", "on": ["UserPromptSubmit"],
            "contains": ["never said"], "then": {"block": "no"}}]}),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let name = "acme/heavy";
        let app =
            TestApp::with(|usual| with_heavy(&folder, shipped, kind, usual).component(name, config)).await;
        app.upstream.next(held(&gate));
        let mut stream = app.messages_stream(ask("gpt-4", "Hello")).await;
        assert_eq!(stream.status, 200, "{kind}: there is room for one after the other");
        stream.next_named("message_start").await;

        // The first call's provider holds one place of sixteen: a second provider has room, and this component has none.
        let refused = app.messages(ask("claude-sonnet-4-5", "Something that nobody has seen.")).await;
        assert_eq!(
            (refused.status, refused.error_type().as_str()),
            (529, "overloaded_error"),
            "{kind}: {refused}"
        );
        assert_eq!(app.upstream.seen(), 1, "{kind}: nothing went upstream");
        let rows = app.lineage(refused.header("x-trace-id").unwrap()).await;
        let said = |row: &Value| row.to_string().contains("\"exhausted\"");
        assert!(rows.iter().any(said), "{kind}: the row says who had no room: {rows:?}");

        gate.add_permits(1);
        while stream.next().await.unwrap().is_some() {}
        let served = app.messages(hello()).await;
        assert_eq!(served.status, 200, "{kind}: with room again it is asked again: {served}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_without_room_is_a_529_and_nothing_goes_upstream() {
    let gate = Arc::new(Semaphore::new(0));
    let folder = tempfile::tempdir().unwrap();
    let upstream = sallyport_tests::upstream::Upstream::start();
    let route = json!({"model_pattern": "gpt-*", "provider": "acme/heavy", "endpoint": format!("{}/v1/chat/completions", upstream.url()),
        "api_key_secret": "upstream"});
    let app =
        TestApp::on(upstream, |usual| with_heavy(&folder, "openai", "provider", usual).route(route)).await;
    app.upstream.next(held(&gate));
    let mut stream = app.messages_stream(ask("gpt-4", "Hello")).await;
    stream.next_named("message_start").await;
    let refused = app.messages(ask("gpt-4", "Hello")).await;
    assert_eq!((refused.status, refused.error_type().as_str()), (529, "overloaded_error"), "{refused}");
    assert_eq!(app.upstream.seen(), 1, "nothing went upstream");
    gate.add_permits(1);
    while stream.next().await.unwrap().is_some() {}
    assert_eq!(app.messages(ask("gpt-4", "Hello")).await.status, 200);
}
