//! What is printed and nothing else: the configuration in force, and the limits of this version.

use std::io::Write;

use anyhow::Context as _;

use super::Ending;
use crate::config::Config;
use crate::limits;

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

/// Prints every limit: aligned for people, as Markdown for the documentation, JSON for programs.
pub(super) fn limits(markdown: bool, json: bool, out: &mut dyn Write) -> anyhow::Result<Ending> {
    if json {
        writeln!(out, "{}", serde_json::to_string(&limits::all())?)?;
    } else if markdown {
        write!(out, "{}", limits::markdown())?;
    } else {
        for limit in limits::all() {
            writeln!(out, "{:10} {:58} {:>10}  {}", limit.part, limit.name, limit.spelled(), limit.beyond)?;
        }
    }
    Ok(Ending::Done)
}
