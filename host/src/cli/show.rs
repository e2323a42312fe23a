//! `sallyport config show`: the configuration in force.

use std::io::Write;

use anyhow::Context as _;

use super::Ending;
use crate::config::Config;

/// Prints it: YAML for people, JSON for programs.
pub(super) fn run(config: &Config, json: bool, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let effective = config.effective();
    if json {
        writeln!(out, "{effective}")?;
    } else {
        let text = serde_saphyr::to_string(&effective).context("cannot write the configuration as YAML")?;
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(Ending::Done)
}
