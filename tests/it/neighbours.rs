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
const SPINNER: &str = "28-provider-loop";

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
    assert_at_most(2.0, ratio);
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
    assert_at_most(1.1, ratio);
}

/// A number of a quiet machine: on a busy one it says nothing of the gateway.
fn assert_at_most(most: f64, ratio: f64) {
    if crate::soak() {
        assert!(ratio <= most, "honest calls cost at most {most} times as much: {ratio:.2}");
    }
}

/// How much longer 99 of 100 honest calls take beside eight who do `deed` again and again than alone. Both are taken in short
/// turns, either of them first as often as the other, and each turn is compared with its own: what else the machine does
/// comes and goes, and falls on both.
async fn beside_spinning<D: Future<Output = ()>>(app: &TestApp, deed: impl Fn() -> D) -> f64 {
    let (turns, calls) = if crate::soak() { (80, 800) } else { (2, 250) };
    let mut ratios = Vec::new();
    for turn in 0..turns {
        let (alone, beside) = if turn % 2 == 0 {
            let alone = honest(app, calls).await;
            (alone, honest_beside(app, calls, &deed).await)
        } else {
            let beside = honest_beside(app, calls, &deed).await;
            (honest(app, calls).await, beside)
        };
        ratios.push((beside.as_secs_f64() / alone.as_secs_f64(), alone, beside));
    }
    ratios.sort_unstable_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let (ratio, alone, beside) = ratios[turns / 2];
    crate::tell(&format!(
        "honest p99 {alone:?} alone, {beside:?} beside eight spinning guests ({ratio:.2}x)"
    ));
    ratio
}

/// The same as [`honest`], beside eight who do `deed` again and again.
async fn honest_beside<D: Future<Output = ()>>(
    app: &TestApp,
    calls: usize,
    deed: &impl Fn() -> D,
) -> Duration {
    let (stop, stops) = (AtomicBool::new(false), AtomicUsize::new(0));
    let hogs = (0..8).map(|_| async {
        while !stop.load(Ordering::Relaxed) {
            deed().await;
            stops.fetch_add(1, Ordering::Relaxed);
        }
    });
    let honest = async {
        let took = honest(app, calls).await;
        stop.store(true, Ordering::Relaxed);
        took
    };
    let (_, took) = tokio::join!(futures_util::future::join_all(hogs), honest);
    assert!(stops.load(Ordering::Relaxed) >= 8, "each hog was stopped");
    took
}

/// Honest calls, one after the other, all of them served: 99 of 100 took at most so long.
async fn honest(app: &TestApp, calls: usize) -> Duration {
    let mut took = Vec::new();
    for _ in 0..calls {
        let began = Instant::now();
        assert_eq!(app.messages(ask("echo", "Hello")).await.status, 200);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took[calls * 99 / 100]
}
