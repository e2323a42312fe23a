//! The contract with guests and its past: each released version is kept in `wit/since/<version>/`, and what is in `wit/` now may
//! not break a guest that was built for one of them, as long as its version says that it does not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use semver::Version;
use wit_parser::{PackageId, Resolve, WorldId};

/// Where released versions are kept, below `wit/`.
const SINCE: &str = "since";

/// Compares the contract in `wit` with every released version that it promises to be compatible with. Which ones these are.
pub(crate) fn check(wit: &Path) -> Result<Vec<Version>> {
    let now = version_of(wit)?;
    let mut compared = Vec::new();
    for released in released(&wit.join(SINCE))? {
        let then = version_of(&released)?;
        let named = released.file_name().unwrap_or_default().to_string_lossy();
        ensure!(named == then.to_string(), "{} holds version {then}", released.display());
        ensure!(then <= now, "version {then} was released, and the contract says that it is {now}");
        if then == now {
            ensure!(sources(&released)? == sources(wit)?, "version {then} was released: it stays as it is");
        } else if track(&then) == track(&now) {
            compare(&released, wit)
                .with_context(|| format!("the contract breaks guests built for {then}"))?;
        } else {
            continue;
        }
        compared.push(then);
    }
    Ok(compared)
}

/// Every world of the older version is still there, and takes the same guests.
fn compare(then: &Path, now: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (old, new) = (read(&mut resolve, then)?, read(&mut resolve, now)?);
    for (name, old) in worlds(&resolve, old) {
        let Some(new) = worlds(&resolve, new).remove(&name) else { bail!("the world {name} is gone") };
        wit_component::semver_check(resolve.clone(), old, new)
            .with_context(|| format!("the world {name}"))?;
    }
    Ok(())
}

// === private helpers ===

/// The directories of released versions; none before the first release.
fn released(since: &Path) -> Result<Vec<PathBuf>> {
    if !since.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<PathBuf> = since.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    found.sort();
    Ok(found)
}

fn read(resolve: &mut Resolve, wit: &Path) -> Result<PackageId> {
    let (package, _) = resolve.push_dir(wit).with_context(|| format!("{} cannot be read", wit.display()))?;
    Ok(package)
}

fn worlds(resolve: &Resolve, package: PackageId) -> BTreeMap<String, WorldId> {
    let worlds = resolve.packages.get(package).map(|package| package.worlds.iter());
    worlds.into_iter().flatten().map(|(name, id)| (name.clone(), *id)).collect()
}

fn version_of(wit: &Path) -> Result<Version> {
    let mut resolve = Resolve::default();
    let package = read(&mut resolve, wit)?;
    let version = resolve.packages.get(package).and_then(|package| package.name.version.clone());
    version.with_context(|| format!("{} says no version", wit.display()))
}

/// What versions that promise to be compatible have in common.
fn track(version: &Version) -> (u64, u64, u64) {
    match (version.major, version.minor) {
        (0, 0) => (0, 0, version.patch),
        (0, minor) => (0, minor, 0),
        (major, _) => (major, 0, 0),
    }
}

fn sources(wit: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut sources = BTreeMap::new();
    for entry in wit.read_dir()? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|ending| ending == "wit") {
            sources.insert(entry.file_name(), std::fs::read(entry.path())?);
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A contract at `version` with one function of these parameters, and released versions of it.
    fn contract(version: &str, parameters: &str, since: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), version, parameters);
        for (version, parameters) in since {
            let released = dir.path().join(SINCE).join(version);
            std::fs::create_dir_all(&released).unwrap();
            write(&released, version, parameters);
        }
        dir
    }

    fn write(dir: &Path, version: &str, functions: &str) {
        let text = format!(
            "package test:contract@{version};\ninterface api {{ {functions} }}\nworld guest {{ import api; }}\n"
        );
        std::fs::write(dir.join("contract.wit"), text).unwrap();
    }

    fn refusal(dir: &tempfile::TempDir) -> String {
        format!("{:#}", check(dir.path()).unwrap_err())
    }

    const ASK: &str = "ask: func(text: string) -> bool;";

    #[test]
    fn before_the_first_release_there_is_nothing_to_break() {
        assert!(check(contract("0.1.0", ASK, &[]).path()).unwrap().is_empty());
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        check(&own).unwrap();
    }

    #[test]
    fn a_function_more_is_compatible_and_a_changed_one_is_not() {
        let more = format!("{ASK} tell: func(text: string);");
        let dir = contract("0.1.1", &more, &[("0.1.0", ASK)]);
        assert_eq!(check(dir.path()).unwrap(), [Version::new(0, 1, 0)]);

        let changed = "ask: func(text: string, more: bool) -> bool;";
        let refused = refusal(&contract("0.1.1", changed, &[("0.1.0", ASK)]));
        assert!(
            refused.starts_with("the contract breaks guests built for 0.1.0: the world guest"),
            "{refused}"
        );
        let refused = refusal(&contract("0.1.1", "other: func();", &[("0.1.0", ASK)]));
        assert!(refused.contains("0.1.0"), "{refused}");

        // Another minor version below 1.0 promises nothing.
        assert!(check(contract("0.2.0", changed, &[("0.1.0", ASK)]).path()).unwrap().is_empty());
    }

    #[test]
    fn a_released_version_stays_as_it_is() {
        assert_eq!(check(contract("0.1.0", ASK, &[("0.1.0", ASK)]).path()).unwrap(), [Version::new(0, 1, 0)]);
        let more = format!("{ASK} tell: func(text: string);");
        assert!(refusal(&contract("0.1.0", &more, &[("0.1.0", ASK)])).contains("stays as it is"));
        assert!(refusal(&contract("0.1.0", ASK, &[("0.1.1", ASK)])).contains("was released"));
    }
}
