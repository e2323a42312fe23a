//! What honest calls cost beside a provider that spins at its limit on eight connections, and, so that the machine's own share is
//! known, beside a process that spins for itself on as many cores as the guests may take.

use std::io::Write;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use sallyport_tests::process::Cpu;
use serde_json::{Value, json};

use crate::{Part, Target, run};

/// A provider that spins as soon as it is asked.
const SPINNER: &str = "28-provider-hog";
const CONNECTIONS: usize = 8;

/// Honest calls alone, beside a spinning process, and beside spinning guests.
pub(crate) async fn measure(quick: bool) -> anyhow::Result<Value> {
    let requests = if quick { 500 } else { 4_000 };
    let (_upstream, address) = Part::start(&["upstream"]).await?;
    let (mut load, _) = Part::start(&["load"]).await?;
    let key = SigningKey::from_bytes(&[28; 32]);
    let (_, component) = hostile::component(SPINNER);
    let package = Package::build(hostile::statement(SPINNER, Kind::Provider), &key, &component)?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("spinner.sallyport");
    std::fs::write(&file, package)?;
    let publisher =
        json!({"key": public_key_text(&key.verifying_key()), "namespace": "hostile", "kinds": ["provider"]});
    let app = TestApp::with(|config| {
        config
            .upstream(&format!("http://{address}"))
            .set("/components", json!({"packages": [file], "publishers": [publisher]}))
            .route(json!({"model_pattern": "spin", "provider": SPINNER}))
    })
    .await;
    let target = Target { address: app.address(), token: app.token.clone(), pid: Some(app.pid()) };
    let honest = || json!({"model": "claude-bench", "connections": 1, "requests": requests});
    let mut report = json!({"quick": quick});

    run(&mut load, &target, honest()).await?;
    report["alone"] = run(&mut load, &target, honest()).await?;

    let (spinning, _) = Part::start(&["spin"]).await?;
    report["beside_a_process"] = run(&mut load, &target, honest()).await?;
    drop(spinning);

    let (mut hogs, _) = Part::start(&["load"]).await?;
    let endless = json!({
        "model": "spin", "connections": CONNECTIONS, "requests": usize::MAX,
        "address": target.address.to_string(), "token": target.token,
    });
    hogs.tell(&endless).await?;
    // The first stops are known by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (began, before) = (std::time::Instant::now(), Cpu::of(app.pid())?);
    report["beside_guests"] = run(&mut load, &target, honest()).await?;
    let spent = Cpu::of(app.pid())?.since(&before);
    report["gateway_cores_beside_guests"] = json!(spent.as_secs_f64() / began.elapsed().as_secs_f64());
    drop(hogs);
    Ok(report)
}

pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    let micros = |who: &str, what: &str| report[who][what].as_f64().unwrap_or_default() / 1e3;
    writeln!(out, "{:<28}{:>12}{:>12}{:>12}{:>12}", "honest calls, us", "p50", "p90", "p99", "p99 ratio")?;
    for (who, name) in [
        ("alone", "alone"),
        ("beside_a_process", "beside a spinning process"),
        ("beside_guests", "beside spinning guests"),
    ] {
        write!(out, "{name:<28}")?;
        for what in ["p50", "p90", "p99"] {
            write!(out, "{:>12.0}", micros(who, what))?;
        }
        writeln!(out, "{:>12.2}", micros(who, "p99") / micros("alone", "p99"))?;
    }
    let cores = report["gateway_cores_beside_guests"].as_f64().unwrap_or_default();
    writeln!(out, "cores that the gateway took beside spinning guests: {cores:.2}")?;
    Ok(())
}
