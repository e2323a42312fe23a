//! Watches the catalog: another gateway, a command or an expiry may change what is in force, so that the bundles have to be assembled
//! again. Canaries that do badly are ended.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use serde_json::json;
use time::OffsetDateTime;

use super::judge::{Breach, judge};
use super::place::{Placement, Slo, Step, Tried};
use super::state::Placed;
use super::{Actor, Assembled, Catalog};
use crate::causes::Causes;
use crate::component::{Component, Counted, Trial};
use crate::db::DbError;
use crate::db::catalog::Changes;

/// How often the catalog is asked whether it changed. What was revoked has to end within two seconds.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A trial that runs, and what it runs beside.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    tenant: Option<TenantId>,
    name: String,
    revision: i64,
    slo: Slo,
    canary: bool,
    placement: Placement,
    tried: Arc<Component>,
    in_force: Option<Arc<Component>>,
}

/// Watches the catalog for one gateway.
#[derive(Debug)]
pub struct Keeper {
    catalog: Arc<Catalog>,
    changes: Option<Changes>,
    epoch: i64,
    next_expiry: Option<OffsetDateTime>,
    /// What was counted when a trial began, by its place.
    began: HashMap<(Option<TenantId>, String, i64), (Counted, Counted)>,
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(
        placed: &Placed,
        tried: &Tried,
        trial: &Trial,
        in_force: Option<&Arc<Component>>,
    ) -> Self {
        Self {
            tenant: placed.tenant.clone(),
            name: placed.name.clone(),
            revision: placed.revision,
            slo: tried.slo,
            canary: tried.percent.is_some(),
            placement: tried.placement.clone(),
            tried: Arc::clone(&trial.component),
            in_force: in_force.cloned(),
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Watches from `assembled` on.
    pub fn new(catalog: Arc<Catalog>, assembled: &Assembled) -> Self {
        let mut keeper = Self { catalog, changes: None, epoch: -1, next_expiry: None, began: HashMap::new() };
        keeper.assembled(assembled);
        keeper.applied();
        keeper
    }

    /// Waits until there may be something to put in force. A database that is away is asked again.
    pub async fn next(&mut self) {
        loop {
            if self.changes.is_none() {
                self.changes = self.catalog.db.catalog_changes().await.ok();
            }
            let news = async {
                match &mut self.changes {
                    Some(changes) => changes.next().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = news => if !told {
                    self.changes = None;
                },
                () = self.catalog.changed.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => self.judge().await,
            }
            let now = self.catalog.clock.now();
            let expired = self.next_expiry.is_some_and(|expires| expires <= now);
            match self.catalog.db.catalog_epoch().await {
                Ok(epoch) if epoch != self.epoch || expired || self.catalog.admissions.has_news() => return,
                Ok(_) => {}
                Err(error) => unreadable(&error),
            }
        }
    }

    /// Stops listening: the database can be closed.
    pub fn rest(&mut self) {
        self.changes = None;
    }

    /// What was assembled is about to be put in force.
    pub fn assembled(&mut self, assembled: &Assembled) {
        self.epoch = assembled.epoch;
        self.next_expiry = assembled.next_expiry;
    }

    /// It is in force: whoever waits for it goes on.
    pub fn applied(&self) {
        self.catalog.applied.send_replace(self.epoch);
    }

    /// Ends canaries that do badly.
    async fn judge(&mut self) {
        let trials = self.catalog.trials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let place = |it: &Watched| (it.tenant.clone(), it.name.clone(), it.revision);
        self.began.retain(|key, _| trials.iter().any(|it| place(it) == *key));
        for trial in trials.iter().filter(|trial| trial.canary) {
            let now = (
                trial.tried.tally().read(),
                trial.in_force.as_ref().map(|it| it.tally().read()).unwrap_or_default(),
            );
            let began = self.began.entry(place(trial)).or_insert(now);
            let (canary, in_force) = (now.0.since(&began.0), now.1.since(&began.1));
            if let Some(breach) = judge(&trial.slo, &canary, &in_force) {
                self.catalog.end_canary(trial, breach, &canary).await;
            }
        }
    }
}

// === impl Catalog ===

impl Catalog {
    /// Ends what is revoked, whatever else goes on: a bundle may take as long to put in force as its components take to compile.
    /// Runs until it is dropped.
    pub async fn keep_revoked_out(&self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            match self.db.catalog_epoch().await {
                Ok(epoch) if seen == Some(epoch) => {}
                Ok(epoch) => match self.end_revoked().await {
                    Ok(()) => seen = Some(epoch),
                    Err(error) => unreadable(&error),
                },
                Err(error) => unreadable(&error),
            }
        }
    }

    async fn end_canary(&self, trial: &Watched, breach: Breach, seen: &Counted) {
        let name = trial.name.as_str();
        let detail = json!({
            "breach": breach.code(),
            "calls": seen.calls,
            "faults": seen.faults,
            "refusals": seen.refusals,
            "p95_micros": seen.p95_micros(),
            "version": trial.placement.version,
            "digest": trial.tried.digest(),
        });
        let actor = Actor::gateway(trial.tenant.clone());
        let reason = breach.to_string();
        match self.make_step(&actor, name, &Step::Withdraw, &reason, Some(trial.revision), detail).await {
            Ok(()) => tracing::warn!(component.name = name, "a canary was ended: {reason}"),
            // Another gateway ended it, or an administrator did something else.
            Err(super::CatalogError::Changed) => {}
            Err(error) => {
                tracing::error!(component.name = name, "a canary could not be ended: {}", Causes(&error));
            }
        }
    }
}

// === private helpers ===

fn unreadable(error: &DbError) {
    tracing::warn!("the catalog cannot be read: {}", Causes(error));
}
