//! Trial: a policy or a scanner is asked about calls that were recorded, before it decides on any. What the other components said
//! stays as it was; what changes is said call by call.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::package::{Capability, Kind};

use super::record::{Recorded, RecordedAnswer, RecordedStep};
use crate::component::contract::policy::Verdict;
use crate::component::contract::scanner::Action;
use crate::component::contract::{BodyView, Counters};
use crate::component::request::RecordedBody;
use crate::component::{Component, Components, Fault, Ran};

/// A component on trial.
pub struct CandidateTrial<'a> {
    components: &'a Components,
    candidate: Arc<Component>,
    counters: Arc<dyn Counters>,
}

/// What a candidate makes of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Whether the call was denied.
    pub was_denied: bool,
    /// Whether it would be now.
    pub is_denied: bool,
    /// What the candidate says.
    pub verdict: String,
    /// Whether it did not answer.
    pub faulted: bool,
    /// Guest time in microseconds.
    pub micros: u32,
    /// Fuel.
    pub fuel: u64,
}

/// Why there is no trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It decides on other things than calls.
    #[error("a {0} cannot be tried on recorded calls: a policy or a scanner can")]
    Kind(Kind),
}

/// What the candidate said.
struct CandidateAnswer {
    heard: String,
    denies: bool,
    faulted: bool,
    micros: u32,
    fuel: u64,
}

// === impl CandidateTrial ===

impl<'a> CandidateTrial<'a> {
    /// Tries `candidate`; what it takes, it takes from `counters`.
    pub fn new(
        components: &'a Components,
        candidate: Arc<Component>,
        counters: Arc<dyn Counters>,
    ) -> Result<Self, TrialError> {
        Self::takes(candidate.kind())?;
        Ok(Self { components, candidate, counters })
    }

    /// Whether components of this kind can be tried.
    pub fn takes(kind: Kind) -> Result<(), TrialError> {
        match kind {
            Kind::Policy | Kind::Scanner => Ok(()),
            Kind::Hook | Kind::Provider | Kind::Predicate => Err(TrialError::Kind(kind)),
        }
    }

    /// What the candidate makes of a call, in the place of the component with its name, or besides the others.
    pub async fn judge(&self, recorded: &Recorded) -> Judged {
        let head = &recorded.head;
        let stopped =
            |by: &dyn Fn(&RecordedStep) -> bool| head.steps.iter().any(|step| step.stopped && by(step));
        let replaces = |step: &RecordedStep| step.name == self.candidate.name();
        let was_denied = head.outcome == "denied" || stopped(&|_| true);
        // Denied by somebody whose place it does not take: then it stays denied, whatever the candidate says.
        let by_others = was_denied && !stopped(&replaces);
        let said = match self.candidate.kind() {
            Kind::Scanner => self.scan(recorded).await,
            _ => self.check(recorded).await,
        };
        let CandidateAnswer { heard, denies, faulted, micros, fuel } = said;
        Judged { was_denied, is_denied: by_others || denies, verdict: heard, faulted, micros, fuel }
    }

    async fn check(&self, recorded: &Recorded) -> CandidateAnswer {
        let call = Arc::new(recorded.head.call.clone());
        let body: Arc<dyn BodyView> =
            Arc::new(RecordedBody::of(recorded.last_body().to_vec(), &recorded.head.call.attributes));
        let ran = match self.as_it_was(recorded).await {
            Ok(candidate) => self.components.check(&candidate, &call, &body).await,
            Err(fault) => Ran::failed(fault),
        };
        let denies = !matches!(ran.result, Ok(Verdict::Allow));
        CandidateAnswer::new(&ran, denies)
    }

    async fn scan(&self, recorded: &Recorded) -> CandidateAnswer {
        let body = RecordedBody::of(recorded.last_body().to_vec(), &recorded.head.call.attributes);
        // A scanner with this capability cuts out what it finds, and lets the rest pass.
        let rewrites = self.candidate.asks_for(&Capability::Rewrite);
        let candidate = match self.as_it_was(recorded).await {
            Ok(candidate) => candidate,
            Err(fault) => return CandidateAnswer::new(&Ran::<()>::failed(fault), true),
        };
        let mut all = CandidateAnswer {
            heard: "nothing found".to_owned(),
            denies: false,
            faulted: false,
            micros: 0,
            fuel: 0,
        };
        for (kind, text) in body.texts_to_scan() {
            let ran = self.components.scan(&candidate, kind, &text).await;
            let stops = |action: &Action| match action {
                Action::Deny | Action::Other(_) => true,
                Action::Redact => !rewrites,
                Action::Flag => false,
            };
            let (found, denies) = match &ran.result {
                Ok(findings) => (!findings.is_empty(), findings.iter().any(|it| stops(&it.action))),
                Err(_) => (true, true),
            };
            let said = CandidateAnswer::new(&ran, denies);
            all.micros = all.micros.saturating_add(said.micros);
            all.fuel = all.fuel.saturating_add(said.fuel);
            if found {
                all = CandidateAnswer { micros: all.micros, fuel: all.fuel, ..said };
            }
            if denies {
                break;
            }
        }
        all
    }

    /// The candidate at the time of the call.
    async fn as_it_was(&self, recorded: &Recorded) -> Result<Arc<Component>, Fault> {
        self.candidate
            .for_replay(Duration::from_millis(recorded.moment_ms()), Arc::clone(&self.counters))
            .await
    }
}

impl std::fmt::Debug for CandidateTrial<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Trial").field("candidate", &self.candidate).finish_non_exhaustive()
    }
}

// === impl CandidateAnswer ===

impl CandidateAnswer {
    fn new<T: serde::Serialize>(ran: &Ran<T>, denies: bool) -> Self {
        let faulted = matches!(&ran.result, Err(fault) if !matches!(fault, Fault::Exhausted));
        let (micros, fuel) = (ran.micros, ran.fuel.unwrap_or(0));
        Self { heard: RecordedAnswer::of(ran).in_short(), denies, faulted, micros, fuel }
    }
}
