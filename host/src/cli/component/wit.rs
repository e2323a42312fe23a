//! `sallyport component wit`: the contract that this binary was built with, as text for people or as the one binary package
//! that wit-bindgen, componentize-py and others take as it is.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use wit_parser::Resolve;

use super::{CommandContext, kit, project};
use crate::cli::Ending;
use crate::component::WORLD_VERSION;

/// What `component wit` is asked.
#[derive(Debug, Args)]
pub struct Wit {
    /// The binary package instead of the text
    #[arg(long, requires = "out")]
    pub binary: bool,
    /// Where it goes; the text goes to standard output, unless given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Runs `component wit`.
pub(super) fn run(asked: &Wit, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let bytes = if asked.binary { binary()? } else { text().into_bytes() };
    let Some(out) = &asked.out else {
        context.out.write_all(&bytes)?;
        return Ok(Ending::Done);
    };
    project::write(out, &bytes)?;
    let package = format!("sallyport:gateway@{WORLD_VERSION}");
    if context.json {
        writeln!(context.out, "{}", json!({ "package": package, "file": out, "bytes": bytes.len() }))?;
    } else {
        writeln!(context.out, "Wrote {}: {package}, {} bytes.", out.display(), bytes.len())?;
    }
    Ok(Ending::Done)
}

/// All files as one: the package is named once.
fn text() -> String {
    let head = format!("package sallyport:gateway@{WORLD_VERSION};\n");
    let files = kit::WIT.iter().map(|(_, text)| text.strip_prefix(&head).unwrap_or(text));
    std::iter::once(head.as_str()).chain(files).collect()
}

/// The package as WebAssembly.
fn binary() -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("sallyport-gateway.wit", &text()).context("the contract is malformed")?;
    wit_component::encode(&resolve, package, false).context("the contract cannot be encoded")
}
