//! `install` and `uninstall`: what a machine needs to know of its gateway, and what device management is given. Run twice, it
//! changes nothing the second time.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::exit::{Exit, Failure, Said};
use crate::files;
use crate::gateway::Gateway;
use crate::login;
use crate::mdm::{self, Policy};
use crate::pin::{self, PublicKey};
use crate::places::{Os, Places};
use crate::schedule;
use crate::settings::Settings;

/// The file that `--apply` writes on Linux.
const ENVIRONMENT_FILE: &str = "50-claude-cowork.conf";
/// A list of MCP servers is not longer.
const MOST_SERVERS: u64 = 64 * 1024;

/// What `install` was asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// The gateway's address
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// The key of what the gateway has workstations install, in base64
    #[arg(long, value_name = "KEY", conflicts_with = "root_fingerprint")]
    pubkey: Option<String>,
    /// The fingerprint of that key; the gateway is asked for the key
    #[arg(long, value_name = "FINGERPRINT")]
    root_fingerprint: Option<String>,
    /// Also set up this machine where that is a file of the user: Linux
    #[arg(long)]
    apply: bool,
    /// Print what device management distributes
    #[arg(long, value_enum, value_name = "OS")]
    print_mdm: Option<Os>,
    /// Write templates that run `sync` now and then
    #[arg(long, value_enum, value_name = "OS")]
    emit_schedule_template: Option<Os>,
    /// Write files into this folder: all of a system's, of which --print-mdm shows the first
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

/// What the distributed keys hold.
#[derive(Debug, clap::Args)]
struct Keys {
    /// Where this program is on the machines [default: here, or the usual place of that system]
    #[arg(long, value_name = "PATH")]
    helper_path: Option<String>,
    /// For how many seconds the client keeps a credential
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(60..=86400))]
    ttl_sec: u32,
    /// How many seconds the client waits for this program
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout_sec: Option<u32>,
    /// A model that the client offers; may be given several times
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// A file with the MCP servers that everybody has: a list, as JSON
    #[arg(long, value_name = "FILE")]
    mcp_servers: Option<PathBuf>,
    /// Whether users may add MCP servers of their own
    #[arg(long, value_name = "BOOL")]
    local_mcp: Option<bool>,
    /// Whether extensions have to be signed
    #[arg(long, value_name = "BOOL")]
    signed_extensions: Option<bool>,
    /// Numbers and booleans as such, not as strings
    #[arg(long)]
    seed_types: bool,
    /// The user's part of the registry, not the machine's
    #[arg(long)]
    hkcu: bool,
}

/// What a gateway says of itself.
#[derive(Deserialize)]
pub(crate) struct Capabilities {
    /// The tiers that it takes.
    pub(crate) modes: Vec<String>,
}

// === impl Capabilities ===

impl Capabilities {
    /// Asks the gateway.
    pub(crate) fn ask(client: &Client, gateway: &Gateway) -> Result<Self, Failure> {
        let answer = client.get("/v1/auth/cowork/capabilities", None)?;
        if answer.status != 200 {
            return Err(answer.unexpected(gateway));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::network(format!("{gateway} does not say what it offers: it is no gateway")))
    }
}

/// Sets this machine up for a gateway.
pub(crate) fn install(settings: &mut Settings, asked: &Install) -> Result<Said, Failure> {
    let gateway =
        Gateway::parse(&asked.gateway).map_err(|what| Failure::usage(format!("--gateway {what}")))?;
    let given = asked.pubkey.as_deref().map(PublicKey::parse).transpose();
    let given = given.map_err(|what| Failure::usage(format!("--pubkey {what}")))?;
    // All that may be wrong with the command line is found before anything is written.
    let wanted = match asked.print_mdm {
        Some(os) => Some((os, asked.keys.policy(&gateway, os)?)),
        None => None,
    };

    let client = Client::new(&gateway, &settings.wire()?)?;
    let modes = Capabilities::ask(&client, &gateway)?.modes;
    let answered = PublicKey::ask(&client, &gateway)?;
    let pinned = pinned(settings)?.filter(|_| settings.known_gateway().is_none_or(|known| *known == gateway));
    let key = pin::choose(&gateway, pinned, answered, given, asked.root_fingerprint.as_deref())?;

    let mut lines = vec![format!("gateway      {gateway}, which takes {}", modes.join(", "))];
    let moved = settings.known_gateway().is_some_and(|known| *known != gateway);
    settings.file.set(None, "gateway_url", gateway.as_str())?;
    if let Some(key) = key {
        settings.file.set(Some("sync"), "pinned_pubkey", &key.text())?;
        lines.push(format!("key          {} is pinned", key.thumbprint()));
    } else {
        lines.push("key          none: the gateway has no key to pin".to_owned());
    }
    let changed = settings.file.save()?;
    let path = settings.file.path.display();
    lines.push(format!("config       {path}{}", if changed { "" } else { " (unchanged)" }));
    if moved {
        login::clear(settings)?;
    }
    settings.choose(Some(gateway.clone()), None);
    let (folder, scope) = make_plugins(&settings.places)?;
    lines.push(format!("org-plugins  {} ({scope} scope)", folder.display()));

    if asked.apply {
        if Os::here() == Os::Linux {
            let policy = asked.keys.policy(&gateway, Os::Linux)?;
            let path = environment_file(&settings.places);
            files::write_public(&path, mdm::environment(&policy).as_bytes())
                .map_err(|error| Failure::file("write", &path, &error))?;
            lines.push(format!("environment  {}, from the next sign-in on", path.display()));
        } else {
            lines.push("policy       is distributed by device management: --print-mdm".to_owned());
        }
    }
    let out = asked.out.as_deref().unwrap_or_else(|| Path::new("."));
    if let Some(os) = asked.emit_schedule_template {
        let helper = asked.keys.helper(os)?;
        for (name, bytes) in schedule::templates(os, &helper) {
            lines.push(format!("template     {}", write_file(out, name, &bytes)?.display()));
        }
    }
    match (wanted, &asked.out) {
        (None, _) => Ok(Said::done(lines.join("\n") + "\n")),
        (Some((os, policy)), Some(out)) => {
            for file in policy.artefacts(os) {
                lines.push(format!("policy       {}", write_file(out, file.name, &file.bytes)?.display()));
            }
            Ok(Said::done(lines.join("\n") + "\n"))
        }
        (Some((os, policy)), None) => {
            // A person reads text; a file that is redirected to is one that the system imports.
            let first = policy.artefacts(os).into_iter().next();
            let bytes = match first {
                Some(file) if !io::stdout().is_terminal() => file.bytes,
                _ => policy.text(os).into_bytes(),
            };
            Ok(Said { out: bytes, notes: lines, exit: Exit::Done })
        }
    }
}

/// Takes back what `install` and `login` left: with `purge` all of it, secrets included.
pub(crate) fn uninstall(settings: &Settings, purge: bool) -> Result<Said, Failure> {
    let mut removed = Vec::new();
    let mut remove = |path: &Path| -> Result<(), Failure> {
        match fs::remove_file(path) {
            Ok(()) => removed.push(path.display().to_string()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(Failure::file("remove", path, &error)),
        }
        Ok(())
    };
    if purge && settings.known_gateway().is_some() {
        // Secrets first: without the configuration nobody knows where they are.
        login::logout(settings)?;
    }
    if Os::here() == Os::Linux {
        remove(&environment_file(&settings.places))?;
    }
    if purge {
        remove(&settings.secret_file())?;
        remove(&settings.file.path)?;
    }
    settings.cache.purge().map_err(|error| Failure::file("remove", &settings.cache.path(), &error))?;
    // What others put there is theirs: only empty folders go.
    for folder in [&settings.places.org_plugins, &settings.places.user_plugins] {
        drop(fs::remove_dir(folder));
    }
    if purge && let Some(folder) = settings.file.path.parent() {
        drop(fs::remove_dir(folder));
    }
    let last =
        if purge { "nothing is left" } else { "configuration and secrets are kept: --purge removes them" };
    let lines: Vec<String> = removed.iter().map(|path| format!("removed {path}\n")).collect();
    let out = format!("{}{last}\n", lines.concat());
    Ok(Said::done(out))
}

/// The key that is pinned.
pub(crate) fn pinned(settings: &Settings) -> Result<Option<PublicKey>, Failure> {
    let text = settings.file.config.pinned_pubkey.as_deref();
    let key = text.map(PublicKey::parse).transpose();
    key.map_err(|what| Failure::usage(format!("{}: sync.pinned_pubkey {what}", settings.file.path.display())))
}

/// The file that `--apply` writes on Linux.
pub(crate) fn environment_file(places: &Places) -> PathBuf {
    places.user_config.join("environment.d").join(ENVIRONMENT_FILE)
}

// === impl Keys ===

impl Keys {
    fn policy(&self, gateway: &Gateway, os: Os) -> Result<Policy, Failure> {
        let mut policy = Policy::new(gateway, &self.helper(os)?);
        policy.ttl_sec = self.ttl_sec;
        policy.timeout_sec = self.timeout_sec;
        policy.models.clone_from(&self.models);
        policy.mcp_servers = self.mcp_servers.as_deref().map(servers).transpose()?;
        policy.local_mcp = self.local_mcp;
        policy.signed_extensions = self.signed_extensions;
        policy.seed_types = self.seed_types;
        policy.hkcu = self.hkcu;
        Ok(policy)
    }

    /// Where this program is on a machine of that system.
    fn helper(&self, os: Os) -> Result<String, Failure> {
        let path = match &self.helper_path {
            Some(path) => path.clone(),
            None if os == Os::here() => {
                let own = std::env::current_exe();
                let own = own.map_err(|error| {
                    Failure::new(Exit::Internal, format!("where this program is: {error}"))
                })?;
                own.display().to_string()
            }
            None => match os {
                Os::Windows => r"C:\Program Files\systemprompt\sp-cowork-auth.exe".to_owned(),
                Os::Macos | Os::Linux => "/usr/local/bin/sp-cowork-auth".to_owned(),
            },
        };
        if path.chars().any(char::is_control) || !is_absolute(os, &path) {
            return Err(Failure::usage("--helper-path is an absolute path of that system"));
        }
        Ok(path)
    }
}

// === private helpers ===

fn is_absolute(os: Os, path: &str) -> bool {
    match os {
        Os::Macos | Os::Linux => path.starts_with('/'),
        Os::Windows => {
            let mut chars = path.chars();
            let drive = chars.next().is_some_and(|letter| letter.is_ascii_alphabetic());
            (drive && chars.next() == Some(':') && chars.next() == Some('\\')) || path.starts_with(r"\\")
        }
    }
}

/// The MCP servers of a file: a list of objects with a name each.
fn servers(path: &Path) -> Result<Value, Failure> {
    let meta = fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?;
    let bytes = fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
    let bad =
        || Failure::usage(format!("{} is no list of MCP servers, each with a name, as JSON", path.display()));
    if meta.len() > MOST_SERVERS {
        return Err(bad());
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let named = |server: &Value| server.get("name").is_some_and(Value::is_string);
    let good = value.as_array().is_some_and(|servers| servers.iter().all(named));
    if good { Ok(value) } else { Err(bad()) }
}

/// Makes the folder of the organisation's plugins: the system's where that is permitted, else the user's. Says of which scope.
fn make_plugins(places: &Places) -> Result<(&Path, &'static str), Failure> {
    let make = |path: &Path| fs::create_dir_all(path);
    match make(&places.org_plugins) {
        Ok(()) if places.org_plugins == places.user_plugins => Ok((&places.org_plugins, "user")),
        Ok(()) => Ok((&places.org_plugins, "system")),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make(&places.user_plugins)
                .map_err(|error| Failure::file("make", &places.user_plugins, &error))?;
            Ok((&places.user_plugins, "user"))
        }
        Err(error) => Err(Failure::file("make", &places.org_plugins, &error)),
    }
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    files::write_public(&path, bytes).map_err(|error| Failure::file("write", &path, &error))?;
    Ok(path)
}
