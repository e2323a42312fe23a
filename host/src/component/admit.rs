//! Admission: from a verified package to a component that can be called. Looked at, compared with its world, compiled and
//! configured in a child, loaded, linked, and tried once.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::level::Levels;
use sallyport_protocol::package::{Capability, Verified};

use super::cache::{CodeId, Trusted};
use super::compile::{CompileError, Job};
use super::conformance;
use super::contract::Grants;
use super::engine::Fuel;
use super::executor::{Executor, RunsIn};
use super::fault::Fault;
use super::guest::{Guest, Unfit};
use super::inspect::{self, InspectError, Structure};
use super::limits::Limits;
use super::ready::{Component, Made};
use super::rehearse::SelfTestError;
use super::worker::{Load, SceneFacts};
use super::world::{self, WorldError};
use super::{Components, canonical_digest};

/// Largest configuration of an entry, as JSON.
const MAX_CONFIG: usize = 1024 * 1024;

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
    /// It declares an egress grant that nobody gave it.
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

/// Where and how a verified package is admitted.
#[derive(Clone, Default)]
pub struct Admission {
    /// Where it is to run.
    pub tier: RunsIn,
    /// The tenant that brought it: it runs in that tenant's worker, and is compiled in that tenant's time.
    pub owner: Option<TenantId>,
    /// Its egress grants. Those that its package does not declare are not for it.
    pub grants: Grants,
    /// Where its code may come from.
    pub code: Code,
    /// Whether it has to pass the samples that it carries.
    pub self_test: SelfTest,
    /// What a provider was shown to carry before, which is not tried again then.
    pub levels: Option<Levels>,
}

/// Where a component's code may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Code {
    /// From the cache, else from the compiler.
    #[default]
    Any,
    /// From the cache alone: [`AdmitError::NotCompiled`] where it is not there, without a wait for the compiler.
    Cached,
}

/// Whether a component has to pass the samples that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelfTest {
    /// It does not become active if it fails one.
    #[default]
    Run,
    /// It does not: [`Components::rehearse`] reports on every sample by itself, or it ran before.
    Skip,
}

// === impl Admission ===

impl Admission {
    /// To run at `tier`, for the tenant that brought it.
    pub fn new(tier: RunsIn, owner: Option<&TenantId>) -> Self {
        Self { tier, owner: owner.cloned(), ..Self::default() }
    }

    /// With these egress grants.
    #[must_use]
    pub fn granted(self, grants: Grants) -> Self {
        Self { grants, ..self }
    }

    /// Without a wait for the compiler.
    #[must_use]
    pub fn cached(self) -> Self {
        Self { code: Code::Cached, ..self }
    }

    /// As it was shown before, if it was.
    #[must_use]
    pub fn knowing(self, levels: Option<Levels>) -> Self {
        Self { levels, ..self }
    }

    /// Without its self-test.
    #[must_use]
    pub fn untested(self) -> Self {
        Self { self_test: SelfTest::Skip, ..self }
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tier, owner, grants, code, self_test, levels } = self;
        out.debug_struct("Admission")
            .field("tier", tier)
            .field("owner", owner)
            .field("grants", &grants.keys())
            .field("code", code)
            .field("self_test", self_test)
            .field("levels", levels)
            .finish()
    }
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

// === impl Components ===

impl Components {
    /// Makes a verified package callable with `config`. Nothing that is in force changes; an error says why it would not work.
    pub async fn admit(
        &self,
        verified: &Verified,
        config: &serde_json::Value,
        admission: Admission,
    ) -> Result<Arc<Component>, AdmitError> {
        let self_test = admission.self_test;
        let mut admission = admission;
        let known = admission.levels.take();
        let component = self.prepared(verified, config, admission).await?;
        if self_test == SelfTest::Run {
            Box::pin(self.self_test(&component, verified.component())).await?;
        }
        if component.has_to_show() {
            if let Some(levels) = known {
                component.showed(levels);
                return Ok(component);
            }
            match Box::pin(self.conformance(&component, conformance::USUAL_MODEL)).await {
                Ok(shown) => component.showed_when_tried(shown.levels()),
                // That speaks neither way: it was not tried.
                Err(error) => {
                    tracing::warn!(
                        component.name = component.name(),
                        "what it carries is not known: {error}"
                    );
                    component.showed(Levels::default());
                }
            }
        }
        Ok(component)
    }

    /// Everything but the self-test.
    async fn prepared(
        &self,
        verified: &Verified,
        config: &serde_json::Value,
        admission: Admission,
    ) -> Result<Arc<Component>, AdmitError> {
        let Admission { tier, owner, mut grants, code, self_test: _, levels: _ } = admission;
        let owner = owner.as_ref();
        if verified.is_development() && !self.settings.development {
            return Err(AdmitError::Development);
        }
        let wanted: Vec<&str> =
            verified.statement().capabilities.iter().filter_map(Capability::egress).collect();
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
        let configuration = Arc::from(job.config.as_str());
        Ok(Component::ready(
            verified,
            Made {
                limits: job.limits,
                structure,
                config_digest,
                configuration,
                grants,
                executor,
                snapshotted,
            },
        ))
    }

    /// Puts code where it runs: kept code, or where there is none that fits, code from a child.
    async fn executor(
        &self,
        code: Code,
        tier: RunsIn,
        owner: Option<&TenantId>,
        prepared: &Prepared,
        verified: &Verified,
    ) -> Result<(Executor, bool), AdmitError> {
        let id = CodeId::new(verified.digest().as_str(), &prepared.config_digest, &self.compatibility);
        let cache = Arc::clone(&self.cache);
        if let Some(trusted) = blocking(move || cache.load(id)).await? {
            match self.install(tier, owner, verified, prepared, trusted).await {
                Err(AdmitError::Link(_)) => {}
                installed => return installed,
            }
        }
        if code == Code::Cached {
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
        tier: RunsIn,
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
        let name = Arc::from(statement.name.as_str());
        let scene = self.scene(name, statement.digest.hex(), &Arc::default(), "", Arc::default());
        let executor = match tier {
            RunsIn::Shared => {
                let engine = self.runner.engine.clone();
                let loaded = blocking(move || trusted.load(&engine)).await?.map_err(|error| link(&error))?;
                let guest = Guest::link(&self.runner.linkers, load, &loaded).map_err(|error| link(&error))?;
                let guest = Arc::new(guest);
                self.runner.try_out(&guest, scene).await.map_err(AdmitError::Trial)?;
                Executor::Shared(guest)
            }
            RunsIn::Process => {
                let worker = self.workers.of(owner);
                Executor::Process(
                    worker.load_guest(load, trusted.into_code(), SceneFacts::from(&scene)).await?,
                )
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
