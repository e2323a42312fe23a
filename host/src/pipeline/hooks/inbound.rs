//! What a request brings: a session that begins, a prompt, answers of tools. Hooks are told before policies are asked, so that
//! policies and scanners look at the very bytes that hooks made of it.
//!
//! A client sends its whole conversation with every request, and does not know what hooks changed. So the gateway remembers what
//! they said about each prompt and each answer, and says it again each time; what it has forgotten it asks again.

use std::borrow::Cow;
use std::sync::Arc;

use sallyport_protocol::hooks::mcp_server;
use sallyport_protocol::messages::index::Index;
use sallyport_protocol::package::HookEvent;
use sallyport_protocol::verdict::Verdict;
use serde_json::json;
use serde_json::value::RawValue;

use super::edit::{self, Edits};
use super::session::{Judgement, SeenToolCall, UserKey};
use super::turn::{self, Prompt, ToolAnswer, Used};
use super::{Dispatched, Hooks, Occasion, listeners};
use crate::audit::Outcome as Ended;
use crate::component::contract::hook::{Event, ToolCall, ToolFailure, ToolResult};
use crate::pipeline::row::{self, HookRow};
use crate::pipeline::{Call, Operation, Refusal};

/// The events that a request can bring.
const INBOUND: [HookEvent; 4] = [
    HookEvent::SessionStart,
    HookEvent::UserPromptSubmit,
    HookEvent::PostToolUse,
    HookEvent::PostToolUseFailure,
];

/// How many prompts of earlier turns that nobody judged yet hooks are asked about one by one.
const MOST_EARLIER: u32 = 16;

/// How hooks are told that a session began, as far as the gateway can know.
const STARTUP: &str = "startup";

// === impl Hooks ===

impl Hooks {
    /// Asks the hooks about what the request brings. What they change is in the request afterwards.
    pub(in crate::pipeline) async fn run_inbound(&self, call: &mut Call) -> Result<(), Refusal> {
        let request = &call.request;
        let session = UserKey::session(&request.principal, request.lineage.session_name());
        let now = self.clock.monotonic();
        let known = self.sessions.touch(session, &request.principal, &request.lineage, &request.trace, now);
        let bundle = Arc::clone(&call.bundle);
        let told = |event| listeners(&bundle, event).next().is_some();
        let is_message = request.operation == Operation::Message;
        let body = Arc::clone(&request.body);
        let mut edits = Edits::default();
        if is_message {
            if !known && told(HookEvent::SessionStart) {
                self.session_starts(call, session).await?;
            }
            self.sessions.start(session);
        }
        if INBOUND.into_iter().any(told) {
            self.add_session_context(call, session, &mut edits);
            if told(HookEvent::UserPromptSubmit) {
                self.prompts(call, is_message, &mut edits).await?;
            }
            if told(HookEvent::PostToolUse) || told(HookEvent::PostToolUseFailure) {
                self.answers(call, &mut edits).await?;
            }
        }
        if edits.is_empty() {
            return Ok(());
        }
        let (contexts, results) = edits.count();
        let Ok(bytes) = edits.apply(&body.index, &body.bytes) else { return Err(Refusal::EditFailed) };
        let index = Index::parse(&bytes)?;
        call.record.note(
            "edited",
            json!({
                "contexts": contexts,
                "tool_results": results,
                "body_bytes": bytes.len(),
                "body_blake3": blake3::hash(&bytes).to_hex().as_str(),
            }),
        );
        call.request = Arc::new(call.request.with_body(bytes, index));
        Ok(())
    }

    /// The call of a tool goes to the client: it has a row, and what comes of it is joined with its trace.
    pub(in crate::pipeline) fn record_tool_use(&self, call: &mut Call, tool: row::ToolCall) {
        let issued = SeenToolCall { trace: call.request.trace.clone(), tool: tool.name.clone() };
        self.sessions.issue(UserKey::tool(&call.request.principal, &tool.id), issued);
        call.record.tool(tool);
    }

    async fn session_starts(&self, call: &mut Call, session: UserKey) -> Result<(), Refusal> {
        let what = Event::SessionStart(STARTUP.to_owned());
        let occasion = Occasion::new(call.setting(), HookEvent::SessionStart, Some(STARTUP.to_owned()), what);
        let mut told = self.dispatch(&call.bundle, occasion).await;
        call.record.hooks(std::mem::take(&mut told.rows));
        let context = told.context();
        // The session has not begun then: its next call asks again.
        if let Some(stopped) = told.stopped {
            return Err(stopped.refusal());
        }
        self.sessions.keep(session, Arc::new(Judgement { content: None, context }));
        Ok(())
    }

    /// What hooks said when the session began stands at the beginning of each of its conversations.
    fn add_session_context(&self, call: &Call, session: UserKey, edits: &mut Edits) {
        let context = self.sessions.kept(session).and_then(|kept| kept.context.clone());
        if let (Some(context), Some(first)) = (context, turn::first_of_user(&call.request.body.index)) {
            edits.add(first, context);
        }
    }

    /// Has every prompt judged that was not judged yet. A step of a tool loop repeats those that were.
    async fn prompts(&self, call: &mut Call, is_message: bool, edits: &mut Edits) -> Result<(), Refusal> {
        let body = Arc::clone(&call.request.body);
        let prompts = turn::prompts(&body.index, &body.bytes);
        let newest = turn::last_of_user(&body.index);
        let (mut asked, mut earlier, mut rest) = (0, Vec::new(), None::<(Prompt, Vec<UserKey>)>);
        for prompt in prompts {
            let key = prompt_key(call, &prompt);
            let is_new = newest.is_some_and(|message| prompt.covers(message));
            let mut kept = self.sessions.kept(key);
            if is_message && (kept.is_none() || (is_new && !prompt.repeats)) {
                if is_new || asked < MOST_EARLIER {
                    asked += u32::from(!is_new);
                    let rows = if is_new { None } else { Some(&mut earlier) };
                    kept = self.prompt(call, &[key], &prompt, rows).await?;
                } else {
                    // A client may bring any number of them, and each question has its price: those beyond are one.
                    match &mut rest {
                        Some((all, keys)) => {
                            all.text.push_str("\n\n");
                            all.text.push_str(&prompt.text);
                            all.reminders.push_str(&prompt.reminders);
                            keys.push(key);
                        }
                        none => *none = Some((prompt, vec![key])),
                    }
                    continue;
                }
            }
            if let (Some(kept), Some(message)) = (kept, prompt.message) {
                edits.adds(message, &kept);
            }
        }
        if let Some((all, keys)) = rest {
            self.prompt(call, &keys, &all, Some(&mut earlier)).await?;
        }
        call.record.hooks(earlier);
        Ok(())
    }

    /// Has one prompt judged, and remembers what was said under `keys`. `earlier`: it stands further up in the conversation, and
    /// its rows go there.
    async fn prompt(
        &self,
        call: &mut Call,
        keys: &[UserKey],
        prompt: &Prompt,
        earlier: Option<&mut Vec<HookRow>>,
    ) -> Result<Option<Arc<Judgement>>, Refusal> {
        let what = Event::UserPromptSubmit(prompt.text.clone());
        let mut occasion = Occasion::new(call.setting(), HookEvent::UserPromptSubmit, None, what);
        if !prompt.reminders.is_empty() {
            occasion.attribute("prompt.reminders", prompt.reminders.clone());
        }
        if earlier.is_some() {
            occasion.attribute("prompt.earlier", "true".to_owned());
        }
        let facts = &call.request.facts;
        occasion.attribute("call.tools", facts.tools.len().to_string());
        if let Some(tokens) = facts.max_tokens {
            occasion.attribute("call.max_tokens", tokens.to_string());
        }
        let mut told = self.dispatch(&call.bundle, occasion).await;
        let rows = std::mem::take(&mut told.rows);
        match earlier {
            Some(earlier) if told.stopped.is_none() => summed(earlier, rows),
            _ => call.record.hooks(rows),
        }
        // One answer about many prompts is for none of them in particular.
        let context = told.context().filter(|_| keys.len() == 1);
        let Some(stopped) = told.stopped else {
            let kept = Judgement { content: None, context };
            if told.faulted {
                return Ok(Some(Arc::new(kept)));
            }
            let kept = Arc::new(kept);
            for key in keys {
                self.sessions.keep(*key, Arc::clone(&kept));
            }
            return Ok(Some(kept));
        };
        Err(stopped.refusal().of_conversation())
    }

    async fn answers(&self, call: &mut Call, edits: &mut Edits) -> Result<(), Refusal> {
        let body = Arc::clone(&call.request.body);
        let last = turn::last_of_user(&body.index);
        let calls = turn::calls(&body.index, &body.bytes);
        let mut earlier = Vec::new();
        for answer in turn::answers(&body.index, &body.bytes)? {
            let key = answer_key(call, &answer);
            let mut kept = self.sessions.kept(key);
            if kept.is_none() {
                let (judged, rows) = self.answer(call, key, &answer, calls.get(&answer.id)).await;
                if last == Some(answer.block.message) {
                    call.record.hooks(rows);
                } else {
                    summed(&mut earlier, rows);
                }
                kept = Some(judged);
            }
            let Some(kept) = kept else { continue };
            if let Some(content) = &kept.content {
                edits.replace(&answer, &body.bytes, content);
            }
            edits.adds(answer.block.message, &kept);
        }
        call.record.hooks(earlier);
        Ok(())
    }

    /// Tells the hooks what a tool answered. One that says no withholds the answer: the model is told why instead.
    async fn answer(
        &self,
        call: &Call,
        key: UserKey,
        answer: &ToolAnswer<'_>,
        used: Option<&Used<'_>>,
    ) -> (Arc<Judgement>, Vec<HookRow>) {
        let (occasion, tool) = self.answered(call, answer, used);
        let Dispatched { stopped, modified, context, faulted, rows } =
            self.dispatch(&call.bundle, occasion).await;
        let undecided = faulted || stopped.as_ref().is_some_and(|stopped| !stopped.is_decided());
        let kept = match stopped {
            Some(stopped) => {
                let content = Some(edit::withheld(&stopped.hook, &tool, &stopped.reason));
                Judgement { content, context: None }
            }
            None => Judgement {
                content: modified.map(|json| edit::tool_content(&json)),
                context: (!context.is_empty()).then(|| context.join("\n\n")),
            },
        };
        // What somebody could not judge is asked again the next time.
        let kept = Arc::new(kept);
        if !undecided {
            self.sessions.keep(key, Arc::clone(&kept));
        }
        (kept, rows)
    }

    fn answered(&self, call: &Call, answer: &ToolAnswer<'_>, used: Option<&Used<'_>>) -> (Occasion, String) {
        // The gateway's own memory of the call counts before what the client says that it was.
        let issued = self.sessions.issued(UserKey::tool(&call.request.principal, &answer.id));
        let said = used.map(|used| used.name.clone());
        let name = issued.map(|issued| issued.tool).or_else(|| said.map(Cow::into_owned)).unwrap_or_default();
        let input = used.and_then(|used| used.input).map_or("{}", RawValue::get);
        let tool = ToolCall {
            id: answer.id.clone().into_owned(),
            name: name.clone(),
            input: input.to_owned(),
            server: mcp_server(&name).map(str::to_owned),
        };
        let output = edit::output(answer.content);
        let (event, what) = if answer.is_error {
            let failure = ToolFailure { call: tool, error: output };
            (HookEvent::PostToolUseFailure, Event::PostToolUseFailure(failure))
        } else {
            let result = ToolResult { call: tool, output, duration_ms: None };
            (HookEvent::PostToolUse, Event::PostToolUse(result))
        };
        (Occasion::new(call.setting(), event, Some(name.clone()), what), name)
    }
}

// === impl Edits ===

impl Edits {
    fn adds(&mut self, message: u32, kept: &Judgement) {
        if let Some(context) = &kept.context {
            self.add(message, context.clone());
        }
    }
}

// === private helpers ===

/// The same words at the same place of the same session are the same prompt; a client's reminders are the same at every place.
fn prompt_key(call: &Call, prompt: &Prompt) -> UserKey {
    let request = &call.request;
    let place = if prompt.repeats { Vec::new() } else { prompt.first.to_le_bytes().to_vec() };
    let version = call.bundle.version.as_str().as_bytes();
    UserKey::of(
        &request.principal,
        &[b"prompt", version, request.lineage.session_name().as_bytes(), &place, prompt.text.as_bytes()],
    )
}

/// Under other components an answer is judged anew, and so is one that reads differently.
fn answer_key(call: &Call, answer: &ToolAnswer<'_>) -> UserKey {
    let content = answer.content.map_or("", RawValue::get);
    let parts: [&[u8]; 5] = [
        b"answer",
        call.bundle.version.as_str().as_bytes(),
        answer.id.as_bytes(),
        &[u8::from(answer.is_error)],
        content.as_bytes(),
    ];
    UserKey::of(&call.request.principal, &parts)
}

/// Answers of earlier turns are judged again where the gateway has forgotten them: what goes on has one row for each hook.
fn summed(all: &mut Vec<HookRow>, rows: Vec<HookRow>) {
    let field = |row: &HookRow, name: &str| row.payload.get(name).cloned().unwrap_or_default();
    let count = |row: &HookRow, name: &str| field(row, name).as_u64().unwrap_or(0);
    for mut row in rows {
        if row.outcome != Ended::Allowed || field(&row, "verdict") != json!(Verdict::Proceed) {
            all.push(row);
            continue;
        }
        let same = |other: &&mut HookRow| {
            count(other, "earlier") > 0
                && ["name", "config", "event"].iter().all(|name| field(other, name) == field(&row, name))
        };
        if let Some(sum) = all.iter_mut().find(same) {
            let micros = count(sum, "micros").saturating_add(count(&row, "micros"));
            let earlier = count(sum, "earlier").saturating_add(1);
            row::insert(&mut sum.payload, "micros", micros.into());
            row::insert(&mut sum.payload, "earlier", earlier.into());
        } else {
            row::insert(&mut row.payload, "earlier", 1.into());
            all.push(row);
        }
    }
}
