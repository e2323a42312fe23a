//! `sallyport component inspect`: what a component is, imports and asks for, as far as its bytes show. Whether it is to be
//! trusted is another question: `component verify`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use sallyport_protocol::package::{Digest, Kind, Limits as Declared, Statement};
use serde_json::{Value, json};

use super::CommandContext;
use super::project::{Artifact, Project, manifest};
use crate::cli::Ending;
use crate::cli::output::pairs;
use crate::component::sample::Samples;
use crate::component::{Limits, Structure, can_be_snapshotted, check_world, inspect, kind_of};

/// What `component inspect` is asked.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A project, a built component or a package
    #[arg(default_value = ".")]
    pub path: PathBuf,
}

/// Runs `component inspect`.
pub(super) fn run(asked: &Inspect, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let (artifact, path) = if asked.path.is_dir() {
        let project = Project::open(&asked.path)?;
        (Artifact::Wasm(project.built()?), project.wasm())
    } else {
        (Artifact::open(&asked.path)?, asked.path.clone())
    };
    let component = artifact.component();
    let structure = inspect(component, usize::MAX).context("no gateway would take this component")?;
    let said = match &artifact {
        Artifact::Package(package) => Some(package.statement().clone()),
        Artifact::Wasm(_) => {
            let beside = path.with_extension("toml");
            if beside.is_file() { Some(manifest(&beside)?.statement(component)) } else { None }
        }
    };
    let kind = said.as_ref().map(|said| said.kind).or_else(|| kind_of(&structure));
    let problems = problems(kind, said.as_ref(), &structure, component);
    let about = about(kind, said.as_ref(), &structure, component, &problems);
    if context.json {
        writeln!(context.out, "{}", Value::Object(about))?;
    } else {
        let lines: Vec<_> =
            about.iter().map(|(name, value)| (name.replace('_', " "), shown(value))).collect();
        pairs(&lines, &mut *context.out)?;
    }
    Ok(if problems.is_empty() { Ending::Done } else { Ending::Failed })
}

/// What every gateway would refuse, whoever signed it.
fn problems(
    kind: Option<Kind>,
    said: Option<&Statement>,
    structure: &Structure,
    component: &[u8],
) -> Vec<String> {
    let mut problems = Vec::new();
    match kind {
        None => problems.push("exports the interface of no kind, or of several".to_owned()),
        Some(kind) => {
            let declared = said.map_or_else(Declared::default, |said| said.limits);
            let memory = Limits::declared(kind, &declared).memory;
            problems.extend(check_world(kind, structure).err().map(|error| error.to_string()));
            problems.extend(inspect(component, memory).err().map(|error| error.to_string()));
            let samples = Samples::carried(component).and_then(|samples| samples.read(kind));
            problems.extend(samples.err().map(|error| error.to_string()));
        }
    }
    if said.is_some_and(|said| said.digest != Digest::of(component)) {
        problems.push("the component is not the one that was signed".to_owned());
    }
    problems
}

fn about(
    kind: Option<Kind>,
    said: Option<&Statement>,
    structure: &Structure,
    component: &[u8],
    problems: &[String],
) -> serde_json::Map<String, Value> {
    let mut about = serde_json::Map::new();
    let mut tell = |name: &str, value: Value| drop(about.insert(name.to_owned(), value));
    if let Some(said) = said {
        tell("name", json!(said.name));
        tell("version", json!(said.version.to_string()));
        tell("serial", json!(said.serial));
        tell("world", json!(said.world.to_string()));
    }
    tell("kind", json!(kind));
    tell("digest", json!(Digest::of(component)));
    tell("bytes", json!(component.len()));
    tell("imports", json!(structure.imports));
    tell("exports", json!(structure.exports));
    if let Some(said) = said {
        tell("events", json!(said.events));
        tell("capabilities", json!(said.capabilities));
        if let Some(reads) = &said.reads {
            tell("reads", json!(reads));
        }
        tell("min_host", json!(said.min_host.to_string()));
        tell("valid", json!([said.not_before.date().to_string(), said.expires.date().to_string()]));
    }
    if let Some(kind) = kind {
        let limits = Limits::declared(kind, &said.map_or_else(Declared::default, |said| said.limits));
        tell("cpu_ms", json!(limits.cpu.as_millis()));
        tell("memory_bytes", json!(limits.memory));
    }
    tell("core_modules", json!(structure.modules));
    tell("functions", json!(structure.functions));
    tell("samples", json!(Samples::carried(component).map_or(0, |samples| samples.len())));
    tell("snapshot", json!(can_be_snapshotted(component)));
    tell("problems", json!(problems));
    about
}

/// A value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no: configured in every instance".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
