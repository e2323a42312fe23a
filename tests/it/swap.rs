//! Hot swaps under load: the bundle changes all the time, and no call fails or sees two of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::json;

use crate::{ask, hello};

fn swaps() -> usize {
    if crate::soak() { 1000 } else { 20 }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_the_bundle_is_swapped_again_and_again() {
    // Route and policy say of which bundle they are: on each row they have to agree.
    let bundle = |config: Config, n: usize| {
        let rules = |part: &str| json!({"rules": [{"name": format!("{part}-{n}"), "effect": "allow", "models": ["*"]}]});
        let route =
            json!({"model_pattern": "pair", "provider": "echo", "upstream_model": format!("pair-{n}")});
        config.no_components().component("sallyport/scope", rules("scope")).route(route)
    };
    let app = Arc::new(TestApp::with(|config| bundle(config, 0)).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (good, bad) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (app, stop, good, bad) =
            (Arc::clone(&app), Arc::clone(&stop), Arc::clone(&good), Arc::clone(&bad));
        callers.spawn(async move {
            let bearer = format!("Bearer {}", app.token);
            let body = Bytes::from(ask("pair", "Hello").to_string());
            while !stop.load(Ordering::Relaxed) {
                match app
                    .client()
                    .try_send("POST", "/v1/messages", &[("authorization", &bearer)], body.clone())
                    .await
                {
                    Ok(reply) if reply.status == 200 && reply.complete => {
                        good.fetch_add(1, Ordering::Relaxed)
                    }
                    _ => bad.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
    }
    let mut versions = BTreeSet::new();
    for n in 1..=swaps() {
        app.reload(|config| bundle(config, n % 2));
        let enough = good.load(Ordering::Relaxed) + 5;
        until_true("calls go on", SOON, || {
            good.load(Ordering::Relaxed) >= enough || bad.load(Ordering::Relaxed) > 0
        })
        .await;
        let row = app.row_of(&app.messages(hello()).await).await;
        versions.insert(row["policy_ver"].as_str().unwrap().to_owned());
    }
    stop.store(true, Ordering::Relaxed);
    while callers.join_next().await.is_some() {}
    assert_eq!(bad.load(Ordering::Relaxed), 0, "of {} calls", good.load(Ordering::Relaxed));
    assert_eq!(versions.len(), 2, "two configurations, two versions: {versions:?}");
    app.stop();
    let mut seen = BTreeSet::new();
    for row in app.audit_rows().iter().filter(|row| row["kind"] == "inference" && row["model"] == "pair") {
        let notes = row["payload"].to_string();
        let of: Vec<usize> = (0..2)
            .filter(|n| notes.contains(&format!("\"pair-{n}\"")) || notes.contains(&format!("\"scope-{n}\"")))
            .collect();
        assert!(of.len() == 1, "a call sees one bundle: {row}");
        assert!(
            notes.contains(&format!("\"pair-{}\"", of[0])) && notes.contains(&format!("\"scope-{}\"", of[0])),
            "{row}"
        );
        seen.insert((row["policy_ver"].as_str().unwrap().to_owned(), of[0]));
    }
    assert_eq!(seen.len(), 2, "and each version is one of them: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_is_in_force_soon_and_an_old_one_is_gone() {
    let app = TestApp::start().await;
    assert_eq!(app.messages(hello()).await.status, 200);
    let rules = json!({"rules": [{"name": "none", "effect": "deny", "models": ["*"]}]});
    app.reload(|config| config.component("sallyport/scope", rules));
    let denied = until("the policy is in force", Duration::from_secs(30), || async {
        let reply = app.messages(hello()).await;
        (reply.status == 451).then_some(reply)
    })
    .await;
    assert_ne!(app.row_of(&denied).await["policy_ver"], "unversioned");
    app.reload(Config::no_components);
    until("the policy is gone", Duration::from_secs(30), || async {
        (app.messages(hello()).await.status == 200).then_some(())
    })
    .await;
}
