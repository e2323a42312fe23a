//! `sallyport component sign`: a built component and its manifest become a package. What no gateway would take is not
//! signed.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use sallyport_protocol::package::{MAX_COMPONENT, Package};
use sallyport_protocol::signature::{KeyId, SigningKey, signing_key};
use serde_json::json;

use super::CommandContext;
use super::project::{self, Project, package_beside};
use crate::auth::keys::read_private;
use crate::cli::Ending;

/// What `component sign` is asked.
#[derive(Debug, Args)]
pub struct Sign {
    /// A project, or a built component with its manifest beside it
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The publisher's key: `sallyport key generate` makes one
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the package goes; beside the component, unless given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Runs `component sign`.
pub(super) fn run(asked: &Sign, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let key = key(asked)?;
    let (manifest, component, usual) = if asked.path.is_dir() {
        let project = Project::open(&asked.path)?;
        let component = project.built()?;
        // The copy beside the component is of the day it was built: what has changed since would not be what is signed.
        let built = project::manifest(&project.wasm().with_extension("toml"))?;
        if built != project.manifest {
            bail!(
                "component.toml has changed since the component was built: run `sallyport component build` again"
            );
        }
        let usual = project.package();
        (project.manifest, component, usual)
    } else {
        let beside = asked.path.with_extension("toml");
        let component = project::read(&asked.path, MAX_COMPONENT)?;
        let manifest =
            project::manifest(&beside).context("a component is signed with the manifest beside it")?;
        let usual = package_beside(&asked.path, &manifest);
        (manifest, component, usual)
    };
    project::admissible(manifest.kind, &manifest, &component)?;
    let statement = manifest.statement(&component);
    let digest = statement.digest.clone();
    let package = Package::build(statement, &key, &component).context("the package cannot be made")?;
    let out = asked.out.clone().unwrap_or(usual);
    project::write(&out, &package)?;
    let id = KeyId::of(&key.verifying_key());
    if context.json {
        let answer = json!({ "package": out, "name": manifest.name, "version": manifest.version, "serial": manifest.serial,
            "kind": manifest.kind, "digest": digest, "key_id": id, "bytes": package.len() });
        writeln!(context.out, "{answer}")?;
    } else {
        let (name, version, serial) = (&manifest.name, &manifest.version, manifest.serial);
        writeln!(context.out, "Signed {}: {name} {version}, serial {serial}, by {id}.", out.display())?;
        writeln!(context.out, "{digest}")?;
    }
    Ok(Ending::Done)
}

fn key(asked: &Sign) -> anyhow::Result<SigningKey> {
    let bytes = read_private(&asked.key).context("the key cannot be used")?;
    let text = str::from_utf8(&bytes).ok();
    let key = text.and_then(|text| signing_key(text).ok());
    key.with_context(|| format!("{} holds no key: `sallyport key generate` makes one", asked.key.display()))
}
