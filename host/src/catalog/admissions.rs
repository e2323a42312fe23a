//! Components of tenants that are placed but not compiled, after an upgrade or on another gateway: they are admitted beside
//! everything else, so that what the platform puts in force never waits for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sallyport_protocol::package::Verified;
use serde_json::Value;
use tokio::sync::Notify;

use super::{Catalog, CatalogError, ReleaseId};
use crate::causes::Causes;
use crate::component::{Admission, AdmitError, Component, RunsIn};

/// How far each of them is.
#[derive(Default)]
pub(super) struct Admissions {
    progress: Mutex<HashMap<ReleaseId, AdmissionProgress>>,
    /// Something is to be admitted.
    asked: Notify,
    /// Something was, and the bundles can be assembled again.
    done: AtomicBool,
}

/// What it takes to admit one.
#[derive(Clone)]
pub(super) struct PendingAdmission {
    pub(super) verified: Verified,
    pub(super) config: Value,
    pub(super) admission: Admission,
}

/// How far an admission is.
enum AdmissionProgress {
    Asked(Box<PendingAdmission>),
    Running,
    Ready(Arc<Component>),
    Failed(String),
}

// === impl Admissions ===

impl Admissions {
    /// The component, if it is ready to run there.
    pub(super) fn ready(&self, id: &ReleaseId, tier: RunsIn) -> Option<Arc<Component>> {
        match self.lock().get(id) {
            Some(AdmissionProgress::Ready(component))
                if component.tier() == tier && component.barred().is_none() =>
            {
                Some(Arc::clone(component))
            }
            _ => None,
        }
    }

    /// Has it admitted, unless that was tried; says how far it is.
    pub(super) fn request(&self, id: &ReleaseId, ask: PendingAdmission) -> CatalogError {
        let mut state = self.lock();
        match state.get(id) {
            Some(AdmissionProgress::Failed(why)) => return CatalogError::NotAdmitted(why.clone()),
            Some(AdmissionProgress::Asked(_) | AdmissionProgress::Running) => return CatalogError::Compiling,
            Some(AdmissionProgress::Ready(_)) | None => {}
        }
        state.insert(id.clone(), AdmissionProgress::Asked(Box::new(ask)));
        self.asked.notify_one();
        CatalogError::Compiling
    }

    /// Keeps a component that was admitted for a step until the step is in force.
    pub(super) fn put(&self, id: ReleaseId, component: Arc<Component>) {
        self.lock().insert(id, AdmissionProgress::Ready(component));
    }

    /// What is in force needs no keeping, and what is not placed any more no remembering.
    pub(super) fn forget(
        &self,
        is_settled: impl Fn(&ReleaseId) -> bool,
        is_wanted: impl Fn(&ReleaseId) -> bool,
    ) {
        self.lock().retain(|id, state| match state {
            AdmissionProgress::Ready(_) => is_wanted(id) && !is_settled(id),
            AdmissionProgress::Failed(_) => is_wanted(id),
            AdmissionProgress::Asked(_) | AdmissionProgress::Running => true,
        });
    }

    /// Whether something was admitted since this was last asked.
    pub(super) fn has_news(&self) -> bool {
        self.done.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReleaseId, AdmissionProgress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Catalog ===

impl Catalog {
    /// Admits what is asked for, each tenant's in its turn. Runs until it is dropped.
    pub async fn keep_admitting(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            for (id, state) in self.admissions.lock().iter_mut() {
                if let AdmissionProgress::Asked(_) = state
                    && let AdmissionProgress::Asked(ask) =
                        std::mem::replace(state, AdmissionProgress::Running)
                {
                    running.push(self.admit_requested(id.clone(), *ask));
                }
            }
            tokio::select! {
                () = self.admissions.asked.notified() => {}
                Some((id, state)) = running.next(), if !running.is_empty() => {
                    self.admissions.lock().insert(id, state);
                    self.admissions.done.store(true, Ordering::Release);
                    self.changed.notify_one();
                }
            }
        }
    }

    /// Waits as long as it takes for the tenant's turn and for its time.
    async fn admit_requested(&self, id: ReleaseId, ask: PendingAdmission) -> (ReleaseId, AdmissionProgress) {
        let PendingAdmission { verified, config, admission } = ask;
        loop {
            match self.admit_knowing(&verified, &config, admission.clone()).await {
                Ok(component) => return (id, AdmissionProgress::Ready(component)),
                Err(error) => match error.retry_after() {
                    Some(after) => tokio::time::sleep(after.max(Duration::from_secs(1))).await,
                    None => return (id, AdmissionProgress::Failed(said(&error))),
                },
            }
        }
    }
}

// === private helpers ===

fn said(error: &AdmitError) -> String {
    Causes(error).to_string().chars().take(1_000).collect()
}
