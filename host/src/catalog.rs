//! The catalog: which components were uploaded, whom they are trusted from, and which of them are in force where. It turns the
//! configuration and what the database holds into bundles, and makes each step of a component's life: checked, recorded,
//! then in force.
//!
//! *Invariant:* a step is written to the trail before it is written to the database, and answered once it is in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Capability, PackageError, TrustError};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::audit::{Action, Audit, CATALOG, Event, Outcome, Unavailable, Who};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::component::contract::Egress;
use crate::component::{AdmitError, Component, Components, Fault, HourlyBudget};
use crate::config::{self, Config};
use crate::db::{Db, DbError};
use crate::trust::{Distrust, Trust};

mod admissions;
mod assemble;
mod delete;
mod entry;
mod judge;
mod keep;
mod levels;
mod list;
mod packages;
mod place;
mod quota;
mod state;
mod step;
mod trust;
mod upload;
mod view;

pub use self::assemble::Assembled;
pub use self::entry::{AssembleError, EntryError, PackagesError};
pub use self::keep::Keeper;
pub use self::place::{DEFAULT_ORDER, HookAttachment, Placement, Slo, StepError};
pub use self::step::{Verb, Wanted};
pub use self::trust::{NewGrant, NewKey, NewRevocation};
pub use self::view::{
    ActiveRelease, CatalogUsage, ComponentList, ComponentPlace, ComponentVersion, DeletedVersion,
    ListedComponent, NewestRelease, NewlyRevoked, PublisherList, RevocationList, ShownComponent, ShownGrant,
    ShownPublisher, ShownRevocation, TriedRelease, VersionStage, kinds, mode,
};
pub use crate::db::catalog::RevocationKind;

/// How long an administrator waits for a step to be in force here.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The parts of a catalog.
pub struct CatalogParts {
    /// What is stored.
    pub db: Db,
    /// Admits components.
    pub components: Arc<Components>,
    /// Keeps the rows.
    pub audit: Arc<Audit>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Decides which packages may run.
    pub trust: Trust,
    /// Makes what sends the requests of hooks.
    pub egress: EgressMaker,
}

/// From a grant as it is configured to what sends its requests.
pub type EgressMaker = Box<dyn Fn(&config::EgressSettings) -> Arc<dyn Egress> + Send + Sync>;

/// The catalog.
pub struct Catalog {
    db: Db,
    components: Arc<Components>,
    audit: Arc<Audit>,
    clock: Arc<dyn Clock>,
    trust: Trust,
    egress: EgressMaker,
    /// What was admitted and is in a bundle: what did not change is not admitted again.
    admitted: Mutex<HashMap<ReleaseId, Arc<Component>>>,
    /// The trials of the last assembly.
    trials: Mutex<Vec<keep::Watched>>,
    /// The configuration of the last assembly.
    config: ArcSwapOption<Config>,
    /// Components of tenants that are placed and were not compiled when they were asked for.
    admissions: admissions::Admissions,
    /// Uploads that each tenant has left in this hour.
    uploads: Mutex<HashMap<TenantId, HourlyBudget>>,
    changed: Notify,
    applied: watch::Sender<i64>,
}

/// One release, configured, in one bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ReleaseId {
    tenant: Option<TenantId>,
    name: String,
    version: String,
    digest: String,
    config: String,
    /// Names its egress grants: another credential makes it another component.
    egress: String,
}

/// Who makes a step, and for whom.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The columns of its rows.
    pub who: Who,
    /// Whose catalog it is: one tenant's, or with `None` the platform's.
    pub tenant: Option<TenantId>,
    /// Whether it speaks for the platform.
    pub platform: bool,
}

/// Why something was not done. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is none, or it belongs to somebody else.
    #[error("there is no such component")]
    NotFound,
    /// The actor may not do it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The body of a request cannot be read. What was wrong with it is told to its sender alone, since it names what stood there.
    #[error("the body is not understood")]
    Unread(#[source] serde_json::Error),
    /// The bytes are no package.
    #[error("the package is malformed")]
    Package(#[from] PackageError),
    /// Nobody here trusts it.
    #[error("the package is not trusted")]
    Trust(#[from] TrustError),
    /// It was revoked.
    #[error("it was revoked: {0}")]
    Revoked(String),
    /// These bytes are not the ones that are known by this version or serial.
    #[error("{0} is known with other bytes")]
    OtherBytes(String),
    /// It wants capabilities that nobody granted.
    #[error("it needs a grant of {}", .missing.iter().map(Capability::to_string).collect::<Vec<_>>().join(", "))]
    Grants {
        /// What has to be granted.
        missing: Vec<Capability>,
    },
    /// The component host does not take it.
    #[error("the component is not admitted")]
    Admit(#[source] AdmitError),
    /// It is placed, and not compiled yet.
    #[error("it is being compiled; until then it refuses")]
    Compiling,
    /// It is placed, and could not be compiled.
    #[error("it could not be admitted: {0}")]
    NotAdmitted(String),
    /// The tenant stores as much as it may.
    #[error(
        "this catalog holds {used} of {most} bytes, and {more} more do not fit: delete versions that nobody uses"
    )]
    QuotaBytes {
        /// What is stored.
        used: u64,
        /// What was to be stored besides.
        more: u64,
        /// What may be stored.
        most: u64,
    },
    /// The tenant stores as many versions as it may.
    #[error("this catalog holds {most} versions, which is all it may: delete some that nobody uses")]
    QuotaVersions {
        /// What may be stored.
        most: u64,
    },
    /// The tenant uploaded as often as it may.
    #[error("this tenant has used up its uploads; there is one more in {} s", retry_after.as_secs())]
    QuotaUploads {
        /// From when there is one again.
        retry_after: Duration,
    },
    /// Somebody needs the version.
    #[error("{0}")]
    InUse(String),
    /// The step does not lead anywhere from here.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Somebody else stepped meanwhile.
    #[error("somebody else changed it at the same time; look again")]
    Changed,
    /// It is recorded and stored, but this gateway has not put it in force yet.
    #[error("it is stored, but not in force on this gateway yet")]
    NotYet,
    /// The trail takes no row.
    #[error("the audit trail takes no row")]
    Audit(#[source] Unavailable),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What is stored cannot be read.
    #[error("what is stored of {0} cannot be read")]
    Stored(String),
}

// === impl CatalogError ===

impl From<Distrust> for CatalogError {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Revoked(reason) => Self::Revoked(reason),
            Distrust::Package(error) => Self::Trust(error),
            Distrust::OtherRelease { name, serial } => {
                Self::OtherBytes(format!("the serial {serial} of {name}"))
            }
            Distrust::Floor(name) => Self::Stored(name),
            Distrust::Db(error) => Self::Db(error),
        }
    }
}

impl CatalogError {
    /// When it is worth trying again, if a tenant asked for more than its share of an hour.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Admit(error) => error.retry_after(),
            Self::QuotaUploads { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// What calls of a component end in that could not be put in force.
    fn fault(self) -> Fault {
        match self {
            Self::Revoked(reason) => Fault::Revoked { reason },
            error => Fault::Absent { reason: Causes(&error).to_string() },
        }
    }
}

// === impl Actor ===

impl Actor {
    /// The gateway itself, in the catalog of `tenant`.
    fn gateway(tenant: Option<TenantId>) -> Self {
        let tenant_id = tenant.as_ref().map_or("-", TenantId::as_str).into();
        let who = Who { user_id: "gateway".into(), tenant_id, ..Who::nobody() };
        Self { who, tenant, platform: true }
    }

    fn only_platform(&self, what: &'static str) -> Result<(), CatalogError> {
        if self.platform { Ok(()) } else { Err(CatalogError::Forbidden(what)) }
    }
}

// === impl Catalog ===

impl Catalog {
    /// A catalog of these parts. Nothing is in force before the first assembly.
    pub fn new(parts: CatalogParts) -> Arc<Self> {
        let CatalogParts { db, components, audit, clock, trust, egress } = parts;
        Arc::new(Self {
            db,
            components,
            audit,
            clock,
            trust,
            egress,
            admitted: Mutex::default(),
            trials: Mutex::default(),
            config: ArcSwapOption::empty(),
            admissions: admissions::Admissions::default(),
            uploads: Mutex::default(),
            changed: Notify::new(),
            applied: watch::Sender::new(-1),
        })
    }

    /// Writes the row of a step.
    async fn record(&self, actor: &Actor, action: Action, payload: Value) -> Result<(), CatalogError> {
        self.record_as(Outcome::Allowed, actor, action, payload).await
    }

    /// Writes the row of a step that came to nothing.
    async fn record_lost(
        &self,
        actor: &Actor,
        action: Action,
        mut payload: Value,
    ) -> Result<(), CatalogError> {
        if let Some(fields) = payload.as_object_mut() {
            fields.insert("lost".to_owned(), true.into());
        }
        self.record_as(Outcome::Error, actor, action, payload).await
    }

    async fn record_as(
        &self,
        outcome: Outcome,
        actor: &Actor,
        action: Action,
        mut payload: Value,
    ) -> Result<(), CatalogError> {
        if let Some(fields) = payload.as_object_mut() {
            let scope = actor.tenant.as_ref().map_or("platform", TenantId::as_str);
            fields.insert(CATALOG.to_owned(), scope.into());
        }
        let event = Event::change(self.clock.now(), action, actor.who.clone(), outcome, payload);
        self.audit.record(event).await.map_err(CatalogError::Audit)
    }

    /// Waits until everything that is stored now is in force here.
    async fn settle(&self) -> Result<(), CatalogError> {
        let epoch = self.db.catalog_epoch().await?;
        let mut applied = self.applied.subscribe();
        self.changed.notify_one();
        let settled =
            tokio::time::timeout(SETTLE_TIMEOUT, applied.wait_for(|applied| *applied >= epoch)).await;
        match settled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CatalogError::NotYet),
        }
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Catalog").field("applied", &*self.applied.borrow()).finish_non_exhaustive()
    }
}
