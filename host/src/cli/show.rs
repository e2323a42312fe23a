//! What is printed and nothing else: the configuration in force, what may stand in it, and the limits of this version.

use std::io::Write;

use anyhow::Context as _;

use super::Ending;
use crate::app;
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

/// Prints a text that this version of the gateway holds.
pub(super) fn text(text: &str, out: &mut dyn Write) -> anyhow::Result<Ending> {
    write!(out, "{text}")?;
    Ok(Ending::Done)
}

/// Prints every limit: aligned for people, as Markdown for the documentation, JSON for programs.
pub(super) fn limits(markdown: bool, json: bool, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let all = app::limits();
    if json {
        writeln!(out, "{}", serde_json::to_string(&all)?)?;
    } else if markdown {
        write!(out, "{}", limits::markdown(&all))?;
    } else {
        for limit in all {
            writeln!(out, "{:10} {:58} {:>10}  {}", limit.part, limit.name, limit.spelled(), limit.beyond)?;
        }
    }
    Ok(Ending::Done)
}
