//! Rehearsals: a component meets its samples, in instances like those of a call but with counters of their own. Admission
//! rehearses what a component carries, and `component test` what a developer writes: one runner for both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sallyport_protocol::package::Kind;
use sallyport_protocol::verdict::Verdict;
use serde_json::{Map, Value, json};

use super::call::{Exchange, ExchangeRequest};
use super::contract::provider::{
    Auth, Failure, Input, Output, RequestBody, RequestKind, StreamEvent, UpstreamRequest,
};
use super::contract::{
    Attribute, BodyView, Bucket, Budget, Counters, InstantCounters, Refusal, RefusalKind, hook, policy,
    scanner,
};
use super::fault::Fault;
use super::ran::Ran;
use super::ready::Component;
use super::sample::{Sample, SampleError, Samples};
use super::{Components, canonical_digest};

/// What a component said to one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// Its answer as JSON; a fault as `{"fault": code, "what": ..}`.
    pub answer: Value,
    /// The answer contains what the sample expects.
    pub met: bool,
    /// Guest time in microseconds.
    pub micros: u32,
    /// Linear memory at its peak, in bytes.
    pub memory: usize,
    /// Fuel, where the engine counts it.
    pub fuel: Option<u64>,
    /// What it wrote to standard error.
    pub log: Option<String>,
}

/// Why a component fails the samples that it carries.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// They cannot be read.
    #[error("its samples are refused")]
    Samples(#[from] SampleError),
    /// It said something else.
    #[error("sample {name}: expected {expected}, it said {answer}")]
    Unmet {
        /// Which sample.
        name: String,
        /// What was expected.
        expected: String,
        /// What it said.
        answer: String,
    },
}

/// Steps after which a provider that is not done is given up.
const MOST_STEPS: usize = 256;
/// Characters of an answer that an error shows.
const MOST_SHOWN: usize = 500;

// === impl Components ===

impl Components {
    /// Tries a component with the samples that it carries; the first that is not met is the error.
    pub(super) async fn self_test(
        &self,
        component: &Arc<Component>,
        bytes: &[u8],
    ) -> Result<(), SelfTestError> {
        for (name, sample) in Samples::carried(bytes)?.read(component.kind())? {
            let Rehearsal { answer, met, .. } = self.rehearse(component, &sample).await;
            if !met {
                let expected = sample.expect.as_ref().map_or_else(|| "any answer".to_owned(), shown);
                return Err(SelfTestError::Unmet { name, expected, answer: shown(&answer) });
            }
        }
        Ok(())
    }

    /// Has a component answer one sample. Where the sample names another configuration than the component was admitted
    /// with, `configure` runs in the sample's instance first, and counts.
    pub async fn rehearse(&self, component: &Arc<Component>, sample: &Sample) -> Rehearsal {
        let differs = canonical_digest(&sample.config) != component.config_digest();
        let config = differs.then(|| sample.config.to_string());
        let counters: Arc<dyn Counters> = Arc::new(Fresh::default());
        let component = match component.for_self_test(config, counters).await {
            Ok(component) => Arc::new(component),
            Err(fault) => return Rehearsal::of(sample, Ran::failed(fault), outcome),
        };
        match component.kind() {
            Kind::Hook => self.rehearse_hook(&component, sample).await,
            Kind::Policy => self.rehearse_policy(&component, sample).await,
            Kind::Scanner => self.rehearse_scanner(&component, sample).await,
            Kind::Provider => self.rehearse_provider(&component, sample).await,
            Kind::Predicate => self.rehearse_predicate(&component, sample).await,
        }
    }

    async fn rehearse_hook(&self, component: &Arc<Component>, sample: &Sample) -> Rehearsal {
        let Some(what) = sample.occurrence() else { return Rehearsal::nothing("event") };
        Rehearsal::of(sample, self.on_event(component, &what).await, outcome)
    }

    async fn rehearse_policy(&self, component: &Arc<Component>, sample: &Sample) -> Rehearsal {
        let (call, body) = sample.call();
        let body: Arc<dyn BodyView> = Arc::new(body);
        Rehearsal::of(sample, self.check(component, &Arc::new(call), &body).await, verdict)
    }

    async fn rehearse_predicate(&self, component: &Arc<Component>, sample: &Sample) -> Rehearsal {
        let (call, body) = sample.call();
        let body: Arc<dyn BodyView> = Arc::new(body);
        let ran = self.matches(component, &Arc::new(call), &body).await;
        Rehearsal::of(sample, ran, |matches| json!({ "matches": matches }))
    }

    async fn rehearse_scanner(&self, component: &Arc<Component>, sample: &Sample) -> Rehearsal {
        let Some(text) = &sample.text else { return Rehearsal::nothing("text") };
        let kind = sample.text_kind.map_or(scanner::TextKind::User, Into::into);
        let ran = self.scan(component, kind, text).await;
        Rehearsal::of(
            sample,
            ran,
            |found| json!({ "findings": found.iter().map(finding).collect::<Vec<_>>() }),
        )
    }

    async fn rehearse_provider(&self, component: &Arc<Component>, sample: &Sample) -> Rehearsal {
        let (call, body) = sample.call();
        let model_span =
            body.index.as_ref().map_or((0, 0), |read| (read.model_span.start, read.model_span.len()));
        let request = ExchangeRequest {
            upstream_model: call.model.as_ref().to_owned(),
            call,
            body: Arc::new(body),
            model_span,
            headers: vec![
                attribute("anthropic-version", "2023-06-01"),
                attribute("content-type", "application/json"),
            ],
            kind: RequestKind::Message,
            target: "/v1/messages".to_owned(),
        };
        let ran = match self.exchange(component, request).await {
            Err(fault) => Ran::failed(fault),
            Ok((mut exchange, first)) => {
                let result = drive(&mut exchange, first, sample).await;
                Ran {
                    result,
                    micros: exchange.micros(),
                    memory: exchange.memory(),
                    fuel: exchange.fuel(),
                    log: exchange.take_log(),
                    ..Ran::failed(Fault::Over)
                }
            }
        };
        Rehearsal::of(sample, ran, |answer| answer)
    }
}

// === impl Rehearsal ===

impl Rehearsal {
    fn of<T>(sample: &Sample, ran: Ran<T>, say: impl FnOnce(T) -> Value) -> Self {
        let Ran { result, micros, memory, fuel, notes, log, .. } = ran;
        let mut answer = match result {
            Ok(said) => say(said),
            Err(Fault::Configure { message }) => json!({ "configure": "refused", "message": message }),
            Err(fault) => json!({ "fault": fault.code(), "what": fault.to_string() }),
        };
        if let Some(answer) = answer.as_object_mut().filter(|_| !notes.is_empty()) {
            let notes: Map<String, Value> =
                notes.into_iter().map(|note| (note.name, Value::String(note.value))).collect();
            answer.insert("notes".to_owned(), Value::Object(notes));
        }
        Self { met: sample.is_met_by(&answer), answer, micros, memory, fuel, log }
    }

    fn nothing(what: &str) -> Self {
        let answer = json!({ "fault": "sample", "what": format!("the sample has no {what}") });
        Self { answer, met: false, micros: 0, memory: 0, fuel: None, log: None }
    }
}

/// Counters that nobody took from before, and whose buckets do not refill: no time passes in a rehearsal.
#[derive(Debug, Default)]
struct Fresh {
    buckets: Mutex<HashMap<String, u32>>,
    /// Reserved and spent, by key and window.
    money: Mutex<HashMap<String, (u64, u64)>>,
}

impl InstantCounters for Fresh {
    fn take(&self, bucket: &Bucket<'_>, cost: u32) -> Result<u32, Duration> {
        let Bucket { key, limit, window, .. } = *bucket;
        let mut taken = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.entry(key.to_owned()).or_default();
        let after = taken.saturating_add(cost);
        let Some(left) = limit.checked_sub(after) else {
            return Err(window.saturating_mul(after - limit) / limit.max(1));
        };
        *taken = after;
        Ok(left)
    }

    fn correct(&self, bucket: &Bucket<'_>, taken: u32, used: u32) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = buckets.get_mut(bucket.key) {
            *held = held.saturating_sub(taken).saturating_add(used);
        }
    }

    fn reserve(&self, budget: &Budget<'_>, micro: u64, cap: u64) -> Result<u64, Duration> {
        let mut money = self.money.lock().unwrap_or_else(PoisonError::into_inner);
        let (reserved, spent) = money.entry(purse(budget)).or_default();
        let left = cap.checked_sub(reserved.saturating_add(*spent)).and_then(|left| left.checked_sub(micro));
        let left = left.ok_or(Duration::from_hours(1))?;
        *reserved = reserved.saturating_add(micro);
        Ok(left)
    }

    fn release(&self, budget: &Budget<'_>, reserved: u64, spent: u64) {
        let mut money = self.money.lock().unwrap_or_else(PoisonError::into_inner);
        let purse = money.entry(purse(budget)).or_default();
        *purse = (purse.0.saturating_sub(reserved), purse.1.saturating_add(spent));
    }
}

// === private helpers ===

fn purse(budget: &Budget<'_>) -> String {
    format!("{} {:?}", budget.key, budget.window)
}

/// Tells a provider what the sample's upstream answers, until it is done.
async fn drive(exchange: &mut Exchange, first: Vec<Output>, sample: &Sample) -> Result<Value, Fault> {
    let mut upstream = sample.upstream.iter();
    let (mut said, mut outputs) = (Vec::new(), first);
    for _ in 0..MOST_STEPS {
        let mut inputs: Vec<Input> = Vec::new();
        for output in &outputs {
            if let Output::Fail(failure) = output {
                return Ok(json!({ "outputs": said, "failure": failed(failure) }));
            }
            said.push(shown_output(output));
            match output {
                Output::Send(_) => match upstream.next() {
                    Some(answer) => inputs = answer.inputs().into_iter().collect(),
                    None => return Ok(json!({ "outputs": said, "upstream": "has no answer to this" })),
                },
                Output::Wait(_) => inputs.push(Input::Elapsed),
                Output::SendThenForward(_) | Output::Forward(_) | Output::Done => {
                    return Ok(json!({ "outputs": said }));
                }
                _ => {}
            }
        }
        if inputs.is_empty() {
            break;
        }
        outputs = exchange.next(inputs).await?;
    }
    Ok(json!({ "outputs": said, "unfinished": true }))
}

fn outcome(outcome: hook::Outcome) -> Value {
    match outcome {
        hook::Outcome::Proceed => json!({ "outcome": Verdict::Proceed }),
        hook::Outcome::Block(reason) => json!({ "outcome": Verdict::Block, "reason": reason }),
        hook::Outcome::Ask(reason) => json!({ "outcome": Verdict::Ask, "reason": reason }),
        hook::Outcome::Modify(json) => json!({ "outcome": Verdict::Modify, "value": parsed(&json) }),
        hook::Outcome::AddContext(text) => json!({ "outcome": Verdict::AddContext, "text": text }),
        hook::Outcome::Other(other) => {
            json!({ "outcome": Verdict::Other, "name": other.name, "value": other.value })
        }
    }
}

fn verdict(verdict: policy::Verdict) -> Value {
    match verdict {
        policy::Verdict::Allow => json!({ "verdict": Verdict::Allow }),
        policy::Verdict::Deny(refusal) => refused(Verdict::Deny, &refusal),
        policy::Verdict::Ask(refusal) => refused(Verdict::Ask, &refusal),
        policy::Verdict::Other(other) => {
            json!({ "verdict": Verdict::Other, "name": other.name, "value": other.value })
        }
    }
}

fn refused(verdict: Verdict, refusal: &Refusal) -> Value {
    let kind = match &refusal.kind {
        RefusalKind::Denied => "denied",
        RefusalKind::NotEntitled => "not-entitled",
        RefusalKind::RateLimited => "rate-limited",
        RefusalKind::BudgetExceeded => "budget-exceeded",
        RefusalKind::Other(name) => name,
    };
    let mut said =
        json!({ "verdict": verdict, "kind": kind, "code": refusal.code, "reason": refusal.reason });
    if let (Some(said), Some(ms)) = (said.as_object_mut(), refusal.retry_after_ms) {
        said.insert("retry_after_ms".to_owned(), json!(ms));
    }
    said
}

fn finding(found: &scanner::Finding) -> Value {
    let action = match &found.action {
        scanner::Action::Flag => Verdict::Flag.as_str(),
        scanner::Action::Redact => Verdict::Redact.as_str(),
        scanner::Action::Deny => Verdict::Deny.as_str(),
        scanner::Action::Other(name) => name,
    };
    json!({ "rule": found.rule, "action": action, "start": found.start, "end": found.end, "replacement": found.replacement })
}

fn shown_output(output: &Output) -> Value {
    match output {
        Output::Send(request) => json!({ "send": shown_request(request) }),
        Output::SendThenForward(request) => json!({ "send_then_forward": shown_request(request) }),
        Output::Forward(head) => {
            json!({ "forward": { "status": head.status, "headers": headers(&head.headers) } })
        }
        Output::Event(event) => json!({ "event": event_name(event) }),
        Output::Message(reply) => json!({ "message": parsed(&String::from_utf8_lossy(&reply.json)) }),
        Output::TokenCount(count) => json!({ "token_count": count }),
        Output::TokenEstimate(count) => json!({ "token_estimate": count }),
        Output::Wait(ms) => json!({ "wait": ms }),
        Output::Lost(loss) => json!({ "lost": { "field": loss.field, "how": loss.how } }),
        Output::ResponseHeaders(list) => json!({ "response_headers": headers(list) }),
        Output::Done => json!("done"),
        Output::Fail(failure) => json!({ "fail": failed(failure) }),
        Output::Other(other) => json!({ "other": other.name, "value": other.value }),
    }
}

fn shown_request(request: &UpstreamRequest) -> Value {
    let body = match &request.body {
        RequestBody::Empty => json!("empty"),
        RequestBody::Original => json!("original"),
        RequestBody::Spliced(edits) => json!({ "edits": edits.len() }),
        RequestBody::Bytes(bytes) => parsed(&String::from_utf8_lossy(bytes)),
        RequestBody::Other(other) => json!({ "other": other.name }),
    };
    let auth = match &request.auth {
        Auth::None => "none",
        Auth::Credential => "credential",
        Auth::Other(other) => &other.name,
    };
    json!({ "method": request.method, "path": request.path, "headers": headers(&request.headers), "body": body, "auth": auth })
}

fn event_name(event: &StreamEvent) -> &str {
    match event {
        StreamEvent::MessageStart(_) => "message_start",
        StreamEvent::BlockStart(_) => "content_block_start",
        StreamEvent::BlockDelta(_) => "content_block_delta",
        StreamEvent::BlockStop(_) => "content_block_stop",
        StreamEvent::MessageDelta(_) => "message_delta",
        StreamEvent::MessageStop => "message_stop",
        StreamEvent::Ping => "ping",
        StreamEvent::Raw(raw) => &raw.name,
    }
}

fn failed(failure: &Failure) -> Value {
    json!({ "status": failure.status, "type": failure.error_type, "message": failure.message, "retryable": failure.retryable })
}

fn headers(list: &[Attribute]) -> Value {
    Value::Object(list.iter().map(|header| (header.name.clone(), json!(header.value))).collect())
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: value.to_owned() }
}

/// JSON where it is some, else the text.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MOST_SHOWN {
        text
    } else {
        text.chars().take(MOST_SHOWN).chain(['.', '.']).collect()
    }
}
