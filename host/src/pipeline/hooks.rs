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
#[cfg(test)]
pub(super) mod testing;
mod turn;

use std::sync::Arc;

use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::hooks::{OnFault, mcp_server, output};
use sallyport_protocol::package::HookEvent;
use sallyport_protocol::verdict::Verdict;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::refuse::Denial;
use super::row::{self, HookRow, evidence, insert, notes_of};
use super::{Call, Refusal};
use crate::audit::{Audit, Outcome as Ended};
use crate::clock::{Clock, Entropy};
use crate::component::contract::hook::{Event, Occurrence, Outcome, ToolCall as ToolFacts};
use crate::component::contract::{Attribute, Principal as PrincipalFacts};
use crate::component::{Bundle, Components, Entry, Fault, Mode, Ran};
use crate::evidence::{Asked, RecordedAnswer, RecordedStep};

use self::session::Sessions;

pub(super) use self::session::UserKey;

pub use self::report::{Reported, Reporter};

/// Rounds after the first, in which hooks are asked about what others made of the event.
const MOST_DEPTH: u32 = 4;
/// Longest text that a hook may add for the model.
const LONGEST_CONTEXT: usize = 32 * 1024;
/// Longest reason of a hook on a row.
const LONGEST_REASON: usize = 256;

/// Asks the hooks of a bundle about lifecycle events, and remembers what they said. It knows nothing of how a tool is called: a
/// model's reply, a client's report and a proxy of tools ask it alike.
pub(super) struct Hooks {
    components: Arc<Components>,
    sessions: Sessions,
    /// Reports, and ends of sessions, are rows of their own.
    audit: Arc<Audit>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// In which call, and in whose name, something happened.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) trace: String,
    pub(super) principal: PrincipalFacts,
    pub(super) attributes: Vec<Attribute>,
    /// Whether it is part of a call whose decisions are recorded.
    pub(super) recorded: bool,
}

/// What the hooks decided on a tool call.
#[derive(Debug)]
pub(super) enum Decision {
    /// It goes on as it is.
    Release,
    /// It goes on with another input.
    Modify(String),
    /// It does not happen; the text says why.
    Stop(String),
}

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
pub(super) struct Dispatched {
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
    code: ErrorCode,
    /// A person could have agreed.
    pub(super) ask: bool,
    fault: Option<Fault>,
}

/// A hook in its place, and how far it is.
struct Listener<'a> {
    entry: &'a Entry,
    /// Which version of the event it has seen.
    seen: Option<u32>,
    effect: Effect,
}

/// What one hook said, as far as it counts.
enum Effect {
    Nothing,
    Block(String),
    Ask(String),
    Modify(String),
    Context(String),
    /// No answer, or none that can be used.
    Fault(Option<Fault>),
}

// === impl Hooks ===

impl Hooks {
    /// Hooks that nobody has asked anything yet.
    pub(super) fn new(
        components: Arc<Components>,
        audit: Arc<Audit>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { components, sessions: Sessions::new(), audit, clock, entropy }
    }

    /// Asks the hooks of `bundle` whether a tool may be called, with this input; and the rows that say so.
    pub(super) async fn evaluate_tool(
        &self,
        bundle: &Bundle,
        setting: Setting,
        tool: ToolFacts,
    ) -> (Decision, Vec<HookRow>) {
        let name = tool.name.clone();
        let what = Event::PreToolUse(tool);
        let occasion = Occasion::new(setting, HookEvent::PreToolUse, Some(name.clone()), what);
        let Dispatched { stopped, modified, rows, .. } = self.dispatch(bundle, occasion).await;
        let decision = match (stopped, modified) {
            (Some(Stopped { hook, reason, .. }), _) => {
                Decision::Stop(format!("[{hook} did not let the tool {name} run: {reason}]"))
            }
            (None, Some(input)) => Decision::Modify(input),
            (None, None) => Decision::Release,
        };
        (decision, rows)
    }

    /// The same about a tool call of a model's reply; the call's record has the rows.
    pub(super) async fn evaluate_tool_of(
        &self,
        call: &mut Call,
        tool: &mut row::ToolCall,
        input: &str,
    ) -> Decision {
        let facts = ToolFacts {
            id: tool.id.clone(),
            name: tool.name.clone(),
            input: if input.is_empty() { "{}".to_owned() } else { input.to_owned() },
            server: mcp_server(&tool.name).map(str::to_owned),
        };
        let (decision, rows) = self.evaluate_tool(&call.bundle, call.setting(), facts).await;
        call.record.hooks(rows);
        if let Decision::Stop(why) = &decision {
            tool.blocked = Some(why.clone());
        }
        decision
    }

    /// Asks every hook of `bundle` that wants to know of it about what happened.
    pub(super) async fn dispatch(&self, bundle: &Bundle, mut occasion: Occasion) -> Dispatched {
        let mut listeners: Vec<_> = listeners(bundle, occasion.event)
            .filter(|entry| entry.attachment.matcher.fits(occasion.subject.as_deref()))
            .map(|entry| Listener { entry, seen: None, effect: Effect::Nothing })
            .collect();
        let mut told = Dispatched::default();
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
                let (effect, row) = occasion.effect(entry, ran, depth);
                told.rows.push(row);
                listener.seen = Some(version);
                if !enforced {
                    continue;
                }
                listener.effect = match effect {
                    Effect::Block(reason) => {
                        told.stopped = Some(Stopped::by(entry, ErrorCode::HookBlocked, reason));
                        return told;
                    }
                    Effect::Modify(json) => {
                        if occasion.replace(&json) {
                            version += 1;
                            listener.seen = Some(version);
                        }
                        told.modified = Some(json);
                        Effect::Nothing
                    }
                    Effect::Fault(fault) => {
                        told.faulted = true;
                        if entry.attachment.on_fault(occasion.event) == OnFault::Block {
                            told.stopped = Some(Stopped::undecided(entry, fault));
                            return told;
                        }
                        Effect::Nothing
                    }
                    effect => effect,
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
                told.stopped = Some(Stopped::by(unheard.entry, ErrorCode::HookDepth, reason));
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
        let occasion = Occasion::new(call.setting(), HookEvent::Stop, None, Event::Stop(text));
        let told = self.dispatch(&call.bundle, occasion).await;
        call.record.hooks(told.rows);
    }
}

/// The hooks in force that want to know of `event`.
pub(super) fn listeners(bundle: &Bundle, event: HookEvent) -> impl Iterator<Item = &Entry> {
    let wants = move |entry: &&Entry| entry.mode != Mode::Off && entry.component.events().contains(&event);
    bundle.hooks.iter().filter(wants)
}

// === impl Call ===

impl Call {
    /// What hooks are told of the call in each event.
    pub(super) fn setting(&self) -> Setting {
        let facts = &self.request.facts;
        Setting {
            trace: facts.trace.as_ref().to_owned(),
            principal: facts.principal.clone(),
            attributes: facts.attributes.clone(),
            recorded: self.record.gathers(),
        }
    }
}

// === impl Occasion ===

impl Occasion {
    /// Something that the gateway itself saw.
    pub(super) fn new(setting: Setting, event: HookEvent, subject: Option<String>, what: Event) -> Self {
        let Setting { trace, principal, attributes, recorded } = setting;
        let tool = match &what {
            Event::PreToolUse(call) => Some(call),
            Event::PostToolUse(result) => Some(&result.call),
            Event::PostToolUseFailure(failure) => Some(&failure.call),
            _ => None,
        };
        let tool = tool.map(|call| (call.id.clone(), call.name.clone()));
        let what = Occurrence { trace, principal, event: what, in_band: true, raw: None, attributes };
        Self { event, subject, tool, what, notes: Vec::new(), recorded }
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
    fn effect(&self, entry: &Entry, ran: Ran<Outcome>, depth: u32) -> (Effect, HookRow) {
        let step = self.step(entry, &ran);
        let Ran { result, micros, notes, log, egress_calls, .. } = ran;
        let mut more: Vec<(&'static str, Value)> = Vec::new();
        let stops = stops(self.event, self.what.in_band);
        let (verdict, effect) = match result {
            Ok(Outcome::Proceed) => (Verdict::Proceed, Effect::Nothing),
            Ok(Outcome::Block(reason)) => (Verdict::Block, Effect::Block(reason)),
            Ok(Outcome::Ask(reason)) => (Verdict::Ask, Effect::Ask(reason)),
            Ok(Outcome::Modify(json)) if modifies(self.event, self.what.in_band, &json) => {
                (Verdict::Modify, Effect::Modify(json))
            }
            Ok(Outcome::AddContext(text)) if text.len() <= LONGEST_CONTEXT => {
                (Verdict::AddContext, Effect::Context(text))
            }
            Ok(Outcome::Modify(_) | Outcome::AddContext(_) | Outcome::Other(_)) => {
                (Verdict::Garbage, Effect::Fault(None))
            }
            Err(fault) => {
                more.push(("fault", fault.code().as_str().into()));
                (Verdict::Fault, Effect::Fault(Some(fault)))
            }
        };
        if let Effect::Block(reason) | Effect::Ask(reason) = &effect {
            more.push(("reason", reason.chars().take(LONGEST_REASON).collect::<String>().into()));
        }
        let heeded = match &effect {
            Effect::Nothing => true,
            Effect::Context(_) => takes_context(self.event, self.what.in_band),
            Effect::Block(_) | Effect::Ask(_) | Effect::Modify(_) | Effect::Fault(_) => stops,
        };
        if let Effect::Fault(_) = &effect
            && stops
        {
            more.push(("on_fault", entry.attachment.on_fault(self.event).as_str().into()));
        }
        if !heeded && !matches!(effect, Effect::Fault(_)) {
            more.push(("ignored", true.into()));
        }
        if depth > 0 {
            more.push(("depth", depth.into()));
        }
        if !notes.is_empty() {
            more.push(("notes", notes_of(&notes)));
        }
        if !egress_calls.is_empty() {
            more.push(("egress", egress_calls.iter().map(row::egress_call).collect()));
        }
        if let Some(log) = log {
            more.push(("log", log.into()));
        }
        let outcome = match &effect {
            Effect::Fault(_) => Ended::Error,
            Effect::Block(_) | Effect::Ask(_) if heeded && entry.mode == Mode::Enforce => Ended::Denied,
            _ => Ended::Allowed,
        };
        entry.component.tally().count(row::said(verdict), micros);
        let mut payload = evidence(&entry.component, verdict, micros);
        insert(&mut payload, "mode", entry.mode.as_str().into());
        self.describe(&mut payload);
        for (name, value) in more {
            insert(&mut payload, name, value);
        }
        (if heeded { effect } else { Effect::Nothing }, HookRow { outcome, payload, step })
    }

    /// What is recorded of a question.
    fn step(&self, entry: &Entry, ran: &Ran<Outcome>) -> Option<Box<RecordedStep>> {
        let asked = self.recorded.then(|| Asked::event(&self.what, RecordedAnswer::of(ran)))??;
        Some(Box::new(RecordedStep::new(&entry.component, entry.mode, asked, false)))
    }

    /// What every row about this event says.
    fn describe(&self, payload: &mut Value) {
        insert(payload, "event", self.event.as_str().into());
        insert(payload, "in_band", self.what.in_band.into());
        if let Some((id, name)) = &self.tool {
            insert(payload, "tool", name.as_str().into());
            insert(payload, "tool_use_id", id.as_str().into());
            if let Some(server) = mcp_server(name) {
                insert(payload, "server", server.into());
            }
        }
        for (name, value) in &self.notes {
            insert(payload, name, value.clone());
        }
    }
}

// === impl Dispatched ===

impl Dispatched {
    /// Nobody has anything to add: what the hooks said last counts.
    fn conclude(&mut self, listeners: Vec<Listener<'_>>, in_band: bool) {
        for Listener { entry, effect, .. } in listeners {
            match effect {
                Effect::Context(text) => self.context.push(text),
                Effect::Ask(reason) if self.stopped.is_none() => {
                    let reason =
                        if in_band { format!("{reason} (nobody can be asked here)") } else { reason };
                    self.stopped =
                        Some(Stopped { ask: true, ..Stopped::by(entry, ErrorCode::HookAsks, reason) });
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
    fn by(entry: &Entry, code: ErrorCode, reason: String) -> Self {
        Self { hook: entry.component.name().to_owned(), reason, code, ask: false, fault: None }
    }

    fn undecided(entry: &Entry, fault: Option<Fault>) -> Self {
        let reason = match &fault {
            Some(fault) => format!("the hook did not answer ({})", fault.code()),
            None => "the hook gave no usable answer".to_owned(),
        };
        Self { fault, ..Self::by(entry, ErrorCode::HookUnusable, reason) }
    }

    /// Whether a hook said so, rather than none.
    pub(super) fn is_decided(&self) -> bool {
        self.fault.is_none() && self.code != ErrorCode::HookUnusable
    }

    /// A call that is not served because of it.
    pub(super) fn refusal(self) -> Refusal {
        let Self { hook, reason, code, ask, fault } = self;
        match fault {
            Some(Fault::Exhausted) => Refusal::Overloaded,
            Some(fault) => Refusal::Undecided { component: hook, fault },
            None => {
                let refusal = Denial::own(code, reason);
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
    let mut payload = json!({ "verdict": Verdict::Reported });
    occasion.describe(&mut payload);
    HookRow { outcome, payload, step: None }
}
