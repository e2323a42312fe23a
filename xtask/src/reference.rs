//! `cargo xtask gen`: the pages of `docs/reference` that are printed from the code.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, run};
use crate::{build_guests, say};

/// Stands above what is printed; what is above it is written by people.
const MARK: &str = "<!-- What follows is written by `cargo xtask gen`. -->\n";

/// Pages whose second part is printed, and the command of the gateway that prints it.
const PAGES: [(&str, &[&str]); 3] = [
    ("limits.md", &["limits", "--markdown"]),
    ("configuration.md", &["config", "reference"]),
    ("admin-api.md", &["admin", "reference"]),
];
/// Files that are printed whole.
const FILES: [(&str, &[&str]); 2] =
    [("sallyport.schema.json", &["config", "schema"]), ("admin-api.openapi.json", &["admin", "openapi"])];

/// Builds the gateway and has it print its reference; prints what needs no gateway.
pub(crate) fn write(root: &Path) -> Result<()> {
    build_guests(root)?;
    run(&mut cargo(root, &["build", "--workspace", "--bin", "sallyport"]))?;
    let printed = |command: &[&str]| output(Command::new(root.join("target/debug/sallyport")).args(command));
    for (name, command) in PAGES {
        print(root, name, &printed(command)?)?;
    }
    for (name, command) in FILES {
        replace(&root.join("docs/reference").join(name), &printed(command)?)?;
    }
    print(root, "audit.md", &sallyport_protocol::audit::markdown())?;
    print(root, "errors.md", &sallyport_protocol::errors::markdown())
}

/// Puts what is printed below the mark of a page.
fn print(root: &Path, name: &str, printed: &str) -> Result<()> {
    let page = root.join("docs/reference").join(name);
    let old = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let (above, _) = old.split_once(MARK).with_context(|| format!("no mark in {}", page.display()))?;
    replace(&page, &format!("{above}{MARK}{printed}"))
}

fn replace(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    say(&format!("written: {}", file.display()));
    Ok(())
}
