//! From the configuration's list of components and the catalog's places to bundles. What the configuration names has to be
//! admitted, or nothing changes; what the catalog places and cannot be put there leaves its place empty, which refuses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use sallyport_protocol::canonical;
use sallyport_protocol::hooks::Attachment;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Capability, Kind, Package, Publisher, Verified};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::admissions::PendingAdmission;
use super::entry::{AssembleError, EntryError};
use super::keep::Watched;
use super::packages::LocalPackages;
use super::place::{Placement, Tried};
use super::state::{CatalogState, Placed, subject};
use super::{Catalog, CatalogError, ReleaseId};
use crate::causes::Causes;
use crate::component::contract::Grants;
use crate::component::{Admission, AdmitError, Bundle, Component, Entry, Fault, Mode, RunsIn, Trial};
use crate::config::{self, Config};
use crate::db::DbError;
use crate::shipped::first_party_publisher;
use crate::trust::{Distrust, Requirement, Revocations};

/// What is to be put in force.
#[derive(Debug)]
pub struct Assembled {
    /// For every tenant that has nothing of its own.
    pub default: Bundle,
    /// For the tenants that have.
    pub tenants: Vec<(TenantId, Bundle)>,
    pub(super) epoch: i64,
    pub(super) next_expiry: Option<OffsetDateTime>,
    config: Arc<Config>,
    components: HashMap<ReleaseId, Arc<Component>>,
    watched: Vec<Watched>,
    wanted: HashSet<ReleaseId>,
}

/// One assembly in progress.
struct Assembly<'a> {
    catalog: &'a Catalog,
    config: &'a Config,
    snapshot: &'a CatalogState,
    packages: &'a LocalPackages,
    before: HashMap<ReleaseId, Arc<Component>>,
    used: HashMap<ReleaseId, Arc<Component>>,
    watched: Vec<Watched>,
    /// What tenants' places want, whether it is there or not.
    wanted: HashSet<ReleaseId>,
}

/// What stands in one place.
enum PlaceContent {
    Entry(Entry),
    Provider { component: Option<Arc<Component>>, trial: Option<Trial> },
    Nothing,
}

// === impl Catalog ===

impl Catalog {
    /// What `config` and the catalog put in force. What was revoked ends at once, whatever comes of the rest.
    pub async fn assemble(&self, config: &Arc<Config>) -> Result<Assembled, AssembleError> {
        // The epoch is read first: a change in between is seen twice rather than missed.
        let unread = |error: DbError| AssembleError::Catalog(error.into());
        let epoch = self.db.catalog_epoch().await.map_err(unread)?;
        // Revocations first, and for themselves: a place that cannot be read keeps nothing alive that was revoked.
        self.end_revoked().await.map_err(AssembleError::Revocations)?;
        let snapshot = CatalogState::read(&self.db, &self.trust).await.map_err(AssembleError::Catalog)?;
        let packages = LocalPackages::load(config)?;
        let before = self.admitted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut assembly = Assembly {
            catalog: self,
            config,
            snapshot: &snapshot,
            packages: &packages,
            before,
            used: HashMap::new(),
            watched: Vec::new(),
            wanted: HashSet::new(),
        };
        let (entries, providers, trials) = assembly.platform().await?;
        let predicates = assembly.predicates().await?;
        let tenants = assembly.tenants(&entries, &providers, &trials, &predicates).await?;
        let Assembly { used, watched, wanted, .. } = assembly;
        // What was revoked while it was being compiled begins to run as what it is.
        let revocations = Revocations::read(&self.db).await.map_err(AssembleError::Revocations)?;
        end(&used, &revocations);
        let default =
            Bundle::assemble(&entries, providers, trials, predicates).map_err(AssembleError::Version)?;
        let next_expiry = snapshot.next_expiry(self.clock.now());
        let config = Arc::clone(config);
        Ok(Assembled { default, tenants, epoch, next_expiry, config, components: used, watched, wanted })
    }

    /// `assembled` is about to be put in force: its components are from here on the ones that a revocation ends, its trials the
    /// ones that are judged. Of an assembly that comes to nothing the catalog keeps nothing: what runs on stays known.
    pub fn adopt(&self, assembled: &Assembled) {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&assembled.components);
        self.trials.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&assembled.watched);
        self.config.store(Some(Arc::clone(&assembled.config)));
        self.admissions
            .forget(|id| assembled.components.contains_key(id), |id| assembled.wanted.contains(id));
    }

    /// Verifies a package for a place and admits it. `placement.since` is when it was put there: what was right then, and was
    /// not revoked since, still is.
    pub(super) async fn admit_placed(
        &self,
        config: &Config,
        snapshot: &CatalogState,
        placement: &Placement,
        package: &Package,
        tenant: Option<&TenantId>,
    ) -> Result<Arc<Component>, CatalogError> {
        let verified = self.verify_placed(config, snapshot, placement, package, tenant).await?;
        let tier = snapshot.tier(config, package.statement().kind, tenant);
        let admission = Admission::new(tier, tenant).granted(self.grants(config, package));
        let admitted = self.admit_knowing(&verified, &placement.config, admission).await;
        let component = admitted.map_err(CatalogError::Admit)?;
        if tenant.is_some() {
            let id = ReleaseId::new(tenant, package, &placement.config, config);
            self.admissions.put(id, Arc::clone(&component));
        }
        Ok(component)
    }

    /// The egress grants that the configuration gives the package's component, of those that it asks for.
    pub(super) fn grants(&self, config: &Config, package: &Package) -> Grants {
        let grants = granted(config, package).map(|grant| (grant.name.clone(), (self.egress)(grant)));
        grants.collect()
    }

    pub(super) async fn verify_placed(
        &self,
        config: &Config,
        snapshot: &CatalogState,
        placement: &Placement,
        package: &Package,
        tenant: Option<&TenantId>,
    ) -> Result<Verified, CatalogError> {
        let publishers = listed_publishers(config);
        let purpose = Requirement {
            tenant,
            publishers: &publishers,
            signed_by: placement.since,
            valid_at: placement.since,
            rollback: placement.rollback.as_deref(),
        };
        let verified = snapshot.trust.verify(package, purpose).await?;
        let missing = snapshot.missing(tenant, verified.statement(), self.clock.now());
        if missing.is_empty() { Ok(verified) } else { Err(CatalogError::Grants { missing }) }
    }

    /// A component was put in force: nothing older follows without a record.
    pub(super) async fn raise_floor(
        &self,
        tenant: Option<&TenantId>,
        component: &Component,
    ) -> Result<(), CatalogError> {
        let (name, digest) = (component.name(), component.digest());
        Ok(self.trust.raise_floor(tenant, name, component.serial(), digest).await?)
    }

    /// Ends components that run and were revoked. They answer nobody from here on, calls in progress included.
    pub(super) async fn end_revoked(&self) -> Result<(), DbError> {
        let revocations = Revocations::read(&self.db).await?;
        end(&self.admitted.lock().unwrap_or_else(PoisonError::into_inner), &revocations);
        Ok(())
    }
}

// === impl Assembly ===

type Providers = BTreeMap<String, Arc<Component>>;
type ProviderTrials = BTreeMap<String, Trial>;

impl Assembly<'_> {
    /// The configuration's entries in their order, each as the catalog has it where the catalog has it; then the catalog's.
    async fn platform(&mut self) -> Result<(Vec<Entry>, Providers, ProviderTrials), AssembleError> {
        let mut entries = Vec::new();
        let mut providers: BTreeMap<String, PlaceContent> = BTreeMap::new();
        let mut placed: BTreeMap<&str, &Placed> = BTreeMap::new();
        for place in self.snapshot.places.iter().filter(|place| place.tenant.is_none()) {
            if !self.snapshot.is_predicate(place) {
                placed.insert(&place.name, place);
            }
        }
        let mut configs: HashMap<&str, &Value> = HashMap::new();
        for (number, wanted) in self.config.bundle.iter().enumerate() {
            let refused = |cause| {
                let place = format!("bundle[{number}]: {}", wanted.component);
                AssembleError::Entry { place, cause }
            };
            if let Some(place) = placed.remove(self.packages.name(&wanted.component)) {
                match self.stand(place).await {
                    PlaceContent::Entry(entry) => entries.push(entry),
                    PlaceContent::Nothing => {}
                    provider @ PlaceContent::Provider { .. } => {
                        drop(providers.insert(place.name.clone(), provider));
                    }
                }
                continue;
            }
            let found = self.packages.find(&wanted.component);
            let (name, package) = found.ok_or_else(|| refused(EntryError::Unknown))?;
            let kind = package.statement().kind;
            if kind != Kind::Hook && wanted.attachment != Attachment::default() {
                return Err(refused(EntryError::NotAHook(kind)));
            }
            if kind == Kind::Provider {
                // A provider's entry configures it; which calls it serves is for the routes to say.
                configs.insert(name, &wanted.config);
                continue;
            }
            let component = self.admit(package, &wanted.config).await.map_err(|it| refused(it.into()))?;
            let mut entry = Entry::new(component, mode(wanted.mode)).attached(&wanted.attachment);
            if wanted.rewrite {
                if !entry.component.asks_to_rewrite() {
                    return Err(refused(EntryError::Rewrite));
                }
                entry.may_rewrite = true;
            }
            entries.push(entry);
        }
        let mut rest: Vec<&Placed> = placed.into_values().collect();
        rest.sort_by_key(|place| (place.place.order, &place.name));
        for place in rest {
            match self.stand(place).await {
                PlaceContent::Entry(entry) => entries.push(entry),
                PlaceContent::Nothing => {}
                provider @ PlaceContent::Provider { .. } => {
                    drop(providers.insert(place.name.clone(), provider));
                }
            }
        }
        let (providers, trials) = self.providers(providers, &configs).await?;
        Ok((entries, providers, trials))
    }

    /// One provider for each tag that the routes name: the catalog's before a package at hand, and of each the gateway's own first.
    /// A full name is that component and no other; where it is not in force, its routes have no provider.
    async fn providers(
        &mut self,
        mut placed: BTreeMap<String, PlaceContent>,
        configs: &HashMap<&str, &Value>,
    ) -> Result<(Providers, ProviderTrials), AssembleError> {
        let nothing = json!({});
        let (mut providers, mut trials) = (Providers::new(), ProviderTrials::new());
        let tags: BTreeSet<_> =
            self.config.gateway.targets().map(|target| target.provider.as_str()).collect();
        for tag in tags {
            let refused = |cause| AssembleError::Entry { place: format!("the provider {tag}"), cause };
            let at_hand = self.packages.provider(tag).ok();
            let own = at_hand.map(|(name, _)| name.to_owned());
            let named = |name: &&String| super::packages::serves(name, tag);
            // A vendor's provider does not take the place of one that comes with the gateway.
            let name = match own.filter(|name| name.starts_with(&format!("{}/", super::packages::NAMESPACE)))
            {
                Some(own) => Some(own),
                None => placed.keys().find(named).cloned(),
            };
            if let Some(PlaceContent::Provider { component, trial }) =
                name.and_then(|name| placed.remove(&name))
            {
                trials.extend(trial.map(|trial| (tag.to_owned(), trial)));
                if let Some(component) = component {
                    providers.insert(tag.to_owned(), component);
                    continue;
                }
            }
            let (name, package) = match self.packages.provider(tag) {
                Err(_) if tag.contains('/') => {
                    tracing::error!(component.name = tag, "a route names a provider that is not in force");
                    continue;
                }
                found => found.map_err(refused)?,
            };
            let config = configs.get(name).copied().unwrap_or(&nothing);
            let component = self.admit(package, config).await.map_err(|it| refused(it.into()))?;
            providers.insert(tag.to_owned(), component);
        }
        Ok((providers, trials))
    }

    /// One predicate for each that the routes name, with the configuration that they give it: the catalog's release, where the
    /// catalog has it. Where it is not in force, its routes have no predicate, and take no call.
    async fn predicates(&mut self) -> Result<Providers, AssembleError> {
        let mut predicates = Providers::new();
        let config = self.config;
        for wanted in config.gateway.routes.iter().filter_map(|route| route.predicate.as_ref()) {
            let key = wanted.key();
            if predicates.contains_key(&key) {
                continue;
            }
            let component = match self.snapshot.predicate(&wanted.component) {
                Some(placed) => match &placed.place.active {
                    Some(active) => self.settled(placed, &active.configured(&wanted.config)).await,
                    None => None,
                },
                None => self.listed_predicate(wanted).await.map_err(|cause| {
                    let place = format!("the predicate {}", wanted.component);
                    AssembleError::Entry { place, cause }
                })?,
            };
            if let Some(component) = component {
                predicates.insert(key, component);
            } else {
                let name = wanted.component.as_str();
                tracing::error!(component.name = name, "a route names a predicate that is not in force");
            }
        }
        Ok(predicates)
    }

    /// The predicate of a package that is at hand.
    async fn listed_predicate(
        &mut self,
        wanted: &config::Predicate,
    ) -> Result<Option<Arc<Component>>, EntryError> {
        let Some((name, package)) = self.packages.find(&wanted.component) else { return Ok(None) };
        if package.statement().kind != Kind::Predicate {
            return Err(EntryError::Kind { name: name.to_owned(), wanted: Kind::Predicate });
        }
        Ok(Some(self.admit(package, &wanted.config).await?))
    }

    /// What tenants have besides: behind the platform's, so that nothing of it is loosened.
    async fn tenants(
        &mut self,
        entries: &[Entry],
        providers: &Providers,
        trials: &ProviderTrials,
        predicates: &Providers,
    ) -> Result<Vec<(TenantId, Bundle)>, AssembleError> {
        let mut own: BTreeMap<&TenantId, Vec<&Placed>> = BTreeMap::new();
        for place in &self.snapshot.places {
            if let Some(tenant) = &place.tenant {
                own.entry(tenant).or_default().push(place);
            }
        }
        let mut bundles = Vec::new();
        for (tenant, mut places) in own {
            places.sort_by_key(|place| (place.place.order, &place.name));
            let mut all = entries.to_vec();
            for place in places {
                if let PlaceContent::Entry(entry) = self.stand(place).await {
                    all.push(entry);
                }
            }
            if all.len() > entries.len() {
                bundles.push((
                    tenant.clone(),
                    Bundle::assemble(&all, providers.clone(), trials.clone(), predicates.clone())
                        .map_err(AssembleError::Version)?,
                ));
            }
        }
        Ok(bundles)
    }

    /// What stands in a place of the catalog. What cannot be put in force refuses; what cannot be tried is not tried.
    async fn stand(&mut self, placed: &Placed) -> PlaceContent {
        let active = match &placed.place.active {
            Some(placement) => self.settled(placed, placement).await.map(|it| (it, placement.mode)),
            None => None,
        };
        let trial = match &placed.place.trial {
            Some(tried) => self.tried(placed, tried).await,
            None => None,
        };
        if let (Some(trial), Some(tried)) = (&trial, &placed.place.trial) {
            self.watched.push(Watched::new(placed, tried, trial, active.as_ref().map(|(it, _)| it)));
        }
        let active_kind = active.as_ref().map(|(it, _)| it.kind());
        let kind = active_kind.or_else(|| trial.as_ref().map(|it| it.component.kind()));
        let attachment = self.attachment(placed);
        match (active, trial) {
            (None, None) => PlaceContent::Nothing,
            (component, trial) if kind == Some(Kind::Provider) => {
                PlaceContent::Provider { component: component.map(|(it, _)| it), trial }
            }
            // What stands in a place was granted what it asks for: without, it would not stand there.
            (Some((component, mode)), trial) => {
                PlaceContent::Entry(Entry { trial, attachment, ..Entry::granted(component, mode) })
            }
            (None, Some(trial)) => {
                let component = Arc::clone(&trial.component);
                // Nothing is in force: whoever the trial is not for is asked nothing.
                PlaceContent::Entry(Entry {
                    trial: Some(trial),
                    attachment,
                    ..Entry::new(component, Mode::Off)
                })
            }
        }
    }

    /// How a hook is attached: as its place says, else as the configuration's entry of its name does.
    fn attachment(&self, placed: &Placed) -> Attachment {
        if placed.attachment != Attachment::default() || placed.tenant.is_some() {
            return placed.attachment.clone();
        }
        let named = |entry: &&config::BundleEntry| self.packages.name(&entry.component) == placed.name;
        self.config.bundle.iter().find(named).map(|entry| entry.attachment.clone()).unwrap_or_default()
    }

    async fn settled(&mut self, placed: &Placed, placement: &Placement) -> Option<Arc<Component>> {
        match self.placed(placed, placement).await {
            Ok(component) => Some(component),
            Err((CatalogError::Compiling, _)) if self.was_before(placed).is_some() => {
                let name = placed.name.as_str();
                tracing::info!(
                    component.name = name,
                    "a component is being compiled; what was in force stays"
                );
                let (id, component) = self.was_before(placed)?;
                self.used.insert(id, Arc::clone(&component));
                Some(component)
            }
            Err((error, package)) => {
                let fault = error.fault();
                tracing::error!(component.name = placed.name, "a component cannot be put in force: {fault}");
                let package = package?;
                Some(Component::absent(package.statement(), placed.tenant.clone(), fault))
            }
        }
    }

    /// What was in force in a tenant's place before what stands there now, if it runs and may run.
    fn was_before(&self, placed: &Placed) -> Option<(ReleaseId, Arc<Component>)> {
        let before = placed.place.previous.last()?;
        let config = canonical::digest(&before.config);
        let (id, component) = self.before.iter().find(|(id, component)| {
            id.tenant == placed.tenant
                && id.name == placed.name
                && id.version == before.version
                && id.config == config
                && component.barred().is_none()
                && self.snapshot.allows(component, placed.tenant.as_ref(), self.catalog.clock.now())
        })?;
        Some((id.clone(), Arc::clone(component)))
    }

    async fn tried(&mut self, placed: &Placed, tried: &Tried) -> Option<Trial> {
        match self.placed(placed, &tried.placement).await {
            Ok(component) => Some(Trial { component, stage: tried.stage(), mode: tried.placement.mode }),
            Err((error, _)) => {
                let name = placed.name.as_str();
                tracing::error!(component.name = name, "a component cannot be tried: {}", Causes(&error));
                None
            }
        }
    }

    /// The component of a placement: the one that runs already, else admitted from what was uploaded.
    async fn placed(
        &mut self,
        placed: &Placed,
        placement: &Placement,
    ) -> Result<Arc<Component>, (CatalogError, Option<Package>)> {
        let (catalog, tenant) = (self.catalog, placed.tenant.as_ref());
        let stored = || (CatalogError::Stored(placed.name.clone()), None);
        let bytes = catalog.db.component_package(tenant, &placed.name, &placement.version).await;
        let bytes = bytes.map_err(|error| (error.into(), None))?.ok_or_else(stored)?;
        let package = Package::parse(bytes).map_err(|_| stored())?;
        let id = ReleaseId::new(tenant, &package, &placement.config, self.config);
        let verified = catalog.verify_placed(self.config, self.snapshot, placement, &package, tenant).await;
        let verified = verified.map_err(|error| (error, Some(package.clone())))?;
        let tier = self.snapshot.tier(self.config, package.statement().kind, tenant);
        self.wanted.extend(tenant.map(|_| id.clone()));
        let component = match (self.kept(&id, tier), tenant) {
            (Some(component), _) => component,
            (None, Some(tenant)) => {
                let grants = catalog.grants(self.config, &package);
                let admission = Admission::new(tier, Some(tenant)).granted(grants);
                let ask = PendingAdmission { verified, config: placement.config.clone(), admission };
                self.tenants_own(&id, ask).await.map_err(|error| (error, Some(package)))?
            }
            (None, None) => catalog
                .admit_knowing(
                    &verified,
                    &placement.config,
                    Admission::new(tier, None).granted(catalog.grants(self.config, &package)),
                )
                .await
                .map_err(|error| (CatalogError::Admit(error), Some(package)))?,
        };
        self.used.insert(id, Arc::clone(&component));
        Ok(component)
    }

    /// A tenant's component whose code is there. Where it has to be compiled first, that is done beside this assembly: nobody
    /// else waits for it.
    async fn tenants_own(
        &self,
        id: &ReleaseId,
        ask: PendingAdmission,
    ) -> Result<Arc<Component>, CatalogError> {
        let catalog = self.catalog;
        if let Some(ready) = catalog.admissions.ready(id, ask.admission.tier) {
            return Ok(ready);
        }
        let cached = ask.admission.clone().cached();
        match catalog.admit_knowing(&ask.verified, &ask.config, cached).await {
            Err(AdmitError::NotCompiled) => Err(catalog.admissions.request(id, ask)),
            kept => kept.map_err(CatalogError::Admit),
        }
    }

    /// A component that the configuration names, from a package at hand.
    async fn admit(&mut self, package: &Package, config: &Value) -> Result<Arc<Component>, CatalogError> {
        let catalog = self.catalog;
        let now = catalog.clock.now();
        let publishers = listed_publishers(self.config);
        let purpose = Requirement {
            tenant: None,
            publishers: &publishers,
            signed_by: now,
            valid_at: self.packages.looked_at(package.statement(), now),
            rollback: None,
        };
        let verified = match self.snapshot.trust.verify(package, purpose).await {
            Ok(verified) => verified,
            Err(Distrust::Revoked(reason)) => {
                return Ok(Component::absent(package.statement(), None, Fault::Revoked { reason }));
            }
            Err(error) => return Err(error.into()),
        };
        let id = ReleaseId::new(None, package, config, self.config);
        let tier = self.snapshot.tier(self.config, package.statement().kind, None);
        let component = if let Some(component) = self.kept(&id, tier) {
            component
        } else {
            let admission = Admission::new(tier, None).granted(catalog.grants(self.config, package));
            catalog.admit_knowing(&verified, config, admission).await?
        };
        catalog.raise_floor(None, &component).await?;
        self.used.insert(id, Arc::clone(&component));
        Ok(component)
    }

    fn kept(&self, id: &ReleaseId, tier: RunsIn) -> Option<Arc<Component>> {
        let kept = self.used.get(id).or_else(|| self.before.get(id));
        kept.filter(|it| it.barred().is_none() && it.tier() == tier).cloned()
    }
}

// === impl ReleaseId ===

impl ReleaseId {
    fn new(tenant: Option<&TenantId>, package: &Package, config: &Value, all: &Config) -> Self {
        let statement = package.statement();
        Self {
            tenant: tenant.cloned(),
            name: statement.name.to_string(),
            version: statement.version.to_string(),
            digest: statement.digest.hex().to_owned(),
            config: canonical::digest(config),
            egress: granted(all, package).map(|grant| canonical::hex(&grant.fingerprint())).collect(),
        }
    }
}

// === private helpers ===

fn end(components: &HashMap<ReleaseId, Arc<Component>>, revocations: &Revocations) {
    for (id, component) in components {
        if let Some(revoked) = revocations.of(subject(component, id.tenant.as_ref()))
            && component.barred().is_none()
        {
            component.revoke(&revoked.reason);
            tracing::warn!(
                component.name = component.name(),
                component.digest = component.digest(),
                "a component was revoked: {}",
                revoked.reason
            );
        }
    }
}

/// The egress grants that `config` gives the component of `package`, of those that it asks for.
fn granted<'a>(config: &'a Config, package: &'a Package) -> impl Iterator<Item = &'a config::EgressSettings> {
    let statement = package.statement();
    let asked = statement.capabilities.iter().filter_map(Capability::egress);
    asked.filter_map(|name| config.egress.get(name)).filter(|grant| grant.allows(statement.name.as_str()))
}

/// The publishers that need no entry in the database: those of the configuration, and whoever signed the components inside the
/// binary.
pub(super) fn listed_publishers(config: &Config) -> Vec<Publisher> {
    config.components.publishers.iter().cloned().chain(first_party_publisher()).collect()
}

fn mode(mode: config::ModeSetting) -> Mode {
    match mode {
        config::ModeSetting::Enforce => Mode::Enforce,
        config::ModeSetting::Shadow => Mode::Shadow,
        config::ModeSetting::Off => Mode::Off,
    }
}
