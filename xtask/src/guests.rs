//! Builds the first-party guests, checks that each asks for no more than its world, and signs them with a key that lives
//! on this machine alone. Packages that did not change are not rewritten, so that the gateway is not built anew.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sallyport_protocol::package::{CONFIGURABLE, CONTRACT, Kind, Manifest, Package, World};
use sallyport_protocol::signature::{self, SigningKey};
use serde::Deserialize;
use wasmparser::{Parser, Payload};

/// What to build, and where to put it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Where the packages go; the gateway's build script looks into `target/components`.
    pub(crate) out: PathBuf,
    /// The publisher's key; made, if it is not there.
    pub(crate) key: PathBuf,
}

/// What a build did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Every component: its package's file and the size of the component in bytes.
    pub(crate) components: Vec<(PathBuf, usize)>,
    /// How many files had to be written, `publisher.json` included.
    pub(crate) written: usize,
}

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "guest";
const NAMESPACE: &str = "sallyport";

/// The part of `cargo metadata` that is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    packages: Vec<CargoPackage>,
}

#[derive(Debug, Deserialize)]
struct CargoPackage {
    name: String,
    manifest_path: PathBuf,
}

/// Builds, checks, packs and signs every guest of the workspace.
pub(crate) fn build(options: &Options) -> Result<Report> {
    install_target()?;
    let metadata = metadata(&options.root)?;
    let guests: Vec<(&str, Manifest)> = metadata
        .packages
        .iter()
        .map(|package| (package.name.as_str(), package.manifest_path.with_file_name("component.toml")))
        .filter(|(_, manifest)| manifest.exists())
        .map(|(name, manifest)| Ok((name, read_manifest(&manifest)?)))
        .collect::<Result<_>>()?;
    ensure!(!guests.is_empty(), "no guest in {}", options.root.display());
    compile(&options.root, guests.iter().map(|(name, _)| *name))?;

    let key = load_or_make_key(&options.key)?;
    fs::create_dir_all(&options.out).with_context(|| format!("cannot make {}", options.out.display()))?;
    let mut report = Report::default();
    for (name, manifest) in guests {
        let wasm = metadata
            .target_directory
            .join(TARGET)
            .join(PROFILE)
            .join(name.replace('-', "_"))
            .with_extension("wasm");
        let component = fs::read(&wasm).with_context(|| format!("cannot read {}", wasm.display()))?;
        let file = options.out.join(format!("{}.sallyport", manifest.name.as_str().replace('/', ".")));
        let package = pack(&manifest, &key, &component).with_context(|| format!("cannot pack {name}"))?;
        report.written += usize::from(write_if_new(&file, &package)?);
        report.components.push((file, component.len()));
    }
    report.written += usize::from(write_if_new(&options.out.join("publisher.json"), &publisher(&key)?)?);
    remove_others(&options.out, &report)?;
    Ok(report)
}

// === impl Options ===

impl Options {
    /// The usual places below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            out: root.join("target/components"),
            key: root.join("target/keys/development.key"),
        }
    }
}

/// The toolchain file names the target, but a toolchain that was there before, or one without rustup, may lack it.
fn install_target() -> Result<()> {
    let libraries = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    run(Command::new("rustup").args(["target", "add", TARGET]))
        .with_context(|| format!("the Rust target {TARGET} is not installed and cannot be added"))
}

fn metadata(root: &Path) -> Result<Metadata> {
    let arguments = ["metadata", "--format-version=1", "--no-deps"];
    let json = output(Command::new("cargo").args(arguments).current_dir(root))?;
    serde_json::from_str(&json).context("cargo metadata cannot be read")
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Manifest::parse(&text).with_context(|| format!("{} has a mistake", path.display()))
}

fn compile<'a>(root: &Path, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--quiet", "--profile", PROFILE, "--target", TARGET]);
    for name in names {
        cargo.args(["--package", name]);
    }
    // Where somebody keeps their sources and crates is none of a component's business, and would change its digest.
    let mut flags = vec![format!("--remap-path-prefix={}=sallyport", root.display())];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    run(&mut cargo)
}

/// The signed package; the same manifest, key and component give the same bytes.
fn pack(manifest: &Manifest, key: &SigningKey, component: &[u8]) -> Result<Vec<u8>> {
    check_interfaces(manifest.kind, &manifest.world, component)?;
    Ok(Package::build(manifest.statement(component), key, component)?)
}

/// A component that imports more than its world lists is refused by every gateway; one that exports less does nothing.
fn check_interfaces(kind: Kind, world: &World, component: &[u8]) -> Result<()> {
    let version = &world.version;
    let named = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| format!("{CONTRACT}{name}@{version}")).collect()
    };
    let allowed = named(&[kind.imports(), kind.granted_imports()].concat());
    let (imports, exports) = interfaces(component)?;
    if let Some(foreign) = imports.difference(&allowed).next() {
        bail!("imports {foreign}, which the world {world} does not list");
    }
    let expected = named(&[CONFIGURABLE, kind.api()]);
    ensure!(exports == expected, "exports {exports:?} instead of {expected:?}");
    Ok(())
}

/// What a component imports and exports, by name.
fn interfaces(component: &[u8]) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    ensure!(Parser::is_component(component), "not a component: was it linked by wasm-component-ld?");
    let (mut imports, mut exports, mut depth) = (BTreeSet::new(), BTreeSet::new(), 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.insert(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.insert(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn load_or_make_key(path: &Path) -> Result<SigningKey> {
    let written = match fs::read_to_string(path) {
        Ok(written) => written,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_key(path)?,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    signature::signing_key(&written).with_context(|| format!("{} holds no key", path.display()))
}

fn make_key(path: &Path) -> Result<String> {
    let folder = path.parent().context("the key's path has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gives no random bytes")?;
    let written = signature::signing_key_text(&SigningKey::from_bytes(&seed)).to_string();
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(written.as_bytes())?;
    Ok(written)
}

fn publisher(key: &SigningKey) -> Result<Vec<u8>> {
    let json = serde_json::json!({
        "key": signature::public_key_text(&key.verifying_key()),
        "namespace": NAMESPACE,
        "kinds": Kind::ALL,
        "development": true,
    });
    Ok(serde_json::to_vec_pretty(&json)?)
}

/// Writes a file whose content differs, whole or not at all; whether it did.
fn write_if_new(path: &Path, content: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let folder = path.parent().context("the file has no folder")?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(content)?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// A package whose guest is gone would be embedded for ever.
fn remove_others(out: &Path, report: &Report) -> Result<()> {
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let package = path.extension().is_some_and(|extension| extension == "sallyport");
        if package && !report.components.iter().any(|(file, _)| *file == path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/development.key");
        let key = load_or_make_key(&path).unwrap();
        assert_eq!(load_or_make_key(&path).unwrap().to_bytes(), key.to_bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("development.key");
        fs::write(&path, "short").unwrap();
        assert!(load_or_make_key(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
    }

    #[test]
    fn a_package_that_did_not_change_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sallyport");
        assert!(write_if_new(&path, b"one").unwrap());
        assert!(!write_if_new(&path, b"one").unwrap());
        assert!(write_if_new(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn the_package_of_a_removed_guest_goes_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, gone, other] =
            ["a.sallyport", "b.sallyport", "publisher.json"].map(|name| folder.path().join(name));
        for path in [&kept, &gone, &other] {
            fs::write(path, "x").unwrap();
        }
        remove_others(folder.path(), &Report { components: vec![(kept.clone(), 1)], written: 0 }).unwrap();
        assert!(kept.exists() && other.exists() && !gone.exists());
    }

    #[test]
    fn a_core_module_is_no_component() {
        let error = interfaces(b"\0asm\x01\0\0\0").unwrap_err();
        assert!(error.to_string().contains("not a component"));
    }

    #[test]
    fn a_component_without_its_interfaces_is_refused() {
        let empty = b"\0asm\x0d\0\x01\0";
        let error =
            check_interfaces(Kind::Scanner, &World::parse("scanner@0.1.0").unwrap(), empty).unwrap_err();
        assert!(error.to_string().contains("sallyport:gateway/scanner-api@0.1.0"), "{error}");
    }
}
