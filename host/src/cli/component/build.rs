//! `sallyport component build`: the language's own tools make a component; here it gets its samples, and is compared with
//! its world before anybody signs it.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use sallyport_protocol::package::Digest;
use serde_json::json;

use super::project::{self, MANIFEST, Project};
use super::{CommandContext, toolchain};
use crate::cli::Ending;

/// What `component build` is asked.
#[derive(Debug, Args)]
pub struct Build {
    /// The project
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// Runs `component build`.
pub(super) fn run(asked: &Build, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let project = Project::open(&asked.dir)?;
    let samples = project.samples()?;
    samples.read(project.manifest.kind)?;
    let (language, raw) = toolchain::build(&project)?;
    let component = if samples.is_empty() { raw } else { samples.put_into(&raw)? };
    let structure = project::admissible(project.manifest.kind, &project.manifest, &component)?;
    let wasm = project.wasm();
    project::write(&wasm, &component)?;
    // What is signed later is what was built now.
    let manifest = std::fs::read(project.dir.join(MANIFEST)).context("the manifest is gone")?;
    project::write(&wasm.with_extension("toml"), &manifest)?;
    let digest = Digest::of(&component);
    if context.json {
        let answer = json!({
            "name": project.manifest.name, "kind": project.manifest.kind, "lang": language, "wasm": wasm,
            "bytes": component.len(), "digest": digest, "samples": samples.len(), "imports": structure.imports,
        });
        writeln!(context.out, "{answer}")?;
    } else {
        let shown = wasm.display();
        let (bytes, samples) = (component.len(), samples.len());
        writeln!(context.out, "Built {shown}: {bytes} bytes, {samples} samples, {digest}.")?;
    }
    Ok(Ending::Done)
}
