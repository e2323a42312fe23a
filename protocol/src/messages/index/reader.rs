//! Reads a request once, from its first byte to its last.

use std::collections::HashSet;

use super::keys::Keys;
use super::marks::{Before, Earlier, Mark, Marks};
use super::scan::{Array, Malformed, Object, Scanner, unquote};
use super::{Form, Index, MOST_TEXTS, Message, Origin, Role, Span, Text, Unknown, blob};

/// What a request may hold at the top.
const REQUEST: [&str; 38] = [
    "model",
    "messages",
    "system",
    "tools",
    "max_tokens",
    "stream",
    "metadata",
    "thinking",
    "tool_choice",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "service_tier",
    "context_management",
    "output_config",
    "output_format",
    "container",
    "mcp_servers",
    "safeguards",
    "cache_control",
    "inference_geo",
    "speed",
    "betas",
    "anthropic_version",
    "anthropic_beta",
    "fallbacks",
    "diagnostics",
    // What readers of other wires know under their own names: nothing of it is known to be harmless.
    "functions",
    "function_call",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "prompt",
    "input",
    "instructions",
    "stop",
    "n",
];
/// Where those of other wires begin.
const FOREIGN: usize = 28;
const MESSAGE: [&str; 3] = ["role", "content", "output_config"];
const THINKING: [&str; 3] = ["type", "budget_tokens", "display"];
const METADATA: [&str; 1] = ["user_id"];

/// A request being read.
pub(super) struct Reader<'a> {
    pub(super) scanner: Scanner<'a>,
    pub(super) index: Index,
    /// Tools that are named elsewhere than in `tools`.
    pub(super) named: Vec<String>,
    /// Ids of tool calls, as they stand in the body: an answer repeats one.
    calls: HashSet<&'a [u8]>,
    /// Where reading can go on, if that is asked for.
    marks: Option<Marks>,
}

/// Where blocks stand: what is said there, and to which message it belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The origin of plain text there.
    pub(super) origin: Origin,
    pub(super) message: Option<u32>,
    /// Within what a tool answered.
    pub(super) answer: bool,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self {
            scanner: Scanner::new(body)?,
            index: Index::default(),
            named: Vec::new(),
            calls: HashSet::new(),
            marks: None,
        })
    }

    /// Notes from where reading can go on.
    pub(super) fn marking(self) -> Self {
        Self { marks: Some(Marks::default()), ..self }
    }

    /// Behind `last`, which is the end of the `messages`th message of an earlier request, where `body` begins with the same bytes.
    pub(super) fn resumed(
        body: &'a [u8],
        earlier: Earlier<'_>,
        before: &Before,
        last: &Mark,
        messages: usize,
    ) -> Result<Self, Malformed> {
        let Earlier { index: known, marks, .. } = earlier;
        let mut unknown = known.unknown.clone();
        unknown.truncate(last.unknown);
        let index = Index {
            message_count: u32::try_from(messages).unwrap_or(u32::MAX),
            messages: first(&known.messages, messages),
            tool_blocks: first(&known.tool_blocks, last.tool_blocks),
            tools: first(&known.tools, last.tools),
            texts: first(&known.texts, last.texts),
            unknown,
            ..before.index.clone()
        };
        let marks = Marks {
            before: Some(Box::new(before.clone())),
            ends: first(&marks.ends, messages),
            calls: first(&marks.calls, last.calls),
            named: first(&marks.named, last.named),
        };
        let scanner = Scanner::behind_a_message(body, last.at)?;
        let calls = marks.calls.iter().map(|span| span.of(body)).collect();
        Ok(Self { scanner, index, named: marks.named.clone(), calls, marks: Some(marks) })
    }

    pub(super) fn read(mut self) -> Result<(Index, Marks), Malformed> {
        let object = self.scanner.object()?;
        self.members(object, Keys::new(&REQUEST))
    }

    /// Goes on behind a message, in a request of which the keys `seen` were there.
    pub(super) fn read_on(mut self, seen: u64) -> Result<(Index, Marks), Malformed> {
        self.more_messages(Array::begun())?;
        self.members(Object::begun(), Keys::resumed(&REQUEST, seen))
    }

    /// The id of a tool call.
    pub(super) fn called(&mut self, id: Span) {
        if self.calls.insert(id.of(self.scanner.body()))
            && let Some(marks) = &mut self.marks
        {
            marks.calls.push(id);
        }
    }

    /// Whether there was a tool call with this id.
    pub(super) fn was_called(&self, id: &[u8]) -> bool {
        self.calls.contains(id)
    }

    fn members(mut self, mut object: Object, mut keys: Keys) -> Result<(Index, Marks), Malformed> {
        while let Some((from, key)) = object.member(&mut self.scanner)? {
            let known = keys.check(&key)?;
            match known {
                Some(foreign) if REQUEST.iter().skip(FOREIGN).any(|name| *name == foreign) => {
                    self.index.unknown.note("", foreign);
                }
                Some(_) => {}
                None => self.index.unknown.note("", &key),
            }
            match known {
                Some("model") => {
                    self.index.model_span = self.scanner.string()?;
                    self.index.model = unquote(self.index.model_span.of(self.scanner.body())).into_owned();
                    self.member(from, Origin::Parameter, None)?;
                }
                Some("stream") => self.index.stream = self.scanner.boolean()?,
                Some(
                    name @ ("max_tokens"
                    | "max_completion_tokens"
                    | "max_output_tokens"
                    | "max_tokens_to_sample"),
                ) => {
                    let count = self.scanner.count(name)?;
                    self.index.max_tokens =
                        Some(self.index.max_tokens.map_or(count, |other| other.max(count)));
                }
                Some("system") => self.content(Place::beside(Origin::System), "system")?,
                Some("messages") => self.messages(&keys)?,
                Some("tools" | "functions") => self.tools(from)?,
                Some("mcp_servers") => self.servers(from)?,
                Some("tool_choice" | "function_call") => self.tool_choice(from)?,
                Some("thinking") => self.thinking(from)?,
                Some("metadata") => self.metadata(from)?,
                Some("safeguards") => {
                    self.index.has_safeguards = self.scanner.peek()? != b'n';
                    self.setting(from, None)?;
                }
                Some(_) => self.setting(from, None)?,
                None => {
                    self.scanner.skip()?;
                    self.member(from, Origin::Other, None)?;
                }
            }
        }
        self.scanner.end()?;
        if self.index.model.is_empty() {
            return Err(Malformed::Missing("model"));
        }
        if !keys.has("messages") {
            return Err(Malformed::Missing("messages"));
        }
        self.add_named()?;
        Ok((self.index, self.marks.unwrap_or_default()))
    }

    fn messages(&mut self, keys: &Keys) -> Result<(), Malformed> {
        if let Some(marks) = &mut self.marks {
            let index = Index {
                messages: Vec::new(),
                tool_blocks: Vec::new(),
                tools: Vec::new(),
                texts: Vec::new(),
                unknown: Unknown::default(),
                model: self.index.model.clone(),
                ..self.index
            };
            marks.before = Some(Box::new(Before { index, seen: keys.seen() }));
        }
        let array = self.scanner.array()?;
        self.more_messages(array)
    }

    fn more_messages(&mut self, mut array: Array) -> Result<(), Malformed> {
        while array.next(&mut self.scanner)? {
            self.message()?;
            if let Some(marks) = &mut self.marks {
                // Only what was named is taken out of its list again, at the end.
                marks.named.extend(self.named.iter().skip(marks.named.len()).cloned());
                marks.ends.push(Mark {
                    at: self.scanner.at(),
                    texts: self.index.texts.len(),
                    tool_blocks: self.index.tool_blocks.len(),
                    tools: self.index.tools.len(),
                    unknown: self.index.unknown.names().len(),
                    calls: marks.calls.len(),
                    named: marks.named.len(),
                });
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<(), Malformed> {
        let number = self.index.message_count;
        self.index.message_count += 1;
        let (texts, blocks) = (self.index.texts.len(), self.index.tool_blocks.len());
        let mut role = None;
        let mut content = Span::default();
        let mut keys = Keys::new(&MESSAGE);
        let mut object = self.scanner.object()?;
        while let Some((from, key)) = object.member(&mut self.scanner)? {
            match keys.check(&key)? {
                Some("role") => {
                    let span = self.scanner.string()?;
                    role = speaker(&unquote(span.of(self.scanner.body())));
                    if role.is_none() {
                        let said = unquote(span.of(self.scanner.body())).into_owned();
                        self.index.unknown.note("messages.role=", &said);
                        self.member(from, Origin::Other, Some(number))?;
                    }
                }
                Some("content") => {
                    self.scanner.peek()?;
                    content.start = self.scanner.at();
                    let place = Place { origin: Origin::User, message: Some(number), answer: false };
                    self.content(place, "messages.content")?;
                    content.end = self.scanner.at();
                }
                Some(_) => self.setting(from, Some(number))?,
                None => {
                    self.index.unknown.note("messages.", &key);
                    self.scanner.skip()?;
                    self.member(from, Origin::Other, Some(number))?;
                }
            }
        }
        let role = role.unwrap_or(Role::User);
        // Who speaks may stand behind what is said.
        let origin = match role {
            Role::User => Origin::User,
            Role::Assistant => Origin::Assistant,
            Role::System => Origin::System,
        };
        if origin != Origin::User {
            let said = self.index.texts.iter_mut().skip(texts).filter(|text| text.origin == Origin::User);
            said.for_each(|text| text.origin = origin);
        }
        if role == Role::System {
            self.index.tool_blocks.truncate(blocks);
        }
        self.index.messages.push(Message { role, content });
        Ok(())
    }

    /// A string, or blocks. `name` says where, in case that it is something else.
    pub(super) fn content(&mut self, place: Place, name: &'static str) -> Result<(), Malformed> {
        match self.scanner.peek()? {
            b'"' => {
                let span = self.scanner.string()?;
                self.push(Text::new(place, Form::String, span))
            }
            b'[' => {
                let mut array = self.scanner.array()?;
                while array.next(&mut self.scanner)? {
                    match self.scanner.peek()? {
                        b'{' => self.block(place)?,
                        _ => self.odd(place, name)?,
                    }
                }
                Ok(())
            }
            _ => self.odd(place, name),
        }
    }

    /// A value where none of its type belongs.
    fn odd(&mut self, place: Place, name: &'static str) -> Result<(), Malformed> {
        let first = self.scanner.peek()?;
        let span = self.scanner.skip()?;
        match first {
            b'n' => return Ok(()),
            // A model may well read it.
            b'"' => self.push(Text::new(place, Form::String, span))?,
            b'{' | b'[' => self.push(Text::new(place, Form::Value, span))?,
            _ => {}
        }
        self.index.unknown.note("", name);
        Ok(())
    }

    fn thinking(&mut self, from: u32) -> Result<(), Malformed> {
        if self.scanner.peek()? != b'{' {
            return self.setting(from, None);
        }
        let start = self.scanner.at();
        let mut keys = Keys::new(&THINKING);
        let mut object = self.scanner.object()?;
        while let Some(key) = object.key(&mut self.scanner)? {
            match keys.check(&key)? {
                Some(name @ "budget_tokens") => {
                    self.index.thinking_tokens = Some(self.scanner.count(name)?);
                }
                known => {
                    if known.is_none() {
                        self.index.unknown.note("thinking.", &key);
                    }
                    self.scanner.skip()?;
                }
            }
        }
        let span = Span { start, end: self.scanner.at() };
        if blob::is_setting(span.of(self.scanner.body())) {
            return Ok(());
        }
        self.member(from, Origin::Parameter, None)
    }

    fn metadata(&mut self, from: u32) -> Result<(), Malformed> {
        if self.scanner.peek()? != b'{' {
            return self.setting(from, None);
        }
        let mut keys = Keys::new(&METADATA);
        let mut object = self.scanner.object()?;
        while let Some(key) = object.key(&mut self.scanner)? {
            let known = keys.check(&key)?;
            let span = self.scanner.skip()?;
            if known.is_some() {
                self.index.user_id = Some(span);
            } else {
                self.index.unknown.note("metadata.", &key);
            }
        }
        self.member(from, Origin::Parameter, None)
    }

    /// A known value of any form: a text, unless it is a number, or made of the API's own words.
    pub(super) fn setting(&mut self, from: u32, message: Option<u32>) -> Result<(), Malformed> {
        let span = self.scanner.skip()?;
        if blob::is_setting(span.of(self.scanner.body())) {
            return Ok(());
        }
        self.member(from, Origin::Parameter, message)
    }

    /// The key that begins at `from` and its value, which was just read, as one text.
    pub(super) fn member(
        &mut self,
        from: u32,
        origin: Origin,
        message: Option<u32>,
    ) -> Result<(), Malformed> {
        let span = Span { start: from, end: self.scanner.at() };
        self.push(Text { origin, span, form: Form::Member, message, signed: false, answer: false })
    }

    pub(super) fn push(&mut self, text: Text) -> Result<(), Malformed> {
        if self.index.texts.len() >= MOST_TEXTS {
            return Err(Malformed::Many { what: "texts", most: MOST_TEXTS });
        }
        self.index.texts.push(text);
        Ok(())
    }
}

// === impl Place ===

impl Place {
    /// Outside `messages`.
    pub(super) fn beside(origin: Origin) -> Self {
        Self { origin, message: None, answer: false }
    }
}

// === impl Text ===

impl Text {
    pub(super) fn new(place: Place, form: Form, span: Span) -> Self {
        let Place { origin, message, answer } = place;
        Self { origin, span, form, message, signed: false, answer }
    }
}

// === private helpers ===

/// The first `count` of a list.
fn first<T: Clone>(list: &[T], count: usize) -> Vec<T> {
    list.get(..count).unwrap_or(list).to_vec()
}

fn speaker(role: &str) -> Option<Role> {
    match role {
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        "system" | "developer" => Some(Role::System),
        _ => None,
    }
}
