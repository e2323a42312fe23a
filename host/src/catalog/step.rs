//! The steps of a component's life: shadow, canary, activate, roll back, withdraw, retire.

use std::sync::Arc;

use sallyport_protocol::package::{Kind as SignedKind, Package, Release, Rollback, Statement};
use sallyport_protocol::signature::KeyId;
use serde_json::{Value, json};

use super::place::{DEFAULT_ORDER, HookAttachment, Place, Placement, Slo, Step, StepError};
use super::state::{CatalogState, Placed};
use super::{Actor, Catalog, CatalogError, ShownComponent};
use crate::component::{Component, Fault, Mode};
use crate::config::Config;
use crate::db::catalog::{Json, PlaceRow, scope};

/// Which step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Try a release in the shadow of what is in force.
    Shadow,
    /// Try a release with a share of users.
    Canary,
    /// Put a release in force.
    Activate,
    /// Put an earlier release in force again.
    Rollback,
    /// End the trial.
    Withdraw,
    /// Take the component out of force.
    Retire,
}

/// What an administrator asks for; what is left open stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Which release; by itself the one that is tried, or for a rollback the one before.
    pub version: Option<String>,
    /// What `configure` gets.
    pub config: Option<Value>,
    /// What is done with what it says.
    pub mode: Option<Mode>,
    /// How many of a hundred users see a canary.
    pub percent: Option<u8>,
    /// When a canary ends by itself.
    pub slo: Option<Slo>,
    /// Where it stands among its kind; lower numbers are asked first.
    pub order: Option<i32>,
    /// For hooks: which events it gets, and what becomes of an event that it does not answer.
    pub attachment: Option<HookAttachment>,
    /// Why.
    pub reason: Option<String>,
}

// === impl Verb ===

impl Verb {
    /// Every step.
    pub const ALL: [Self; 6] =
        [Self::Shadow, Self::Canary, Self::Activate, Self::Rollback, Self::Withdraw, Self::Retire];

    /// Its name in paths, rows and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Activate => "activate",
            Self::Rollback => "rollback",
            Self::Withdraw => "withdraw",
            Self::Retire => "retire",
        }
    }

    /// The step with this name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }
}

// === impl Catalog ===

impl Catalog {
    /// Makes a step: checks it, records it, stores it, and returns when it is in force here.
    pub async fn step(
        &self,
        actor: &Actor,
        name: &str,
        verb: Verb,
        wanted: Wanted,
    ) -> Result<ShownComponent, CatalogError> {
        let tenant = actor.tenant.as_ref();
        let snapshot = CatalogState::read(&self.db, &self.trust).await?;
        let config = self.config.load_full().ok_or(CatalogError::NotYet)?;
        if tenant.is_some() && snapshot.places.iter().any(|it| it.tenant.is_none() && it.name == name) {
            let what = format!("{name} is the name of a component of the platform");
            return Err(CatalogError::Invalid(what));
        }
        let (place, revision) = match self.db.component_place(tenant, name).await? {
            Some(row) => Placed::read(row).map(|placed| (placed.place, placed.revision))?,
            None => (Place::new(wanted.order.unwrap_or(DEFAULT_ORDER)), 0),
        };
        let mut place = place;
        place.order = wanted.order.unwrap_or(place.order);
        if let Some(attachment) = &wanted.attachment {
            attachment.read().map_err(CatalogError::Invalid)?;
            place.attachment.clone_from(attachment);
        }
        let reason = wanted.reason.clone().unwrap_or_default();
        let (step, detail) = match verb {
            Verb::Withdraw => (Step::Withdraw, json!({})),
            Verb::Retire => (Step::Retire, json!({})),
            Verb::Shadow | Verb::Canary | Verb::Activate | Verb::Rollback => {
                self.prepare(actor, name, verb, wanted, (&place, &snapshot, &config)).await?
            }
        };
        let next = place.after(&step)?;
        self.write(actor, name, &step, &reason, (next, revision), detail).await?;
        self.settle().await?;
        self.show(tenant, name).await
    }

    /// A step that needs no release: what `keep` ends by itself. It does not wait.
    pub(super) async fn make_step(
        &self,
        actor: &Actor,
        name: &str,
        step: &Step,
        reason: &str,
        revision: Option<i64>,
        detail: Value,
    ) -> Result<(), CatalogError> {
        let row =
            self.db.component_place(actor.tenant.as_ref(), name).await?.ok_or(CatalogError::NotFound)?;
        let placed = Placed::read(row)?;
        if revision.is_some_and(|revision| revision != placed.revision) {
            return Err(CatalogError::Changed);
        }
        let next = placed.place.after(step)?;
        self.write(actor, name, step, reason, (next, placed.revision), detail).await
    }

    /// Verifies and admits the release that a step is about.
    async fn prepare(
        &self,
        actor: &Actor,
        name: &str,
        verb: Verb,
        wanted: Wanted,
        (place, snapshot, config): (&Place, &CatalogState, &Config),
    ) -> Result<(Step, Value), CatalogError> {
        let tenant = actor.tenant.as_ref();
        let mut placement = match verb {
            Verb::Rollback => place.before(wanted.version.as_deref())?.clone(),
            _ => self.placement(name, place, config, &wanted)?,
        };
        let bytes = self.db.component_package(tenant, name, &placement.version).await?;
        let package = Package::parse(bytes.ok_or(CatalogError::NotFound)?)?;
        let statement = package.statement();
        if statement.kind != SignedKind::Hook && place.attachment != HookAttachment::default() {
            let what = format!("{name} is a {}, and only hooks are attached to events", statement.kind);
            return Err(CatalogError::Invalid(what));
        }
        if statement.kind == SignedKind::Predicate {
            check_predicate(verb, &wanted)?;
        }
        let before = match &place.active {
            Some(active) => self.statement(actor, name, &active.version).await?,
            None => None,
        };
        if verb == Verb::Rollback {
            let from = before.as_ref().ok_or(StepError::NotActive)?;
            placement.rollback =
                Some(self.sign_rollback(actor, from, statement, wanted.reason.as_deref())?);
        }
        let component = if statement.kind == SignedKind::Predicate {
            self.admit_predicate(config, snapshot, &placement, &package).await?
        } else {
            self.admit_placed(config, snapshot, &placement, &package, tenant).await?
        };
        if verb == Verb::Activate {
            self.raise_floor(tenant, &component).await?;
        }
        let held = before.as_ref().map(|it| it.capabilities.clone()).unwrap_or_default();
        let new: Vec<_> =
            statement.capabilities.iter().filter(|capability| !held.contains(capability)).collect();
        let detail = json!({
            "version": placement.version,
            "serial": statement.serial,
            "digest": component.digest(),
            "config": component.config_digest(),
            "mode": placement.mode.as_str(),
            "percent": wanted.percent,
            "replaces": place.active.as_ref().map(|active| active.version.as_str()),
            "new_capabilities": new,
            "publisher": component.publisher().map(KeyId::as_str),
        });
        let step = match verb {
            Verb::Shadow => Step::Shadow(placement),
            Verb::Canary => Step::Canary {
                placement,
                percent: wanted.percent.unwrap_or(0),
                slo: wanted.slo.unwrap_or_default(),
            },
            Verb::Rollback => Step::Rollback(placement),
            Verb::Activate | Verb::Withdraw | Verb::Retire => Step::Activate(placement),
        };
        Ok((step, detail))
    }

    /// Admits a predicate as each route configures it that names it. Where none does yet, it may want a configuration.
    async fn admit_predicate(
        &self,
        config: &Config,
        snapshot: &CatalogState,
        placement: &Placement,
        package: &Package,
    ) -> Result<Arc<Component>, CatalogError> {
        let statement = package.statement();
        let named = config.gateway.routes.iter().filter_map(|route| route.predicate.as_ref());
        let mut admitted = None;
        for wanted in named.filter(|wanted| wanted.component == statement.name.as_str()) {
            let placement = placement.configured(&wanted.config);
            admitted = Some(self.admit_placed(config, snapshot, &placement, package, None).await?);
        }
        match admitted {
            Some(component) => Ok(component),
            None => match self.admit_placed(config, snapshot, placement, package, None).await {
                Err(CatalogError::Admit(error)) if error.is_about_configuration() => {
                    let reason = "no route configures it yet".to_owned();
                    Ok(Component::absent(statement, None, Fault::Absent { reason }))
                }
                admitted => admitted,
            },
        }
    }

    fn placement(
        &self,
        name: &str,
        place: &Place,
        config: &Config,
        wanted: &Wanted,
    ) -> Result<Placement, CatalogError> {
        let tried = place.trial.as_ref().map(|trial| trial.placement.version.clone());
        let version = wanted.version.clone().or(tried);
        let version = version.ok_or_else(|| CatalogError::Invalid("name a version".to_owned()))?;
        let set = place.configured(&version);
        let listed = || config.bundle.iter().find(|entry| entry.component == name);
        let configured = wanted
            .config
            .clone()
            .or_else(|| set.map(|set| set.config.clone()))
            .or_else(|| listed().map(|entry| entry.config.clone()))
            .unwrap_or_else(|| json!({}));
        let mode = wanted.mode.or_else(|| set.map(|set| set.mode)).unwrap_or_default();
        Ok(Placement { version, config: configured, mode, since: self.clock.now(), rollback: None })
    }

    async fn statement(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<Option<Statement>, CatalogError> {
        let bytes = self.db.component_package(actor.tenant.as_ref(), name, version).await?;
        Ok(bytes.and_then(|bytes| Package::parse(bytes).ok()).map(|package| package.statement().clone()))
    }

    fn sign_rollback(
        &self,
        actor: &Actor,
        from: &Statement,
        to: &Statement,
        reason: Option<&str>,
    ) -> Result<String, CatalogError> {
        let release = |statement: &Statement| Release {
            version: statement.version.clone(),
            serial: statement.serial,
            digest: statement.digest.clone(),
        };
        let record = Rollback {
            name: to.name.clone(),
            tenant: actor.tenant.clone(),
            from: release(from),
            to: release(to),
            by: actor.who.user_id.as_ref().to_owned(),
            reason: reason.unwrap_or_default().to_owned(),
            at: self.clock.now(),
        };
        let signed = self.trust.sign_rollback(&record).ok().flatten();
        signed.ok_or_else(|| CatalogError::Stored(to.name.to_string()))
    }

    /// The row first, then the place. Whoever loses a race leaves a second row that says so.
    async fn write(
        &self,
        actor: &Actor,
        name: &str,
        step: &Step,
        reason: &str,
        (next, revision): (Place, i64),
        detail: Value,
    ) -> Result<(), CatalogError> {
        let stored = |_| CatalogError::Stored(name.to_owned());
        let row = PlaceRow {
            tenant_id: scope(actor.tenant.as_ref()).to_owned(),
            name: name.to_owned(),
            place: Json(serde_json::to_value(&next).map_err(stored)?),
            revision: revision + 1,
        };
        let mut payload = detail;
        if let Some(fields) = payload.as_object_mut() {
            fields.insert("component".to_owned(), name.into());
            fields.insert("reason".to_owned(), reason.into());
            fields.insert("revision".to_owned(), row.revision.into());
            fields.insert("host".to_owned(), self.trust.host().to_string().into());
        }
        self.record(actor, step.action(), payload.clone()).await?;
        if self.db.step_component_place(&row).await? {
            return Ok(());
        }
        self.record_lost(actor, step.action(), payload).await?;
        Err(CatalogError::Changed)
    }
}

// === private helpers ===

/// A predicate decides which upstream a call goes to: it is in force for everybody or not at all, and its routes configure it.
fn check_predicate(verb: Verb, wanted: &Wanted) -> Result<(), CatalogError> {
    let what = match verb {
        Verb::Shadow | Verb::Canary => "a predicate is not tried: activate it, and roll back",
        _ if wanted.config.is_some() => "the routes that name a predicate configure it",
        _ if wanted.mode.is_some() || wanted.order.is_some() => "a predicate has no mode and no order",
        _ => return Ok(()),
    };
    Err(CatalogError::Invalid(what.to_owned()))
}
