//! Embeds the developer's kit (templates of projects, the contract, the SDK) and the first-party components, so that the gateway is
//! one file. The components are what `cargo xtask guests` left in `target/components`; a gateway built without them embeds none and
//! runs the packages that it is given.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Overrides the folder: a release embeds packages that the release key signed.
const FOLDER: &str = "SALLYPORT_COMPONENTS";

/// What a project of a component is made of: the name in the generated code, and the folder that it stands for.
const KIT: [(&str, &str, &str); 3] = [
    ("TEMPLATES", "What projects are made of, by path.", "templates/component"),
    ("WIT", "The contract, by path.", "../wit"),
    ("SDK", "The sources of the SDK for Rust, by path.", "../guest-sdk/src"),
];
const LOCK: &str = "../Cargo.lock";
const LOCK_ABOUT: &str = "The versions that the SDK was tried with.";

fn main() -> io::Result<()> {
    let here = variable("CARGO_MANIFEST_DIR")?;
    fs::write(variable("OUT_DIR")?.join("kit.rs"), kit(&here)?)?;
    let folder = match env::var_os(FOLDER) {
        Some(given) => here.join(given),
        None => usual(&here)?,
    };
    println!("cargo::rerun-if-env-changed={FOLDER}");
    println!("cargo::rerun-if-changed={}", folder.display());
    let out = variable("OUT_DIR")?.join("first_party.rs");
    fs::write(out, generated(&folder)?)
}

/// The tables of the developer's kit.
fn kit(here: &Path) -> io::Result<String> {
    let tables = KIT.iter().map(|(name, about, folder)| {
        let folder = here.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let rows =
            files(&folder)?.iter().map(|file| kit_row(&folder, file)).collect::<io::Result<String>>()?;
        Ok(format!("/// {about}\npub const {name}: &[(&str, &str)] = &[\n{rows}];\n"))
    });
    let tables = tables.collect::<io::Result<String>>()?;
    let lock = here.join(LOCK);
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = absolute(&lock)?;
    Ok(format!("{tables}/// {LOCK_ABOUT}\npub const LOCK: &str = include_str!({lock:?});\n"))
}

fn kit_row(folder: &Path, file: &Path) -> io::Result<String> {
    let path = file.strip_prefix(folder).map_err(io::Error::other)?;
    let path = path.to_str().ok_or_else(|| io::Error::other(format!("{} is not UTF-8", file.display())))?;
    Ok(format!("    ({path:?}, include_str!({:?})),\n", absolute(file)?))
}

/// Every file below a folder, in order.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Made if it is missing: cargo takes a path that is not there for one that always changes, and would build the gateway
/// anew each time.
fn usual(here: &Path) -> io::Result<PathBuf> {
    let folder = here.join("../target/components");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The table of what is embedded.
fn generated(folder: &Path) -> io::Result<String> {
    let components = packages(folder)?.iter().map(|file| row(file)).collect::<io::Result<String>>()?;
    let publisher = folder.join("publisher.json");
    let publisher = if publisher.is_file() {
        format!("Some(include_str!({:?}))", absolute(&publisher)?)
    } else {
        "None".to_owned()
    };
    Ok(format!(
        "/// The packages by name: what `cargo xtask guests` built and signed.\n\
         pub const COMPONENTS: &[(&str, &[u8])] = &[\n{components}];\n\
         /// Their publisher: JSON.\n\
         pub const PUBLISHER: Option<&str> = {publisher};\n"
    ))
}

fn row(file: &Path) -> io::Result<String> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    // `sallyport.rate-limit` holds `sallyport/rate-limit`.
    let name = stem.replacen('.', "/", 1);
    Ok(format!("    ({name:?}, include_bytes!({:?})),\n", absolute(file)?))
}

fn packages(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read {}: {error}", folder.display()))
    })?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sallyport"));
    // The same packages give the same binary, in whatever order the file system lists them.
    files.sort();
    Ok(files)
}

fn absolute(path: &Path) -> io::Result<String> {
    let path = fs::canonicalize(path)?;
    path.to_str()
        .map(ToOwned::to_owned)
        .ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))
}

fn variable(name: &str) -> io::Result<PathBuf> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("cargo did not set {name}")))
}
