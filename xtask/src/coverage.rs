//! `cargo xtask coverage`: which share of the lines the tests run. Only the crates of this workspace are built for it: what they depend
//! on is what the tests use anyway.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::process::{cargo, output};
use crate::{build_guests, say, test};

/// Has cargo call this program for every crate of the workspace, instead of the compiler.
const WRAPPER: &str = "RUSTC_WORKSPACE_WRAPPER";
/// Files that are no part of the product: tests, and what stands outside of the workspace.
const LEFT_OUT: &str = r"(/tests/|/tests\.rs$|/benches/|/xtask/|/\.cargo/|/rustc/|/target/)";

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Coverage {
    /// Also the stories of `tests/`, which run the whole gateway: half an hour on two cores
    #[arg(long)]
    stories: bool,
}

/// The tools of the compiler's own LLVM: profiles of another version cannot be read.
struct Tools {
    cov: PathBuf,
    profdata: PathBuf,
}

/// A program with tests, and the folder of its crate.
struct Tests {
    program: PathBuf,
    folder: PathBuf,
}

/// Lines that there are, and lines that were run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    count: u64,
    covered: u64,
}

// === impl Coverage ===

impl Coverage {
    /// Builds, runs, and prints the share of each part and of all of it. A test that fails is named, and the figure is printed all the
    /// same: whether tests pass is asked by `cargo xtask test`.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        let Some(tools) = Tools::find(root)? else {
            say(
                "skipped: coverage (the compiler's LLVM tools are not installed: rustup component add llvm-tools)",
            );
            return Ok(());
        };
        build_guests(root)?;
        let out = root.join("target/coverage");
        if out.exists() {
            std::fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
        }
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let unit = ["test", "--workspace", "--lib", "--bins", "--no-run"];
        let mut built = build(root, if self.stories { &["test", "--workspace", "--no-run"] } else { &unit })?;
        let programs = build(root, &["build", "--workspace", "--bins"])?;
        let gateway =
            programs.iter().find(|it| it.program.file_name().is_some_and(|name| name == "sallyport"));
        let gateway = gateway.context("cargo built no gateway")?.program.clone();
        built.sort_by(|one, other| one.program.cmp(&other.program));
        for tests in &built {
            say(&format!("running {}", tests.program.display()));
            let mut command = Command::new(&tests.program);
            command.current_dir(&tests.folder).stdout(Stdio::null());
            // Processes that run at the same time add to the same files.
            command.env("LLVM_PROFILE_FILE", out.join("%4m.profraw")).env("SALLYPORT_BIN", &gateway);
            let _server = test::postgres(&mut command)?;
            let status =
                command.status().with_context(|| format!("cannot run {}", tests.program.display()))?;
            if !status.success() {
                say(&format!("{} failed: {status}", tests.program.display()));
            }
        }
        let objects: Vec<_> = built.iter().map(|tests| tests.program.clone()).chain([gateway]).collect();
        let report = tools.report(&out, &objects)?;
        let total = shares(root, &report).into_iter().fold(Lines::default(), |total, (part, lines)| {
            say(&format!("{part}: {lines}"));
            total.and(lines)
        });
        ensure!(total.count > 0, "nothing was measured");
        say(&format!("coverage: {total}"));
        Ok(())
    }
}

// === impl Tools ===

impl Tools {
    /// `None` if the toolchain does not have them.
    fn find(root: &Path) -> Result<Option<Self>> {
        let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let sysroot = output(rustc().args(["--print", "sysroot"]).current_dir(root))?;
        let host = output(rustc().args(["--print", "host-tuple"]).current_dir(root))?;
        let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(host.trim()).join("bin");
        let tools = Self { cov: folder.join("llvm-cov"), profdata: folder.join("llvm-profdata") };
        Ok((tools.cov.exists() && tools.profdata.exists()).then_some(tools))
    }

    fn report(&self, out: &Path, objects: &[PathBuf]) -> Result<Value> {
        let merged = out.join("merged.profdata");
        let mut merge = Command::new(&self.profdata);
        merge.args(["merge", "--sparse", "--failure-mode=all", "--output"]).arg(&merged);
        for entry in std::fs::read_dir(out)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "profraw") {
                merge.arg(path);
            }
        }
        output(&mut merge)?;
        let mut export = Command::new(&self.cov);
        export.args(["export", "--summary-only", "--ignore-filename-regex", LEFT_OUT]);
        export.arg("--instr-profile").arg(&merged);
        for (number, object) in objects.iter().enumerate() {
            if number > 0 {
                export.arg("--object");
            }
            export.arg(object);
        }
        serde_json::from_str(&output(&mut export)?).context("llvm-cov prints no JSON")
    }
}

// === impl Lines ===

impl Lines {
    const fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, covered: self.covered + other.covered }
    }
}

impl std::fmt::Display for Lines {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = (self.covered * 1000).checked_div(self.count).unwrap_or(0);
        write!(out, "{}.{} % of {} lines", tenths / 10, tenths % 10, self.count)
    }
}

/// What this program does where cargo calls it instead of the compiler: it calls the compiler, and has it count. `None` if it was called
/// by a person.
pub(crate) fn wrapped() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let compiler = arguments.next().filter(|_| std::env::var_os(WRAPPER).is_some())?;
    if Path::new(&compiler).file_stem()? != "rustc" {
        return None;
    }
    let arguments: Vec<OsString> = arguments.collect();
    let mut command = Command::new(compiler);
    if counts(&arguments) {
        command.arg("-Cinstrument-coverage");
    }
    let status = command.args(arguments).status();
    Some(if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Components and build scripts do not count: the ones cannot, and nobody wants to know it of the others.
fn counts(arguments: &[OsString]) -> bool {
    let has = |text: &str| arguments.iter().any(|it| it == text);
    let for_guests = arguments.iter().any(|it| it.to_string_lossy().contains("wasm32"));
    !has("build_script_build") && !for_guests
}

/// Builds with cargo; the programs that came out.
fn build(root: &Path, arguments: &[&str]) -> Result<Vec<Tests>> {
    let wrapper = std::env::current_exe().context("this program does not know its own path")?;
    let mut command = cargo(root, arguments);
    command.arg("--message-format=json-render-diagnostics").env(WRAPPER, wrapper).stderr(Stdio::inherit());
    let printed = output(&mut command)?;
    Ok(printed.lines().filter_map(|line| program(&serde_json::from_str(line).ok()?)).collect())
}

fn program(message: &Value) -> Option<Tests> {
    let program = PathBuf::from(message.get("executable")?.as_str()?);
    let manifest = PathBuf::from(message.get("manifest_path")?.as_str()?);
    Some(Tests { program, folder: manifest.parent()?.to_path_buf() })
}

/// The lines of each part: a module of the gateway, or a crate.
fn shares(root: &Path, report: &Value) -> BTreeMap<String, Lines> {
    let mut shares = BTreeMap::new();
    let files = report.pointer("/data/0/files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for file in files {
        let Some(name) = file.get("filename").and_then(Value::as_str) else { continue };
        let number =
            |name: &str| file.pointer(&format!("/summary/lines/{name}")).and_then(Value::as_u64).unwrap_or(0);
        let lines = Lines { count: number("count"), covered: number("covered") };
        let share = shares.entry(part(root, Path::new(name))).or_insert_with(Lines::default);
        *share = share.and(lines);
    }
    shares
}

/// `host/src/audit` of `host/src/audit/spool/frame.rs`, and `protocol` of `protocol/src/id.rs`.
fn part(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).unwrap_or(file);
    let names: Vec<_> = inside.iter().map(|name| name.to_string_lossy()).collect();
    match names.as_slice() {
        [host, src, module, ..] if host == "host" && src == "src" => {
            format!("host/src/{}", module.trim_end_matches(".rs"))
        }
        [folder, name, ..] if folder.starts_with("guest-p") => format!("{folder}/{name}"),
        [first, ..] => first.to_string(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_summed_by_module_and_by_crate() {
        let file = |name: &str, count: u64, covered: u64| json!({ "filename": name, "summary": { "lines": { "count": count, "covered": covered } } });
        let report = json!({ "data": [{ "files": [
            file("/r/host/src/audit/spool.rs", 10, 5),
            file("/r/host/src/audit.rs", 10, 10),
            file("/r/protocol/src/id.rs", 3, 1),
            file("/r/guest-providers/echo/src/lib.rs", 0, 0),
        ] }] });
        let shares: Vec<_> = shares(Path::new("/r"), &report)
            .into_iter()
            .map(|(part, lines)| format!("{part}: {lines}"))
            .collect();
        assert_eq!(
            shares,
            [
                "guest-providers/echo: 0.0 % of 0 lines",
                "host/src/audit: 75.0 % of 20 lines",
                "protocol: 33.3 % of 3 lines"
            ]
        );
    }

    #[test]
    fn components_and_build_scripts_are_built_as_ever() {
        let arguments = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(counts(&arguments("--crate-name sallyport --edition=2024")));
        assert!(!counts(&arguments("--crate-name build_script_build build.rs")));
        assert!(!counts(&arguments("--crate-name provider_echo --target wasm32-unknown-unknown")));
    }
}
