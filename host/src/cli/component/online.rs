//! The verbs that need a gateway: push, list, show, the steps of a component's life, grants and revocations.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::Ending;
use crate::cli::output::{self, cell, clean};
use crate::cli::remote::{Remote, Where};

/// `sallyport component push`, `list`, `activate`, ..
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Upload a package: it is verified, compiled and tried, and then staged
    Push(Push),
    /// List what was uploaded, and where each release is in its life
    List(Where),
    /// Show one component: its releases, its place, what it may do and what the newest one wants
    Show(Named),
    /// Try a release in the shadow of what is in force: what it says is recorded
    Shadow(StepArgs),
    /// Try a release with a share of users; it ends by itself if it does badly
    Canary(Canary),
    /// Put a release in force
    Activate(StepArgs),
    /// Put an earlier release in force again
    Rollback(StepArgs),
    /// End what is tried
    Withdraw(Named),
    /// Take a component out of force
    Retire(Named),
    /// Delete a version that nobody uses
    Delete(Delete),
    /// Permit a component to use a capability
    Grant(GrantArgs),
    /// Take a capability back
    Ungrant(GrantArgs),
    /// End a digest, a release or everything that a key signed, at once and everywhere
    Revoke(Revoke),
}

/// What `push` is asked.
#[derive(Debug, Args)]
pub struct Push {
    /// The package
    pub package: PathBuf,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// What `delete` is asked.
#[derive(Debug, Args)]
pub struct Delete {
    /// `namespace/name`
    pub name: String,
    /// Which release
    pub release: String,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// A component by its name.
#[derive(Debug, Args)]
pub struct Named {
    /// `namespace/name`
    pub name: String,
    /// Why; goes into the audit row
    #[arg(long)]
    pub reason: Option<String>,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// What a step is asked.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// `namespace/name`
    pub name: String,
    /// Which release [default: what is tried; for a rollback, what was before]
    pub release: Option<String>,
    /// A file with what the component is configured with, JSON
    #[arg(long, value_name = "FILE")]
    pub configuration: Option<PathBuf>,
    /// What is done with what it says: enforce, shadow or off
    #[arg(long)]
    pub mode: Option<String>,
    /// Its place among its kind; lower numbers are asked first
    #[arg(long)]
    pub order: Option<i32>,
    /// For hooks: what it is told of, as in Claude Code: "Edit|Write"
    #[arg(long)]
    pub matcher: Option<String>,
    /// For hooks: what becomes of an event that it does not answer: block or continue
    #[arg(long)]
    pub on_fault: Option<String>,
    /// For hooks: milliseconds that an answer may take
    #[arg(long)]
    pub timeout_ms: Option<u64>,
    /// Why; goes into the audit row
    #[arg(long)]
    pub reason: Option<String>,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// What `canary` is asked.
#[derive(Debug, Args)]
pub struct Canary {
    /// Of how many of a hundred users
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: u8,
    /// Calls before it is judged
    #[arg(long)]
    pub min_calls: Option<u64>,
    /// Faults in a hundred calls that end it
    #[arg(long)]
    pub max_fault_percent: Option<f64>,
    /// Refusals in a hundred calls, more than of what is in force, that end it
    #[arg(long)]
    pub max_refusal_jump_percent: Option<f64>,
    /// Microseconds that 95 of 100 calls have to stay below
    #[arg(long)]
    pub max_p95_micros: Option<u64>,
    /// Which one
    #[command(flatten)]
    pub step: StepArgs,
}

/// What `grant` is asked.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// `namespace/name`
    pub name: String,
    /// As the package names it
    pub capability: String,
    /// Until when: a time (2027-01-01T00:00:00Z)
    #[arg(long)]
    pub expires: Option<String>,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// What `revoke` is asked.
#[derive(Debug, Args)]
pub struct Revoke {
    /// What: a digest (64 hex digits), `namespace/name@version`, or the id of a key (`ed25519:...`)
    pub what: String,
    /// Why; goes into the audit row
    #[arg(long)]
    pub reason: String,
    /// Where
    #[command(flatten)]
    pub at: Where,
}

/// Runs one of them against a gateway.
pub(super) async fn run(
    command: &CatalogCommand,
    home: &Path,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
    let answer = match command {
        CatalogCommand::Push(Push { package, at }) => {
            let bytes =
                std::fs::read(package).with_context(|| format!("cannot read {}", package.display()))?;
            Remote::open(at, home)?.upload("components", bytes).await?
        }
        CatalogCommand::List(at) => Remote::open(at, home)?.get("components").await?,
        CatalogCommand::Show(Named { name, at, .. }) => {
            Remote::open(at, home)?.get(&format!("components/{}", checked(name)?)).await?
        }
        CatalogCommand::Shadow(asked) => asked.take("shadow", Map::new(), home).await?,
        CatalogCommand::Activate(asked) => asked.take("activate", Map::new(), home).await?,
        CatalogCommand::Rollback(asked) => asked.take("rollback", Map::new(), home).await?,
        CatalogCommand::Canary(asked) => asked.step.take("canary", asked.body(), home).await?,
        CatalogCommand::Withdraw(asked) => asked.take("withdraw", home).await?,
        CatalogCommand::Retire(asked) => asked.take("retire", home).await?,
        CatalogCommand::Delete(Delete { name, release, at }) => {
            let path = format!("components/{}/{}", checked(name)?, checked_version(release)?);
            Remote::open(at, home)?.delete(&path).await?
        }
        CatalogCommand::Grant(GrantArgs { name, capability, expires, at }) => {
            let mut body = json!({ "capability": capability });
            put(&mut body, "expires_at", expires.as_deref());
            Remote::open(at, home)?.post(&format!("components/{}/grants", checked(name)?), &body).await?
        }
        CatalogCommand::Ungrant(GrantArgs { name, capability, at, .. }) => {
            let path = format!("components/{}/grants/{capability}", checked(name)?);
            Remote::open(at, home)?.delete(&path).await?
        }
        CatalogCommand::Revoke(Revoke { what, reason, at }) => {
            let mut body = json!({ "reason": reason });
            let kind = if what.contains('@') {
                "version"
            } else if what.starts_with("ed25519:") {
                "key"
            } else {
                "digest"
            };
            put(&mut body, kind, Some(what.as_str()));
            Remote::open(at, home)?.post("revocations", &body).await?
        }
    };
    if json {
        writeln!(out, "{answer}")?;
        return Ok(Ending::Done);
    }
    match command {
        CatalogCommand::List(_) => table(&answer, out)?,
        CatalogCommand::Delete(asked) => writeln!(out, "{}@{} is deleted.", asked.name, asked.release)?,
        CatalogCommand::Revoke(asked) => writeln!(out, "{} is revoked.", asked.what)?,
        _ => one(&answer, out)?,
    }
    Ok(Ending::Done)
}

// === impl StepArgs ===

impl StepArgs {
    async fn take(&self, verb: &str, more: Map<String, Value>, home: &Path) -> anyhow::Result<Value> {
        let mut body = Value::Object(more);
        put(&mut body, "version", self.release.as_deref());
        put(&mut body, "mode", self.mode.as_deref());
        put(&mut body, "order", self.order);
        put(&mut body, "reason", self.reason.as_deref());
        if self.matcher.is_some() || self.on_fault.is_some() || self.timeout_ms.is_some() {
            let mut attachment = json!({});
            put(&mut attachment, "matcher", self.matcher.as_deref());
            put(&mut attachment, "on_fault", self.on_fault.as_deref());
            put(&mut attachment, "timeout_ms", self.timeout_ms);
            put(&mut body, "attachment", Some(attachment));
        }
        if let Some(file) = &self.configuration {
            let shown = file.display();
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
            let config: Value = serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"))?;
            put(&mut body, "config", Some(config));
        }
        let path = format!("components/{}/{verb}", checked(&self.name)?);
        Remote::open(&self.at, home)?.post(&path, &body).await
    }
}

// === impl Canary ===

impl Canary {
    fn body(&self) -> Map<String, Value> {
        let mut slo = json!({});
        put(&mut slo, "min_calls", self.min_calls);
        put(&mut slo, "max_fault_percent", self.max_fault_percent);
        put(&mut slo, "max_refusal_jump_percent", self.max_refusal_jump_percent);
        put(&mut slo, "max_p95_micros", self.max_p95_micros);
        Map::from_iter([("percent".to_owned(), self.percent.into()), ("slo".to_owned(), slo)])
    }
}

// === impl Named ===

impl Named {
    async fn take(&self, verb: &str, home: &Path) -> anyhow::Result<Value> {
        let mut body = json!({});
        put(&mut body, "reason", self.reason.as_deref());
        let path = format!("components/{}/{verb}", checked(&self.name)?);
        Remote::open(&self.at, home)?.post(&path, &body).await
    }
}

// === private helpers ===

/// A name that goes into a path.
fn checked(name: &str) -> anyhow::Result<&str> {
    let parsed = sallyport_protocol::package::Name::parse(name);
    if parsed.is_err() {
        bail!("{name:?} is no component's name: namespace/name");
    }
    Ok(name)
}

/// A version that goes into a path, where a plus sign would be a blank.
fn checked_version(version: &str) -> anyhow::Result<String> {
    let parsed = semver::Version::parse(version).with_context(|| format!("{version:?} is no version"))?;
    Ok(parsed.to_string().replace('+', "%2B"))
}

fn put(body: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let (Some(fields), Some(value)) = (body.as_object_mut(), value) {
        fields.insert(name.to_owned(), value.into());
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// The beginning of a version's digest.
fn short(version: &Value) -> &str {
    text(version, "digest").get(..16).unwrap_or("-")
}

fn table(answer: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for component in list(answer, "components") {
        for version in list(component, "versions") {
            rows.push([
                cell(component.get("name")),
                cell(component.get("kind")),
                cell(version.get("version")),
                cell(version.get("stage")),
                cell(version.get("serial")),
                short(version).to_owned(),
            ]);
        }
    }
    output::table(&["NAME", "KIND", "VERSION", "STAGE", "SERIAL", "DIGEST"], &rows, out)?;
    let Some(usage) = answer.get("usage") else { return Ok(()) };
    let number = |name: &str| usage.get(name).and_then(Value::as_u64);
    let most = |name: &str| number(name).map(|most| format!(" of {most}")).unwrap_or_default();
    writeln!(
        out,
        "{} bytes{} in {} versions{}",
        number("bytes").unwrap_or(0),
        most("max_bytes"),
        number("versions").unwrap_or(0),
        most("max_versions"),
    )?;
    Ok(())
}

fn one(answer: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{} ({})", clean(text(answer, "name")), clean(text(answer, "kind")))?;
    let rows: Vec<_> = list(answer, "versions")
        .map(|version| [cell(version.get("version")), cell(version.get("stage")), short(version).to_owned()])
        .collect();
    output::table(&["VERSION", "STAGE", "DIGEST"], &rows, out)?;
    for version in list(answer, "versions") {
        let Some(levels) = version.get("levels").and_then(Value::as_object) else { continue };
        let levels: Vec<_> =
            levels.iter().map(|(level, said)| format!("{level} {}", cell(Some(said)))).collect();
        writeln!(out, "{} was shown: {}", clean(text(version, "version")), clean(&levels.join(", ")))?;
    }
    let Some(newest) = answer.get("newest") else { return Ok(()) };
    for (name, said) in
        [("added_capabilities", "wants, and what is in force does not"), ("needs_grant", "needs a grant")]
    {
        for capability in list(newest, name).filter_map(Value::as_str) {
            writeln!(out, "{} {said}: {}", clean(text(newest, "version")), clean(capability))?;
        }
    }
    Ok(())
}
