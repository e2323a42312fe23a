//! The end of every call, whatever it was: the usage is priced, evidence is handed over, the rows are written, and policies that
//! reserved something are told what came of it.

use std::sync::Arc;

use sallyport_protocol::package::Capability;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::facts::Request;
use super::retries::Retries;
use super::row::{CallEnding, Record};
use super::{Call, Refusal, event};
use crate::audit::{Audit, OpenRow, Outcome, Unavailable};
use crate::clock::Clock;
use crate::component::contract::policy::Settlement;
use crate::component::contract::{Call as CallFacts, CallOutcome};
use crate::component::{Bundle, Components, Entry, Mode};
use crate::evidence::{Draft, Evidence};

/// What the end of a call needs.
pub(super) struct Finish {
    pub(super) audit: Arc<Audit>,
    pub(super) components: Arc<Components>,
    pub(super) evidence: Arc<Evidence>,
    pub(super) retries: Retries,
    pub(super) tasks: TaskTracker,
    pub(super) clock: Arc<dyn Clock>,
}

/// Policies that reserved something and are told what came of it. Dropped before all of them are, because the client left while the
/// row was written, it has the rest told by a task.
pub(super) struct Settling {
    rest: Option<Unsettled>,
    tasks: TaskTracker,
}

struct Unsettled {
    components: Arc<Components>,
    bundle: Arc<Bundle>,
    request: Arc<Request>,
    spent: Settlement,
    /// How many policies of the bundle are done with.
    told: usize,
}

// === impl Finish ===

impl Finish {
    /// A call that never came to have an intent: one row says so.
    pub(super) async fn close_refused(&self, record: Record, refusal: Refusal) -> Refusal {
        let rows = record.close(&refusal.ending(), self.clock.as_ref());
        for row in rows {
            if let Err(unavailable) = self.audit.record(row).await {
                return Refusal::AuditUnavailable(unavailable);
            }
        }
        refusal
    }

    /// Closes the row of a call that was answered: price, rows, and policies that settle.
    pub(super) async fn close(
        &self,
        mut call: Call,
        open: OpenRow,
        ending: &CallEnding,
    ) -> Result<(), Unavailable> {
        let model = call.target.model(&call.request.facts.model).to_owned();
        call.record.price(&call.config.prices, &model);
        let spent = Settlement {
            usage: event::counted(call.record.usage()),
            cost_micro: call.record.cost_micro().unwrap_or(0).to_string(),
            outcome: match ending.outcome {
                Outcome::Allowed => CallOutcome::Allowed,
                Outcome::Denied => CallOutcome::Denied,
                Outcome::Error => CallOutcome::Error,
            },
        };
        let served = ending.outcome == Outcome::Allowed;
        self.retries.ended(call.turn, &call.request.trace, served, self.clock.monotonic());
        self.keep_evidence(&mut call, ending);
        let Call { record, bundle, request, .. } = call;
        let settling = self.settling(bundle, request, spent);
        let closed = open.close(record.close(ending, self.clock.as_ref())).await;
        if let Some(settling) = settling {
            Box::pin(settling.run()).await;
        }
        closed
    }

    /// What tells policies that reserved something for a request what came of it, where there are such policies.
    pub(super) fn settling(
        &self,
        bundle: Arc<Bundle>,
        request: Arc<Request>,
        spent: Settlement,
    ) -> Option<Settling> {
        bundle.policies.iter().any(settles).then(|| {
            let components = Arc::clone(&self.components);
            let rest = Unsettled { components, bundle, request, spent, told: 0 };
            Settling { rest: Some(rest), tasks: self.tasks.clone() }
        })
    }

    /// Hands over what was gathered; the row says what became of it.
    fn keep_evidence(&self, call: &mut Call, ending: &CallEnding) {
        let Some((gathering, policy_version)) = call.record.gathered() else { return };
        let fate = self.evidence.keep(Draft {
            gathering,
            call: CallFacts::clone(&call.request.facts),
            body: call.request.body.bytes.clone(),
            request_id: call.request.http_id.clone(),
            policy_version,
            outcome: ending.outcome.as_str(),
            code: ending.code.as_ref().map(|code| code.as_str().to_owned()),
        });
        call.record.note("evidence", fate.as_str());
    }
}

// === impl Settling ===

impl Settling {
    pub(super) async fn run(mut self) {
        if let Some(rest) = &mut self.rest {
            rest.run().await;
        }
        self.rest = None;
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let (Some(mut rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) {
            self.tasks.spawn_on(async move { rest.run().await }, &runtime);
        }
    }
}

// === impl Unsettled ===

impl Unsettled {
    /// A fault here changes nothing for the client.
    async fn run(&mut self) {
        let bundle = Arc::clone(&self.bundle);
        for entry in bundle.policies.iter().skip(self.told) {
            // Before it is told: one that is told twice would give back twice.
            self.told += 1;
            if !settles(entry) {
                continue;
            }
            let ran = self.components.settle(&entry.component, &self.request.facts, &self.spent).await;
            if let Err(fault) = ran.result {
                let (name, fault) = (entry.component.name(), fault.code().as_str());
                tracing::warn!(component.name = name, component.fault = fault, "a policy could not settle");
            }
        }
    }
}

// === private helpers ===

/// Whether a policy wants to know what a call came to. In shadow it counted too.
fn settles(entry: &Entry) -> bool {
    entry.mode != Mode::Off && entry.component.asks_for(&Capability::Settle)
}
