//! `cargo xtask`: everything that is done to this repository, with cargo alone. Continuous integration runs these commands
//! and nothing else.

mod check;
mod coverage;
mod demo;
mod fuzz;
mod guests;
#[expect(
    unreachable_pub,
    dead_code,
    reason = "the tests, to which the file belongs, export and use all of it"
)]
#[path = "../../tests/src/postgres.rs"]
mod postgres;
mod process;
mod reference;
mod soak;
mod test;
mod wit;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build everything, start a gateway, have a conversation and show its audit rows
    Demo(demo::Demo),
    /// Run every test
    Test(test::Test),
    /// Format, lints, documentation, dependencies
    Check(check::Check),
    /// Build and sign the components that ship with the gateway
    Guests,
    /// Run the stories with long counts on the binary as it is shipped: forty minutes on two cores
    Soak(soak::Soak),
    /// Write the reference pages that are printed from the code
    Gen,
    /// Run the fuzz targets: what the gateway reads against what others read there
    Fuzz(fuzz::Fuzz),
    /// Which share of the lines the tests run
    Coverage(coverage::Coverage),
    /// Measure the gateway against a scripted upstream and a bare reverse proxy
    Bench(Bench),
}

/// How to measure.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Bench {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
    /// Only what honest calls cost beside a provider that spins
    #[arg(long)]
    neighbours: bool,
    /// Only how long a new release of a component takes until it decides
    #[arg(long)]
    swaps: bool,
    /// Only what a call of a component and a live instance cost, in each tier
    #[arg(long)]
    guests: bool,
    /// Components in every language of the kit too: their tools are fetched from package registries
    #[arg(long)]
    languages: bool,
    /// Only the gateway beside nginx, cell by cell, against what it may cost
    #[arg(long)]
    kit: bool,
    /// With `--kit`: only these cells, with commas between
    #[arg(long, requires = "kit")]
    cells: Option<String>,
    /// Link what is measured in less time, and measure a few percent more than what is shipped
    #[arg(long)]
    thin: bool,
    /// Build what is measured, and measure it another time
    #[arg(long)]
    build: bool,
    /// Count what needs no quiet machine, on the build that tests run on; fails where a bound is exceeded
    #[arg(long)]
    gate: bool,
}

fn main() -> ExitCode {
    if let Some(code) = coverage::wrapped() {
        return code;
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let root = root()?;
    match cli.task {
        Task::Demo(demo) => demo.run(&root),
        Task::Test(test) => test.run(&root),
        Task::Check(check) => check.run(&root),
        Task::Soak(soak) => soak.run(&root),
        Task::Guests => build_guests(&root),
        Task::Gen => reference::write(&root),
        Task::Fuzz(fuzz) => fuzz.run(&root),
        Task::Coverage(coverage) => coverage.run(&root),
        Task::Bench(bench) => bench.run(&root),
    }
}

impl Bench {
    /// Builds what is measured as it is shipped, and runs the measurement.
    fn run(&self, root: &Path) -> Result<()> {
        build_guests(root)?;
        if self.gate {
            return Self::gate(root);
        }
        let mut build = process::cargo(
            root,
            &["build", "--release", "--workspace", "--bin", "sallyport", "--bin", "bench"],
        );
        if self.thin {
            build.env("CARGO_PROFILE_RELEASE_LTO", "thin").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        }
        process::run(&mut build)?;
        if self.build {
            return Ok(());
        }
        let built = target(root).join("release");
        let mut measure = std::process::Command::new(built.join("bench"));
        measure.env("SALLYPORT_BIN", built.join("sallyport")).current_dir(root);
        for (asked, option) in [
            (self.json, "--json"),
            (self.quick, "--quick"),
            (self.neighbours, "--neighbours"),
            (self.swaps, "--swaps"),
            (self.guests, "--guests"),
            (self.languages, "--languages"),
            (self.kit, "--kit"),
        ] {
            measure.args(asked.then_some(option));
        }
        measure.args(self.cells.as_ref().map(|cells| format!("--cells={cells}")));
        process::run(&mut measure)
    }

    /// Counts on the build that tests run on, whose dependencies are optimised and whose own code is not: a bound is for what grows,
    /// not for how fast it is.
    fn gate(root: &Path) -> Result<()> {
        process::run(&mut process::cargo(
            root,
            &["build", "--workspace", "--bin", "sallyport", "--bin", "bench"],
        ))?;
        let mut index =
            process::cargo(root, &["build", "--release", "-p", "sallyport-protocol", "--example", "index"]);
        index.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4");
        process::run(&mut index)?;
        let built = target(root).join("debug");
        let mut count = std::process::Command::new(built.join("bench"));
        count.arg("gate").env("SALLYPORT_BIN", built.join("sallyport")).current_dir(root);
        process::run(&mut count)
    }
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target))
}

/// Builds and signs the guests, and says what came out.
fn build_guests(root: &Path) -> Result<()> {
    let report = guests::build(&guests::Options::new(root))?;
    for (file, size) in &report.components {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        say(&format!("component {name}: {size} bytes"));
    }
    Ok(())
}

/// The workspace.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_path_buf).context("xtask does not stand in a workspace")
}

/// Tells the person what happens. Standard output belongs to results.
fn say(line: &str) {
    // Standard error may be closed: then there is nobody to tell.
    drop(writeln!(std::io::stderr(), "{line}"));
}
