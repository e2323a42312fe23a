//! Admission: from a verified package to a component that can be called. Looked at, compared with its world, compiled and
//! configured in a child, loaded, linked, and tried once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{HookEvent, Kind, Statement, Verified};
use sallyport_protocol::signature::KeyId;

use super::cache::{Id, Trusted};
use super::compile::{CompileError, Job};
use super::contract::{Counters, Grants};
use super::engine::Fuel;
use super::executor::{Executor, Tier};
use super::fault::Fault;
use super::guest::{Guest, Unfit};
use super::inspect::{self, InspectError, Structure};
use super::limits::Limits;
use super::rehearse::SelfTestError;
use super::tally::Tally;
use super::worker::{Facts, Load};
use super::world::{self, EGRESS, WorldError};
use super::{Components, canonical_digest};

/// Guest time that a rehearsal grants besides, where it has to configure the instance first.
const CONFIGURE_ON_STAGE: Duration = Duration::from_millis(500);
/// So many times the guest time of a call has a replay.
const REPLAY_CPU: u32 = 10;
/// Largest configuration of an entry, as JSON.
const MAX_CONFIG: usize = 1024 * 1024;

/// What the package of a scanner declares that wants to change requests.
const REWRITE: &str = "rewrite";

/// Why a component does not become active.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Its key is a development key, and this is no development gateway.
    #[error("signed with a development key, which only a development gateway accepts")]
    Development,
    /// Its structure is refused.
    #[error("the component is refused")]
    Inspect(#[from] InspectError),
    /// It imports or exports other things than its kind does.
    #[error("the component does not fit its world")]
    World(#[from] WorldError),
    /// It declares a way out that nobody gave it.
    #[error(
        "it wants to call out as {grant}, which nobody granted it: an entry {grant} under egress has to list it"
    )]
    NotGranted {
        /// The name of the grant.
        grant: String,
    },
    /// The configuration is larger than allowed.
    #[error("the configuration has {0} bytes, more than {MAX_CONFIG}")]
    ConfigSize(usize),
    /// It could not be compiled, or refused its configuration.
    #[error("the component could not be prepared")]
    Compile(#[from] CompileError),
    /// It would have to be compiled first, and whoever asks does not wait for that.
    #[error("the component is not compiled yet")]
    NotCompiled,
    /// Its code or types do not fit this host.
    #[error("the component could not be linked: {0}")]
    Link(String),
    /// It did not survive being instantiated.
    #[error("the component failed when it was tried")]
    Trial(#[source] Fault),
    /// It does not do what the samples it carries say.
    #[error("the component fails its self-test")]
    SelfTest(#[from] SelfTestError),
}

// === impl AdmitError ===

impl AdmitError {
    /// Whether the component itself is fine, and only refused the configuration.
    pub fn is_about_configuration(&self) -> bool {
        matches!(self, Self::Compile(CompileError::Refused(_)) | Self::Trial(Fault::Configure { .. }))
    }

    /// When it is worth trying again, if only the compiler was not to be had.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Compile(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// A component that can be called.
pub struct Component {
    name: Arc<str>,
    version: semver::Version,
    serial: u64,
    digest: String,
    config_digest: String,
    kind: Kind,
    world: String,
    events: Vec<HookEvent>,
    capabilities: Vec<String>,
    publisher: Option<KeyId>,
    tenant: Option<TenantId>,
    structure: Structure,
    limits: Limits,
    snapshotted: bool,
    /// Its ways out.
    pub(super) grants: Arc<Grants>,
    pub(super) executor: Executor,
    /// Why it does not run any more, or never did.
    barred: OnceLock<Fault>,
    tally: Tally,
    /// Counters of its own, in a rehearsal.
    pub(super) counters: Option<Arc<dyn Counters>>,
    /// The time of a replay, since 1970.
    pub(super) stands_at: Option<Duration>,
    /// What `configure` got, as JSON.
    configuration: Arc<str>,
}

// === impl Component ===

impl Component {
    /// What stands in the place of a package that may not run: every call of it ends in `fault`.
    pub fn absent(statement: &Statement, tenant: Option<TenantId>, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(statement.name.as_str()),
            version: statement.version.clone(),
            serial: statement.serial,
            digest: statement.digest.hex().to_owned(),
            config_digest: String::new(),
            kind: statement.kind,
            world: statement.world.to_string(),
            events: statement.events.clone(),
            capabilities: statement.capabilities.clone(),
            publisher: None,
            tenant,
            structure: Structure::default(),
            limits: Limits::declared(statement.kind, &statement.limits),
            snapshotted: false,
            grants: Arc::default(),
            executor: Executor::Nowhere,
            barred: OnceLock::from(fault),
            tally: Tally::default(),
            counters: None,
            stands_at: None,
            configuration: Arc::from(""),
        })
    }

    /// A component that nothing but its name is known of, for tests of what arranges components.
    #[cfg(test)]
    pub(crate) fn stand_in(kind: Kind, name: &str, version: &str) -> Arc<Self> {
        use sallyport_protocol::package::{Digest, Name, World};
        let events = if kind == Kind::Hook { vec![HookEvent::PreToolUse] } else { Vec::new() };
        let statement = Statement {
            name: Name::parse(name).unwrap(),
            version: version.parse().unwrap(),
            serial: 1,
            kind,
            world: World::parse(&format!("{}@0.1.0", kind.as_str())).unwrap(),
            digest: Digest::of(version.as_bytes()),
            size: 1,
            events,
            capabilities: Vec::new(),
            limits: sallyport_protocol::package::Limits::default(),
            min_host: semver::Version::new(0, 1, 0),
            not_before: time::OffsetDateTime::UNIX_EPOCH,
            expires: time::OffsetDateTime::UNIX_EPOCH + time::Duration::DAY,
        };
        Self::absent(&statement, None, Fault::Absent { reason: "a test".to_owned() })
    }

    /// Ends it at once, for calls in progress too: whoever asks it from now on gets [`Fault::Revoked`].
    pub fn revoke(&self, reason: &str) {
        // Only the first reason counts; what was barred stays barred.
        drop(self.barred.set(Fault::Revoked { reason: reason.to_owned() }));
    }

    /// Why it does not run; `None` while it does.
    pub fn barred(&self) -> Option<&Fault> {
        self.barred.get()
    }

    /// What it did since it was admitted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// `namespace/name`
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The publisher's version.
    pub fn version(&self) -> &semver::Version {
        &self.version
    }

    /// The publisher's serial.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// SHA-256 of the component, 64 hex digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// SHA-256 of its configuration in canonical JSON, `sha256:` and 64 hex digits.
    pub fn config_digest(&self) -> &str {
        &self.config_digest
    }

    /// What `configure` got, as JSON.
    pub fn configuration(&self) -> &Arc<str> {
        &self.configuration
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The world it was built against: `policy@0.1.0`.
    pub fn world(&self) -> &str {
        &self.world
    }

    /// The events it wants, for hooks.
    pub fn events(&self) -> &[HookEvent] {
        &self.events
    }

    /// The capabilities it asks for.
    pub fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    /// Whether its package asks to change requests.
    pub fn asks_to_rewrite(&self) -> bool {
        self.capabilities.iter().any(|capability| capability == REWRITE)
    }

    /// The key that signed it; `None` for what was never verified, and never runs.
    pub fn publisher(&self) -> Option<&KeyId> {
        self.publisher.as_ref()
    }

    /// The tenant that alone may run it.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// What it imports, exports and is made of.
    pub fn structure(&self) -> &Structure {
        &self.structure
    }

    /// What a call of it may take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it takes from the host's counters.
    pub fn counts(&self) -> bool {
        self.structure.imports.iter().any(|import| import.contains("/counters@"))
    }

    /// Whether every call starts from the memory that `configure` left; otherwise `configure` runs in every call.
    pub fn is_snapshotted(&self) -> bool {
        self.snapshotted
    }

    /// The same component at another time and with counters of its own: for calls that were recorded. Counting its fuel makes
    /// it slower, so it has more guest time.
    pub async fn at(&self, now: Duration, counters: Arc<dyn Counters>) -> Result<Arc<Self>, Fault> {
        let mut limits = self.limits;
        limits.cpu *= REPLAY_CPU;
        limits.cpu_total *= REPLAY_CPU;
        limits.wall *= REPLAY_CPU;
        let staged = self.staged(limits, None, counters).await?;
        Ok(Arc::new(Self { stands_at: Some(now), ..staged }))
    }

    /// The same component with counters of its own, which is configured with `config` in every instance, if there is one.
    pub(super) async fn on_stage(
        &self,
        config: Option<String>,
        counters: Arc<dyn Counters>,
    ) -> Result<Self, Fault> {
        let mut limits = self.limits;
        if config.is_some() {
            limits.cpu += CONFIGURE_ON_STAGE;
            limits.cpu_total += CONFIGURE_ON_STAGE;
        }
        self.staged(limits, config, counters).await
    }

    async fn staged(
        &self,
        limits: Limits,
        config: Option<String>,
        counters: Arc<dyn Counters>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            name: Arc::clone(&self.name),
            version: self.version.clone(),
            serial: self.serial,
            digest: self.digest.clone(),
            config_digest: self.config_digest.clone(),
            kind: self.kind,
            world: self.world.clone(),
            events: self.events.clone(),
            capabilities: self.capabilities.clone(),
            publisher: self.publisher.clone(),
            tenant: self.tenant.clone(),
            structure: self.structure.clone(),
            limits,
            snapshotted: self.snapshotted,
            // A rehearsal goes nowhere.
            grants: Arc::default(),
            executor: self.executor.on_stage(limits, config).await?,
            barred: self.barred.clone(),
            tally: Tally::default(),
            counters: Some(counters),
            stands_at: None,
            configuration: Arc::clone(&self.configuration),
        })
    }

    /// Where it runs.
    pub fn tier(&self) -> Tier {
        self.executor.tier()
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Component")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("kind", &self.kind)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

// === impl Components ===

impl Components {
    /// Makes a verified package callable with `config`, in the gateway's own process. Nothing that is in force changes; an
    /// error says why it would not work.
    pub async fn admit(
        &self,
        verified: &Verified,
        config: &serde_json::Value,
    ) -> Result<Arc<Component>, AdmitError> {
        self.admit_with(verified, config, Grants::new()).await
    }

    /// The same for a component that was granted ways out. Those that its package does not declare are not for it.
    pub async fn admit_with(
        &self,
        verified: &Verified,
        config: &serde_json::Value,
        grants: Grants,
    ) -> Result<Arc<Component>, AdmitError> {
        self.admit_to(Tier::Shared, None, verified, config, grants).await
    }

    /// The same, to run where `tier` says: in the worker of `owner`, the tenant that brought it.
    pub async fn admit_to(
        &self,
        tier: Tier,
        owner: Option<&TenantId>,
        verified: &Verified,
        config: &serde_json::Value,
        grants: Grants,
    ) -> Result<Arc<Component>, AdmitError> {
        let component = self.admit_untested(tier, owner, verified, config, grants).await?;
        Box::pin(self.self_test(&component, verified.component())).await?;
        Ok(component)
    }

    /// The same for a component whose code is kept; [`AdmitError::NotCompiled`] where it is not, without a wait for the
    /// compiler.
    pub async fn admit_compiled(
        &self,
        tier: Tier,
        owner: Option<&TenantId>,
        verified: &Verified,
        config: &serde_json::Value,
        grants: Grants,
    ) -> Result<Arc<Component>, AdmitError> {
        let component = self.admit_from(Code::Kept, tier, owner, verified, config, grants).await?;
        Box::pin(self.self_test(&component, verified.component())).await?;
        Ok(component)
    }

    /// The same without the self-test: for [`Components::rehearse`], which reports on every sample by itself.
    pub async fn admit_untested(
        &self,
        tier: Tier,
        owner: Option<&TenantId>,
        verified: &Verified,
        config: &serde_json::Value,
        grants: Grants,
    ) -> Result<Arc<Component>, AdmitError> {
        self.admit_from(Code::Any, tier, owner, verified, config, grants).await
    }

    async fn admit_from(
        &self,
        code: Code,
        tier: Tier,
        owner: Option<&TenantId>,
        verified: &Verified,
        config: &serde_json::Value,
        mut grants: Grants,
    ) -> Result<Arc<Component>, AdmitError> {
        if verified.is_development() && !self.settings.development {
            return Err(AdmitError::Development);
        }
        let wanted: Vec<&str> = verified
            .statement()
            .capabilities
            .iter()
            .filter_map(|capability| capability.strip_prefix(EGRESS))
            .collect();
        grants.retain(|grant, _| wanted.contains(&grant.as_str()));
        if let Some(missing) = wanted.into_iter().find(|grant| !grants.contains_key(*grant)) {
            return Err(AdmitError::NotGranted { grant: missing.to_owned() });
        }
        let (package, wanted) = (verified.clone(), config.clone());
        let fuel = self.settings.fuel;
        let mut prepared = blocking(move || prepare(&package, &wanted, fuel)).await??;
        prepared.job.yields = owner.is_some();
        let (executor, snapshotted) = self.executor(code, tier, owner, &prepared, verified).await?;
        let Prepared { structure, config_digest, job } = prepared;
        let statement = verified.statement();
        let configuration = Arc::from(job.config.as_str());
        Ok(Arc::new(Component {
            name: Arc::from(statement.name.as_str()),
            version: statement.version.clone(),
            serial: statement.serial,
            digest: statement.digest.hex().to_owned(),
            config_digest,
            kind: statement.kind,
            world: statement.world.to_string(),
            events: statement.events.clone(),
            capabilities: statement.capabilities.clone(),
            publisher: Some(verified.key().clone()),
            tenant: verified.tenant().cloned(),
            limits: job.limits,
            snapshotted,
            grants: Arc::new(grants),
            structure,
            executor,
            barred: OnceLock::new(),
            tally: Tally::default(),
            counters: None,
            stands_at: None,
            configuration,
        }))
    }

    /// Puts code where it runs: kept code, or where there is none that fits, code from a child.
    async fn executor(
        &self,
        code: Code,
        tier: Tier,
        owner: Option<&TenantId>,
        prepared: &Prepared,
        verified: &Verified,
    ) -> Result<(Executor, bool), AdmitError> {
        let id = Id::new(verified.digest().as_str(), &prepared.config_digest, &self.compatibility);
        let cache = Arc::clone(&self.cache);
        if let Some(trusted) = blocking(move || cache.load(id)).await? {
            match self.install(tier, owner, verified, prepared, trusted).await {
                Err(AdmitError::Link(_)) => {}
                installed => return installed,
            }
        }
        if code == Code::Kept {
            return Err(AdmitError::NotCompiled);
        }
        let compiled = self.compiler.compile(owner, &prepared.job, verified.component()).await?;
        let cache = Arc::clone(&self.cache);
        let trusted = blocking(move || {
            let trusted = Trusted::fresh(compiled);
            if let Err(error) = cache.store(id, &trusted) {
                tracing::warn!(%error, "compiled component not kept");
            }
            trusted
        })
        .await?;
        self.install(tier, owner, verified, prepared, trusted).await
    }

    /// Links and tries compiled code, here or in the worker of whoever the component belongs to.
    async fn install(
        &self,
        tier: Tier,
        owner: Option<&TenantId>,
        verified: &Verified,
        prepared: &Prepared,
        trusted: Trusted,
    ) -> Result<(Executor, bool), AdmitError> {
        let statement = verified.statement();
        let snapshotted = trusted.snapshotted();
        let load = Load {
            name: statement.name.as_str().to_owned(),
            kind: statement.kind,
            needs: prepared.job.needs,
            limits: prepared.job.limits,
            config: (!snapshotted).then(|| prepared.job.config.clone()),
            modules: prepared.structure.modules,
        };
        let scene = self.scene(&Arc::from(statement.name.as_str()), statement.digest.hex(), "", "");
        let executor = match tier {
            Tier::Shared => {
                let engine = self.runner.engine.clone();
                let loaded = blocking(move || trusted.load(&engine)).await?.map_err(|error| link(&error))?;
                let guest = Guest::link(&self.runner.linkers, load, &loaded).map_err(|error| link(&error))?;
                let guest = Arc::new(guest);
                self.runner.try_out(&guest, scene).await.map_err(AdmitError::Trial)?;
                Executor::Shared(guest)
            }
            Tier::Process => {
                let worker = self.workers.of(owner);
                Executor::Process(worker.take_in(load, trusted.into_code(), Facts::from(&scene)).await?)
            }
        };
        Ok((executor, snapshotted))
    }
}

// === impl AdmitError ===

impl From<Unfit> for AdmitError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Link(message) => Self::Link(message),
            Unfit::Trial(fault) => Self::Trial(fault),
        }
    }
}

/// Where a component's code may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// From the cache alone.
    Kept,
    /// From the compiler too.
    Any,
}

/// What is known of a component before it is compiled.
pub(super) struct Prepared {
    pub(super) structure: Structure,
    pub(super) config_digest: String,
    pub(super) job: Job,
}

/// Everything that needs no compiler.
pub(super) fn prepare(
    verified: &Verified,
    config: &serde_json::Value,
    fuel: Fuel,
) -> Result<Prepared, AdmitError> {
    let statement = verified.statement();
    let limits = Limits::declared(statement.kind, &statement.limits);
    let structure = inspect::inspect(verified.component(), limits.memory)?;
    let needs = world::check(statement.kind, &structure)?;
    let written = if config.is_null() { "{}".to_owned() } else { config.to_string() };
    if written.len() > MAX_CONFIG {
        return Err(AdmitError::ConfigSize(written.len()));
    }
    let job = Job {
        kind: statement.kind,
        needs,
        snapshot: !structure.nested_modules,
        configurable: world::configurable(&structure).to_owned(),
        config: written,
        limits,
        fuel,
        yields: false,
    };
    Ok(Prepared { config_digest: canonical_digest(config), structure, job })
}

// === private helpers ===

/// Runs what takes long without a pause, off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AdmitError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| AdmitError::Link(error.to_string()))
}

fn link(error: &wasmtime::Error) -> AdmitError {
    AdmitError::Link(format!("{error:#}"))
}
