//! `sallyport policy try`: what a policy or a scanner would have made of the traffic, before it decides on any.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sallyport_protocol::package::Verified;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Files, Try};
use crate::audit::Action;
use crate::cli::Ending;
use crate::cli::component::test::runnable;
use crate::cli::output::{clean, dash, table};
use crate::cli::since::since;
use crate::cli::workbench::workbench;
use crate::clock::{Clock as _, ManualClock, SystemClock};
use crate::component::Admission;
use crate::config::{self, Config};
use crate::db::evidence::After;
use crate::evidence::{CandidateTrial, Judged, Recorded};
use crate::pipeline::LocalCounters;

/// Calls that are read at once.
const PAGE: i64 = 50;

/// What came of all calls.
#[derive(Default)]
struct Sum {
    calls: u64,
    was_denied: u64,
    is_denied: u64,
    faults: u64,
    unreadable: u64,
    micros: Vec<u32>,
    fuel: Vec<u64>,
    newly_denied: Vec<Line>,
    newly_allowed: Vec<Line>,
}

/// A call whose verdict changes.
struct Line {
    trace: String,
    tenant: String,
    user: String,
    model: String,
    verdict: String,
}

/// Runs `policy try`.
pub(in crate::cli) async fn try_policy(
    asked: &Try,
    config: &Config,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
    let now = SystemClock::default().now();
    let since = since(&asked.since, now)?;
    let entry = asked.configuration.as_deref().map_or_else(|| Ok(json!({})), configuration)?;
    let files = Files::open(config).await?;
    let verified = candidate(&asked.package, &files)?;
    CandidateTrial::takes(verified.statement().kind)?;
    let folder = tempfile::tempdir().context("cannot make a folder for compiled code")?;
    let components = workbench(&folder.path().join("code"))?;
    let component = components
        .admit(&verified, &entry, Admission::default().untested())
        .await
        .context("the candidate is not admitted")?;
    let name = format!("{} {}", component.name(), component.version());
    let digest = component.digest().to_owned();
    // Its counters fill and empty with the time of the calls.
    let clock = Arc::new(ManualClock::new(since));
    let counters = Arc::new(LocalCounters::new(Arc::clone(&clock) as _));
    let trial = CandidateTrial::new(&components, component, counters)?;

    let since_ms = millis(since);
    let tenant = asked.tenant.as_deref();
    for (tenant, calls) in files.db.evidence_counts(since_ms, i64::MAX, tenant).await? {
        let detail = json!({ "calls": calls, "since_ms": since_ms, "digest": digest });
        files.say(&tenant, Action::PolicyTry, &name, detail).await?;
    }
    let mut sum = Sum::default();
    let mut after = After { recorded_ms: since_ms - 1, request_id: String::new() };
    loop {
        let page = files.db.evidence_page(&after, tenant, PAGE).await?;
        let Some(last) = page.last() else { break };
        let next = After { recorded_ms: last.recorded_ms, request_id: last.request_id.clone() };
        // What was recorded since it began has no row of this command.
        for sealed in page.iter().filter(|it| it.recorded_ms >= since_ms && it.recorded_ms <= millis(now)) {
            let Ok(recorded) = files.vault.open(sealed).await else {
                sum.unreadable += 1;
                continue;
            };
            advance(&clock, recorded.moment_ms());
            sum.add(&recorded, trial.judge(&recorded).await);
        }
        if next.recorded_ms > millis(now) {
            break;
        }
        after = next;
    }
    files.db.close().await;
    if json {
        writeln!(out, "{}", sum.json(&name, &digest))?;
    } else {
        sum.report(&name, &asked.since, out)?;
    }
    Ok(Ending::Done)
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, recorded: &Recorded, judged: Judged) {
        let Judged { was_denied, is_denied, verdict, faulted, micros, fuel } = judged;
        self.calls += 1;
        self.was_denied += u64::from(was_denied);
        self.is_denied += u64::from(is_denied);
        self.faults += u64::from(faulted);
        self.micros.push(micros);
        self.fuel.push(fuel);
        if was_denied == is_denied {
            return;
        }
        let call = &recorded.head.call;
        let line = Line {
            trace: call.trace.as_ref().to_owned(),
            tenant: call.principal.tenant.as_ref().to_owned(),
            user: call.principal.user.as_ref().to_owned(),
            model: call.model.as_ref().to_owned(),
            verdict,
        };
        if is_denied { &mut self.newly_denied } else { &mut self.newly_allowed }.push(line);
    }

    fn json(&mut self, name: &str, digest: &str) -> Value {
        let lines = |lines: &[Line]| -> Value {
            lines
                .iter()
                .map(|it| {
                    json!({
                        "trace": it.trace, "tenant": it.tenant, "user": it.user, "model": it.model,
                        "verdict": it.verdict,
                    })
                })
                .collect()
        };
        json!({
            "candidate": name, "digest": digest, "calls": self.calls, "unreadable": self.unreadable,
            "was_denied": self.was_denied, "is_denied": self.is_denied, "faults": self.faults,
            "newly_denied": lines(&self.newly_denied), "newly_allowed": lines(&self.newly_allowed),
            "micros": { "p50": percentile(&mut self.micros, 50), "p95": percentile(&mut self.micros, 95) },
            "fuel": { "p50": percentile(&mut self.fuel, 50), "p95": percentile(&mut self.fuel, 95) },
        })
    }

    fn report(&mut self, name: &str, since: &str, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let Self { calls, was_denied, is_denied, faults, unreadable, .. } = *self;
        writeln!(out, "{} on {calls} calls since {}", clean(name), clean(since))?;
        writeln!(
            out,
            "denied before: {was_denied}, with it: {is_denied}; newly denied: {}, newly allowed: {}; no answer: {faults}",
            self.newly_denied.len(),
            self.newly_allowed.len(),
        )?;
        if unreadable > 0 {
            writeln!(out, "{unreadable} more calls cannot be opened")?;
        }
        let show = |value: Option<u64>| value.map_or_else(dash, |value| value.to_string());
        writeln!(
            out,
            "guest time p50 {} us, p95 {} us; fuel p50 {}, p95 {}",
            show(percentile(&mut self.micros, 50).map(u64::from)),
            show(percentile(&mut self.micros, 95).map(u64::from)),
            show(percentile(&mut self.fuel, 50)),
            show(percentile(&mut self.fuel, 95)),
        )?;
        let changed = [("denied", &self.newly_denied), ("allowed", &self.newly_allowed)];
        let lines: Vec<[String; 6]> = changed
            .iter()
            .flat_map(|(newly, lines)| lines.iter().map(move |line| (newly, line)))
            .map(|(newly, line)| {
                let Line { trace, tenant, user, model, verdict } = line;
                [newly, tenant.as_str(), user, model, verdict, trace].map(str::to_owned)
            })
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        table(&["NEWLY", "TENANT", "USER", "MODEL", "VERDICT", "TRACE"], &lines, out)
    }
}

// === private helpers ===

/// What is to be tried: something in the file system, or a component that is at hand by its name.
fn candidate(wanted: &Path, files: &Files) -> anyhow::Result<Verified> {
    match wanted.to_str().filter(|_| !wanted.exists()).and_then(|name| files.packages.named(name)) {
        Some(found) => Ok(found),
        None => runnable(wanted),
    }
}

fn configuration(file: &Path) -> anyhow::Result<Value> {
    let shown = || format!("cannot read {}", file.display());
    let text = std::fs::read_to_string(file).with_context(shown)?;
    config::value(&text).map_err(anyhow::Error::msg).with_context(shown)
}

fn advance(clock: &ManualClock, to_ms: u64) {
    let now = u64::try_from(millis(clock.now())).unwrap_or(0);
    clock.advance(Duration::from_millis(to_ms.saturating_sub(now)));
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// The value that `percent` of all do not exceed.
fn percentile<T: Copy + Ord>(values: &mut [T], percent: usize) -> Option<T> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        assert_eq!(percentile::<u32>(&mut [], 50), None);
        assert_eq!(percentile(&mut [7], 95), Some(7));
        let mut hundred: Vec<u32> = (1..=100).rev().collect();
        assert_eq!((percentile(&mut hundred, 50), percentile(&mut hundred, 95)), (Some(50), Some(95)));
    }

    #[test]
    fn time_only_goes_forward() {
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        advance(&clock, 5_000);
        advance(&clock, 2_000);
        assert_eq!(millis(clock.now()), 5_000);
    }
}
