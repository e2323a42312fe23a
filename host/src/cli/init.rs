//! `sallyport init`: a home with a configuration that works, keys of its own and an empty database.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Ending, open};
use crate::auth;
use crate::auth::keys::Keys;
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{Config, SECRETS_FILE, template};

const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const SHARED_FILE: u32 = 0o644;

/// Makes the home of `file`. What is there already stays as it is; a configuration that is there is not touched, and said.
pub(super) async fn run(file: &Path, json: bool, out: &mut (dyn Write + Send)) -> anyhow::Result<Ending> {
    if file.exists() {
        bail!("{} is there already: nothing was changed", file.display());
    }
    let home = file.parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    for directory in [home, &home.join("spool"), &home.join("cache")] {
        make_directory(directory)?;
    }
    let secrets = home.join(SECRETS_FILE);
    if !secrets.exists() {
        write_new(&secrets, template::SECRETS, PRIVATE_FILE)?;
    }
    let keys = home.join(crate::config::KEYS_DIR);
    if !keys.exists() {
        Keys::generate(&keys, &SystemEntropy).context("cannot make the keys")?;
    }
    // Last: a home with a configuration is a whole one.
    write_new(file, template::CONFIG, SHARED_FILE)?;
    let config = Config::load(file)?;
    let db = open(&config).await?;
    auth::bootstrap(&db, &SystemClock::default(), &SystemEntropy)
        .await
        .context("cannot make the first user")?;
    db.close().await;

    if json {
        let answer = json!({ "home": config.home, "config": file, "tenant": auth::DEFAULT_TENANT, "user": auth::ADMIN });
        writeln!(out, "{answer}")?;
    } else {
        let at = format!("--home {}", config.home.display());
        writeln!(
            out,
            "Made {}: tenant {}, user {}.",
            config.home.display(),
            auth::DEFAULT_TENANT,
            auth::ADMIN
        )?;
        writeln!(
            out,
            "  sallyport {at} gateway pat create --user {} --name laptop   # a token to call with",
            auth::ADMIN
        )?;
        writeln!(out, "  sallyport {at} serve                                       # the gateway")?;
    }
    Ok(Ending::Done)
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let shown = || format!("cannot write {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(shown)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| {
        // Half a file would be taken for a whole one next time.
        drop(fs::remove_file(path));
        shown()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secrets.yaml");
        fs::write(&path, "precious").unwrap();
        write_new(&path, "new", PRIVATE_FILE).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
