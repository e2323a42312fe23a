//! The tools of each language that make a component of a project. What they need besides they fetch into the project, in the
//! versions that the project names; a tool that is not there is named, with where to get it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use sallyport_protocol::package::MAX_COMPONENT;
use serde::Deserialize;

use super::project::{Project, read};

/// A language, told by a file that its projects have.
struct Language {
    name: &'static str,
    file: &'static str,
    build: fn(&Project) -> anyhow::Result<PathBuf>,
}

const LANGUAGES: [Language; 3] = [
    Language { name: "rust", file: "Cargo.toml", build: rust },
    Language { name: "js", file: "package.json", build: javascript },
    Language { name: "python", file: "requirements.txt", build: python },
];

/// Bytes of a `package.json`.
const MAX_MANIFEST: usize = 1 << 20;
const RUST_TARGET: &str = "wasm32-unknown-unknown";
const GET_RUST: &str = "Rust comes from https://rustup.rs";
const GET_NODE: &str = "Node.js 20 or later brings it: https://nodejs.org";
const GET_PYTHON: &str = "Python 3.10 or later comes from https://www.python.org or your system's packages";

/// Builds the component: its language, and its bytes.
pub(super) fn build(project: &Project) -> anyhow::Result<(&'static str, Vec<u8>)> {
    let found = LANGUAGES.iter().find(|language| project.dir.join(language.file).is_file());
    let Some(language) = found else {
        let files: Vec<_> = LANGUAGES.iter().map(|language| language.file).collect();
        bail!(
            "{} has none of {}: it is no project that can be built",
            project.dir.display(),
            files.join(", ")
        );
    };
    let built = (language.build)(project)?;
    Ok((language.name, read(&built, MAX_COMPONENT)?))
}

// === Rust ===

/// The parts of `cargo metadata` that are needed.
#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    packages: Vec<CargoPackage>,
}

#[derive(Deserialize)]
struct CargoPackage {
    manifest_path: PathBuf,
    targets: Vec<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    crate_types: Vec<String>,
}

fn rust(project: &Project) -> anyhow::Result<PathBuf> {
    let dir = &project.dir;
    let libraries =
        output(tool(dir, "rustc").args(["--print", "target-libdir", "--target", RUST_TARGET]), GET_RUST)?;
    if !Path::new(libraries.trim()).is_dir() {
        run(tool(dir, "rustup").args(["target", "add", RUST_TARGET]), GET_RUST)
            .with_context(|| format!("the Rust target {RUST_TARGET} is not installed and cannot be added"))?;
    }
    let metadata =
        output(tool(dir, "cargo").args(["metadata", "--format-version=1", "--no-deps"]), GET_RUST)?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata cannot be read")?;
    let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    let package = metadata.packages.iter().find(|package| package.manifest_path == dir.join("Cargo.toml"));
    let library = package
        .and_then(|package| {
            package.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
        })
        .context("Cargo.toml has no library with crate-type = [\"cdylib\"]")?;
    // Where somebody keeps their sources and crates is none of a component's business, and would change its digest.
    let mut flags = vec![format!("--remap-path-prefix={}=component", dir.display())];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    let mut cargo = tool(&dir, "cargo");
    cargo.args(["build", "--release", "--lib", "--target", RUST_TARGET]);
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // It comes with rustc, and makes a component without a single import of WASI.
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld");
    run(&mut cargo, GET_RUST)?;
    let file =
        metadata.target_directory.join(RUST_TARGET).join("release").join(library.name.replace('-', "_"));
    Ok(file.with_extension("wasm"))
}

// === JavaScript and TypeScript ===

/// What makes a component of JavaScript: a package that a project's `package.json` names.
struct Componentizer {
    package: &'static str,
    tool: &'static str,
    arguments: &'static [&'static str],
    world: &'static str,
    out: &'static str,
}

const COMPONENTIZERS: [Componentizer; 2] = [
    // QuickJS, small. Synchronous: a component that uses the asynchronous ABI is refused by every gateway.
    Componentizer {
        package: "componentize-qjs",
        tool: "node_modules/.bin/componentize-qjs",
        arguments: &["--sync", "--js"],
        world: "--world",
        out: "--output",
    },
    // SpiderMonkey, which gives back the body that a policy or a predicate is lent. With nothing of the system: no gateway has any.
    Componentizer {
        package: "@bytecodealliance/componentize-js",
        tool: "node_modules/.bin/componentize-js",
        arguments: &[
            "--disable=stdio",
            "--disable=random",
            "--disable=clocks",
            "--disable=http",
            "--disable=fetch-event",
        ],
        world: "--world-name",
        out: "--out",
    },
];

const ESBUILD: &str = "node_modules/.bin/esbuild";
const BUNDLE: &str = "target/bundle.js";

fn javascript(project: &Project) -> anyhow::Result<PathBuf> {
    let dir = &project.dir;
    let source =
        ["src/component.ts", "src/component.js"].into_iter().find(|source| dir.join(source).is_file());
    let source = source.context("there is neither src/component.js nor src/component.ts")?;
    let componentizer = componentizer(dir)?;
    if !dir.join(componentizer.tool).exists() || !dir.join(ESBUILD).exists() {
        run(tool(dir, "npm").args(["install", "--no-audit", "--no-fund", "--loglevel=error"]), GET_NODE)
            .context("the tools that package.json names cannot be installed")?;
    }
    std::fs::create_dir_all(dir.join("target")).context("cannot make target/")?;
    // One file, without types: what the gateway brings is left to be imported.
    run(
        tool(dir, ESBUILD).arg(source).arg(format!("--outfile={BUNDLE}")).args([
            "--bundle",
            "--format=esm",
            "--platform=neutral",
            "--target=es2022",
            "--external:sallyport:*",
            "--log-level=warning",
        ]),
        GET_NODE,
    )?;
    let out = project.wasm().with_extension("raw.wasm");
    let name = out.file_name().context("the component has no name")?.to_owned();
    run(
        tool(dir, componentizer.tool)
            .args(componentizer.arguments)
            .arg(BUNDLE)
            .args(["--wit", "wit", componentizer.world, project.manifest.kind.as_str(), componentizer.out])
            .arg(Path::new("target").join(name)),
        GET_NODE,
    )?;
    Ok(out)
}

/// Which of them the project names.
fn componentizer(dir: &Path) -> anyhow::Result<&'static Componentizer> {
    let manifest: NpmManifest = serde_json::from_slice(&read(&dir.join("package.json"), MAX_MANIFEST)?)
        .context("package.json cannot be read")?;
    let named = |it: &&Componentizer| manifest.dev_dependencies.contains_key(it.package);
    COMPONENTIZERS.iter().find(named).with_context(|| {
        let packages = COMPONENTIZERS.map(|it| it.package).join(" nor ");
        format!("package.json names neither {packages} among its devDependencies")
    })
}

/// The part of `package.json` that is needed.
#[derive(Deserialize)]
struct NpmManifest {
    #[serde(default, rename = "devDependencies")]
    dev_dependencies: HashMap<String, String>,
}

// === Python ===

fn python(project: &Project) -> anyhow::Result<PathBuf> {
    let dir = &project.dir;
    if !dir.join(".venv/bin/componentize-py").exists() {
        run(tool(dir, "python3").args(["-m", "venv", ".venv"]), GET_PYTHON)?;
        let install =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
        run(tool(dir, ".venv/bin/python").args(install), GET_PYTHON)
            .context("the tools that requirements.txt names cannot be installed")?;
    }
    let out = project.wasm().with_extension("raw.wasm");
    let name = out.file_name().context("the component has no name")?.to_owned();
    std::fs::create_dir_all(dir.join("target")).context("cannot make target/")?;
    // Python's runtime asks for sockets, which no gateway gives: with stubs it asks for nothing at all.
    run(
        tool(dir, ".venv/bin/componentize-py")
            .args(["--quiet", "--wit-path", "wit", "--world", project.manifest.kind.as_str()])
            .args(["componentize", "--stub-wasi", "--python-path", "src", "component", "--output"])
            .arg(Path::new("target").join(name)),
        GET_PYTHON,
    )?;
    Ok(out)
}

// === private helpers ===

/// A tool, run in the project. Without a slash it is one of the system's.
fn tool(dir: &Path, name: &str) -> Command {
    let program = if name.contains('/') {
        // A relative program would be looked for where this process is, not where the tool runs.
        dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).join(name)
    } else {
        PathBuf::from(name)
    };
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// What a tool says goes to standard error: the answer belongs to this command.
fn run(command: &mut Command, get: &str) -> anyhow::Result<()> {
    let status = command.stdout(io::stderr()).status().map_err(|error| missing(command, error, get))?;
    if !status.success() {
        bail!("{} failed: {status}", program(command));
    }
    Ok(())
}

fn output(command: &mut Command, get: &str) -> anyhow::Result<String> {
    let output = command.output().map_err(|error| missing(command, error, get))?;
    if !output.status.success() {
        bail!("{} failed: {}", program(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} did not answer in UTF-8", program(command)))
}

fn missing(command: &Command, error: io::Error, get: &str) -> anyhow::Error {
    let name = program(command);
    if error.kind() == ErrorKind::NotFound {
        anyhow::anyhow!("{name} is needed and not installed. {get}")
    } else {
        anyhow::Error::new(error).context(format!("cannot run {name}"))
    }
}

fn program(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or_else(|| OsStr::new("?"))
        .to_string_lossy()
        .into_owned()
}
