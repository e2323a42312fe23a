//! Replay: a component is asked again what it was asked, and told what it was told: the same facts, bytes, time, randomness and
//! counters. What it answers must be the same to the last bit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::record::{Asked, Recorded, RecordedAnswer, RecordedStep, Texts};
use crate::component::contract::hook::Occurrence;
use crate::component::contract::{BodyView, Bucket, Budget, InstantCounters, Taken};
use crate::component::request::RecordedBody;
use crate::component::{Component, Components, Fault, Ran};

/// Faults that say how busy the gateway was or what it was told to do, and nothing of what the component decided.
const OF_THE_MOMENT: [&str; 4] = ["deadline", "exhausted", "revoked", "absent"];

/// What came of asking again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// What it said then.
    pub recorded: String,
    /// What it says now; `None` if it could not be asked.
    pub replayed: Option<String>,
    /// Whether that is the same.
    pub sameness: Sameness,
    /// Fuel that it took now.
    pub fuel: Option<u64>,
}

/// Whether an answer came out the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sameness {
    /// To the last bit, and from the same counters.
    Same,
    /// It did not.
    Different,
    /// It cannot be known.
    Unknown(String),
}

/// Counters that say again what they said.
#[derive(Debug)]
struct Scripted(Mutex<VecDeque<Taken>>);

// === impl Again ===

impl Again {
    /// The question cannot be put again.
    pub fn impossible(step: &RecordedStep, why: impl Into<String>) -> Self {
        Self { recorded: said_by(step), replayed: None, sameness: Sameness::Unknown(why.into()), fuel: None }
    }
}

// === impl Scripted ===

impl InstantCounters for Scripted {
    fn take(&self, bucket: &Bucket<'_>, _cost: u32) -> Result<u32, Duration> {
        // A question that was not asked then shows in what the component took, which is compared too.
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match next {
            Some(Taken::Take { answer, .. }) => answer.map_err(waited),
            _ => Err(bucket.window),
        }
    }

    fn correct(&self, _bucket: &Bucket<'_>, _taken: u32, _used: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }

    fn reserve(&self, _budget: &Budget<'_>, _micro: u64, _cap: u64) -> Result<u64, Duration> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            Some(Taken::Reserve { answer, .. }) => answer.map_err(waited),
            _ => Err(Duration::ZERO),
        }
    }

    fn release(&self, _budget: &Budget<'_>, _reserved: u64, _spent: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }
}

/// Asks `component`, which has the digest and the configuration of `step`, once more.
pub async fn replay(
    components: &Components,
    recorded: &Recorded,
    step: &RecordedStep,
    component: &Arc<Component>,
) -> Again {
    match &step.asked {
        Asked::Call(heard) => {
            let (call, body) = recorded.asked_about(step);
            let body: Arc<dyn BodyView> = Arc::new(RecordedBody::of(body.to_vec(), &call.attributes));
            match as_it_was(component, heard).await {
                Ok(component) => {
                    compare(step, heard, &components.check(&component, &Arc::new(call), &body).await)
                }
                Err(fault) => Again::impossible(step, fault.to_string()),
            }
        }
        Asked::Route { heard, .. } => {
            let (call, body) = recorded.asked_about(step);
            let body: Arc<dyn BodyView> = Arc::new(RecordedBody::of(body.to_vec(), &call.attributes));
            match as_it_was(component, heard).await {
                Ok(component) => {
                    compare(step, heard, &components.matches(&component, &Arc::new(call), &body).await)
                }
                Err(fault) => Again::impossible(step, fault.to_string()),
            }
        }
        Asked::Event { what, heard } => {
            let Ok(what) = serde_json::from_str::<Occurrence>(what.get()) else {
                return Again::impossible(step, "the event is not known to this version");
            };
            match as_it_was(component, heard).await {
                Ok(component) => compare(step, heard, &components.on_event(&component, &what).await),
                Err(fault) => Again::impossible(step, fault.to_string()),
            }
        }
        Asked::Texts(texts) => scan(components, recorded, step, texts, component).await,
    }
}

// === private helpers ===

fn waited(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

async fn scan(
    components: &Components,
    recorded: &Recorded,
    step: &RecordedStep,
    texts: &Texts,
    component: &Arc<Component>,
) -> Again {
    let (call, body) = recorded.asked_about(step);
    let body = RecordedBody::of(body.to_vec(), &call.attributes);
    let mut all = body.texts_to_scan();
    let (mut again, mut fuel) = (Texts::default(), None);
    for number in 0..texts.scanned {
        let Some((kind, text)) = all.next() else {
            return Again::impossible(step, "the body has fewer texts than were scanned");
        };
        let then = texts.about(number);
        if let Some(why) = of_the_moment(&then) {
            return Again::impossible(step, why);
        }
        let ran = match as_it_was(component, &then).await {
            Ok(component) => components.scan(&component, kind, &text).await,
            Err(fault) => return Again::impossible(step, fault.to_string()),
        };
        fuel = sum(fuel, ran.fuel);
        again.heard(RecordedAnswer::of(&ran));
    }
    let same = again.scanned == texts.scanned && again.heard == texts.heard;
    Again {
        recorded: summary(texts),
        replayed: Some(summary(&again)),
        sameness: if same { Sameness::Same } else { Sameness::Different },
        fuel,
    }
}

/// The component as it was when it said this.
async fn as_it_was(component: &Component, heard: &RecordedAnswer) -> Result<Arc<Component>, Fault> {
    let counters = Scripted(Mutex::new(heard.taken.iter().cloned().collect()));
    component.for_replay(Duration::from_millis(heard.now_ms), Arc::new(counters)).await
}

fn compare<T: serde::Serialize>(step: &RecordedStep, then: &RecordedAnswer, ran: &Ran<T>) -> Again {
    if let Some(why) = of_the_moment(then) {
        return Again::impossible(step, why);
    }
    let now = RecordedAnswer::of(ran);
    Again {
        recorded: then.in_short(),
        replayed: Some(now.in_short()),
        sameness: if now == *then { Sameness::Same } else { Sameness::Different },
        fuel: ran.fuel,
    }
}

fn of_the_moment(heard: &RecordedAnswer) -> Option<String> {
    if heard.egress_calls > 0 {
        return Some("it sent requests to other servers, whose answers are not recorded".to_owned());
    }
    let fault = heard.fault().filter(|fault| OF_THE_MOMENT.contains(fault))?;
    Some(format!("the component gave no answer then ({fault})"))
}

fn said_by(step: &RecordedStep) -> String {
    match &step.asked {
        Asked::Call(heard) | Asked::Route { heard, .. } | Asked::Event { heard, .. } => heard.in_short(),
        Asked::Texts(texts) => summary(texts),
    }
}

fn summary(texts: &Texts) -> String {
    let mut found: Vec<String> = texts.heard.iter().map(|(_, heard)| heard.in_short()).collect();
    found.dedup();
    if found.is_empty() { "nothing found".to_owned() } else { found.join(" ") }
}

fn sum(so_far: Option<u64>, more: Option<u64>) -> Option<u64> {
    Some(so_far.unwrap_or(0).saturating_add(more?))
}
