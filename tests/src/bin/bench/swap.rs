//! How long a new release takes: from the administrator's request to the first call that it decides, and what of that is the
//! exchange of the bundle itself.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use sallyport::component::{Bundle, Registry};
use sallyport_protocol::id::{PolicyVersion, TenantId};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::{Value, json};

use crate::{ask, spread};

const SCOPE: &str = "components/acme/scope";
/// Whoever waits longer waits for something that will not come.
const LONGEST: Duration = Duration::from_mins(1);

/// Activations of releases that the gateway has not seen, each followed by the way back, while one client calls all the time.
pub(crate) async fn measure(quick: bool) -> anyhow::Result<Value> {
    let swaps = if quick { 5 } else { 50 };
    let app = TestApp::start().await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    admin.post(&format!("{SCOPE}/activate"), activation(0)).await;

    let (mut new, mut back) = (Measured::default(), Measured::default());
    for number in 1..=swaps {
        admin.push(acme.copy_of("scope", &version(number), u64::try_from(number)? + 1)).await;
        let step = (format!("{SCOPE}/activate"), activation(number));
        new.add(step_until_decided(&app, &admin, step, number).await?);
        let step = (format!("{SCOPE}/rollback"), json!({"version": version(0), "reason": "the benchmark"}));
        back.add(step_until_decided(&app, &admin, step, 0).await?);
    }
    Ok(json!({
        "swaps": swaps, "new_release": new.report(), "way_back": back.report(),
        "exchange": exchange(if quick { 1_000 } else { 100_000 })?,
    }))
}

pub(crate) fn table(out: &mut impl Write, report: &Value) -> anyhow::Result<()> {
    let swaps = &report["swaps"];
    writeln!(out, "\n{:<58}{:>12}{:>12}", format!("{swaps} swaps under one caller"), "p50", "p99")?;
    for (pointer, name, unit, divisor) in [
        ("/new_release/decided", "a new release: to the first call that it decides", "ms", 1e6),
        ("/new_release/answered", "a new release: to the administrator's answer", "ms", 1e6),
        ("/way_back/decided", "back to one whose code is kept: to the first call", "ms", 1e6),
        ("/way_back/answered", "back to one whose code is kept: to the answer", "ms", 1e6),
        ("/exchange", "of these, the exchange of the bundle", "us", 1e3),
    ] {
        let of = |what: &str| report.pointer(&format!("{pointer}/{what}")).and_then(Value::as_f64);
        let (p50, p99) = (of("p50").unwrap_or_default() / divisor, of("p99").unwrap_or_default() / divisor);
        writeln!(out, "{:<58}{p50:>12.2}{p99:>12.2}", format!("{name} ({unit})"))?;
    }
    Ok(())
}

/// Times from the request of an administrator on.
#[derive(Default)]
struct Measured {
    decided: Vec<Duration>,
    answered: Vec<Duration>,
}

// === impl Measured ===

impl Measured {
    fn add(&mut self, (decided, answered): (Duration, Duration)) {
        self.decided.push(decided);
        self.answered.push(answered);
    }

    fn report(self) -> Value {
        json!({"decided": spread(self.decided), "answered": spread(self.answered)})
    }
}

// === private helpers ===

fn version(number: usize) -> String {
    format!("1.0.{number}")
}

/// Every release refuses, and the name of its rule says which one it is.
fn rule(number: usize) -> String {
    format!("release-{number}-decides")
}

fn activation(number: usize) -> Value {
    let rules = json!({"rules": [{"name": rule(number), "effect": "deny", "models": ["*"]}]});
    json!({"version": version(number), "config": rules})
}

/// Makes a step while calls go on, one after the other: when the first of them was answered by the release that is meant, and
/// when the administrator was.
async fn step_until_decided(
    app: &TestApp,
    admin: &Admin<'_>,
    (path, body): (String, Value),
    number: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let (mark, client, bearer) = (rule(number), app.client(), format!("Bearer {}", app.token));
    let question: Bytes = ask("echo", false);
    let began = Instant::now();
    let calls = async {
        loop {
            let headers = [("authorization", bearer.as_str())];
            let reply = client.try_send("POST", "/v1/messages", &headers, question.clone()).await?;
            ensure!(reply.status == 451, "a call that every release refuses was answered: {reply}");
            if reply.to_string().contains(&mark) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < LONGEST, "the release {mark} decides nothing");
        }
    };
    let step = async {
        admin.post(&path, body).await;
        began.elapsed()
    };
    let (decided, answered) = tokio::join!(calls, step);
    Ok((decided?, answered))
}

/// The exchange alone, while another thread takes one snapshot after the other: from the call of the swap until whoever asks
/// gets the new bundle.
fn exchange(swaps: usize) -> anyhow::Result<Value> {
    let tenant = TenantId::parse("acme")?;
    let named = |number: usize| -> anyhow::Result<Bundle> {
        Ok(Bundle { version: PolicyVersion::parse(&format!("v{number}"))?, ..Bundle::empty() })
    };
    let registry = Registry::new(named(0)?);
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::black_box(registry.snapshot(&tenant));
            }
        });
        let mut times = Vec::new();
        let mut swap_all = || {
            for number in 1..=swaps {
                let bundle = named(number)?;
                let began = Instant::now();
                registry.swap(None, bundle);
                let seen = registry.snapshot(&tenant);
                times.push(began.elapsed());
                ensure!(seen.version.as_str() == format!("v{number}"), "an old bundle was in force");
            }
            Ok(())
        };
        let swapped = swap_all();
        stop.store(true, Ordering::Relaxed);
        swapped.map(|()| spread(times))
    })
}
