//! The one dispatcher of lifecycle events: something happened, in band or reported; every hook whose package names the event and
//! whose matcher fits is asked in the order of the bundle, and what they say together is one answer.
//!
//! What a hook changes, the others have to see: they are asked again until nobody changes anything. A chain that does not come
//! to rest within [`MOST_DEPTH`] rounds after the first is stopped, so that hooks cannot trigger each other for ever.

mod edit;
mod idle;
mod inbound;
mod report;
mod session;
mod turn;

use sallyport_protocol::hooks::{OnFault, output};
use sallyport_protocol::package::HookEvent;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::row::{self, HookRow, evidence, insert, notes_of, server_of};
use super::{Call, Pipeline, Refusal};
use crate::audit::Outcome as Ended;
use crate::component::contract::hook::{Event, Occurrence, Outcome};
use crate::component::contract::{Attribute, Principal as PrincipalFacts, Refusal as Denial, RefusalKind};
use crate::component::{Bundle, Entry, Fault, Mode, Ran};
use crate::evidence::{Asked, Heard, Step};

pub use self::report::{Reported, Reporter};
pub(super) use self::session::Sessions;

/// Rounds after the first, in which hooks are asked about what others made of the event.
const MOST_DEPTH: u32 = 4;
/// Longest text that a hook may add for the model.
const LONGEST_CONTEXT: usize = 32 * 1024;
/// Longest reason of a hook on a row.
const LONGEST_REASON: usize = 256;

/// Something that happened.
pub(super) struct Occasion {
    pub(super) event: HookEvent,
    /// What matchers look at.
    pub(super) subject: Option<String>,
    /// The tool call it is about: id and name.
    pub(super) tool: Option<(String, String)>,
    /// What hooks are told.
    pub(super) what: Occurrence,
    /// What rows say besides.
    pub(super) notes: Vec<(&'static str, Value)>,
    /// Whether it is part of a call whose decisions are recorded.
    recorded: bool,
}

/// What the hooks said together.
#[derive(Default)]
pub(super) struct Told {
    /// It does not go on.
    pub(super) stopped: Option<Stopped>,
    /// It goes on with another tool input or output: JSON.
    pub(super) modified: Option<String>,
    /// Texts for the model.
    pub(super) context: Vec<String>,
    /// A hook that counts did not answer.
    pub(super) faulted: bool,
    /// One for each time that a hook was asked.
    pub(super) rows: Vec<HookRow>,
}

/// Who stopped it, and why.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) hook: String,
    pub(super) reason: String,
    code: &'static str,
    /// A person could have agreed.
    pub(super) ask: bool,
    fault: Option<Fault>,
}

/// A hook in its place, and how far it is.
struct Listener<'a> {
    entry: &'a Entry,
    /// Which version of the event it has seen.
    seen: Option<u32>,
    said: Said,
}

/// What one hook said, as far as it counts.
enum Said {
    Nothing,
    Block(String),
    Ask(String),
    Modify(String),
    Context(String),
    /// No answer, or none that can be used.
    Fault(Option<Fault>),
}

// === impl Pipeline ===

impl Pipeline {
    /// Tells the hooks of `bundle` what happened.
    pub(super) async fn tell(&self, bundle: &Bundle, mut occasion: Occasion) -> Told {
        let mut listeners: Vec<_> = listeners(bundle, occasion.event)
            .filter(|entry| entry.attachment.matcher.fits(occasion.subject.as_deref()))
            .map(|entry| Listener { entry, seen: None, said: Said::Nothing })
            .collect();
        let mut told = Told::default();
        let mut version = 0;
        for depth in 0..=MOST_DEPTH {
            let mut asked = false;
            for listener in &mut listeners {
                let entry = listener.entry;
                let enforced = entry.mode == Mode::Enforce;
                if listener.seen == Some(version) || (depth > 0 && !enforced) {
                    continue;
                }
                asked = true;
                let ran = self.ask_hook(entry, &occasion.what).await;
                let (said, row) = occasion.heard(entry, ran, depth);
                told.rows.push(row);
                listener.seen = Some(version);
                if !enforced {
                    continue;
                }
                listener.said = match said {
                    Said::Block(reason) => {
                        told.stopped = Some(Stopped::by(entry, "hook_blocked", reason));
                        return told;
                    }
                    Said::Modify(json) => {
                        if occasion.replace(&json) {
                            version += 1;
                            listener.seen = Some(version);
                        }
                        told.modified = Some(json);
                        Said::Nothing
                    }
                    Said::Fault(fault) => {
                        told.faulted = true;
                        if entry.attachment.on_fault(occasion.event) == OnFault::Block {
                            told.stopped = Some(Stopped::undecided(entry, fault));
                            return told;
                        }
                        Said::Nothing
                    }
                    said => said,
                };
            }
            if !asked {
                told.conclude(listeners, occasion.what.in_band);
                return told;
            }
        }
        // The last round may have been the one in which nobody changed anything.
        match listeners
            .iter()
            .find(|listener| listener.entry.mode == Mode::Enforce && listener.seen != Some(version))
        {
            None => told.conclude(listeners, occasion.what.in_band),
            Some(unheard) => {
                let reason = "the hooks keep changing what the others said".to_owned();
                told.stopped = Some(Stopped::by(unheard.entry, "hook_depth", reason));
            }
        }
        told
    }

    async fn ask_hook(&self, entry: &Entry, what: &Occurrence) -> Ran<Outcome> {
        let asking = self.components.on_event(&entry.component, what);
        let Some(limit) = entry.attachment.timeout else { return asking.await };
        tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Ran {
            micros: u32::try_from(limit.as_micros()).unwrap_or(u32::MAX),
            ..Ran::failed(Fault::Deadline { limit })
        })
    }

    /// Tells the hooks of a call that a reply is complete. It cannot be stopped any more: what they say is recorded.
    pub(super) async fn ended(&self, call: &mut Call, text: String) {
        let occasion = Occasion::of(call, HookEvent::Stop, None, Event::Stop(text));
        let told = self.tell(&call.bundle, occasion).await;
        call.record.hooks(told.rows);
    }
}

/// The hooks in force that want to know of `event`.
pub(super) fn listeners(bundle: &Bundle, event: HookEvent) -> impl Iterator<Item = &Entry> {
    let wants = move |entry: &&Entry| entry.mode != Mode::Off && entry.component.events().contains(&event);
    bundle.hooks.iter().filter(wants)
}

// === impl Occasion ===

impl Occasion {
    /// Something that the gateway saw in the traffic of `call`.
    pub(super) fn of(call: &Call, event: HookEvent, subject: Option<String>, what: Event) -> Self {
        let facts = &call.request.facts;
        let what = Occurrence {
            trace: facts.trace.clone(),
            principal: facts.principal.clone(),
            event: what,
            in_band: true,
            raw: None,
            attributes: facts.attributes.clone(),
        };
        Self { event, subject, tool: None, what, notes: Vec::new(), recorded: call.record.gathers() }
    }

    /// The same about a tool call.
    pub(super) fn of_tool(call: &Call, event: HookEvent, id: &str, name: &str, what: Event) -> Self {
        let tool = Some((id.to_owned(), name.to_owned()));
        Self { tool, ..Self::of(call, event, Some(name.to_owned()), what) }
    }

    /// Something outside a call.
    pub(super) fn outside(event: HookEvent, trace: &str, principal: PrincipalFacts, what: Event) -> Self {
        let what = Occurrence {
            trace: trace.to_owned(),
            principal,
            event: what,
            in_band: true,
            raw: None,
            attributes: Vec::new(),
        };
        Self { event, subject: None, tool: None, what, notes: Vec::new(), recorded: false }
    }

    pub(super) fn attribute(&mut self, name: &str, value: String) {
        self.what.attributes.push(Attribute { name: name.to_owned(), value });
    }

    /// Puts another input or output in; whether it is another one.
    fn replace(&mut self, json: &str) -> bool {
        let (current, new) = match &mut self.what.event {
            Event::PreToolUse(call) => (&mut call.input, json.to_owned()),
            Event::PostToolUse(result) => (&mut result.output, as_output(json)),
            Event::PostToolUseFailure(failure) => (&mut failure.error, as_output(json)),
            _ => return false,
        };
        let other = *current != new;
        *current = new;
        other
    }

    /// What an answer means here, and its row.
    fn heard(&self, entry: &Entry, ran: Ran<Outcome>, depth: u32) -> (Said, HookRow) {
        let step = self.step(entry, &ran);
        let Ran { result, micros, notes, log, errands, .. } = ran;
        let mut more: Vec<(&'static str, Value)> = Vec::new();
        let stops = stops(self.event, self.what.in_band);
        let (verdict, said) = match result {
            Ok(Outcome::Proceed) => ("proceed", Said::Nothing),
            Ok(Outcome::Block(reason)) => ("block", Said::Block(reason)),
            Ok(Outcome::Ask(reason)) => ("ask", Said::Ask(reason)),
            Ok(Outcome::Modify(json)) if modifies(self.event, self.what.in_band, &json) => {
                ("modify", Said::Modify(json))
            }
            Ok(Outcome::AddContext(text)) if text.len() <= LONGEST_CONTEXT => {
                ("add-context", Said::Context(text))
            }
            Ok(Outcome::Modify(_) | Outcome::AddContext(_) | Outcome::Other(_)) => {
                ("garbage", Said::Fault(None))
            }
            Err(fault) => {
                more.push(("fault", fault.code().into()));
                ("fault", Said::Fault(Some(fault)))
            }
        };
        if let Said::Block(reason) | Said::Ask(reason) = &said {
            more.push(("reason", reason.chars().take(LONGEST_REASON).collect::<String>().into()));
        }
        let heeded = match &said {
            Said::Nothing => true,
            Said::Context(_) => takes_context(self.event, self.what.in_band),
            Said::Block(_) | Said::Ask(_) | Said::Modify(_) | Said::Fault(_) => stops,
        };
        if let Said::Fault(_) = &said
            && stops
        {
            more.push(("on_fault", entry.attachment.on_fault(self.event).as_str().into()));
        }
        if !heeded && !matches!(said, Said::Fault(_)) {
            more.push(("ignored", true.into()));
        }
        if depth > 0 {
            more.push(("depth", depth.into()));
        }
        if !notes.is_empty() {
            more.push(("notes", notes_of(&notes)));
        }
        if !errands.is_empty() {
            more.push(("egress", errands.iter().map(row::errand).collect()));
        }
        if let Some(log) = log {
            more.push(("log", log.into()));
        }
        let outcome = match &said {
            Said::Fault(_) => Ended::Error,
            Said::Block(_) | Said::Ask(_) if heeded && entry.mode == Mode::Enforce => Ended::Denied,
            _ => Ended::Allowed,
        };
        entry.component.tally().count(row::said(verdict), micros);
        let mut payload = evidence(&entry.component, verdict, micros);
        insert(&mut payload, "mode", entry.mode.as_str().into());
        self.describe(&mut payload);
        for (name, value) in more {
            insert(&mut payload, name, value);
        }
        (if heeded { said } else { Said::Nothing }, HookRow { outcome, payload, step })
    }

    /// What is recorded of a question.
    fn step(&self, entry: &Entry, ran: &Ran<Outcome>) -> Option<Box<Step>> {
        let asked = self.recorded.then(|| Asked::event(&self.what, Heard::of(ran)))??;
        Some(Box::new(Step::new(&entry.component, entry.mode, asked, false)))
    }

    /// What every row about this event says.
    fn describe(&self, payload: &mut Value) {
        insert(payload, "event", self.event.as_str().into());
        insert(payload, "in_band", self.what.in_band.into());
        if let Some((id, name)) = &self.tool {
            insert(payload, "tool", name.as_str().into());
            insert(payload, "tool_use_id", id.as_str().into());
            if let Some(server) = server_of(name) {
                insert(payload, "server", server.into());
            }
        }
        for (name, value) in &self.notes {
            insert(payload, name, value.clone());
        }
    }
}

// === impl Told ===

impl Told {
    /// Nobody has anything to add: what the hooks said last counts.
    fn conclude(&mut self, listeners: Vec<Listener<'_>>, in_band: bool) {
        for Listener { entry, said, .. } in listeners {
            match said {
                Said::Context(text) => self.context.push(text),
                Said::Ask(reason) if self.stopped.is_none() => {
                    let reason =
                        if in_band { format!("{reason} (nobody can be asked here)") } else { reason };
                    self.stopped = Some(Stopped { ask: true, ..Stopped::by(entry, "hook_asks", reason) });
                }
                _ => {}
            }
        }
    }

    /// The texts for the model as one.
    pub(super) fn context(&self) -> Option<String> {
        (!self.context.is_empty()).then(|| self.context.join("\n\n"))
    }
}

// === impl Stopped ===

impl Stopped {
    fn by(entry: &Entry, code: &'static str, reason: String) -> Self {
        Self { hook: entry.component.name().to_owned(), reason, code, ask: false, fault: None }
    }

    fn undecided(entry: &Entry, fault: Option<Fault>) -> Self {
        let reason = match &fault {
            Some(fault) => format!("the hook did not answer ({})", fault.code()),
            None => "the hook gave no usable answer".to_owned(),
        };
        Self { fault, ..Self::by(entry, "hook_unusable", reason) }
    }

    /// Whether a hook said so, rather than none.
    pub(super) fn is_decided(&self) -> bool {
        self.fault.is_none() && self.code != "hook_unusable"
    }

    /// A call that is not served because of it.
    pub(super) fn refusal(self) -> Refusal {
        let Self { hook, reason, code, ask, fault } = self;
        match fault {
            Some(Fault::Exhausted) => Refusal::Overloaded,
            Some(fault) => Refusal::Undecided { component: hook, fault },
            None => {
                let refusal =
                    Denial { code: code.to_owned(), reason, retry_after_ms: None, kind: RefusalKind::Denied };
                Refusal::Component { component: hook, refusal, ask }
            }
        }
    }
}

// === private helpers ===

/// Whether what happened can still be stopped.
fn stops(event: HookEvent, in_band: bool) -> bool {
    match event {
        HookEvent::SessionStart
        | HookEvent::UserPromptSubmit
        | HookEvent::PreToolUse
        | HookEvent::PostToolUse
        | HookEvent::PostToolUseFailure => true,
        // A client can go on with its turn; a reply that has gone out cannot be called back.
        HookEvent::Stop | HookEvent::SubagentStop => !in_band,
        HookEvent::SessionEnd | HookEvent::Notification | HookEvent::SubagentStart => false,
    }
}

/// Whether there is a place for a text.
fn takes_context(event: HookEvent, in_band: bool) -> bool {
    match event {
        HookEvent::SessionStart
        | HookEvent::UserPromptSubmit
        | HookEvent::PostToolUse
        | HookEvent::PostToolUseFailure => true,
        HookEvent::PreToolUse | HookEvent::SubagentStart => !in_band,
        HookEvent::SessionEnd | HookEvent::Notification | HookEvent::Stop | HookEvent::SubagentStop => false,
    }
}

/// Whether `json` may take the place of what the event is about.
fn modifies(event: HookEvent, in_band: bool, json: &str) -> bool {
    match event {
        // Tools take objects.
        HookEvent::PreToolUse => serde_json::from_str::<serde_json::Map<String, Value>>(json).is_ok(),
        HookEvent::PostToolUse => serde_json::from_str::<&RawValue>(json).is_ok(),
        HookEvent::PostToolUseFailure => in_band && serde_json::from_str::<&RawValue>(json).is_ok(),
        _ => false,
    }
}

fn as_output(json: &str) -> String {
    serde_json::from_str::<&RawValue>(json).map_or_else(|_| json.to_owned(), output)
}

/// A row that says that something was reported, whoever wants to know of it.
fn reported(occasion: &Occasion, outcome: Ended) -> HookRow {
    let mut payload = json!({ "verdict": "reported" });
    occasion.describe(&mut payload);
    HookRow { outcome, payload, step: None }
}
