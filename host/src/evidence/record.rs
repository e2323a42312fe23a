//! What is recorded of a call: the facts, the body and, for every question that a component was asked, the question, everything
//! that the host told it meanwhile, and its answer.

use std::sync::Arc;

use bytes::Bytes;
use sallyport_protocol::package::Kind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::component::contract::hook::Occurrence;
use crate::component::contract::scanner::Finding;
use crate::component::contract::{Attribute, Call, Taken};
use crate::component::{Component, Fault, Mode, Ran};

/// Scanners may leave so many bodies of the largest size.
const MOST_BODIES: usize = 4;
/// The form of every record so far.
const FORM: u32 = 1;

/// A recorded call.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Everything but the body.
    pub head: RecordHead,
    /// The bodies that policies and scanners looked at: the client's with what hooks made of it, and what each scanner that
    /// may change it left. The last one is what went upstream.
    pub bodies: Vec<Bytes>,
}

/// A recorded call without its bodies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordHead {
    form: u32,
    /// The gateway's id of the HTTP request.
    pub request_id: String,
    /// The version of the bundle.
    pub policy_version: String,
    /// How the call ended: `allowed`, `denied` or `error`.
    pub outcome: String,
    /// Why, if it was not allowed.
    pub code: Option<String>,
    /// What components were told of it.
    pub call: Call,
    /// Every component that was asked, in order.
    pub steps: Vec<RecordedStep>,
    /// How long each body is.
    lengths: Vec<usize>,
}

/// One component that was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedStep {
    /// `namespace/name`
    pub name: String,
    /// The publisher's version.
    pub version: String,
    /// What it is.
    pub kind: Kind,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Digest of its configuration.
    pub config: String,
    /// What was done with what it said.
    pub mode: Mode,
    /// Whether the call ended because of it.
    pub stopped: bool,
    /// What it was asked.
    pub asked: Asked,
    /// Which body it was asked about.
    body: usize,
    /// The configuration itself, which is stored once for all calls.
    #[serde(skip)]
    pub(super) configuration: Option<Arc<str>>,
}

/// What a component was asked, and what it said.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// A predicate, about a route that might take the call.
    Route {
        /// The call as that route would have it.
        considered: Box<Call>,
        /// What it said.
        heard: RecordedAnswer,
    },
    /// A policy, about the call.
    Call(RecordedAnswer),
    /// A scanner, about texts of the body.
    Texts(Texts),
    /// A hook, about something that happened.
    Event {
        /// What it was told: an [`Occurrence`].
        what: Box<RawValue>,
        /// What it said.
        heard: RecordedAnswer,
    },
}

/// What a scanner said about the first texts of the body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Texts {
    /// How many.
    pub scanned: u32,
    /// What it said about those that it found something in, by their number.
    pub heard: Vec<(u32, RecordedAnswer)>,
}

/// An answer, and what the host told the component while it thought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedAnswer {
    /// Wall clock shown to the guest, in milliseconds since 1970; frozen for the whole call.
    pub now_ms: u64,
    /// What it took from counters, and what they answered.
    pub taken: Vec<Taken>,
    /// The answer with its notes, or the fault.
    pub answer: Value,
    /// How many requests it sent to other servers, whose answers are not recorded.
    #[serde(default)]
    pub egress_calls: usize,
}

/// What is gathered while a call runs.
#[derive(Debug)]
pub struct Gathering {
    steps: Vec<RecordedStep>,
    bodies: Vec<Bytes>,
    /// Bytes of what hooks were told.
    told: usize,
    most: usize,
}

/// A call that is to be recorded.
#[derive(Debug)]
pub struct Draft {
    /// What was gathered.
    pub gathering: Gathering,
    /// What components were told of it.
    pub call: Call,
    /// The body that they left.
    pub body: Bytes,
    /// The gateway's id of the HTTP request.
    pub request_id: String,
    /// The version of the bundle.
    pub policy_version: String,
    /// How the call ended.
    pub outcome: &'static str,
    /// Why, if it was not allowed.
    pub code: Option<String>,
}

/// Why a record cannot be read, or written.
#[derive(Debug, thiserror::Error)]
#[error("the record has a form that this version does not know")]
pub struct Unknown;

// === impl Recorded ===

impl Recorded {
    /// When the call was decided, in milliseconds since 1970: when its first policy was asked, else when it came in.
    pub fn moment_ms(&self) -> u64 {
        let asked = self.head.steps.iter().find_map(|step| match &step.asked {
            Asked::Call(heard) if heard.now_ms > 0 => Some(heard.now_ms),
            _ => None,
        });
        asked.or_else(|| self.head.call.time_ms.parse().ok()).unwrap_or(0)
    }

    /// The call as a step was asked about it: facts and body.
    pub fn asked_about(&self, step: &RecordedStep) -> (Call, Bytes) {
        let body = self.bodies.get(step.body).cloned().unwrap_or_default();
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let call = match &step.asked {
            Asked::Route { considered, .. } => considered,
            Asked::Call(_) | Asked::Texts(_) | Asked::Event { .. } => &self.head.call,
        };
        (Call { body_bytes, ..call.clone() }, body)
    }

    /// The body that was left in the end.
    pub fn last_body(&self) -> Bytes {
        self.bodies.last().cloned().unwrap_or_default()
    }

    /// As bytes: the length of the head, the head as JSON, the bodies.
    pub fn write(&self) -> Result<Vec<u8>, Unknown> {
        let head = serde_json::to_vec(&self.head).map_err(|_| Unknown)?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&head);
        for body in &self.bodies {
            bytes.extend_from_slice(body);
        }
        Ok(bytes)
    }

    /// What [`Recorded::write`] wrote.
    pub fn read(bytes: &[u8]) -> Result<Self, Unknown> {
        let (len, rest) = bytes.split_first_chunk::<8>().ok_or(Unknown)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| Unknown)?;
        let (head, mut rest) = rest.split_at_checked(len).ok_or(Unknown)?;
        let head: RecordHead = serde_json::from_slice(head).map_err(|_| Unknown)?;
        if head.form != FORM {
            return Err(Unknown);
        }
        let mut bodies = Vec::new();
        for len in &head.lengths {
            let (body, behind) = rest.split_at_checked(*len).ok_or(Unknown)?;
            bodies.push(Bytes::copy_from_slice(body));
            rest = behind;
        }
        // A step whose body is not here would be replayed on another one.
        if head.steps.iter().any(|step| step.body >= bodies.len()) {
            return Err(Unknown);
        }
        Ok(Self { head, bodies })
    }
}

// === impl RecordedStep ===

impl RecordedStep {
    /// `component` in its place was asked.
    pub fn new(component: &Component, mode: Mode, asked: Asked, stopped: bool) -> Self {
        Self {
            name: component.name().to_owned(),
            version: component.version().to_string(),
            kind: component.kind(),
            digest: component.digest().to_owned(),
            config: component.config_digest().to_owned(),
            mode,
            stopped,
            asked,
            body: 0,
            configuration: Some(Arc::clone(component.configuration())),
        }
    }
}

// === impl Asked ===

impl Asked {
    /// A hook was told of `what`.
    pub fn event(what: &Occurrence, heard: RecordedAnswer) -> Option<Self> {
        Some(Self::Event { what: serde_json::value::to_raw_value(what).ok()?, heard })
    }
}

// === impl Texts ===

impl Texts {
    /// The next text was scanned.
    pub fn heard(&mut self, heard: RecordedAnswer) {
        if heard != RecordedAnswer::nothing_found() {
            self.heard.push((self.scanned, heard));
        }
        self.scanned += 1;
    }

    /// What was said about the text with this number.
    pub fn about(&self, number: u32) -> RecordedAnswer {
        let found = self.heard.iter().find(|(it, _)| *it == number);
        found.map_or_else(RecordedAnswer::nothing_found, |(_, heard)| heard.clone())
    }
}

// === impl RecordedAnswer ===

impl RecordedAnswer {
    /// What came of a call of a component.
    pub fn of<T: Serialize>(ran: &Ran<T>) -> Self {
        Self {
            egress_calls: ran.egress_calls.len(),
            ..Self::parts(&ran.result, &ran.notes, &ran.taken, ran.now)
        }
    }

    /// Findings that were remembered: scanners are pure, so it does not matter when they were made.
    pub fn remembered(findings: &[Finding]) -> Self {
        Self::parts(&Ok(findings), &[], &[], std::time::Duration::ZERO)
    }

    fn nothing_found() -> Self {
        Self::remembered(&[])
    }

    fn parts<T: Serialize>(
        result: &Result<T, Fault>,
        notes: &[Attribute],
        taken: &[Taken],
        now: std::time::Duration,
    ) -> Self {
        let mut answer = match result {
            Ok(said) => json!({ "said": said }),
            Err(fault) => json!({ "fault": fault.code(), "what": fault.to_string() }),
        };
        if let Some(answer) = answer.as_object_mut().filter(|_| !notes.is_empty()) {
            answer.insert("notes".to_owned(), json!(notes));
        }
        Self {
            now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            taken: taken.to_vec(),
            answer,
            egress_calls: 0,
        }
    }

    /// The fault, if there was no answer.
    pub fn fault(&self) -> Option<&str> {
        self.answer.get("fault").and_then(Value::as_str)
    }

    /// The answer in a few words: `allow`, `deny model_not_allowed`, `block`, the rules that matched.
    pub fn in_short(&self) -> String {
        if let Some(fault) = self.fault() {
            return format!("fault {fault}");
        }
        match self.answer.get("said") {
            Some(Value::Bool(matches)) => if *matches { "match" } else { "no match" }.to_owned(),
            Some(Value::String(said)) => kebab(said),
            Some(Value::Array(findings)) => rules(findings),
            Some(Value::Object(said)) => variant(said),
            _ => "-".to_owned(),
        }
    }
}

// === impl Gathering ===

impl Gathering {
    /// Keeps bodies, and what hooks are told, up to so many bytes each.
    pub fn new(most: usize) -> Self {
        Self { steps: Vec::new(), bodies: Vec::new(), told: 0, most }
    }

    /// A component was asked; about `body`, if it was about one.
    pub fn hear(&mut self, mut step: RecordedStep, body: Option<&Bytes>) {
        if let Some(body) = body {
            self.see(body);
            step.body = self.bodies.len().saturating_sub(1);
        }
        if let Asked::Event { what, .. } = &step.asked {
            self.told = self.told.saturating_add(what.get().len());
        }
        if self.told > self.most {
            // It will not be kept: what was gathered need not wait for the end of the call.
            self.steps.clear();
        } else {
            self.steps.push(step);
        }
    }

    /// Takes a body, unless it is the one that was taken last.
    fn see(&mut self, body: &Bytes) {
        if self.bodies.last().is_none_or(|last| last != body) {
            self.bodies.push(body.clone());
        }
    }
}

// === impl Draft ===

impl Draft {
    /// Whether it holds more than is kept.
    pub fn is_too_large(&self) -> bool {
        let Gathering { bodies, told, most, .. } = &self.gathering;
        let all: usize = bodies.iter().map(Bytes::len).sum();
        self.body.len() > *most || *told > *most || all > most.saturating_mul(MOST_BODIES)
    }

    pub(super) fn finish(self) -> Recorded {
        let Self { mut gathering, call, body, request_id, policy_version, outcome, code } = self;
        gathering.see(&body);
        let Gathering { steps, bodies, .. } = gathering;
        let (outcome, lengths) = (outcome.to_owned(), bodies.iter().map(Bytes::len).collect());
        let head = RecordHead { form: FORM, request_id, policy_version, outcome, code, call, steps, lengths };
        Recorded { head, bodies }
    }
}

// === private helpers ===

fn variant(said: &Map<String, Value>) -> String {
    let Some((name, value)) = said.iter().next() else { return "-".to_owned() };
    match value.get("code").and_then(Value::as_str) {
        Some(code) => format!("{} {code}", kebab(name)),
        None => kebab(name),
    }
}

fn rules(findings: &[Value]) -> String {
    let mut rules: Vec<&str> =
        findings.iter().filter_map(|found| found.get("rule").and_then(Value::as_str)).collect();
    rules.dedup();
    if rules.is_empty() { "nothing found".to_owned() } else { rules.join(" ") }
}

/// `AddContext` as the contract writes it: `add-context`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::component::contract::Principal;
    use crate::component::contract::scanner::Action;

    /// A call of nobody in particular.
    pub(in crate::evidence) fn draft(trace: &str, tenant: &str, body: &str, most: usize) -> Draft {
        let principal = Principal {
            user: "u_1".into(),
            tenant: tenant.into(),
            session: "s".into(),
            client: "c".into(),
            source: "api".into(),
            roles: Arc::default(),
            department: None,
            scopes: Arc::default(),
            attributes: Vec::new(),
        };
        let call = Call {
            trace: trace.into(),
            time_ms: "1000".into(),
            principal,
            model: "m".into(),
            route: "*".into(),
            provider: "echo".into(),
            streaming: false,
            max_tokens: None,
            body_bytes: 0,
            message_count: 1,
            tools: Arc::default(),
            agent: None,
            region: None,
            attributes: Vec::new(),
        };
        Draft {
            gathering: Gathering::new(most),
            call,
            body: Bytes::copy_from_slice(body.as_bytes()),
            request_id: format!("req_{trace}"),
            policy_version: "v".to_owned(),
            outcome: "allowed",
            code: None,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_foreign_one_is_refused() {
        let mut recorded = draft("t_1", "acme", "{\"a\":  1}\n", 100).finish();
        let again = Recorded::read(&recorded.write().unwrap()).unwrap();
        assert_eq!(again.bodies, recorded.bodies);
        assert_eq!(again.head.call, recorded.head.call);
        recorded.head.form = 2;
        assert!(Recorded::read(&recorded.write().unwrap()).is_err());
        for bytes in [&b""[..], &[255; 8], &[1, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(Recorded::read(bytes).is_err());
        }
    }

    #[test]
    fn of_texts_only_those_with_findings_take_room() {
        let found = Finding {
            rule: "aws-key".to_owned(),
            action: Action::Flag,
            start: 1,
            end: 2,
            replacement: String::new(),
        };
        let mut texts = Texts::default();
        texts.heard(RecordedAnswer::remembered(&[]));
        texts.heard(RecordedAnswer::remembered(std::slice::from_ref(&found)));
        texts.heard(RecordedAnswer::remembered(&[]));
        assert_eq!((texts.scanned, texts.heard.len()), (3, 1));
        assert_eq!(texts.about(1).in_short(), "aws-key");
        assert_eq!(texts.about(2).in_short(), "nothing found");
    }

    #[test]
    fn a_call_is_too_large_by_its_body_or_by_what_hooks_were_told() {
        assert!(!draft("t", "acme", "12345", 5).is_too_large());
        assert!(draft("t", "acme", "123456", 5).is_too_large());
        let mut draft = draft("t", "acme", "1", 20);
        let what = RawValue::from_string(format!("\"{}\"", "x".repeat(30))).unwrap();
        let asked = Asked::Event { what, heard: RecordedAnswer::remembered(&[]) };
        let hook = Component::stand_in(Kind::Hook, "acme/hook", "1.0.0");
        draft.gathering.hear(RecordedStep::new(&hook, Mode::Enforce, asked, false), None);
        assert!(draft.is_too_large());
    }

    #[test]
    fn an_answer_has_a_short_form() {
        let heard = |answer| RecordedAnswer { now_ms: 0, taken: Vec::new(), answer, egress_calls: 0 };
        let short = |answer| heard(answer).in_short();
        assert_eq!(short(json!({ "said": "Allow" })), "allow");
        assert_eq!(short(json!({ "said": false })), "no match");
        assert_eq!(short(json!({ "said": { "Deny": { "code": "c" } } })), "deny c");
        assert_eq!(short(json!({ "said": { "AddContext": "secret" } })), "add-context");
        assert_eq!(short(json!({ "fault": "trap" })), "fault trap");
    }
}
