//! An index over the bytes of a Messages request: found in one pass, so that routing and policy read the very bytes that will
//! be forwarded, and nothing is built of a megabyte of conversation. The bytes stay as they came.
//!
//! The request's shape: <https://docs.claude.com/en/api/messages>. What is not known here is passed over, not refused.

use self::scan::Scanner;

pub use self::scan::{MAX_DEPTH, Malformed};

mod locate;
mod scan;

/// A byte range of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Where a text of the conversation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The system prompt, a system message, or the description of a tool.
    System,
    /// Text the user wrote.
    User,
    /// Text the model wrote in an earlier turn.
    Assistant,
    /// Input of a tool call the model made in an earlier turn.
    ToolInput,
    /// What a tool answered.
    ToolOutput,
    /// Text of a document.
    Document,
}

/// One text of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// Where it comes from.
    pub origin: Origin,
    /// Its JSON value in the body, quotes included; for a tool's input the JSON object.
    pub span: Span,
    /// Which message it belongs to; `None` outside `messages`.
    pub message: Option<u32>,
    /// Thinking, which the upstream signed: it takes it back as it was, or not at all.
    pub signed: bool,
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The user, and whoever is not known.
    User,
    /// The model.
    Assistant,
    /// The operator, in the middle of a conversation.
    System,
}

/// One message of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The value of `content`; empty where there is none.
    pub content: Span,
}

/// One block of a tool: its call or its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolBlock {
    /// Whether the tool has answered: `tool_result` rather than `tool_use`.
    pub is_result: bool,
    /// The whole block.
    pub span: Span,
    /// Which message it belongs to.
    pub message: u32,
}

/// What routing, policies and the audit row need to know of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// `model`.
    pub model: String,
    /// Where the value of `model` stands, quotes included.
    pub model_span: Span,
    /// `stream`; false where absent.
    pub stream: bool,
    /// `max_tokens`.
    pub max_tokens: Option<u32>,
    /// How many messages there are.
    pub message_count: u32,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Calls and results of tools that the client runs, in order.
    pub tool_blocks: Vec<ToolBlock>,
    /// Names of the tools offered, in order.
    pub tools: Vec<String>,
    /// Every text, in order.
    pub texts: Vec<Text>,
    /// Whether the request asks for the client's own safeguards.
    pub has_safeguards: bool,
    /// Where the value of `metadata.user_id` stands.
    pub user_id: Option<Span>,
}

// === impl Span ===

impl Span {
    /// The bytes it covers; nothing where it lies outside.
    pub fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// How many bytes.
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    /// Whether it covers nothing.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

// === impl Index ===

impl Index {
    /// Reads a request. Errors: what is no JSON object of a Messages request, or says one thing twice.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut scanner = Scanner::new(body)?;
        let mut index = Self::default();
        let mut seen_model = false;
        let mut object = scanner.object()?;
        let mut once = Once::default();
        while let Some(key) = object.key(&mut scanner)? {
            match once.check(
                &key,
                &["model", "stream", "max_tokens", "system", "messages", "tools", "metadata", "safeguards"],
            )? {
                Some("model") => {
                    index.model_span = scanner.string()?;
                    index.model = scan::unquote(index.model_span.of(body)).into_owned();
                    seen_model = true;
                }
                Some("stream") => index.stream = scanner.boolean()?,
                Some("max_tokens") => index.max_tokens = scanner.count()?,
                Some("system") => index.content(&mut scanner, Origin::System, None)?,
                Some("messages") => index.messages(&mut scanner)?,
                Some("tools") => index.tools(&mut scanner)?,
                Some("metadata") => index.metadata(&mut scanner)?,
                Some("safeguards") => {
                    index.has_safeguards = scanner.peek()? != b'n';
                    scanner.skip()?;
                }
                _ => drop(scanner.skip()?),
            }
        }
        scanner.end()?;
        if !seen_model || index.model.is_empty() {
            return Err(Malformed::Missing("model"));
        }
        if !once.has("messages") {
            return Err(Malformed::Missing("messages"));
        }
        Ok(index)
    }

    /// The texts that the user wrote in the last message, if the last message is the user's.
    pub fn last_user_texts(&self) -> impl Iterator<Item = &Text> {
        let last = self
            .texts
            .iter()
            .rev()
            .find(|text| matches!(text.origin, Origin::User))
            .and_then(|text| text.message);
        self.texts
            .iter()
            .filter(move |text| text.origin == Origin::User && text.message == last && last.is_some())
    }

    fn messages(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
        let mut array = scanner.array()?;
        while array.next(scanner)? {
            let number = self.message_count;
            self.message_count += 1;
            let (mut role, mut content) = (None, None);
            let mut whole = Span::default();
            let mut object = scanner.object()?;
            let mut once = Once::default();
            while let Some(key) = object.key(scanner)? {
                match once.check(&key, &["role", "content"])? {
                    Some("role") => role = Some(scanner.string()?),
                    // The role may stand behind the content: come back to it.
                    Some("content") => match role {
                        Some(role) => {
                            scanner.peek()?;
                            whole.start = scanner.at();
                            self.content(scanner, origin(role, scanner), Some(number))?;
                            whole.end = scanner.at();
                        }
                        None => content = Some(scanner.skip()?),
                    },
                    _ => drop(scanner.skip()?),
                }
            }
            let origin = role.map_or(Origin::User, |role| origin(role, scanner));
            if let Some(content) = content {
                scanner.revisit(content, |scanner| self.content(scanner, origin, Some(number)))?;
                whole = content;
            }
            let role = match origin {
                Origin::Assistant => Role::Assistant,
                Origin::System => Role::System,
                _ => Role::User,
            };
            self.messages.push(Message { role, content: whole });
        }
        Ok(())
    }

    /// A string, or blocks.
    fn content(
        &mut self,
        scanner: &mut Scanner<'_>,
        origin: Origin,
        message: Option<u32>,
    ) -> Result<(), Malformed> {
        match scanner.peek()? {
            b'"' => {
                let span = scanner.string()?;
                self.push(origin, span, message);
            }
            b'[' => {
                let mut array = scanner.array()?;
                while array.next(scanner)? {
                    match scanner.peek()? {
                        b'{' => self.block(scanner, origin, message)?,
                        _ => self.anything(scanner, origin, message)?,
                    }
                }
            }
            _ => self.anything(scanner, origin, message)?,
        }
        Ok(())
    }

    fn block(
        &mut self,
        scanner: &mut Scanner<'_>,
        origin: Origin,
        message: Option<u32>,
    ) -> Result<(), Malformed> {
        let whole = scanner.at();
        let mut once = Once::default();
        let [mut kind, mut text, mut thinking, mut content, mut input, mut source, mut title, mut context] =
            [None; 8];
        let mut object = scanner.object()?;
        while let Some(key) = object.key(scanner)? {
            let known = ["type", "text", "thinking", "content", "input", "source", "title", "context"];
            let place = match once.check(&key, &known)? {
                Some("type") => &mut kind,
                Some("text") => &mut text,
                Some("thinking") => &mut thinking,
                Some("content") => &mut content,
                Some("input") => &mut input,
                Some("source") => &mut source,
                Some("title") => &mut title,
                Some("context") => &mut context,
                _ => {
                    scanner.skip()?;
                    continue;
                }
            };
            *place = Some(scanner.skip()?);
        }
        let kind = kind.map(|span| scan::unquote(span.of(scanner.body())));
        // What a tool answers may look like a block of a tool; it is none.
        if let (Some(message), Origin::User | Origin::Assistant, Some(kind @ ("tool_use" | "tool_result"))) =
            (message, origin, kind.as_deref())
        {
            let span = Span { start: whole, end: scanner.at() };
            self.tool_blocks.push(ToolBlock { is_result: kind == "tool_result", span, message });
        }
        match kind.as_deref() {
            Some("text") => self.maybe(scanner, text, origin, message),
            Some("thinking") => {
                let before = self.texts.len();
                self.maybe(scanner, thinking, origin, message)?;
                self.texts.iter_mut().skip(before).for_each(|text| text.signed = true);
                Ok(())
            }
            Some("redacted_thinking" | "image") => Ok(()),
            Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
                if let Some(span) = input {
                    self.push(Origin::ToolInput, span, message);
                }
                Ok(())
            }
            Some("tool_result") => match content {
                Some(span) => {
                    scanner.revisit(span, |scanner| self.content(scanner, Origin::ToolOutput, message))
                }
                None => Ok(()),
            },
            Some("document") => {
                self.maybe(scanner, title, Origin::Document, message)?;
                self.maybe(scanner, context, Origin::Document, message)?;
                match source {
                    Some(span) => scanner.revisit(span, |scanner| self.source(scanner, message)),
                    None => Ok(()),
                }
            }
            // A block that nobody here knows: every string in it is a text.
            _ => {
                let span = Span { start: whole, end: scanner.at() };
                scanner.revisit(span, |scanner| self.anything(scanner, origin, message))
            }
        }
    }

    /// The source of a document: text is read, base64 is not.
    fn source(&mut self, scanner: &mut Scanner<'_>, message: Option<u32>) -> Result<(), Malformed> {
        if scanner.peek()? != b'{' {
            return self.anything(scanner, Origin::Document, message);
        }
        let mut object = scanner.object()?;
        let mut once = Once::default();
        let [mut kind, mut data, mut content] = [None; 3];
        while let Some(key) = object.key(scanner)? {
            let span = match once.check(&key, &["type", "data", "content"])? {
                Some("type") => &mut kind,
                Some("data") => &mut data,
                Some("content") => &mut content,
                _ => {
                    scanner.skip()?;
                    continue;
                }
            };
            *span = Some(scanner.skip()?);
        }
        let is_text = kind.is_some_and(|span: Span| scan::unquote(span.of(scanner.body())) == "text");
        if is_text {
            self.maybe(scanner, data, Origin::Document, message)?;
        }
        match content {
            Some(span) => scanner.revisit(span, |scanner| self.content(scanner, Origin::Document, message)),
            None => Ok(()),
        }
    }

    /// Every string of any value.
    fn anything(
        &mut self,
        scanner: &mut Scanner<'_>,
        origin: Origin,
        message: Option<u32>,
    ) -> Result<(), Malformed> {
        match scanner.peek()? {
            b'"' => {
                let span = scanner.string()?;
                self.push(origin, span, message);
            }
            b'{' => {
                let mut object = scanner.object()?;
                while object.key(scanner)?.is_some() {
                    self.anything(scanner, origin, message)?;
                }
            }
            b'[' => {
                let mut array = scanner.array()?;
                while array.next(scanner)? {
                    self.anything(scanner, origin, message)?;
                }
            }
            _ => drop(scanner.skip()?),
        }
        Ok(())
    }

    fn tools(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
        if scanner.peek()? != b'[' {
            scanner.skip()?;
            return Ok(());
        }
        let mut array = scanner.array()?;
        while array.next(scanner)? {
            if scanner.peek()? != b'{' {
                scanner.skip()?;
                continue;
            }
            let mut object = scanner.object()?;
            let mut once = Once::default();
            while let Some(key) = object.key(scanner)? {
                match once.check(&key, &["name", "description"])? {
                    Some("name") if scanner.peek()? == b'"' => {
                        let span = scanner.string()?;
                        self.tools.push(scan::unquote(span.of(scanner.body())).into_owned());
                    }
                    Some("description") => self.anything(scanner, Origin::System, None)?,
                    _ => drop(scanner.skip()?),
                }
            }
        }
        Ok(())
    }

    fn metadata(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
        if scanner.peek()? != b'{' {
            scanner.skip()?;
            return Ok(());
        }
        let mut object = scanner.object()?;
        let mut once = Once::default();
        while let Some(key) = object.key(scanner)? {
            let span = scanner.skip()?;
            if once.check(&key, &["user_id"])?.is_some() {
                self.user_id = Some(span);
            }
        }
        Ok(())
    }

    fn maybe(
        &mut self,
        scanner: &mut Scanner<'_>,
        span: Option<Span>,
        origin: Origin,
        message: Option<u32>,
    ) -> Result<(), Malformed> {
        match span {
            Some(span) => scanner.revisit(span, |scanner| self.anything(scanner, origin, message)),
            None => Ok(()),
        }
    }

    fn push(&mut self, origin: Origin, span: Span, message: Option<u32>) {
        self.texts.push(Text { origin, span, message, signed: false });
    }
}

// === private helpers ===

/// Which of the keys that matter were seen: a second one would let the upstream read another value than the policies did.
#[derive(Default)]
struct Once(Vec<&'static str>);

impl Once {
    fn check(&mut self, key: &str, known: &[&'static str]) -> Result<Option<&'static str>, Malformed> {
        let Some(known) = known.iter().find(|name| **name == key) else { return Ok(None) };
        if self.has(known) {
            return Err(Malformed::Twice(known));
        }
        self.0.push(known);
        Ok(Some(known))
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains(&key)
    }
}

fn origin(role: Span, scanner: &Scanner<'_>) -> Origin {
    match scan::unquote(role.of(scanner.body())).as_ref() {
        "assistant" => Origin::Assistant,
        "system" | "developer" => Origin::System,
        _ => Origin::User,
    }
}

#[cfg(test)]
mod tests;
