//! Beside a hostile neighbour: a vendor's provider or a tenant's hook that never stops computing is stopped each time, and the calls
//! of others go on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use sallyport_tests::vendor::{Admin, Vendor};
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
    let app = TestApp::with(|config| {
        config
            .set("/components", json!({"packages": [file], "publishers": [publisher]}))
            .route(json!({"model_pattern": "spin", "provider": SPINNER}))
    })
    .await;
    let stopped = app.messages(ask("spin", "Hello")).await;
    assert_eq!((stopped.status, stopped.error_type().as_str()), (502, "api_error"), "{stopped}");
    let row = app.row_of(&stopped).await;
    assert_eq!(row["payload"]["code"], "provider_fault", "{row}");

    let ratio = beside_spinning(&app, || async {
        assert_eq!(app.messages(ask("spin", "Hello")).await.status, 502);
    })
    .await;
    assert_at_most_twice(ratio);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_hook_that_spins_in_its_worker_is_hardly_felt_by_other_tenants() {
    let app = TestApp::start().await;
    let neighbour = Admin::new_tenant(&app, "neighbour", "tenant-admin");
    let vendor = Vendor::new("hostile", 29);
    neighbour.post("publishers", vendor.trust(&["hook"])).await;
    neighbour.push(vendor.hostile("01-loop-hook", "spin", "1.0.0", 1)).await;
    neighbour.post("components/hostile/spin/activate", json!({"version": "1.0.0", "config": {}})).await;
    let stopped = neighbour.call(&ask("echo", "Hello")).await;
    assert_eq!(app.row_of(&stopped).await["payload"]["code"], "policy_fault", "{stopped}");
    assert_eq!(app.get("/ready").await.json()["workers"]["confined"], 1, "it runs in a worker");

    let ratio = beside_spinning(&app, || async {
        assert_eq!(neighbour.call(&ask("echo", "Hello")).await.status, stopped.status);
    })
    .await;
    assert_at_most_twice(ratio);
}

/// A number of a quiet machine: on a busy one it says nothing of the gateway.
fn assert_at_most_twice(ratio: f64) {
    if crate::soak() {
        assert!(ratio <= 2.0, "honest calls cost at most twice: {ratio:.2}");
    }
}

/// How much longer 99 of 100 honest calls take beside eight who do `deed` again and again than alone. Both are taken in turn, so
/// that what else the machine does falls on both.
async fn beside_spinning<D: Future<Output = ()>>(app: &TestApp, deed: impl Fn() -> D) -> f64 {
    let (rounds, calls) = if crate::soak() { (10, 1_000) } else { (1, 500) };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        honest(app, calls, &mut alone).await;
        let (stop, stops) = (AtomicBool::new(false), AtomicUsize::new(0));
        let hogs = (0..8).map(|_| async {
            while !stop.load(Ordering::Relaxed) {
                deed().await;
                stops.fetch_add(1, Ordering::Relaxed);
            }
        });
        let honest = async {
            honest(app, calls, &mut beside).await;
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(futures_util::future::join_all(hogs), honest);
        assert!(stops.load(Ordering::Relaxed) >= 8, "each hog was stopped");
    }
    let (alone, beside) = (p99(alone), p99(beside));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    crate::tell(&format!(
        "honest p99 {alone:?} alone, {beside:?} beside eight spinning guests ({ratio:.2}x)"
    ));
    ratio
}

/// Honest calls, one after the other, all of them served; how long each took.
async fn honest(app: &TestApp, calls: usize, took: &mut Vec<Duration>) {
    for _ in 0..calls {
        let began = Instant::now();
        assert_eq!(app.messages(ask("echo", "Hello")).await.status, 200);
        took.push(began.elapsed());
    }
}

/// 99 of 100 took at most so long.
fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}
