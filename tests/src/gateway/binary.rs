//! The binary under test, built once, and a home to copy: keys, database and compiled components cost seconds to make, and
//! each story wants its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::SystemTime;

use tempfile::TempDir;

use super::config::Config;
use super::{cli, end, parse_json, serve};
use crate::process;

/// Built on first use.
static BINARY: LazyLock<PathBuf> = LazyLock::new(build);
/// Made on first use, below the build directory; the next run removes it.
static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(template);

/// The `sallyport` binary of this build. `SALLYPORT_BIN` names another one.
pub fn binary() -> &'static Path {
    &BINARY
}

/// Where cargo put this executable's siblings: `target/<profile>`.
pub fn profile_dir() -> PathBuf {
    let own = std::env::current_exe().expect("an executable has a path");
    let dir = own.parent().expect("an executable is in a directory");
    if dir.file_name() == Some(OsStr::new("deps")) {
        dir.parent().unwrap_or(dir).to_owned()
    } else {
        dir.to_owned()
    }
}

/// A home of one's own.
pub(crate) fn home() -> TempDir {
    // The template makes the directory that all homes lie in.
    let template: &Path = &TEMPLATE;
    let copy = tempfile::Builder::new()
        .prefix("home-")
        .tempdir_in(scratch())
        .expect("the build directory can be written");
    copy_dir(template, copy.path());
    copy
}

fn scratch() -> PathBuf {
    profile_dir().join("stories").join(std::process::id().to_string())
}

fn build() -> PathBuf {
    if let Some(path) = std::env::var_os("SALLYPORT_BIN") {
        return path.into();
    }
    let profile = profile_dir();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
    let components = profile.parent().expect("a profile is in the target directory").join("components");
    if !is_fresh(root, &components.join("publisher.json")) {
        cargo(root, &["run", "--quiet", "--package", "xtask", "--", "guests"]);
    }
    // The same packages as the tests themselves, so that cargo unifies features alike and builds nothing twice.
    let mut arguments = vec![
        "build",
        "--quiet",
        "--package",
        "sallyport",
        "--package",
        "sallyport-tests",
        "--bin",
        "sallyport",
    ];
    if profile.file_name() == Some(OsStr::new("release")) {
        arguments.push("--release");
    }
    cargo(root, &arguments);
    profile.join("sallyport")
}

fn cargo(root: &Path, arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(arguments).current_dir(root).status().expect("cargo runs");
    assert!(status.success(), "cargo {arguments:?} failed");
}

/// Whether nothing that guests are made of is younger than the packages.
fn is_fresh(root: &Path, made: &Path) -> bool {
    let Ok(made) = made.metadata().and_then(|data| data.modified()) else { return false };
    [
        "wit",
        "guest-sdk",
        "guest-codec",
        "guest-chat",
        "guest-gemini",
        "guest-responses",
        "guest-policies",
        "guest-providers",
    ]
    .iter()
    .all(|dir| youngest(&root.join(dir)) <= made)
}

fn youngest(path: &Path) -> SystemTime {
    let own = path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let Ok(entries) = std::fs::read_dir(path) else { return own };
    entries
        .filter_map(Result::ok)
        .map(|entry| youngest(&entry.path()))
        .fold(SystemTime::UNIX_EPOCH, SystemTime::max)
}

/// Initialises a home, mints a token, and serves once, so that the component cache is warm.
fn template() -> PathBuf {
    remove_leftovers();
    let home = scratch().join("template");
    std::fs::create_dir_all(&home).expect("the build directory can be written");
    run(&home, &["init"]);
    let minted = run(&home, &["gateway", "pat", "create", "--user", "admin", "--name", "stories", "--json"]);
    let token = parse_json(&minted)["token"].as_str().expect("a minted token is shown once").to_owned();
    std::fs::write(home.join("admin.token"), token).expect("the home can be written");
    Config::usual("http://127.0.0.1:9", &home).write(&home);
    let mut child = serve(&home);
    let deadline = std::time::Instant::now() + super::START;
    while !home.join("address").exists() {
        assert!(
            std::time::Instant::now() < deadline && matches!(child.try_wait(), Ok(None)),
            "the template does not start: {}",
            log(&home)
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    process::signal(child.id(), "TERM").expect("the process runs");
    end(&mut child, std::time::Duration::from_secs(20));
    std::fs::remove_file(home.join("log")).expect("the template can be cleaned");
    // A spool knows its database; a story may choose another one, and begins with a spool of its own.
    std::fs::remove_dir_all(home.join("spool")).expect("the template can be cleaned");
    home
}

fn run(home: &Path, arguments: &[&str]) -> String {
    let output = cli(home, arguments);
    assert!(output.status.success(), "sallyport {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn log(home: &Path) -> String {
    std::fs::read_to_string(home.join("log")).unwrap_or_default()
}

/// Removes the homes of runs that are over.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(profile_dir().join("stories")) else { return };
    for entry in entries.filter_map(Result::ok) {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the template can be read") {
        let entry = entry.expect("the template can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("an entry has a type").is_dir() {
            std::fs::create_dir_all(&target).expect("the copy can be written");
            let mode = entry.metadata().expect("a directory has a mode").permissions();
            copy_dir(&entry.path(), &target);
            std::fs::set_permissions(&target, mode).expect("a mode can be set");
        } else {
            std::fs::copy(entry.path(), &target).expect("the copy can be written");
        }
    }
}
