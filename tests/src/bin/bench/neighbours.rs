//! What honest calls cost beside a provider that spins at its limit on eight connections, beside another tenant's hook that does
//! so in its worker, and, so that the machine's own share is known, beside a process that spins for itself on as many cores as the
//! guests may take.

use std::io::Write;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use sallyport_tests::process::Cpu;
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::{Value, json};

use crate::{Part, Target, run};

/// A provider that spins as soon as it is asked.
const SPINNER: &str = "28-provider-loop";
const CONNECTIONS: usize = 8;

/// Honest calls alone, beside a spinning process, and beside spinning guests of both tiers.
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

    for (who, model, token) in [
        ("beside_guests", "spin", target.token.clone()),
        ("beside_a_worker", "claude-bench", tenant_with_a_spinning_hook(&app).await),
    ] {
        let (mut hogs, _) = Part::start(&["load"]).await?;
        let endless = json!({
            "model": model, "connections": CONNECTIONS, "requests": usize::MAX,
            "address": target.address.to_string(), "token": token,
        });
        hogs.tell(&endless).await?;
        // The first stops are known by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (began, before) = (Instant::now(), Cpu::of(app.pid())?);
        report[who] = run(&mut load, &target, honest()).await?;
        let spent = Cpu::of(app.pid())?.since(&before);
        report[who]["gateway_cores"] = json!(spent.as_secs_f64() / began.elapsed().as_secs_f64());
        drop(hogs);
    }
    Ok(report)
}

pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    let micros = |who: &str, what: &str| report[who][what].as_f64().unwrap_or_default() / 1e3;
    writeln!(out, "{:<28}{:>12}{:>12}{:>12}{:>12}", "honest calls, us", "p50", "p90", "p99", "p99 ratio")?;
    for (who, name) in [
        ("alone", "alone"),
        ("beside_a_process", "beside a spinning process"),
        ("beside_guests", "beside spinning guests"),
        ("beside_a_worker", "beside a spinning worker"),
    ] {
        write!(out, "{name:<28}")?;
        for what in ["p50", "p90", "p99"] {
            write!(out, "{:>12.0}", micros(who, what))?;
        }
        writeln!(out, "{:>12.2}", micros(who, "p99") / micros("alone", "p99"))?;
    }
    for (who, name) in [("beside_guests", "guests"), ("beside_a_worker", "guests in a worker")] {
        let cores = report[who]["gateway_cores"].as_f64().unwrap_or_default();
        writeln!(out, "cores that the gateway's process took beside spinning {name}: {cores:.2}")?;
    }
    Ok(())
}

/// A second tenant, whose hook spins at every prompt; a token of it.
async fn tenant_with_a_spinning_hook(app: &TestApp) -> String {
    let admin = Admin::new_tenant(app, "neighbour", "tenant-admin");
    let vendor = Vendor::new("hostile", 29);
    admin.post("publishers", vendor.trust(&["hook"])).await;
    admin.push(vendor.hostile("01-loop-hook", "spin", "1.0.0", 1)).await;
    admin.post("components/hostile/spin/activate", json!({"version": "1.0.0", "config": {}})).await;
    admin.token
}
