//! Embeds the first-party components, so that the gateway is one file. They are what `cargo xtask guests` left in
//! `target/components`; a gateway built without them embeds none and runs the packages it is given.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Overrides the folder: a release embeds packages that the release key signed.
const FOLDER: &str = "SALLYPORT_COMPONENTS";

fn main() -> io::Result<()> {
    let here = variable("CARGO_MANIFEST_DIR")?;
    let folder = match env::var_os(FOLDER) {
        Some(given) => here.join(given),
        None => usual(&here)?,
    };
    println!("cargo::rerun-if-env-changed={FOLDER}");
    println!("cargo::rerun-if-changed={}", folder.display());
    let out = variable("OUT_DIR")?.join("first_party.rs");
    fs::write(out, generated(&folder)?)
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
