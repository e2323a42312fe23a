//! `sallyport check`: the configuration, read whole, and everything that is wrong with it.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::Ending;
use crate::config::{Config, Problem};

/// Reads the configuration and says what it finds.
pub(super) fn run(file: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let loaded = Config::load(file);
    let (problems, warnings) = match &loaded {
        Ok(config) => (&[][..], config.warnings.as_slice()),
        Err(report) => (report.problems(), &[][..]),
    };
    if json {
        let answer =
            json!({ "ok": loaded.is_ok(), "problems": listed(problems), "warnings": listed(warnings) });
        writeln!(out, "{answer}")?;
    } else {
        for problem in problems {
            writeln!(out, "error    {problem}")?;
        }
        for warning in warnings {
            writeln!(out, "warning  {warning}")?;
        }
        match problems.len() {
            0 => writeln!(out, "{} is fine", file.display())?,
            1 => writeln!(out, "{} has one problem", file.display())?,
            n => writeln!(out, "{} has {n} problems", file.display())?,
        }
    }
    Ok(if loaded.is_ok() { Ending::Done } else { Ending::Refused })
}

fn listed(problems: &[Problem]) -> Vec<Value> {
    problems.iter().map(|problem| json!({ "path": problem.path, "message": problem.message })).collect()
}
