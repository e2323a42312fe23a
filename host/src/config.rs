//! Configuration: `sallyport.yaml` and the secrets beside it, checked whole before anything runs. What is wrong is reported
//! all at once; what is checked holds no text left to parse.

mod address;
mod audit;
mod auth;
mod bundle;
mod claude_code;
mod client_documents;
mod components;
mod condition;
mod credential;
mod database;
mod deny;
mod egress;
mod endpoint;
mod evidence;
mod file;
mod gateway;
mod hooks;
mod key;
mod known;
mod network;
mod node;
mod oidc;
mod page;
mod pattern;
mod prices;
mod report;
mod route;
mod schema;
mod secrets;
mod server;
mod target;
mod telemetry;
pub(crate) mod template;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::Limit;
use crate::modes;

pub use sallyport_protocol::cost::PriceList;
pub use sallyport_protocol::facts::FactTable;
pub use sallyport_protocol::hooks::Attachment;
pub use sallyport_protocol::package::Publisher;

pub use self::address::is_public;
pub use self::bundle::{BundleEntry, ModeSetting};
pub use self::claude_code::{ClaudeSettings, ManagedSettings};
pub use self::components::{ComponentSettings, IsolationSetting, Quota};
pub use self::condition::{Conditions, Need, RequestNeeds, RouteCaller};
pub use self::credential::aws::{AwsCredential, AwsKeys, AwsSource};
pub use self::credential::azure::{AzureCredential, AzureProof};
pub use self::credential::gcp::{GcpCredential, GcpSource, ServiceAccount, WorkloadIdentity};
pub use self::credential::url::{TokenUrl, TokenUrlError};
pub use self::credential::{CloudCredential, CloudIdentity};
pub use self::database::DatabaseSettings;
pub(crate) use self::database::masked_url;
pub use self::deny::{Deny, DenyStatus};
pub use self::egress::{EgressAuth, EgressSettings, is_plain_path};
pub use self::endpoint::{Endpoint, EndpointError, Scheme};
pub use self::gateway::Gateway;
pub use self::hooks::HookSettings;
pub use self::network::{Network, NetworkError};
pub use self::pattern::{Pattern, PatternError};
pub use self::report::{Problem, Report};
pub use self::route::{Affinity, MirrorSettings, Model, Predicate, Preference, RetrySettings, Route};
pub use self::secrets::{ExposeSecret, RouteCredential, SecretString, Secrets};
pub use self::server::Server;
pub use self::target::{BreakerSettings, RouteTarget, Timeouts};
pub use self::telemetry::TelemetrySettings;
pub use crate::audit::{AuditSettings, Durability, Sink};
pub use crate::auth::AuthSettings;
pub use crate::evidence::{EvidenceSettings, Recording};
pub use crate::tls::TlsSettings;

/// Longest `timeout_ms` of a hook, in milliseconds: the host lets no guest run longer.
pub const LONGEST_TIMEOUT: u64 = 10_000;
/// Name of the configuration file in a home directory.
pub const FILE: &str = "sallyport.yaml";
/// Name of the secrets file, unless `secrets_file` says otherwise.
pub const SECRETS_FILE: &str = "secrets.yaml";
/// Name of the directory of the gateway's own keys.
pub const KEYS_DIR: &str = "keys";
/// A checked configuration. `Debug` shows where it comes from and no more.
#[derive(Clone)]
pub struct Config {
    /// How clients reach the gateway.
    pub server: Server,
    /// The certificate of the listeners that speak TLS.
    pub tls: Option<TlsSettings>,
    /// The directory that holds everything the gateway keeps on disk.
    pub home: PathBuf,
    /// Where rows, users and packages are kept.
    pub database: DatabaseSettings,
    /// Which provider answers for which model.
    pub gateway: Gateway,
    /// What decides on calls, in order.
    pub bundle: Vec<BundleEntry>,
    /// Requests to other servers that hooks may be granted, by name.
    pub egress: BTreeMap<String, EgressSettings>,
    /// Which components may run.
    pub components: ComponentSettings,
    /// How the audit trail is kept.
    pub audit: AuditSettings,
    /// How tokens are issued.
    pub auth: AuthSettings,
    /// What Claude Code and Claude Desktop are told.
    pub claude_code: ClaudeSettings,
    /// Where telemetry of clients goes; nothing is taken without it.
    pub telemetry: Option<Arc<TelemetrySettings>>,
    /// What is recorded of decisions.
    pub evidence: EvidenceSettings,
    /// What calls cost.
    pub prices: PriceList,
    /// What is known of models.
    pub facts: FactTable,
    /// What a client sees of a denial.
    pub deny: Deny,
    /// What holds for all hooks.
    pub hooks: HookSettings,
    /// Upstream credentials.
    pub secrets: Secrets,
    /// What works, but is probably not meant.
    pub warnings: Vec<Problem>,
}

/// The limits that the configuration has defaults for, or keeps itself.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "config";
    [server::limits(PART), components::limits(PART)].concat()
}

/// What may stand in `sallyport.yaml`, as a JSON Schema.
pub fn schema() -> String {
    schema::text()
}

/// What may stand in `sallyport.yaml`, as the reference page prints it.
pub fn reference() -> String {
    page::markdown()
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
        // Whoever may change it decides who may call and what is recorded.
        let loose = modes::changed_by_others(path);
        let problem = |mode: u32| {
            let shown = path.display();
            format!("can be changed by others (mode {mode:04o}): chmod go-w {shown}")
        };
        if let Some(mode) = loose.filter(|mode| mode & 0o002 != 0) {
            return Err(Report::single(FILE, problem(mode)));
        }
        let mut config = file::read(&text, &home, None)?;
        config.warnings.extend(loose.map(|mode| Problem::new(FILE, problem(mode))));
        Ok(config)
    }

    /// The same from memory: no secrets file is read, `secrets` are the ones there are.
    pub fn parse(text: &str, home: &Path, secrets: Secrets) -> Result<Self, Report> {
        file::read(text, home, Some(secrets))
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
        let Server { listen, admin_listen, metrics_listen, .. } = &self.server;
        let mut sockets = [listen].into_iter().chain(admin_listen).chain(metrics_listen);
        sockets.all(|socket| socket.ip().is_loopback())
    }

    /// The configuration in force, in the shape of the file, defaults filled in and secrets masked.
    pub fn effective(&self) -> serde_json::Value {
        file::show(self)
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

/// A value in the syntax of the configuration, which JSON is a part of.
pub(crate) fn value(text: &str) -> Result<serde_json::Value, String> {
    node::parse(text)
}

#[cfg(test)]
mod tests;
