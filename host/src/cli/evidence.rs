//! `sallyport audit replay` and `sallyport policy try`: decisions that were recorded, run again in this process. Both open what
//! tenants sent, so each says so in a row before it does.

mod packages;
mod tryout;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::packages::RecordedPackages;
use super::output::{clean, dash, table};
use super::workbench::workbench;
use super::{Ending, open};
use crate::audit::{Action, Event, Outcome, Who, record_directly};
use crate::auth::keys::Keys;
use crate::clock::{Clock as _, SystemClock, SystemEntropy};
use crate::component::contract::no_egress;
use crate::component::{Admission, Component, Components};
use crate::config::Config;
use crate::db::Db;
use crate::db::evidence::SealedCall;
use crate::evidence::{Again, Recorded, RecordedStep, Sameness, Vault, replay};

pub(super) use self::tryout::try_policy;

/// What `audit replay` is asked.
#[derive(Debug, Args)]
pub struct Replay {
    /// The trace, as in the x-trace-id of the response
    pub trace: String,
    /// Only calls of this tenant
    #[arg(long)]
    pub tenant: Option<String>,
}

/// `sallyport policy ..`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Ask a policy or a scanner about recorded calls, and show whom it would deny or allow anew
    Try(Try),
}

/// What `policy try` is asked.
#[derive(Debug, Args)]
pub struct Try {
    /// A package, a built component, a project, or the name of a component that ships with the gateway
    pub package: PathBuf,
    /// A file with what it is configured with, JSON or YAML [default: an empty configuration]
    #[arg(long, value_name = "FILE")]
    pub configuration: Option<PathBuf>,
    /// Only calls since then: a time (2026-04-01T00:00:00Z) or how long ago (30m, 24h, 7d)
    #[arg(long)]
    pub since: String,
    /// Only calls of this tenant
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Everything that both commands open.
struct Files {
    db: Db,
    vault: Vault,
    packages: RecordedPackages,
}

/// A replayed call.
struct ListedCall {
    sealed: SealedCall,
    outcome: String,
    steps: Vec<(RecordedStep, Again)>,
}

/// What `audit replay` works with.
struct Rerun<'a> {
    files: &'a Files,
    components: &'a Components,
    ready: HashMap<(String, String), Result<Arc<Component>, String>>,
}

/// How a package file ends.
const SUFFIX: &str = ".sallyport";

/// Runs `audit replay`.
pub(super) async fn replay_trace(
    asked: &Replay,
    config: &Config,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
    let files = Files::open(config).await?;
    let sealed = files.db.evidence_of(&asked.trace, asked.tenant.as_deref()).await?;
    if sealed.is_empty() {
        bail!("{}", missing(asked, &files.db).await?);
    }
    let mut tenants: Vec<&str> = sealed.iter().map(|call| call.tenant_id.as_str()).collect();
    tenants.dedup();
    for tenant in tenants {
        files.say(tenant, Action::EvidenceReplay, &asked.trace, json!({})).await?;
    }
    let folder = tempfile::tempdir().context("cannot make a folder for compiled code")?;
    let components = workbench(&folder.path().join("code"))?;
    let mut rerun = Rerun { files: &files, components: &components, ready: HashMap::new() };
    let mut calls = Vec::new();
    for sealed in sealed {
        let recorded = files
            .vault
            .open(&sealed)
            .await
            .with_context(|| format!("the evidence of {} cannot be opened", clean(&sealed.request_id)))?;
        let mut steps = Vec::new();
        for step in &recorded.head.steps {
            let again = rerun.step(&sealed.tenant_id, &recorded, step).await?;
            steps.push((step.clone(), again));
        }
        calls.push(ListedCall { sealed, outcome: recorded.head.outcome, steps });
    }
    let all_same =
        calls.iter().flat_map(|call| &call.steps).all(|(_, again)| again.sameness == Sameness::Same);
    if json {
        let calls: Vec<_> = calls.iter().map(call_json).collect();
        writeln!(out, "{}", json!({ "trace": asked.trace, "same": all_same, "calls": calls }))?;
    } else {
        report(&calls, out)?;
    }
    files.db.close().await;
    Ok(if all_same { Ending::Done } else { Ending::Failed })
}

// === impl Files ===

impl Files {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let keys = config.keys_dir();
        Keys::complete(&keys, &SystemEntropy).context("cannot make the gateway's keys")?;
        let keys = Keys::load(&keys).context("cannot load the gateway's keys")?;
        let db = open(config).await?;
        let clock = Arc::new(SystemClock::default());
        let vault = Vault::new(db.clone(), keys.evidence().clone(), clock, Arc::new(SystemEntropy));
        let named = config.bundle.iter().map(|entry| &entry.component).filter(|name| name.ends_with(SUFFIX));
        let mut packages = config.components.packages.clone();
        packages.extend(named.map(|name| config.home.join(name)));
        let packages = RecordedPackages::new(db.clone(), &packages);
        Ok(Self { db, vault, packages })
    }

    /// Writes the row that somebody on this host opens what a tenant sent.
    async fn say(&self, tenant: &str, action: Action, subject: &str, detail: Value) -> anyhow::Result<()> {
        let who = Who {
            client_id: "sp_cli".into(),
            call_source: "cli".into(),
            tenant_id: tenant.into(),
            ..Who::nobody()
        };
        let payload = json!({ "subject": subject, "detail": detail });
        let row = Event::change(SystemClock::default().now(), action, who, Outcome::Allowed, payload);
        record_directly(&self.db, row).await.context("what is opened has to have a row")
    }
}

// === impl Rerun ===

impl Rerun<'_> {
    async fn step(
        &mut self,
        tenant: &str,
        recorded: &Recorded,
        step: &RecordedStep,
    ) -> anyhow::Result<Again> {
        let name = (step.digest.clone(), step.config.clone());
        if !self.ready.contains_key(&name) {
            let component = self.component(tenant, step).await?;
            self.ready.insert(name.clone(), component);
        }
        Ok(match self.ready.get(&name) {
            Some(Ok(component)) => replay(self.components, recorded, step, component).await,
            Some(Err(why)) => Again::impossible(step, why.as_str()),
            None => Again::impossible(step, "it was not prepared"),
        })
    }

    /// The component with the step's digest and configuration, or why there is none any more.
    async fn component(
        &self,
        tenant: &str,
        step: &RecordedStep,
    ) -> anyhow::Result<Result<Arc<Component>, String>> {
        let Some(verified) = self.files.packages.find(tenant, &step.digest).await? else {
            return Ok(Err("the package is not kept any more".to_owned()));
        };
        let config = match self.files.vault.config(tenant, &step.config).await {
            Ok(Some(config)) => config,
            Ok(None) => return Ok(Err("its configuration is not kept any more".to_owned())),
            Err(error) => {
                let error = anyhow::Error::new(error);
                return Ok(Err(format!("its configuration cannot be opened: {error:#}")));
            }
        };
        let grants = no_egress(&verified.statement().capabilities);
        let admission = Admission::default().granted(grants).untested();
        let admitted = match self.components.admit(&verified, &config, admission).await {
            Ok(admitted) => admitted,
            Err(error) => {
                let error = anyhow::Error::new(error);
                return Ok(Err(format!("this version does not admit it: {error:#}")));
            }
        };
        if admitted.config_digest() != step.config {
            return Ok(Err("its configuration is another one".to_owned()));
        }
        Ok(Ok(admitted))
    }
}

// === private helpers ===

/// Why a trace has no evidence.
async fn missing(asked: &Replay, db: &Db) -> anyhow::Result<String> {
    let trace = clean(&asked.trace);
    let rows = db.audit_lineage(&asked.trace, asked.tenant.as_deref()).await?;
    let calls: Vec<_> = rows.iter().filter(|row| row.kind == "inference").collect();
    if calls.is_empty() {
        return Ok(format!("no call has the trace {trace}"));
    }
    let said = |what: &str| calls.iter().any(|row| row.payload.get("evidence").is_some_and(|it| it == what));
    Ok(if said("kept") {
        format!(
            "the evidence of {trace} is not there any more: its days are over, or the gateway ended before it was written"
        )
    } else if said("too_large") {
        format!("the evidence of {trace} was too large to be kept (evidence.max_body_bytes)")
    } else if said("dropped") {
        format!("the evidence of {trace} was dropped: the gateway could not write as fast as calls came")
    } else {
        format!(
            "there is no evidence of {trace}: it was not recorded when the call was made (evidence.record)"
        )
    })
}

fn report(calls: &[ListedCall], out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    for ListedCall { sealed, outcome, steps } in calls {
        writeln!(out, "{} of {}: {outcome}", clean(&sealed.request_id), clean(&sealed.tenant_id))?;
        let lines: Vec<[String; 6]> = steps
            .iter()
            .map(|(step, again)| {
                [
                    step.name.clone(),
                    step.version.clone(),
                    again.recorded.clone(),
                    again.replayed.clone().unwrap_or_else(dash),
                    sameness(&again.sameness).to_owned(),
                    again.fuel.map_or_else(dash, |fuel| fuel.to_string()),
                ]
            })
            .collect();
        table(&["COMPONENT", "VERSION", "RECORDED", "REPLAYED", "", "FUEL"], &lines, &mut *out)?;
        for (step, again) in steps {
            if let Sameness::Unknown(why) = &again.sameness {
                writeln!(out, "{} cannot be run again: {}", clean(&step.name), clean(why))?;
            }
        }
    }
    Ok(())
}

fn call_json(call: &ListedCall) -> Value {
    let ListedCall { sealed, outcome, steps } = call;
    let steps: Vec<_> = steps
        .iter()
        .map(|(step, again)| {
            let why = match &again.sameness {
                Sameness::Unknown(why) => Some(why),
                Sameness::Same | Sameness::Different => None,
            };
            json!({
                "name": step.name, "version": step.version, "kind": step.kind, "digest": step.digest,
                "config": step.config, "mode": step.mode.as_str(), "recorded": again.recorded,
                "replayed": again.replayed, "same": sameness(&again.sameness), "why": why, "fuel": again.fuel,
            })
        })
        .collect();
    json!({
        "request_id": sealed.request_id, "tenant": sealed.tenant_id, "recorded_ms": sealed.recorded_ms,
        "outcome": outcome, "steps": steps,
    })
}

fn sameness(it: &Sameness) -> &'static str {
    match it {
        Sameness::Same => "same",
        Sameness::Different => "different",
        Sameness::Unknown(_) => "unknown",
    }
}
