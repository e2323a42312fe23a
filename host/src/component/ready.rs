//! A component that can be called: what its package says of it, what admission made of it, and where it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sallyport_protocol::facts::ApiStyle;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::level::{self, LevelTable, Levels, ShownLevels};
use sallyport_protocol::package::{
    Capability, CredentialForm, HookEvent, Kind, Statement, UpstreamApi, Verified,
};
use sallyport_protocol::signature::KeyId;

use super::contract::{Counters, Grants};
use super::executor::{Executor, RunsIn};
use super::fault::Fault;
use super::inspect::Structure;
use super::limits::Limits;
use super::reads::Reads;
use super::tally::Tally;

/// Guest time that a self-test grants in addition, where the instance has to be configured first.
const SELF_TEST_CONFIGURE_CPU: Duration = Duration::from_millis(500);
/// The guest time of a replay, as a multiple of that of a call.
const REPLAY_CPU: u32 = 10;

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
    capabilities: Vec<Capability>,
    reads: Option<Reads>,
    /// How the upstream of a provider takes a credential, unless the route says otherwise.
    credential: CredentialForm,
    /// What the upstream of a provider has besides messages.
    apis: Vec<UpstreamApi>,
    /// It is a provider that adapts an upstream.
    adapts: bool,
    /// What a provider was shown to carry.
    levels: OnceLock<Vec<ShownLevels>>,
    /// Whether that was tried when this was admitted.
    tried: AtomicBool,
    publisher: Option<KeyId>,
    tenant: Option<TenantId>,
    structure: Structure,
    /// It takes from the host's counters.
    counts: bool,
    limits: Limits,
    snapshotted: bool,
    /// Its egress grants.
    pub(super) grants: Arc<Grants>,
    pub(super) executor: Executor,
    /// Why it does not run any more, or never did.
    barred: OnceLock<Fault>,
    tally: Tally,
    /// Counters of its own, in a rehearsal.
    pub(super) counters: Option<Arc<dyn Counters>>,
    /// The time of a replay, since 1970.
    pub(super) frozen_time: Option<Duration>,
    /// What `configure` got, as JSON.
    configuration: Arc<str>,
    /// What rows say of it, as a JSON object.
    evidence: String,
}

/// What admission made of a package.
pub(super) struct Made {
    pub(super) structure: Structure,
    pub(super) limits: Limits,
    pub(super) config_digest: String,
    pub(super) configuration: Arc<str>,
    pub(super) grants: Grants,
    pub(super) executor: Executor,
    pub(super) snapshotted: bool,
}

// === impl Component ===

impl Component {
    /// What a verified package became.
    pub(super) fn ready(verified: &Verified, made: Made) -> Arc<Self> {
        let Made { structure, limits, config_digest, configuration, grants, executor, snapshotted } = made;
        Arc::new(Self {
            evidence: evidence(verified.statement(), &config_digest),
            config_digest,
            publisher: Some(verified.key().clone()),
            counts: structure.imports.iter().any(|import| import.contains("/counters@")),
            structure,
            limits,
            snapshotted,
            grants: Arc::new(grants),
            executor,
            configuration,
            ..Self::described(verified.statement(), verified.tenant().cloned())
        })
    }

    /// What stands in the place of a package that may not run: every call of it ends in `fault`.
    pub fn absent(statement: &Statement, tenant: Option<TenantId>, fault: Fault) -> Arc<Self> {
        Arc::new(Self { barred: OnceLock::from(fault), ..Self::described(statement, tenant) })
    }

    /// What the statement alone says, with nothing to run.
    fn described(statement: &Statement, tenant: Option<TenantId>) -> Self {
        Self {
            name: Arc::from(statement.name.as_str()),
            version: statement.version.clone(),
            serial: statement.serial,
            digest: statement.digest.hex().to_owned(),
            config_digest: String::new(),
            kind: statement.kind,
            world: statement.world.to_string(),
            events: statement.events.clone(),
            capabilities: statement.capabilities.clone(),
            reads: statement.reads.as_deref().map(Reads::of),
            credential: statement.credential.clone().unwrap_or_default(),
            levels: shipped_levels(statement.name.as_str()),
            tried: AtomicBool::new(false),
            adapts: statement.kind == Kind::Provider && statement.upstream.is_some(),
            apis: statement.upstream.as_ref().map(|upstream| upstream.apis.clone()).unwrap_or_default(),
            publisher: None,
            tenant,
            structure: Structure::default(),
            counts: false,
            limits: Limits::declared(statement.kind, &statement.limits),
            snapshotted: false,
            grants: Arc::default(),
            executor: Executor::None,
            barred: OnceLock::new(),
            tally: Tally::default(),
            counters: None,
            frozen_time: None,
            configuration: Arc::from(""),
            evidence: evidence(statement, ""),
        }
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
            reads: None,
            limits: sallyport_protocol::package::Limits::default(),
            upstream: None,
            credential: None,
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

    /// What every row says of it, whatever it did: a JSON object.
    pub fn evidence(&self) -> &str {
        &self.evidence
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
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// The facts of a call that it reads, for a policy that says so: what it says follows from them.
    pub fn reads(&self) -> Option<&Reads> {
        self.reads.as_ref()
    }

    /// How the upstream of a provider takes a credential, unless the route says otherwise.
    pub fn credential_form(&self) -> &CredentialForm {
        &self.credential
    }

    /// Whether the upstream of a provider has this part of Anthropic's API.
    pub fn offers(&self, api: UpstreamApi) -> bool {
        self.apis.contains(&api)
    }

    /// What a provider was shown to carry for a model of its upstream; `None` where nobody tried. `api` is looked at only where it matters.
    pub fn levels(&self, model: &str, api: impl FnOnce() -> Option<ApiStyle>) -> Option<&Levels> {
        let entries = self.levels.get()?;
        let asked_by = if entries.iter().any(|entry| entry.api.is_some()) { api() } else { None };
        level::shown(entries, model, asked_by)
    }

    /// Whether it adapts an upstream, and nobody has tried yet what it carries.
    pub(super) fn has_to_show(&self) -> bool {
        self.adapts && self.levels.get().is_none()
    }

    /// What it carries was tried just now.
    pub(super) fn showed_when_tried(&self, levels: Levels) {
        self.showed(levels);
        self.tried.store(true, Ordering::Release);
    }

    /// What it was shown to carry when it was admitted; `None` where that was known, or could not be tried.
    pub fn tried_levels(&self) -> Option<&Levels> {
        let tried = self.tried.load(Ordering::Acquire);
        self.levels.get().filter(|_| tried)?.first().map(|shown| &shown.levels)
    }

    /// What it carries is known.
    pub(super) fn showed(&self, levels: Levels) {
        let shown = ShownLevels { component: self.name.to_string(), model: None, api: None, levels };
        // Who was first is as right: it is the same component.
        drop(self.levels.set(vec![shown]));
    }

    /// Whether its package asks to change requests.
    pub fn asks_to_rewrite(&self) -> bool {
        self.asks_for(&Capability::Rewrite)
    }

    /// Whether its package asks for `capability`.
    pub fn asks_for(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
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
        self.counts
    }

    /// Whether every call starts from the memory that `configure` left; otherwise `configure` runs in every call.
    pub fn is_snapshotted(&self) -> bool {
        self.snapshotted
    }

    /// The same component at another time and with counters of its own: for calls that were recorded. Counting its fuel makes
    /// it slower, so it has more guest time.
    pub async fn for_replay(&self, now: Duration, counters: Arc<dyn Counters>) -> Result<Arc<Self>, Fault> {
        let mut limits = self.limits;
        limits.cpu *= REPLAY_CPU;
        limits.cpu_total *= REPLAY_CPU;
        limits.wall *= REPLAY_CPU;
        let copy = self.with_limits(limits, None, counters).await?;
        Ok(Arc::new(Self { frozen_time: Some(now), ..copy }))
    }

    /// The same component with counters of its own, which is configured with `config` in every instance, if there is one.
    pub(super) async fn for_self_test(
        &self,
        config: Option<String>,
        counters: Arc<dyn Counters>,
    ) -> Result<Self, Fault> {
        let mut limits = self.limits;
        if config.is_some() {
            limits.cpu += SELF_TEST_CONFIGURE_CPU;
            limits.cpu_total += SELF_TEST_CONFIGURE_CPU;
        }
        self.with_limits(limits, config, counters).await
    }

    async fn with_limits(
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
            reads: self.reads.clone(),
            credential: self.credential.clone(),
            adapts: self.adapts,
            apis: self.apis.clone(),
            levels: self.levels.clone(),
            tried: AtomicBool::new(false),
            publisher: self.publisher.clone(),
            tenant: self.tenant.clone(),
            structure: self.structure.clone(),
            counts: self.counts,
            limits,
            snapshotted: self.snapshotted,
            // No egress in self-tests and replays.
            grants: Arc::default(),
            executor: self.executor.with_limits(limits, config).await?,
            barred: self.barred.clone(),
            tally: Tally::default(),
            counters: Some(counters),
            frozen_time: None,
            configuration: Arc::clone(&self.configuration),
            evidence: self.evidence.clone(),
        })
    }

    /// Where it runs.
    pub fn tier(&self) -> RunsIn {
        self.executor.tier()
    }
}

// === private helpers ===

/// Counting fuel would cost every call a quarter more time; replay counts it.
/// What is known of a component that ships.
fn shipped_levels(name: &str) -> OnceLock<Vec<ShownLevels>> {
    let levels = OnceLock::new();
    let known = LevelTable::shipped().map(|table| table.of(name)).unwrap_or_default();
    if !known.is_empty() {
        drop(levels.set(known));
    }
    levels
}

fn evidence(statement: &Statement, config_digest: &str) -> String {
    let Statement { name, version, digest, .. } = statement;
    let about = serde_json::json!({
        "name": name.as_str(), "version": version.to_string(), "digest": digest.hex(), "config": config_digest, "fuel": null,
    });
    about.to_string()
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
