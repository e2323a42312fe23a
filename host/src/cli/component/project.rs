//! A project of a component: a folder with `component.toml`, a source, and samples under `tests/`. And what a gateway would
//! say about its component, said before anything is signed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sallyport_protocol::package::{Kind, MAX_COMPONENT, MAX_PACKAGE, Manifest, Package};

use crate::component::sample::Samples;
use crate::component::{Limits, Structure, check_world, inspect};

/// What a publisher writes down about a component.
pub(super) const MANIFEST: &str = "component.toml";
/// Where a project keeps its samples.
pub(super) const SAMPLES: &str = "tests";
/// How the name of a package ends.
pub(super) const PACKAGE: &str = "sallyport";

/// The folder of a component.
pub(super) struct Project {
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
}

/// Something that holds a component.
pub(super) enum Artifact {
    /// A signed package; nobody asked yet whether by the right key.
    Package(Box<Package>),
    /// The component itself.
    Wasm(Vec<u8>),
}

// === impl Project ===

impl Project {
    /// Opens the project in `dir`.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(MANIFEST);
        match manifest(&path) {
            Ok(manifest) => Ok(Self { dir: dir.to_owned(), manifest }),
            Err(error) if is_missing(&error) => {
                bail!("no {MANIFEST} in {}: `sallyport component new` makes a project", dir.display())
            }
            Err(error) => Err(error),
        }
    }

    /// The built component, without a signature.
    pub(super) fn wasm(&self) -> PathBuf {
        self.dir.join("target").join(self.manifest.name.name()).with_extension("wasm")
    }

    /// The signed package.
    pub(super) fn package(&self) -> PathBuf {
        package_beside(&self.wasm(), &self.manifest)
    }

    /// The bytes that were built.
    pub(super) fn built(&self) -> anyhow::Result<Vec<u8>> {
        match read(&self.wasm(), MAX_COMPONENT) {
            Err(error) if is_missing(&error) => {
                bail!("{} is not built yet: run `sallyport component build` first", self.manifest.name)
            }
            other => other,
        }
    }

    /// The samples under `tests/`.
    pub(super) fn samples(&self) -> anyhow::Result<Samples> {
        samples(&self.dir.join(SAMPLES))
    }
}

// === impl Artifact ===

impl Artifact {
    /// Reads a package or a component, whichever the file holds.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let bytes = read(path, MAX_PACKAGE)?;
        if bytes.starts_with(b"\0asm") {
            return Ok(Self::Wasm(bytes));
        }
        let package = Package::parse(bytes)
            .with_context(|| format!("{} is neither a package nor a component", path.display()))?;
        Ok(Self::Package(Box::new(package)))
    }

    /// The component's bytes.
    pub(super) fn component(&self) -> &[u8] {
        match self {
            Self::Package(package) => package.component(),
            Self::Wasm(bytes) => bytes,
        }
    }
}

/// Reads `component.toml`, or the copy of it that lies beside a built component.
pub(super) fn manifest(path: &Path) -> anyhow::Result<Manifest> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Manifest::parse(&text).with_context(|| format!("{} has a mistake", path.display()))
}

/// The samples of a folder: every `.json` file is one. No folder, no samples.
pub(super) fn samples(dir: &Path) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(samples),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.extension().is_some_and(|kind| kind == "json") {
            let json = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            samples.add(name, &json).with_context(|| path.display().to_string())?;
        }
    }
    Ok(samples)
}

/// What every gateway refuses is refused here too: a structure beyond the limits, imports that the kind is not granted,
/// samples that are not of their form.
pub(super) fn admissible(kind: Kind, manifest: &Manifest, component: &[u8]) -> anyhow::Result<Structure> {
    let limits = Limits::declared(kind, &manifest.limits);
    let structure = inspect(component, limits.memory).context("no gateway would take this component")?;
    check_world(kind, &structure).context("no gateway would take this component")?;
    Samples::carried(component).and_then(|samples| samples.read(kind)).context("its samples are refused")?;
    Ok(structure)
}

/// `acme.no-shell.sallyport` beside a built component.
pub(super) fn package_beside(wasm: &Path, manifest: &Manifest) -> PathBuf {
    let name = manifest.name.as_str().replacen('/', ".", 1);
    wasm.with_file_name(format!("{name}.{PACKAGE}"))
}

/// A file of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let shown = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(shown)?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).with_context(shown)?;
    if bytes.len() > limit {
        bail!("{} has more than {limit} bytes", path.display());
    }
    Ok(bytes)
}

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let write = || {
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).with_context(|| format!("cannot write {}", path.display()))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
