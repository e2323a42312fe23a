//! Components of tenants that are placed but not compiled, after an upgrade or on another gateway: they are admitted beside
//! everything else, so that what the platform puts in force never waits for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::Verified;
use serde_json::Value;
use tokio::sync::Notify;

use super::{Catalog, CatalogError, Id};
use crate::component::contract::Grants;
use crate::component::{AdmitError, Component, Tier};

/// How far each of them is.
#[derive(Default)]
pub(super) struct Ahead {
    state: Mutex<HashMap<Id, State>>,
    /// Something is to be admitted.
    asked: Notify,
    /// Something was, and the bundles can be assembled again.
    done: AtomicBool,
}

/// What it takes to admit one.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) tier: Tier,
    pub(super) tenant: TenantId,
    pub(super) verified: Verified,
    pub(super) config: Value,
    pub(super) grants: Grants,
}

enum State {
    Asked(Box<Ask>),
    Running,
    Ready(Arc<Component>),
    Failed(String),
}

// === impl Ahead ===

impl Ahead {
    /// The component, if it is ready to run there.
    pub(super) fn ready(&self, id: &Id, tier: Tier) -> Option<Arc<Component>> {
        match self.lock().get(id) {
            Some(State::Ready(component)) if component.tier() == tier && component.barred().is_none() => {
                Some(Arc::clone(component))
            }
            _ => None,
        }
    }

    /// Has it admitted, unless that was tried; says how far it is.
    pub(super) fn ask(&self, id: &Id, ask: Ask) -> CatalogError {
        let mut state = self.lock();
        match state.get(id) {
            Some(State::Failed(why)) => return CatalogError::NotAdmitted(why.clone()),
            Some(State::Asked(_) | State::Running) => return CatalogError::Compiling,
            Some(State::Ready(_)) | None => {}
        }
        state.insert(id.clone(), State::Asked(Box::new(ask)));
        self.asked.notify_one();
        CatalogError::Compiling
    }

    /// Keeps a component that was admitted for a step until the step is in force.
    pub(super) fn put(&self, id: Id, component: Arc<Component>) {
        self.lock().insert(id, State::Ready(component));
    }

    /// What is in force needs no keeping, and what is not placed any more no remembering.
    pub(super) fn forget(&self, is_settled: impl Fn(&Id) -> bool, is_wanted: impl Fn(&Id) -> bool) {
        self.lock().retain(|id, state| match state {
            State::Ready(_) => is_wanted(id) && !is_settled(id),
            State::Failed(_) => is_wanted(id),
            State::Asked(_) | State::Running => true,
        });
    }

    /// Whether something was admitted since this was last asked.
    pub(super) fn has_news(&self) -> bool {
        self.done.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Catalog ===

impl Catalog {
    /// Admits what is asked for, each tenant's in its turn. Runs until it is dropped.
    pub async fn keep_admitting(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            for (id, state) in self.ahead.lock().iter_mut() {
                if let State::Asked(_) = state
                    && let State::Asked(ask) = std::mem::replace(state, State::Running)
                {
                    running.push(self.admit_ahead(id.clone(), *ask));
                }
            }
            tokio::select! {
                () = self.ahead.asked.notified() => {}
                Some((id, state)) = running.next(), if !running.is_empty() => {
                    self.ahead.lock().insert(id, state);
                    self.ahead.done.store(true, Ordering::Release);
                    self.changed.notify_one();
                }
            }
        }
    }

    /// Waits as long as it takes for the tenant's turn and for its time.
    async fn admit_ahead(&self, id: Id, ask: Ask) -> (Id, State) {
        let Ask { tier, tenant, verified, config, grants } = ask;
        loop {
            let admitted =
                self.components.admit_to(tier, Some(&tenant), &verified, &config, grants.clone()).await;
            match admitted {
                Ok(component) => return (id, State::Ready(component)),
                Err(error) => match error.retry_after() {
                    Some(after) => tokio::time::sleep(after.max(Duration::from_secs(1))).await,
                    None => return (id, State::Failed(said(error))),
                },
            }
        }
    }
}

// === private helpers ===

fn said(error: AdmitError) -> String {
    format!("{:#}", anyhow::Error::new(error)).chars().take(1_000).collect()
}
