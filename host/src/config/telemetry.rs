//! The `telemetry:` block: where metrics, logs and traces go that clients export.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::egress::{AUTH, EgressAuth, SECRET};
use super::endpoint::{Endpoint, Scheme};
use super::file::millis;
use super::key::{ConfigBlock, ConfigKey};
use super::node::Section;
use super::secrets::Secrets;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

const COLLECTOR: ConfigKey = ConfigKey::text(
    "collector",
    "Base URL of a collector that takes OTLP over HTTP: `https://otel.example.com`. `http` is for loopback alone",
)
.required();
const MAX_BYTES: ConfigKey =
    ConfigKey::number("max_request_bytes", &(KIB..=16 * MIB), 4 * MIB, "Longest export");
const USER_BYTES: ConfigKey = ConfigKey::number(
    "user_bytes_per_minute",
    &(KIB..=1024 * MIB),
    16 * MIB,
    "What one user may export in a minute",
);
const TENANT_BYTES: ConfigKey = ConfigKey::number(
    "tenant_bytes_per_minute",
    &(KIB..=16 * 1024 * MIB),
    128 * MIB,
    "What all users of a tenant may export in a minute",
);
const TIMEOUT: ConfigKey =
    ConfigKey::number("timeout_ms", &(10..=60_000), 5_000, "How long the collector may take for one export");
const POINT_CLIENTS: ConfigKey = ConfigKey::flag(
    "point_clients",
    "`GET /managed/settings` tells Claude Code to export metrics and logs to the gateway, unless the settings of `claude_code` say otherwise",
);

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "telemetry",
    &ConfigBlock {
        about: "Where [telemetry of clients](../guide/operations.md#telemetry-of-clients) goes. Without the block none is taken.",
        keys: &[COLLECTOR, AUTH, SECRET, MAX_BYTES, USER_BYTES, TENANT_BYTES, TIMEOUT, POINT_CLIENTS],
        notes: "",
    },
    "Where telemetry of clients goes",
);

/// The `telemetry:` block. `Debug` shows no credential.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// The collector.
    pub collector: Endpoint,
    /// Which credential the gateway adds.
    pub auth: EgressAuth,
    /// Longest export.
    pub max_bytes: usize,
    /// Bytes of a user in a minute.
    pub user_bytes_per_minute: u64,
    /// Bytes of a tenant in a minute.
    pub tenant_bytes_per_minute: u64,
    /// How long the collector may take.
    pub timeout: Duration,
    /// Whether managed settings name the gateway as where to export to.
    pub point_clients: bool,
}

/// Reads the block.
pub(super) fn read(top: &Section<'_>, secrets: &Secrets) -> Option<Arc<TelemetrySettings>> {
    let section = top.get(&KEY).map(|_| top.block(&KEY))?;
    let collector = section.required(&COLLECTOR).and_then(|node| {
        let endpoint = node.parsed(Endpoint::parse)?;
        if endpoint.scheme == Scheme::Http && !endpoint.is_loopback() {
            node.error("must be https: what clients export names people and what they do");
            return None;
        }
        Some(endpoint)
    });
    let auth = EgressAuth::read(&section, secrets);
    let settings = TelemetrySettings {
        max_bytes: section.number(&MAX_BYTES),
        user_bytes_per_minute: section.number(&USER_BYTES),
        tenant_bytes_per_minute: section.number(&TENANT_BYTES),
        timeout: section.millis(&TIMEOUT),
        point_clients: section.flag(&POINT_CLIENTS),
        collector: collector?,
        auth: auth?,
    };
    Some(Arc::new(settings))
}

// === impl TelemetrySettings ===

impl TelemetrySettings {
    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({
            "collector": self.collector.to_string(),
            "auth": self.auth.show(),
            "max_request_bytes": self.max_bytes,
            "user_bytes_per_minute": self.user_bytes_per_minute,
            "tenant_bytes_per_minute": self.tenant_bytes_per_minute,
            "timeout_ms": millis(self.timeout),
            "point_clients": self.point_clients,
        })
    }
}
