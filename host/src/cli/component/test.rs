//! `sallyport component test`: a built component meets its samples in the component host itself, without a gateway. Every
//! configuration that a sample names is admitted as a bundle's entry would be; fuel is counted, since it is the same on
//! every machine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use sallyport_protocol::package::{HookEvent, Kind, Manifest, Name, Statement, Verified, World};
use serde_json::{Value, json};

use super::CommandContext;
use super::project::{self, Artifact, Project};
use crate::cli::Ending;
use crate::cli::output::{clean, dash, table};
use crate::cli::workbench::{self_signed, workbench};
use crate::clock::{Clock as _, SystemClock};
use crate::component::conformance::USUAL_MODEL;
use crate::component::contract::no_egress;
use crate::component::sample::{Sample, Samples};
use crate::component::{
    Admission, AdmitError, CompileError, Component, Components, Rehearsal, WORLD_VERSION, inspect, kind_of,
};

/// What `component test` is asked.
#[derive(Debug, Args)]
pub struct Test {
    /// A project, a built component or a package
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// A folder of samples, instead of those that belong to the component
    #[arg(long, value_name = "DIR")]
    pub events: Option<PathBuf>,
    /// Try a provider with the corpus that ships, and say what of the Messages API it carries, level by level
    #[arg(long, conflicts_with = "events")]
    pub conformance: bool,
    /// The model that a provider is asked for in the corpus
    #[arg(long, value_name = "NAME", default_value = USUAL_MODEL, requires = "conformance")]
    pub model: String,
    /// The configuration that the component is given in the corpus, as a file of JSON
    #[arg(long, value_name = "FILE", requires = "conformance")]
    pub component_config: Option<PathBuf>,
}

/// Who a component that nobody signed yet belongs to.
const NOBODY: &str = "unsigned/component";

/// What is tried.
struct Subject {
    verified: Verified,
    samples: Samples,
}

/// Runs `component test`.
pub(super) async fn run(asked: &Test, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let Subject { verified, samples } = subject(asked)?;
    if asked.conformance {
        return super::conformance::run(asked, &verified, context).await;
    }
    let kind = verified.statement().kind;
    let samples = samples.read(kind)?;
    if samples.is_empty() {
        bail!("there is no sample: put a JSON file into tests/, or name a folder with --events");
    }
    let directory = tempfile::tempdir().context("cannot make a folder for compiled code")?;
    let components = workbench(&directory.path().join("code"))?;
    let mut ready: HashMap<String, Result<Arc<Component>, Value>> = HashMap::new();
    let mut cases = Vec::new();
    for (name, sample) in samples {
        let config = sample.config.to_string();
        if !ready.contains_key(&config) {
            // What is configured in every instance anyway needs no second admission.
            let unconfigured = ready.values().flatten().find(|component| !component.is_snapshotted());
            let admitted = match unconfigured {
                Some(component) => Ok(Arc::clone(component)),
                None => admit(&components, &verified, &sample.config).await?,
            };
            ready.insert(config.clone(), admitted);
        }
        let rehearsal = match ready.get(&config) {
            Some(Ok(component)) => components.rehearse(component, &sample).await,
            Some(Err(refused)) => unconfigured(&sample, refused.clone()),
            None => continue,
        };
        cases.push((name, sample, rehearsal));
    }
    report(&verified, &cases, context)?;
    let failed = cases.iter().any(|(_, _, rehearsal)| !rehearsal.met);
    Ok(if failed { Ending::Failed } else { Ending::Done })
}

/// Finds the component and its samples.
fn subject(asked: &Test) -> anyhow::Result<Subject> {
    let (statement, component, own): (Statement, Vec<u8>, Option<Samples>) = if asked.path.is_dir() {
        let project = Project::open(&asked.path)?;
        let component = project.built()?;
        // What stands in the folder now, not what the component carried away when it was built.
        (project.manifest.statement(&component), component, Some(project.samples()?))
    } else {
        match Artifact::open(&asked.path)? {
            Artifact::Package(package) => (package.statement().clone(), package.component().to_vec(), None),
            Artifact::Wasm(component) => (unsigned(&asked.path, &component)?, component, None),
        }
    };
    let samples = match (&asked.events, own) {
        (Some(dir), _) if !dir.is_dir() => bail!("{} is no folder", dir.display()),
        (Some(dir), _) => project::samples(dir)?,
        (None, Some(own)) => own,
        (None, None) => Samples::carried(&component)?,
    };
    Ok(Subject { verified: self_signed(statement, &component)?, samples })
}

/// A project, a built component or a package, ready to run here.
pub(in crate::cli) fn runnable(path: &std::path::Path) -> anyhow::Result<Verified> {
    let asked = Test {
        path: path.to_owned(),
        events: None,
        conformance: false,
        model: String::new(),
        component_config: None,
    };
    Ok(subject(&asked)?.verified)
}

/// What is said about a component that has no package: the manifest beside it, or what its exports tell.
fn unsigned(path: &std::path::Path, component: &[u8]) -> anyhow::Result<Statement> {
    let beside = path.with_extension("toml");
    if beside.is_file() {
        return Ok(project::manifest(&beside)?.statement(component));
    }
    let structure = inspect(component, usize::MAX).context("no gateway would take this component")?;
    let kind =
        kind_of(&structure).context("the component exports the interface of no kind, or of several")?;
    let version = semver::Version::parse(env!("CARGO_PKG_VERSION")).context("the version of this binary")?;
    let manifest = Manifest {
        name: Name::parse(NOBODY)?,
        version: version.clone(),
        serial: 0,
        kind,
        world: World { name: kind.as_str().to_owned(), version: semver::Version::parse(WORLD_VERSION)? },
        events: if kind == Kind::Hook { HookEvent::ALL.to_vec() } else { Vec::new() },
        capabilities: Vec::new(),
        reads: None,
        limits: sallyport_protocol::package::Limits::default(),
        upstream: None,
        credential: None,
        min_host: version,
        released: SystemClock::default().now().date(),
    };
    Ok(manifest.statement(component))
}

/// The component with one configuration; a configuration that it refuses is an answer like others.
pub(super) async fn admit(
    components: &Components,
    verified: &Verified,
    config: &Value,
) -> anyhow::Result<Result<Arc<Component>, Value>> {
    let grants = no_egress(&verified.statement().capabilities);
    match components.admit(verified, config, Admission::default().granted(grants).untested()).await {
        Ok(component) => Ok(Ok(component)),
        Err(AdmitError::Compile(CompileError::Refused(message))) => {
            Ok(Err(json!({ "configure": "refused", "message": message })))
        }
        Err(AdmitError::Compile(CompileError::Configure(message))) => {
            Ok(Err(json!({ "fault": "configure", "what": message })))
        }
        Err(other) => Err(other).context("no gateway would take this component"),
    }
}

fn unconfigured(sample: &Sample, answer: Value) -> Rehearsal {
    Rehearsal { met: sample.is_met_by(&answer), answer, micros: 0, memory: 0, fuel: None, log: None }
}

fn report(
    verified: &Verified,
    cases: &[(String, Sample, Rehearsal)],
    context: &mut CommandContext<'_>,
) -> anyhow::Result<()> {
    let statement = verified.statement();
    let failed = cases.iter().filter(|(_, _, rehearsal)| !rehearsal.met).count();
    let passed = cases.len() - failed;
    if context.json {
        let cases: Vec<_> = cases.iter().map(case).collect();
        let answer = json!({
            "name": statement.name, "kind": statement.kind, "digest": statement.digest, "passed": passed,
            "failed": failed, "cases": cases,
        });
        writeln!(context.out, "{answer}")?;
        return Ok(());
    }
    let lines: Vec<[String; 6]> = cases
        .iter()
        .map(|(name, _, rehearsal)| {
            [
                if rehearsal.met { "ok" } else { "FAILED" }.to_owned(),
                name.clone(),
                rehearsal.fuel.map_or_else(dash, |fuel| fuel.to_string()),
                format!("{} KiB", rehearsal.memory / 1024),
                rehearsal.micros.to_string(),
                rehearsal.answer.to_string(),
            ]
        })
        .collect();
    table(&["", "SAMPLE", "FUEL", "MEMORY", "MICROS", "ANSWER"], &lines, &mut *context.out)?;
    for (name, sample, rehearsal) in cases {
        if !rehearsal.met {
            let expected = sample.expect.as_ref().map_or_else(|| "no fault".to_owned(), Value::to_string);
            writeln!(context.out, "\n{}: expected {}", clean(name), clean(&expected))?;
            writeln!(
                context.out,
                "{:width$}  it said {}",
                "",
                clean(&rehearsal.answer.to_string()),
                width = name.len()
            )?;
        }
        for line in rehearsal.log.iter().flat_map(|log| log.lines()) {
            writeln!(context.out, "{} wrote: {}", clean(name), clean(line))?;
        }
    }
    writeln!(context.out, "\n{}: {passed} passed, {failed} failed", statement.name)?;
    Ok(())
}

fn case((name, sample, rehearsal): &(String, Sample, Rehearsal)) -> Value {
    let Rehearsal { answer, met, micros, memory, fuel, log } = rehearsal;
    json!({
        "name": name, "about": sample.about, "met": met, "answer": answer, "expect": sample.expect, "fuel": fuel,
        "memory_bytes": memory, "micros": micros, "log": log,
    })
}
