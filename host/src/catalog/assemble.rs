//! From the configuration's list of components and the catalog's places to bundles. What the configuration names has to be
//! admitted, or nothing changes; what the catalog places and cannot be put there leaves its place empty, which refuses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use sallyport_protocol::canonical;
use sallyport_protocol::hooks::Attachment;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Kind, Package, Rollback, Verified};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::ahead::Ask;
use super::keep::Watched;
use super::place::{Placement, Tried};
use super::shelf::Shelf;
use super::stock::{Placed, Revocations, Stock, Subject};
use super::{Catalog, CatalogError, Id};
use crate::component::contract::Grants;
use crate::component::{AdmitError, Bundle, Component, Entry, Fault, Mode, Tier, Trial};
use crate::config::{self, Config};
use crate::db::DbError;
use crate::db::component::Floor;

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
    components: HashMap<Id, Arc<Component>>,
    watched: Vec<Watched>,
    wanted: HashSet<Id>,
}

/// One assembly in progress.
struct Assembly<'a> {
    catalog: &'a Catalog,
    config: &'a Config,
    stock: &'a Stock,
    shelf: &'a Shelf,
    before: HashMap<Id, Arc<Component>>,
    used: HashMap<Id, Arc<Component>>,
    watched: Vec<Watched>,
    /// What tenants' places want, whether it is there or not.
    wanted: HashSet<Id>,
}

/// What stands in one place.
enum Standing {
    Entry(Entry),
    Provider { component: Option<Arc<Component>>, trial: Option<Trial> },
    Nothing,
}

// === impl Catalog ===

impl Catalog {
    /// What `config` and the catalog put in force. What was revoked ends at once, whatever comes of the rest.
    pub async fn assemble(&self, config: &Arc<Config>) -> anyhow::Result<Assembled> {
        // The epoch is read first: a change in between is seen twice rather than missed.
        let epoch = self.db.catalog_epoch().await.context("the catalog cannot be read")?;
        // Revocations first, and for themselves: a place that cannot be read keeps nothing alive that was revoked.
        self.end_revoked().await.context("the revocations cannot be read")?;
        let stock = Stock::read(&self.db).await.context("the catalog cannot be read")?;
        let shelf = Shelf::stock(config)?;
        let before = self.admitted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut assembly = Assembly {
            catalog: self,
            config,
            stock: &stock,
            shelf: &shelf,
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
        let revocations = Revocations::read(&self.db).await.context("the revocations cannot be read")?;
        end(&used, &revocations);
        let default =
            Bundle::assemble(&entries, providers, trials, predicates).context("the bundle has no version")?;
        let next_expiry = stock.next_expiry(self.clock.now());
        let config = Arc::clone(config);
        Ok(Assembled { default, tenants, epoch, next_expiry, config, components: used, watched, wanted })
    }

    /// `assembled` is about to be put in force: its components are from here on the ones that a revocation ends, its trials the
    /// ones that are judged. Of an assembly that comes to nothing the catalog keeps nothing: what runs on stays known.
    pub fn adopt(&self, assembled: &Assembled) {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&assembled.components);
        self.trials.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&assembled.watched);
        self.config.store(Some(Arc::clone(&assembled.config)));
        self.ahead.forget(|id| assembled.components.contains_key(id), |id| assembled.wanted.contains(id));
    }

    /// Verifies a package for a place and admits it. `placement.since` is when it was put there: what was right then, and was
    /// not revoked since, still is.
    pub(super) async fn admit_placed(
        &self,
        config: &Config,
        stock: &Stock,
        placement: &Placement,
        package: &Package,
        tenant: Option<&TenantId>,
    ) -> Result<Arc<Component>, CatalogError> {
        let verified = self.verify_placed(config, stock, placement, package, tenant).await?;
        let tier = stock.tier(config, package.statement().kind, tenant);
        let grants = self.grants(config, package);
        let admitted = self.components.admit_to(tier, tenant, &verified, &placement.config, grants).await;
        let component = admitted.map_err(CatalogError::Admit)?;
        if tenant.is_some() {
            let id = Id::new(tenant, package, &placement.config, config);
            self.ahead.put(id, Arc::clone(&component));
        }
        Ok(component)
    }

    /// The ways out that the configuration gives the package's component, of those that it asks for.
    pub(super) fn grants(&self, config: &Config, package: &Package) -> Grants {
        let ways = granted(config, package).map(|way| (way.name.clone(), (self.ways_out)(way)));
        ways.collect()
    }

    pub(super) async fn verify_placed(
        &self,
        config: &Config,
        stock: &Stock,
        placement: &Placement,
        package: &Package,
        tenant: Option<&TenantId>,
    ) -> Result<Verified, CatalogError> {
        if let Some(revoked) = stock.revocation(Subject::package(package, tenant)) {
            return Err(CatalogError::Revoked(revoked.reason.clone()));
        }
        let missing = stock.missing(tenant, package.statement(), self.clock.now());
        if !missing.is_empty() {
            return Err(CatalogError::Grants { missing });
        }
        let floor = if self.is_proven_rollback(placement, package, tenant) {
            None
        } else {
            self.floor(tenant, package.statement().name.as_str()).await?
        };
        let publishers = stock.publishers(config, tenant, placement.since);
        let serial = floor.as_ref().and_then(|floor| u64::try_from(floor.serial).ok());
        let verified = package.verify(&publishers, placement.since, &self.host, tenant, serial)?;
        check_serial(floor.as_ref(), &verified)?;
        Ok(verified)
    }

    /// The highest serial of a component that was in force in this catalog.
    pub(super) async fn floor(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
    ) -> Result<Option<Floor>, CatalogError> {
        Ok(self.db.component_floor(&floor_name(tenant, name)).await?)
    }

    /// A component was put in force: nothing older follows without a record.
    pub(super) async fn raise_floor(
        &self,
        tenant: Option<&TenantId>,
        component: &Component,
    ) -> Result<(), CatalogError> {
        let serial = i64::try_from(component.serial())
            .map_err(|_| CatalogError::Invalid("the serial is too large".to_owned()))?;
        let floor = Floor { serial, digest: component.digest().to_owned() };
        Ok(self.db.raise_component_floor(&floor_name(tenant, component.name()), &floor).await?)
    }

    /// Whether a signed record says that exactly this release was put in force again in exactly this place.
    fn is_proven_rollback(
        &self,
        placement: &Placement,
        package: &Package,
        tenant: Option<&TenantId>,
    ) -> bool {
        let Some(record) = &placement.rollback else { return false };
        let statement = package.statement();
        match Rollback::read(record.as_bytes(), &self.rollback_key.verifying_key()) {
            Ok(record) => {
                record.name == statement.name
                    && record.tenant.as_ref() == tenant
                    && record.to.digest == statement.digest
                    && record.to.serial == statement.serial
            }
            Err(error) => {
                tracing::error!(component.name = statement.name.as_str(), "{error}");
                false
            }
        }
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
    async fn platform(&mut self) -> anyhow::Result<(Vec<Entry>, Providers, ProviderTrials)> {
        let mut entries = Vec::new();
        let mut providers: BTreeMap<String, Standing> = BTreeMap::new();
        let mut placed: BTreeMap<&str, &Placed> = BTreeMap::new();
        for place in self.stock.places.iter().filter(|place| place.tenant.is_none()) {
            if !self.stock.is_predicate(place) {
                placed.insert(&place.name, place);
            }
        }
        let mut configs: HashMap<&str, &Value> = HashMap::new();
        for (number, wanted) in self.config.bundle.iter().enumerate() {
            let context = || format!("bundle[{number}]: {}", wanted.component);
            if let Some(place) = placed.remove(self.shelf.name(&wanted.component)) {
                match self.stand(place).await {
                    Standing::Entry(entry) => entries.push(entry),
                    Standing::Nothing => {}
                    provider @ Standing::Provider { .. } => {
                        drop(providers.insert(place.name.clone(), provider));
                    }
                }
                continue;
            }
            let (name, package) = self.shelf.find(&wanted.component).with_context(context)?;
            let kind = package.statement().kind;
            if kind != Kind::Hook && wanted.attachment != Attachment::default() {
                return Err(anyhow!("matcher, on_fault and timeout_ms are for hooks, and this is a {kind}"))
                    .with_context(context);
            }
            if kind == Kind::Provider {
                // A provider's entry configures it; which calls it serves is for the routes to say.
                configs.insert(name, &wanted.config);
                continue;
            }
            let component = self.admit(package, &wanted.config).await.with_context(context)?;
            let mut entry = Entry::new(component, mode(wanted.mode)).attached(&wanted.attachment);
            if wanted.rewrite {
                if !entry.component.asks_to_rewrite() {
                    bail!("{}: rewrite is granted to what does not ask for it", context());
                }
                entry.may_rewrite = true;
            }
            entries.push(entry);
        }
        let mut rest: Vec<&Placed> = placed.into_values().collect();
        rest.sort_by_key(|place| (place.place.order, &place.name));
        for place in rest {
            match self.stand(place).await {
                Standing::Entry(entry) => entries.push(entry),
                Standing::Nothing => {}
                provider @ Standing::Provider { .. } => drop(providers.insert(place.name.clone(), provider)),
            }
        }
        let (providers, trials) = self.providers(providers, &configs).await?;
        Ok((entries, providers, trials))
    }

    /// One provider for each tag that the routes name: the catalog's before the shelf's, and of each the gateway's own first.
    /// A full name is that component and no other; where it is not in force, its routes have no provider.
    async fn providers(
        &mut self,
        mut placed: BTreeMap<String, Standing>,
        configs: &HashMap<&str, &Value>,
    ) -> anyhow::Result<(Providers, ProviderTrials)> {
        let nothing = json!({});
        let (mut providers, mut trials) = (Providers::new(), ProviderTrials::new());
        let tags: BTreeSet<_> =
            self.config.gateway.routes.iter().map(|route| route.provider.as_str()).collect();
        for tag in tags {
            let context = || format!("the provider {tag}");
            let on_shelf = self.shelf.provider(tag).ok();
            let own = on_shelf.map(|(name, _)| name.to_owned());
            let named = |name: &&String| super::shelf::serves(name, tag);
            // A vendor's provider does not take the place of one that comes with the gateway.
            let name = match own.filter(|name| name.starts_with(&format!("{}/", super::shelf::NAMESPACE))) {
                Some(own) => Some(own),
                None => placed.keys().find(named).cloned(),
            };
            if let Some(Standing::Provider { component, trial }) = name.and_then(|name| placed.remove(&name))
            {
                trials.extend(trial.map(|trial| (tag.to_owned(), trial)));
                if let Some(component) = component {
                    providers.insert(tag.to_owned(), component);
                    continue;
                }
            }
            let (name, package) = match self.shelf.provider(tag) {
                Err(_) if tag.contains('/') => {
                    tracing::error!(component.name = tag, "a route names a provider that is not in force");
                    continue;
                }
                found => found.with_context(context)?,
            };
            let config = configs.get(name).copied().unwrap_or(&nothing);
            let component = self.admit(package, config).await.with_context(context)?;
            providers.insert(tag.to_owned(), component);
        }
        Ok((providers, trials))
    }

    /// One predicate for each that the routes name, with the configuration that they give it: the catalog's release, where the
    /// catalog has it. Where it is not in force, its routes have no predicate, and take no call.
    async fn predicates(&mut self) -> anyhow::Result<Providers> {
        let mut predicates = Providers::new();
        let config = self.config;
        for wanted in config.gateway.routes.iter().filter_map(|route| route.predicate.as_ref()) {
            let key = wanted.key();
            if predicates.contains_key(&key) {
                continue;
            }
            let component = match self.stock.predicate(&wanted.component) {
                Some(placed) => match &placed.place.active {
                    Some(active) => self.settled(placed, &active.configured(&wanted.config)).await,
                    None => None,
                },
                None => self.listed_predicate(wanted).await?,
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
    ) -> anyhow::Result<Option<Arc<Component>>> {
        let context = || format!("the predicate {}", wanted.component);
        let Ok((name, package)) = self.shelf.find(&wanted.component) else { return Ok(None) };
        if package.statement().kind != Kind::Predicate {
            bail!("{name} is no predicate");
        }
        self.admit(package, &wanted.config).await.with_context(context).map(Some)
    }

    /// What tenants have besides: behind the platform's, so that nothing of it is loosened.
    async fn tenants(
        &mut self,
        entries: &[Entry],
        providers: &Providers,
        trials: &ProviderTrials,
        predicates: &Providers,
    ) -> anyhow::Result<Vec<(TenantId, Bundle)>> {
        let mut own: BTreeMap<&TenantId, Vec<&Placed>> = BTreeMap::new();
        for place in &self.stock.places {
            if let Some(tenant) = &place.tenant {
                own.entry(tenant).or_default().push(place);
            }
        }
        let mut bundles = Vec::new();
        for (tenant, mut places) in own {
            places.sort_by_key(|place| (place.place.order, &place.name));
            let mut all = entries.to_vec();
            for place in places {
                if let Standing::Entry(entry) = self.stand(place).await {
                    all.push(entry);
                }
            }
            if all.len() > entries.len() {
                bundles.push((
                    tenant.clone(),
                    Bundle::assemble(&all, providers.clone(), trials.clone(), predicates.clone())
                        .context("a tenant's bundle has no version")?,
                ));
            }
        }
        Ok(bundles)
    }

    /// What stands in a place of the catalog. What cannot be put in force refuses; what cannot be tried is not tried.
    async fn stand(&mut self, placed: &Placed) -> Standing {
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
            (None, None) => Standing::Nothing,
            (component, trial) if kind == Some(Kind::Provider) => {
                Standing::Provider { component: component.map(|(it, _)| it), trial }
            }
            // What stands in a place was granted what it asks for: without, it would not stand there.
            (Some((component, mode)), trial) => {
                Standing::Entry(Entry { trial, attachment, ..Entry::granted(component, mode) })
            }
            (None, Some(trial)) => {
                let component = Arc::clone(&trial.component);
                // Nothing is in force: whoever the trial is not for is asked nothing.
                Standing::Entry(Entry { trial: Some(trial), attachment, ..Entry::new(component, Mode::Off) })
            }
        }
    }

    /// How a hook is attached: as its place says, else as the configuration's entry of its name does.
    fn attachment(&self, placed: &Placed) -> Attachment {
        if placed.attachment != Attachment::default() || placed.tenant.is_some() {
            return placed.attachment.clone();
        }
        let named = |entry: &&config::BundleEntry| self.shelf.name(&entry.component) == placed.name;
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
    fn was_before(&self, placed: &Placed) -> Option<(Id, Arc<Component>)> {
        let before = placed.place.previous.last()?;
        let config = canonical::digest(&before.config);
        let (id, component) = self.before.iter().find(|(id, component)| {
            id.tenant == placed.tenant
                && id.name == placed.name
                && id.version == before.version
                && id.config == config
                && component.barred().is_none()
                && self.stock.allows(component, placed.tenant.as_ref(), self.catalog.clock.now())
        })?;
        Some((id.clone(), Arc::clone(component)))
    }

    async fn tried(&mut self, placed: &Placed, tried: &Tried) -> Option<Trial> {
        match self.placed(placed, &tried.placement).await {
            Ok(component) => Some(Trial { component, stage: tried.stage(), mode: tried.placement.mode }),
            Err((error, _)) => {
                let error = anyhow::Error::new(error);
                tracing::error!(component.name = placed.name, "a component cannot be tried: {error:#}");
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
        let id = Id::new(tenant, &package, &placement.config, self.config);
        let verified = catalog.verify_placed(self.config, self.stock, placement, &package, tenant).await;
        let verified = verified.map_err(|error| (error, Some(package.clone())))?;
        let tier = self.stock.tier(self.config, package.statement().kind, tenant);
        self.wanted.extend(tenant.map(|_| id.clone()));
        let component = match (self.kept(&id, tier), tenant) {
            (Some(component), _) => component,
            (None, Some(tenant)) => {
                let grants = catalog.grants(self.config, &package);
                let ask =
                    Ask { tier, tenant: tenant.clone(), verified, config: placement.config.clone(), grants };
                self.tenants_own(&id, ask).await.map_err(|error| (error, Some(package)))?
            }
            (None, None) => catalog
                .components
                .admit_to(tier, None, &verified, &placement.config, catalog.grants(self.config, &package))
                .await
                .map_err(|error| (CatalogError::Admit(error), Some(package)))?,
        };
        self.used.insert(id, Arc::clone(&component));
        Ok(component)
    }

    /// A tenant's component whose code is there. Where it has to be compiled first, that is done beside this assembly: nobody
    /// else waits for it.
    async fn tenants_own(&self, id: &Id, ask: Ask) -> Result<Arc<Component>, CatalogError> {
        let catalog = self.catalog;
        if let Some(ready) = catalog.ahead.ready(id, ask.tier) {
            return Ok(ready);
        }
        let Ask { tier, tenant, verified, config, grants } = &ask;
        let kept =
            catalog.components.admit_compiled(*tier, Some(tenant), verified, config, grants.clone()).await;
        match kept {
            Err(AdmitError::NotCompiled) => Err(catalog.ahead.ask(id, ask)),
            kept => kept.map_err(CatalogError::Admit),
        }
    }

    /// A component that the configuration names, from the shelf.
    async fn admit(&mut self, package: &Package, config: &Value) -> anyhow::Result<Arc<Component>> {
        let name = package.statement().name.as_str();
        if let Some(revoked) = self.stock.revocation(Subject::package(package, None)) {
            let fault = Fault::Revoked { reason: revoked.reason.clone() };
            return Ok(Component::absent(package.statement(), None, fault));
        }
        let catalog = self.catalog;
        let floor = catalog.floor(None, name).await.context("the floor of serials is not known")?;
        let serial = floor.as_ref().and_then(|floor| u64::try_from(floor.serial).ok());
        let now = catalog.clock.now();
        let publishers = self.stock.publishers(self.config, None, now);
        let at = self.shelf.looked_at(package.statement(), now);
        let verified = package
            .verify(&publishers, at, &catalog.host, None, serial)
            .context("the package is not trusted")?;
        if let Err(error) = check_serial(floor.as_ref(), &verified) {
            bail!("{error}");
        }
        let id = Id::new(None, package, config, self.config);
        let tier = self.stock.tier(self.config, package.statement().kind, None);
        let component = if let Some(component) = self.kept(&id, tier) {
            component
        } else {
            let grants = catalog.grants(self.config, package);
            let admitted = catalog.components.admit_to(tier, None, &verified, config, grants).await;
            admitted.context("the component is not admitted")?
        };
        catalog.raise_floor(None, &component).await.context("the floor of serials could not be raised")?;
        self.used.insert(id, Arc::clone(&component));
        Ok(component)
    }

    fn kept(&self, id: &Id, tier: Tier) -> Option<Arc<Component>> {
        let kept = self.used.get(id).or_else(|| self.before.get(id));
        kept.filter(|it| it.barred().is_none() && it.tier() == tier).cloned()
    }
}

// === impl Id ===

impl Id {
    fn new(tenant: Option<&TenantId>, package: &Package, config: &Value, all: &Config) -> Self {
        let statement = package.statement();
        Self {
            tenant: tenant.cloned(),
            name: statement.name.to_string(),
            version: statement.version.to_string(),
            digest: statement.digest.hex().to_owned(),
            config: canonical::digest(config),
            outside: granted(all, package).map(|way| canonical::hex(&way.fingerprint())).collect(),
        }
    }
}

// === private helpers ===

fn end(components: &HashMap<Id, Arc<Component>>, revocations: &Revocations) {
    for (id, component) in components {
        let subject = Subject::component(component, id.tenant.as_ref());
        if let Some(revoked) = revocations.of(subject)
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

/// The ways out that `config` gives the component of `package`, of those that it asks for.
fn granted<'a>(config: &'a Config, package: &'a Package) -> impl Iterator<Item = &'a config::Egress> {
    let statement = package.statement();
    let asked = statement.capabilities.iter().filter_map(|capability| capability.strip_prefix("egress:"));
    asked.filter_map(|name| config.egress.get(name)).filter(|way| way.allows(statement.name.as_str()))
}

/// A publisher never gives one serial to two releases; a developer builds the same serial again and again.
pub(super) fn check_serial(floor: Option<&Floor>, verified: &Verified) -> Result<(), CatalogError> {
    let statement = verified.statement();
    let same = floor.filter(|floor| u64::try_from(floor.serial).ok() == Some(statement.serial));
    if same.is_some_and(|floor| floor.digest != statement.digest.hex()) && !verified.is_development() {
        let what = format!("the serial {} of {}", statement.serial, statement.name);
        return Err(CatalogError::OtherBytes(what));
    }
    Ok(())
}

/// Each tenant's catalog has floors of its own. No component's name has a colon.
fn floor_name(tenant: Option<&TenantId>, name: &str) -> String {
    tenant.map_or_else(|| name.to_owned(), |tenant| format!("{tenant}:{name}"))
}

fn mode(mode: config::Mode) -> Mode {
    match mode {
        config::Mode::Enforce => Mode::Enforce,
        config::Mode::Shadow => Mode::Shadow,
        config::Mode::Off => Mode::Off,
    }
}
