//! `cargo xtask fuzz`: the targets of `fuzz/`, with libFuzzer and the stable compiler: the flags that the compiler needs for it are
//! stable, and a sanitiser, which is not, would find nothing in code without `unsafe`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::process::{cargo, run};
use crate::say;

/// Every target, by its name in `fuzz/targets`.
const TARGETS: [&str; 8] = ["index", "events", "splice", "package", "grammar", "answers", "frame", "jwt"];

/// What makes the compiler count where a run went, and with what it compared.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// One target; all of them without it
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each runs. 0: only what is kept in `fuzz/corpus` and was found before
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

// === impl Fuzz ===

impl Fuzz {
    /// Builds the targets and runs them one after another; fails at the first finding, whose input is kept.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        let out = root.join("target/fuzz");
        let host = host()?;
        let mut build = cargo(&root.join("fuzz"), &["build", "--release", "--locked", "--bins"]);
        // With a target named, what runs while it builds is built without the flags.
        build.args(["--target", &host]).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &out);
        run(&mut build)?;
        for target in TARGETS.into_iter().filter(|name| self.target.as_deref().is_none_or(|it| it == *name)) {
            self.one(root, target, &out, &out.join(&host).join("release").join(target))?;
        }
        Ok(())
    }

    fn one(&self, root: &Path, target: &str, out: &Path, binary: &Path) -> Result<()> {
        let (found, kept) = (out.join("found"), out.join("corpus").join(target));
        for folder in [&found, &kept] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        say(&format!("fuzzing {target} for {} s", self.seconds));
        let mut fuzzer = Command::new(binary);
        // New inputs go to the first folder; the others are read.
        fuzzer.arg(kept).arg(root.join("fuzz/corpus").join(target));
        if target == "index" {
            fuzzer.arg(root.join("tests/fixtures/claude-code"));
        }
        let dictionary = root.join("fuzz").join(if target == "answers" { "http.dict" } else { "json.dict" });
        fuzzer.arg(format!("-dict={}", dictionary.display()));
        fuzzer.arg(format!("-artifact_prefix={}/{target}-", found.display()));
        fuzzer.args([
            "-max_len=16384",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-verbosity=0",
            "-print_final_stats=1",
        ]);
        match self.seconds {
            0 => fuzzer.arg("-runs=0"),
            seconds => fuzzer.arg(format!("-max_total_time={seconds}")),
        };
        Self::watch(&mut fuzzer, &out.join(format!("{target}.log")))
            .with_context(|| format!("{target}: the input is in {}", found.display()))
    }

    /// Runs it with what it says in a file, which is a lot, and says what matters of it.
    fn watch(fuzzer: &mut Command, log: &Path) -> Result<()> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let status = fuzzer.stderr(file).status().with_context(|| format!("cannot run {fuzzer:?}"))?;
        let said = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        if status.success() {
            let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
            say(&format!("nothing found in {} runs", runs.unwrap_or("no").trim()));
            return Ok(());
        }
        let from = said.find("panicked at").unwrap_or_default();
        said.get(from..).unwrap_or_default().lines().take(12).for_each(say);
        bail!("{status}; all of it is in {}", log.display())
    }
}

/// The platform that the compiler runs on.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let said = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    ensure!(said.status.success(), "rustc -vV failed");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say where it runs")?;
    Ok(host.to_owned())
}
