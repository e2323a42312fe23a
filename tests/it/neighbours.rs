//! Beside a hostile neighbour: a vendor's provider that never stops computing is stopped each time, and the calls of others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use serde_json::json;

use crate::ask;

/// A provider that spins as soon as it is asked.
const SPINNER: &str = "28-provider-hog";

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_spins_is_stopped_and_honest_calls_go_on() {
    let key = SigningKey::from_bytes(&[28; 32]);
    let (_, component) = hostile::component(SPINNER);
    let package = Package::build(hostile::statement(SPINNER, Kind::Provider), &key, &component).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spinner.sallyport");
    std::fs::write(&file, package).unwrap();
    let publisher =
        json!({"key": public_key_text(&key.verifying_key()), "namespace": "hostile", "kinds": ["provider"]});
    let app = Arc::new(
        TestApp::with(|config| {
            config
                .set("/components", json!({"packages": [file], "publishers": [publisher]}))
                .route(json!({"model_pattern": "spin", "provider": SPINNER}))
        })
        .await,
    );
    let stopped = app.messages(ask("spin", "Hello")).await;
    assert_eq!((stopped.status, stopped.error_type().as_str()), (502, "api_error"), "{stopped}");
    let row = app.row_of(&stopped).await;
    assert_eq!(row["payload"]["code"], "provider_fault", "{row}");

    let alone = honest(&app).await;
    let (stop, stops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut hogs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (app, stop, stops) = (Arc::clone(&app), Arc::clone(&stop), Arc::clone(&stops));
        hogs.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(app.messages(ask("spin", "Hello")).await.status, 502);
                stops.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let beside = honest(&app).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = hogs.join_next().await {
        ended.unwrap();
    }
    assert!(stops.load(Ordering::Relaxed) >= 8, "each hog was stopped");
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    crate::tell(&format!(
        "honest p99 {alone:?} alone, {beside:?} beside eight spinning guests ({ratio:.1}x)"
    ));
    // A number of a quiet machine: on a busy one it says nothing of the gateway.
    if std::env::var_os("SALLYPORT_SOAK").is_some() {
        assert!(ratio <= 2.0, "honest calls cost at most twice: {ratio:.1}");
    }
}

/// 99 of 100 honest calls took at most so long; all of them are served.
async fn honest(app: &TestApp) -> Duration {
    let mut took = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        assert_eq!(app.messages(ask("echo", "Hello")).await.status, 200);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}
