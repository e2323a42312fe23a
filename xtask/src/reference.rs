//! `cargo xtask gen`: the pages of `docs/reference` that are printed from the code.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, run};
use crate::{build_guests, say};

/// Stands above what is printed; what is above it is written by people.
const MARK: &str = "<!-- What follows is written by `cargo xtask gen`. -->\n";

/// Builds the gateway and has it print its limits.
pub(crate) fn write(root: &Path) -> Result<()> {
    build_guests(root)?;
    run(&mut cargo(root, &["build", "--workspace", "--bin", "sallyport"]))?;
    let printed = output(Command::new(root.join("target/debug/sallyport")).args(["limits", "--markdown"]))?;
    let page = root.join("docs/reference/limits.md");
    let old = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let (above, _) = old.split_once(MARK).with_context(|| format!("no mark in {}", page.display()))?;
    std::fs::write(&page, format!("{above}{MARK}{printed}"))
        .with_context(|| format!("cannot write {}", page.display()))?;
    say(&format!("written: {}", page.display()));
    Ok(())
}
