//! `sallyport init`: a home with a configuration that works, keys of its own and an empty database.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Ending, open};
use crate::auth;
use crate::auth::keys::Keys;
use crate::clock::{Clock as _, SystemClock, SystemEntropy};
use crate::config::{Config, SECRETS_FILE, template};
use crate::tls::SelfSigned;

const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const SHARED_FILE: u32 = 0o644;

/// Where the certificate and its key are, below the home.
const TLS_DIR: &str = "tls";
const CERTIFICATE: &str = "tls/certificate.pem";
const CERTIFICATE_KEY: &str = "tls/key.pem";
/// What stands in the configuration where there is a certificate.
const TLS_BLOCK: &str = "# Signed by itself, for a lab: clients have to be told of it. docs/guide/tls.md says how.\n\
                         tls:\n  certificate: tls/certificate.pem\n  key: tls/key.pem\n\n";

/// What `init` is asked.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// With a certificate, so that the gateway speaks TLS
    #[arg(long, value_name = "HOW")]
    tls: Option<HowTls>,
    /// A name or address by which clients reach the gateway, besides localhost and the name of this machine; may be given again
    #[arg(long = "host", value_name = "NAME", requires = "tls")]
    hosts: Vec<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum HowTls {
    /// It signs itself, which is enough for a lab
    SelfSigned,
}

/// A certificate that was made.
struct LabCertificate {
    names: Vec<String>,
    pair: SelfSigned,
}

/// Makes the home of `file`. What is there already stays as it is; a configuration that is there is not touched, and said.
pub(super) async fn run(
    asked: &Init,
    file: &Path,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
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
    let made = match asked.tls {
        None => None,
        Some(HowTls::SelfSigned) => Some(self_signed(home, &asked.hosts)?),
    };
    let text = if made.is_some() {
        template::CONFIG.replacen("\ngateway:\n", &format!("\n{TLS_BLOCK}gateway:\n"), 1)
    } else {
        template::CONFIG.to_owned()
    };
    // Last: a home with a configuration is a whole one.
    write_new(file, &text, SHARED_FILE)?;
    let config = Config::load(file)?;
    let db = open(&config).await?;
    auth::bootstrap(&db, &SystemClock::default(), &SystemEntropy)
        .await
        .context("cannot make the first user")?;
    db.close().await;

    if json {
        let mut answer = json!({ "home": config.home, "config": file, "tenant": auth::DEFAULT_TENANT, "user": auth::ADMIN });
        if let (Some(LabCertificate { names, pair }), Some(fields)) = (&made, answer.as_object_mut()) {
            let tls = json!({
                "certificate": config.home.join(CERTIFICATE),
                "names": names,
                "sha256": pair.fingerprint,
                "valid_until": pair.valid_until.date().to_string(),
            });
            fields.insert("tls".to_owned(), tls);
        }
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
        writeln!(
            out,
            "  sallyport {at} user set-password {} --generate          # a password for the browser, shown once",
            auth::ADMIN
        )?;
        writeln!(out, "  sallyport {at} serve                                       # the gateway")?;
        if let Some(made) = &made {
            made.tell(&config.home.join(CERTIFICATE), out)?;
        }
    }
    Ok(Ending::Done)
}

// === impl LabCertificate ===

impl LabCertificate {
    fn tell(&self, certificate: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
        let Self { names, pair } = self;
        let shown = certificate.display();
        writeln!(out, "It speaks TLS with a certificate that signed itself, for {}.", names.join(", "))?;
        writeln!(out, "  valid until  {}", pair.valid_until.date())?;
        writeln!(out, "  SHA-256      {}", pair.fingerprint)?;
        writeln!(out, "  in the configuration:")?;
        for line in TLS_BLOCK.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            writeln!(out, "    {line}")?;
        }
        writeln!(out, "  for Claude Code:  NODE_EXTRA_CA_CERTS={shown}")?;
        writeln!(out, "  for curl:         --cacert {shown}")?;
        Ok(())
    }
}

/// Makes a certificate for this machine and for `hosts`, and writes it.
fn self_signed(home: &Path, hosts: &[String]) -> anyhow::Result<LabCertificate> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for name in hostname().iter().chain(hosts) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let now = SystemClock::default().now();
    let pair = SelfSigned::make(&names, now).context("cannot make a certificate for these names")?;
    make_directory(&home.join(TLS_DIR))?;
    write_new(&home.join(CERTIFICATE_KEY), &pair.key, PRIVATE_FILE)?;
    write_new(&home.join(CERTIFICATE), &pair.certificate, SHARED_FILE)?;
    Ok(LabCertificate { names, pair })
}

/// The name of this machine, where the system tells it in a file and it is one that a certificate may hold.
fn hostname() -> Option<String> {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok())?;
    let name = text.trim().to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    (!name.is_empty() && name.len() < 254 && name.chars().all(plain)).then_some(name)
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
