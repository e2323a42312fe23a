//! Configuration: `sallyport.yaml` and the secrets beside it, checked whole before anything runs. What is wrong is reported
//! all at once; what is checked holds no text left to parse.

mod egress;
mod endpoint;
mod node;
mod read;
mod report;
mod route;
mod secrets;
mod show;
pub(crate) mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::Limit;

pub use sallyport_protocol::cost::PriceList;
pub use sallyport_protocol::facts::FactTable;
pub use sallyport_protocol::hooks::Attachment;
pub use sallyport_protocol::package::Publisher;

pub use self::egress::{Egress, EgressAuth, is_plain_path, is_public};
pub use self::endpoint::{Endpoint, EndpointError, Scheme};
pub use self::report::{Problem, Report};
pub use self::route::{Gateway, Model, Patience, Pattern, PatternError, Predicate, Route};
pub use self::secrets::{ExposeSecret, SecretString, Secrets};
pub(crate) use self::show::masked_url;
pub use crate::audit::{AuditSettings, Durability, Sink};
pub use crate::auth::AuthSettings;
pub use crate::evidence::{EvidenceSettings, Recording};

/// Longest `timeout_ms` of a hook, in milliseconds: the host lets no guest run longer.
pub const LONGEST_TIMEOUT: u64 = 10_000;
/// Name of the configuration file in a home directory.
pub const FILE: &str = "sallyport.yaml";
/// Name of the secrets file, unless `secrets_file` says otherwise.
pub const SECRETS_FILE: &str = "secrets.yaml";
/// Name of the directory of the gateway's own keys.
pub const KEYS_DIR: &str = "keys";
/// Tags of the providers that ship with the gateway.
pub const SHIPPED_PROVIDERS: [&str; 3] = ["anthropic", "echo", "openai"];
/// Names of the components that ship with the gateway. A provider in the bundle is configured there.
pub const SHIPPED_COMPONENTS: [&str; 8] = [
    "sallyport/anthropic",
    "sallyport/block-tool",
    "sallyport/echo",
    "sallyport/event-rules",
    "sallyport/openai",
    "sallyport/rate-limit",
    "sallyport/scope",
    "sallyport/secret-scan",
];

/// Names of the predicates that ship with the gateway.
pub const SHIPPED_PREDICATES: [&str; 1] = ["sallyport/region"];

/// A checked configuration. `Debug` shows where it comes from and no more.
#[derive(Clone)]
pub struct Config {
    /// How clients reach the gateway.
    pub server: Server,
    /// The directory that holds everything the gateway keeps on disk.
    pub home: PathBuf,
    /// `sqlite:<path>` or `postgres://...`: may hold a password, and is never shown.
    pub database_url: String,
    /// Which provider answers for which model.
    pub gateway: Gateway,
    /// What decides on calls, in order.
    pub bundle: Vec<BundleEntry>,
    /// Which ways out hooks may be granted, by name.
    pub egress: BTreeMap<String, Egress>,
    /// Which components may run.
    pub components: ComponentSettings,
    /// How the audit trail is kept.
    pub audit: AuditSettings,
    /// How tokens are issued.
    pub auth: AuthSettings,
    /// What is recorded of decisions.
    pub evidence: EvidenceSettings,
    /// What calls cost.
    pub prices: PriceList,
    /// What is known of models.
    pub facts: FactTable,
    /// How a denial is told to the client.
    pub deny_status: DenyStatus,
    /// How long a session may be silent before its end is told to hooks: `hooks.session_idle_seconds`.
    pub session_idle: Duration,
    /// Upstream credentials.
    pub secrets: Secrets,
    /// What works, but is probably not meant.
    pub warnings: Vec<Problem>,
}

/// The `server:` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The URL by which clients reach the gateway, without a slash at the end.
    pub public_url: String,
    /// Longest request body, in bytes.
    pub body_limit: usize,
    /// How long a client may take for the head of a request.
    pub head_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address that is not this machine.
    pub max_connections_per_address: usize,
    /// How many bytes all bodies of requests may hold together.
    pub body_memory: usize,
}

/// One entry of `bundle:`.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleEntry {
    /// `namespace/name` of a component that ships with the gateway or is listed in `components.packages`, or the path of a
    /// package.
    pub component: String,
    /// What its verdict does.
    pub mode: Mode,
    /// Whether it may change the request, where its package asks for that.
    pub rewrite: bool,
    /// What the component is configured with.
    pub config: serde_json::Value,
    /// For hooks: `matcher`, `on_fault`, `timeout_ms`.
    pub attachment: Attachment,
}

/// What the verdict of a bundle entry does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It counts.
    #[default]
    Enforce,
    /// It is recorded.
    Shadow,
    /// The component does not run.
    Off,
}

/// The `components:` block.
#[derive(Debug, Clone, Default)]
pub struct ComponentSettings {
    /// Whose components may run, besides the ones that ship with the gateway.
    pub publishers: Vec<Publisher>,
    /// Packages to load, absolute paths.
    pub packages: Vec<PathBuf>,
    /// How many guests may be alive at once.
    pub pool: u32,
    /// Which components run in worker processes.
    pub isolation: Isolation,
    /// What a tenant may take of what all share.
    pub quota: Quota,
}

/// What each tenant may store, upload and have compiled: `components.quota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of packages.
    pub bytes: u64,
    /// Versions of components, all together.
    pub versions: u32,
    /// Uploads in an hour, those that are refused included.
    pub uploads_per_hour: u32,
    /// Seconds of compiling in an hour.
    pub compile_seconds_per_hour: u32,
}

/// Which components run in worker processes: `components.isolation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Those of tenants, once there is more than one tenant.
    #[default]
    Tenants,
    /// All but providers.
    Process,
    /// None.
    Shared,
}

/// How a denial is told to the client: `deny.status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DenyStatus {
    /// 451: clients show it once and do not try again.
    #[default]
    S451,
    /// 403.
    S403,
    /// 400.
    S400,
    /// A normal answer of one block that names the policy.
    Answer,
}

/// The limits that the configuration has defaults for, or keeps itself.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "config";
    let head = Duration::from_millis(read::DEFAULT_HEAD_TIMEOUT_MS);
    let quota = Quota::default();
    let bytes = usize::try_from(quota.bytes).unwrap_or(usize::MAX);
    let compiling = Duration::from_secs(quota.compile_seconds_per_hour.into());
    vec![
        Limit::bytes(
            PART,
            "body of a request",
            read::DEFAULT_BODY_LIMIT,
            "413 `request_too_large`, not retried",
        )
        .set_by("server.body_limit_bytes"),
        Limit::time(PART, "until the head of a request is there", head, "the connection is closed")
            .set_by("server.head_timeout_ms"),
        Limit::count(PART, "guests at once", read::DEFAULT_POOL.into(), "529 `overloaded`")
            .set_by("components.pool"),
        Limit::bytes(PART, "packages of a tenant", bytes, "413 `quota_bytes`")
            .set_by("components.quota.bytes"),
        Limit::count(PART, "versions of a tenant", quota.versions.into(), "409 `quota_versions`")
            .set_by("components.quota.versions"),
        Limit::count(
            PART,
            "uploads of a tenant in an hour",
            quota.uploads_per_hour.into(),
            "429 `quota_uploads`",
        )
        .set_by("components.quota.uploads_per_hour"),
        Limit::time(PART, "compiling for a tenant in an hour", compiling, "429 `compile_time_spent`")
            .set_by("components.quota.compile_seconds_per_hour"),
    ]
}

// === impl Quota ===

impl Default for Quota {
    fn default() -> Self {
        Self { bytes: 1 << 29, versions: 200, uploads_per_hour: 120, compile_seconds_per_hour: 600 }
    }
}

// === impl Config ===

impl Config {
    /// Reads the file at `path` and the secrets beside it; its directory is the home. May be called again at any time: it
    /// changes nothing. Errors: everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Report::single(
                path.display().to_string(),
                format!("cannot be read: {error} (sallyport init makes one)"),
            )
        })?;
        let home = std::path::absolute(path)
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf))
            .unwrap_or_else(|| PathBuf::from("."));
        read::config(&text, &home, None)
    }

    /// The same from memory: no secrets file is read, `secrets` are the ones there are.
    pub fn parse(text: &str, home: &Path, secrets: Secrets) -> Result<Self, Report> {
        read::config(text, home, Some(secrets))
    }

    /// The directory of the gateway's own keys.
    pub fn keys_dir(&self) -> PathBuf {
        self.home.join(KEYS_DIR)
    }

    /// The directory of compiled components.
    pub fn cache_dir(&self) -> PathBuf {
        self.home.join("cache")
    }

    /// Whether only this machine can reach the gateway.
    pub fn is_local(&self) -> bool {
        self.server.listen.ip().is_loopback()
    }

    /// The configuration in force, in the shape of the file, defaults filled in and secrets masked.
    pub fn effective(&self) -> serde_json::Value {
        show::effective(self)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("home", &self.home)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

// === impl Mode ===

impl Mode {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

// === impl Isolation ===

impl Isolation {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Process => "process",
            Self::Shared => "shared",
        }
    }
}

// === impl DenyStatus ===

impl DenyStatus {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S451 => "451",
            Self::S403 => "403",
            Self::S400 => "400",
            Self::Answer => "answer",
        }
    }
}

/// A value in the syntax of the configuration, which JSON is a part of.
pub(crate) fn value(text: &str) -> Result<serde_json::Value, String> {
    node::parse(text)
}

#[cfg(test)]
mod tests;
