//! The `components:` block: which components may run, whose they may be, and what they may take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Kind, Publisher};
use sallyport_protocol::signature::{self, KeyId};
use serde_json::{Value, json};

use super::key::{ConfigBlock, ConfigKey, Form, Word};
use super::known::{Known, OWN_NAMESPACE};
use super::node::{Node, Section};
use crate::limits::Limit;

const POOL_SIZE: u64 = 2_000;

const PACKAGES: ConfigKey =
    ConfigKey::list("packages", &Form::Text, "Paths of further packages, from the home on");
const PUBLISHERS: ConfigKey = ConfigKey::list(
    "publishers",
    &Form::Mapping(&PUBLISHER),
    "Whose packages may run, besides those that ship with the gateway",
);
const POOL: ConfigKey = ConfigKey::number(
    "pool",
    &(16..=4_000),
    POOL_SIZE,
    "Guests alive at once; when all are busy, callers get a 529",
);
const ISOLATION: ConfigKey = ConfigKey::choice::<IsolationSetting>(
    "isolation",
    "Which components run in [worker processes](../guide/components.md#worker-processes): `tenants`: what a tenant brought, once \
     there is more than one tenant; `process`: all but providers; `shared`: none",
)
.or_default::<IsolationSetting>();
const QUOTA: ConfigKey = ConfigKey::mapping(
    "quota",
    &ConfigBlock {
        about: "What each tenant may store, upload and have compiled; the platform's own catalog has no such limits.",
        keys: &[BYTES, VERSIONS, UPLOADS, COMPILE_SECONDS],
        notes: "Uploads and seconds are counted by each gateway; what is not used is kept, up to one hour's worth.",
    },
    "What each tenant may take of what all share",
);

const BYTES: ConfigKey = ConfigKey::number(
    "bytes",
    &(1..=1 << 40),
    QUOTA_BYTES as u64,
    "Bytes of packages that a tenant may store: 413 `quota_bytes` beyond",
);
const VERSIONS: ConfigKey = ConfigKey::number(
    "versions",
    &(1..=1_000_000),
    QUOTA_VERSIONS as u64,
    "Versions that a tenant may store: 409 `quota_versions` beyond",
);
const UPLOADS: ConfigKey = ConfigKey::number(
    "uploads_per_hour",
    &(1..=1_000_000),
    QUOTA_UPLOADS as u64,
    "Uploads of a tenant, refused ones included: 429 `quota_uploads` beyond",
);
const COMPILE_SECONDS: ConfigKey = ConfigKey::number(
    "compile_seconds_per_hour",
    &(1..=1_000_000),
    QUOTA_COMPILE_SECONDS as u64,
    "Seconds that compilers may work for a tenant: 429 `compile_time_spent` beyond",
);
const QUOTA_BYTES: usize = 1 << 29;
const QUOTA_VERSIONS: u32 = 200;
const QUOTA_UPLOADS: u32 = 120;
const QUOTA_COMPILE_SECONDS: u32 = 600;

const PUBLIC_KEY: ConfigKey =
    ConfigKey::text("key", "Ed25519 public key, 44 characters of base64 or 64 of hexadecimal").required();
const NAMESPACE: ConfigKey =
    ConfigKey::text("namespace", "The part of a component's name before `/` that it may sign for").required();
const KINDS: ConfigKey =
    ConfigKey::list("kinds", &Form::Choice(kinds), "The kinds of component that it may sign").required();
const TENANT: ConfigKey = ConfigKey::text("tenant", "The only tenant that sees its components");
const DEVELOPMENT: ConfigKey = ConfigKey::flag(
    "development",
    "A key from somebody's machine: refused unless the gateway listens on loopback alone",
);
const REVOKED: ConfigKey = ConfigKey::flag("revoked", "No longer trusted");
const PUBLISHER: ConfigBlock = ConfigBlock {
    about: "A key, and what it may sign.",
    keys: &[PUBLIC_KEY, NAMESPACE, KINDS, TENANT, DEVELOPMENT, REVOKED],
    notes: "",
};

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "components",
    &ConfigBlock {
        about: "Which [components](../guide/components.md) may run, whose they may be, and what they may take.",
        keys: &[PUBLISHERS, PACKAGES, POOL, ISOLATION, QUOTA],
        notes: "",
    },
    "Which components may run",
);

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
    pub isolation: IsolationSetting,
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
pub enum IsolationSetting {
    /// Those of tenants, once there is more than one tenant.
    #[default]
    Tenants,
    /// All but providers.
    Process,
    /// None.
    Shared,
}

/// The limits that this block sets.
pub(super) fn limits(part: &'static str) -> Vec<Limit> {
    let compiling = Duration::from_secs(QUOTA_COMPILE_SECONDS.into());
    vec![
        Limit::count(part, "guests at once", POOL_SIZE, "529 `overloaded`").set_by("components.pool"),
        Limit::bytes(part, "packages of a tenant", QUOTA_BYTES, "413 `quota_bytes`")
            .set_by("components.quota.bytes"),
        Limit::count(part, "versions of a tenant", QUOTA_VERSIONS.into(), "409 `quota_versions`")
            .set_by("components.quota.versions"),
        Limit::count(part, "uploads of a tenant in an hour", QUOTA_UPLOADS.into(), "429 `quota_uploads`")
            .set_by("components.quota.uploads_per_hour"),
        Limit::time(part, "compiling for a tenant in an hour", compiling, "429 `compile_time_spent`")
            .set_by("components.quota.compile_seconds_per_hour"),
    ]
}

// === impl ComponentSettings ===

impl ComponentSettings {
    /// Reads the block. Packages that it lists become known.
    pub(super) fn read(top: &Section<'_>, home: &Path, known: &mut Known) -> Self {
        let section = top.block(&KEY);
        let pool = section.number(&POOL);
        let isolation = section.choice(&ISOLATION);
        let quota = Quota::read(&section.block(&QUOTA));
        let mut packages = Vec::new();
        for node in section.items(&PACKAGES) {
            let Some(path) = node.text().map(|text| home.join(text)) else { continue };
            known.add_file(&node, &path);
            packages.push(path);
        }
        let publishers = section.items(&PUBLISHERS).iter().filter_map(publisher).collect();
        Self { publishers, packages, pool, isolation, quota }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({
            "publishers": self.publishers.iter().map(show_publisher).collect::<Vec<_>>(),
            "packages": self.packages,
            "pool": self.pool,
            "isolation": self.isolation.as_str(),
            "quota": {
                "bytes": self.quota.bytes,
                "versions": self.quota.versions,
                "uploads_per_hour": self.quota.uploads_per_hour,
                "compile_seconds_per_hour": self.quota.compile_seconds_per_hour,
            },
        })
    }
}

// === impl Quota ===

impl Quota {
    fn read(section: &Section<'_>) -> Self {
        Self {
            bytes: section.number(&BYTES),
            versions: section.number(&VERSIONS),
            uploads_per_hour: section.number(&UPLOADS),
            compile_seconds_per_hour: section.number(&COMPILE_SECONDS),
        }
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            bytes: QUOTA_BYTES as u64,
            versions: QUOTA_VERSIONS,
            uploads_per_hour: QUOTA_UPLOADS,
            compile_seconds_per_hour: QUOTA_COMPILE_SECONDS,
        }
    }
}

// === impl IsolationSetting ===

impl IsolationSetting {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Process => "process",
            Self::Shared => "shared",
        }
    }
}

impl Word for IsolationSetting {
    const ALL: &'static [Self] = &[Self::Tenants, Self::Process, Self::Shared];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for Kind {
    const ALL: &'static [Self] = &[Self::Provider, Self::Policy, Self::Scanner, Self::Hook, Self::Predicate];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

// === private helpers ===

fn kinds() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.word()).collect()
}

fn publisher(item: &Node<'_>) -> Option<Publisher> {
    let section = item.section(&PUBLISHER);
    let key = section.required(&PUBLIC_KEY).and_then(|node| node.parsed(signature::public_key));
    let namespace = section.required(&NAMESPACE).and_then(|node| {
        let name = node.text()?;
        if name == OWN_NAMESPACE {
            node.error("belongs to the components that ship with the gateway");
        }
        Some(name.to_owned())
    });
    let kinds = section.required(&KINDS).map_or_else(Vec::new, |node| {
        node.items().iter().filter_map(Node::choice::<Kind>).collect::<Vec<_>>()
    });
    let tenant = section.get(&TENANT).map(|node| node.parsed(TenantId::parse));
    let (development, revoked) = (section.flag(&DEVELOPMENT), section.flag(&REVOKED));
    let tenant = match tenant {
        Some(parsed) => Some(parsed?),
        None => None,
    };
    Some(Publisher { key: key?, namespace: namespace?, kinds, tenant, development, revoked })
}

fn show_publisher(publisher: &Publisher) -> Value {
    json!({
        "key": KeyId::of(&publisher.key).as_str(),
        "namespace": publisher.namespace,
        "kinds": publisher.kinds,
        "tenant": publisher.tenant.as_ref().map(TenantId::as_str),
        "development": publisher.development,
        "revoked": publisher.revoked,
    })
}
