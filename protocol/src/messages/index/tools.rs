//! The tools of a request, wherever it defines or names them.

use std::collections::HashSet;

use super::keys::Keys;
use super::reader::{Place, Reader};
use super::scan::{Malformed, unquote};
use super::{Form, MOST_TOOLS, Origin, Span, Text, blob};

const TOOL: [&str; 38] = [
    "name",
    "type",
    "description",
    "input_schema",
    "input_examples",
    "cache_control",
    "defer_loading",
    "strict",
    "eager_input_streaming",
    "allowed_callers",
    "max_uses",
    "allowed_domains",
    "blocked_domains",
    "user_location",
    "citations",
    "max_content_tokens",
    "max_characters",
    "display_width_px",
    "display_height_px",
    "display_number",
    "enable_zoom",
    "model",
    "caching",
    "response_inclusion",
    "mcp_server_name",
    "default_config",
    "configs",
    "url",
    "authorization_token",
    "tool_configuration",
    "allowed_tools",
    "definition",
    "tool",
    "tool_name",
    "server_name",
    "enabled",
    // Of another wire.
    "function",
    "parameters",
];
const CHOICE: [&str; 6] = ["type", "name", "disable_parallel_tool_use", "function", "allowed_tools", "tools"];
/// A name that is not a string is not read, since readers differ in what they make of it.
const NAME: Malformed = Malformed::Type { key: "name", expected: "a string" };

/// What was found in one definition.
#[derive(Default)]
struct Found {
    name: Option<String>,
    kind: Option<String>,
    /// The server whose tools it stands for.
    server: Option<String>,
    /// Tools that are named within it.
    inside: Vec<String>,
    /// It has the form of another wire.
    foreign: bool,
}

// === impl Reader ===

impl Reader<'_> {
    /// `tools`, whose key begins at `from`.
    pub(super) fn tools(&mut self, from: u32) -> Result<(), Malformed> {
        if self.scanner.peek()? == b'[' {
            let mut array = self.scanner.array()?;
            while array.next(&mut self.scanner)? {
                self.scanner.peek()?;
                let start = self.scanner.at();
                let names = self.definition(true)?;
                for name in names {
                    self.offer(name)?;
                }
                let span = Span { start, end: self.scanner.at() };
                self.push(Text::new(Place::beside(Origin::Tool), Form::Value, span))?;
            }
            return Ok(());
        }
        self.by_name("tools")?;
        self.member(from, Origin::Tool, None)
    }

    /// `mcp_servers`: all tools of a server are offered, whatever it may be allowed of them.
    pub(super) fn servers(&mut self, from: u32) -> Result<(), Malformed> {
        if self.scanner.peek()? == b'[' {
            let mut array = self.scanner.array()?;
            while array.next(&mut self.scanner)? {
                if self.scanner.peek()? != b'{' {
                    self.index.unknown.note("", "mcp_servers");
                    self.scanner.skip()?;
                    continue;
                }
                let Found { name, inside, .. } = self.fields("mcp_servers.")?;
                match name {
                    Some(server) => self.serve(&server, &inside)?,
                    None => self.index.unknown.note("mcp_servers.", "name"),
                }
            }
        } else if self.scanner.peek()? == b'{' {
            self.index.unknown.note("", "mcp_servers");
            let mut object = self.scanner.object()?;
            while let Some(key) = object.key(&mut self.scanner)? {
                self.serve(&key, &[])?;
                self.scanner.skip()?;
            }
        } else {
            self.scanner.skip()?;
        }
        self.member(from, Origin::Link, None)
    }

    /// `tool_choice`, which may name a tool.
    pub(super) fn tool_choice(&mut self, from: u32) -> Result<(), Malformed> {
        self.scanner.peek()?;
        let start = self.scanner.at();
        if self.scanner.peek()? == b'{' {
            let mut keys = Keys::new(&CHOICE);
            let mut object = self.scanner.object()?;
            while let Some(key) = object.key(&mut self.scanner)? {
                match keys.check(&key)? {
                    Some("name") => {
                        let name = self.text(&NAME)?;
                        self.name(name)?;
                    }
                    Some(name @ ("function" | "allowed_tools" | "tools")) => {
                        self.index.unknown.note("tool_choice.", name);
                        self.named_tools()?;
                    }
                    Some(_) => drop(self.scanner.skip()?),
                    None => {
                        self.index.unknown.note("tool_choice.", &key);
                        self.scanner.skip()?;
                    }
                }
            }
        } else {
            self.scanner.skip()?;
        }
        let span = Span { start, end: self.scanner.at() };
        if blob::is_setting(span.of(self.scanner.body())) {
            return Ok(());
        }
        self.member(from, Origin::Parameter, None)
    }

    /// Tools that a block defines or names, in whatever form: a definition, or a list of changes with one in each.
    pub(super) fn named_tools(&mut self) -> Result<(), Malformed> {
        if self.scanner.peek()? == b'[' {
            let mut array = self.scanner.array()?;
            while array.next(&mut self.scanner)? {
                self.named_tools()?;
            }
            return Ok(());
        }
        for name in self.definition(false)? {
            self.name(name)?;
        }
        Ok(())
    }

    /// A tool that is named elsewhere than in `tools`.
    pub(super) fn name(&mut self, name: String) -> Result<(), Malformed> {
        if self.named.len() >= MOST_TOOLS {
            return Err(many());
        }
        self.named.push(name);
        Ok(())
    }

    /// Adds what was named elsewhere to the tools, each once.
    pub(super) fn add_named(&mut self) -> Result<(), Malformed> {
        if self.named.is_empty() {
            return Ok(());
        }
        let mut seen: HashSet<String> = self.index.tools.iter().cloned().collect();
        for name in std::mem::take(&mut self.named) {
            if seen.insert(name.clone()) {
                self.offer(name)?;
            }
        }
        Ok(())
    }

    fn offer(&mut self, name: String) -> Result<(), Malformed> {
        if self.index.tools.len() >= MOST_TOOLS {
            return Err(many());
        }
        self.index.tools.push(name);
        Ok(())
    }

    fn serve(&mut self, server: &str, tools: &[String]) -> Result<(), Malformed> {
        self.name(format!("mcp__{server}__*"))?;
        tools.iter().try_for_each(|tool| self.name(format!("mcp__{server}__{tool}")))
    }

    /// Tools as members of an object, by their names; or what is no list of tools at all.
    fn by_name(&mut self, place: &'static str) -> Result<(), Malformed> {
        match self.scanner.peek()? {
            b'{' => {
                self.index.unknown.note("", place);
                let mut object = self.scanner.object()?;
                while let Some(key) = object.key(&mut self.scanner)? {
                    let is_name = key == "name";
                    self.name(key.into_owned())?;
                    let next = self.scanner.peek()?;
                    if is_name && next != b'{' {
                        // One definition in the place of the list.
                        let name = self.text(&NAME)?;
                        self.name(name)?;
                    } else if next == b'{' {
                        let found = self.fields("tools.")?;
                        for name in found.name.into_iter().chain(found.inside) {
                            self.name(name)?;
                        }
                    } else {
                        self.scanner.skip()?;
                    }
                }
            }
            b'"' => {
                self.index.unknown.note("", place);
                let name = self.text(&NAME)?;
                self.name(name)?;
            }
            b'n' => drop(self.scanner.skip()?),
            _ => {
                self.index.unknown.note("", place);
                self.scanner.skip()?;
            }
        }
        Ok(())
    }

    /// The names in one definition. `expected`: something has to be named.
    fn definition(&mut self, expected: bool) -> Result<Vec<String>, Malformed> {
        match self.scanner.peek()? {
            b'{' => {}
            b'"' => {
                self.index.unknown.note("tools.", "name");
                return Ok(vec![self.text(&NAME)?]);
            }
            _ => {
                self.index.unknown.note("tools.", "name");
                self.scanner.skip()?;
                return Ok(Vec::new());
            }
        }
        let Found { name, kind, server, inside, foreign } = self.fields("tools.")?;
        if foreign {
            self.index.unknown.note("tools.", "function");
        }
        let mut names: Vec<String> = name.into_iter().collect();
        match server {
            Some(server) => {
                names.push(format!("mcp__{server}__*"));
                names.extend(inside.iter().map(|tool| format!("mcp__{server}__{tool}")));
            }
            None => names.extend(inside),
        }
        if names.is_empty() && expected {
            self.index.unknown.note("tools.", "name");
            names.extend(kind);
        }
        Ok(names)
    }

    /// The members of one definition, and of those within it.
    fn fields(&mut self, place: &'static str) -> Result<Found, Malformed> {
        let mut found = Found::default();
        let mut keys = Keys::new(&TOOL);
        let mut object = self.scanner.object()?;
        while let Some(key) = object.key(&mut self.scanner)? {
            match keys.check(&key)? {
                Some("name") => found.name = Some(self.text(&NAME)?),
                Some("tool_name") => {
                    let name = self.text(&Malformed::Type { key: "tool_name", expected: "a string" })?;
                    found.inside.push(name);
                }
                Some("mcp_server_name" | "server_name") => {
                    found.server =
                        Some(self.text(&Malformed::Type { key: "mcp_server_name", expected: "a string" })?);
                }
                Some("type") if self.scanner.peek()? == b'"' => found.kind = Some(self.text(&NAME)?),
                Some(inner @ ("definition" | "tool" | "function" | "tool_configuration"))
                    if self.scanner.peek()? == b'{' =>
                {
                    found.foreign |= inner == "function";
                    let Found { name, server, inside, foreign, .. } = self.fields(place)?;
                    found.foreign |= foreign;
                    found.server = found.server.or(server);
                    found.inside.extend(name.into_iter().chain(inside));
                }
                Some("definition" | "tool" | "function") if self.scanner.peek()? == b'"' => {
                    let name = self.text(&NAME)?;
                    found.inside.push(name);
                }
                Some("configs") if self.scanner.peek()? == b'{' => {
                    let mut configs = self.scanner.object()?;
                    while let Some(tool) = configs.key(&mut self.scanner)? {
                        found.inside.push(tool.into_owned());
                        self.scanner.skip()?;
                    }
                }
                Some("allowed_tools") if self.scanner.peek()? == b'[' => {
                    let mut tools = self.scanner.array()?;
                    while tools.next(&mut self.scanner)? {
                        if self.scanner.peek()? == b'"' {
                            found.inside.push(self.text(&NAME)?);
                        } else {
                            self.scanner.skip()?;
                        }
                    }
                }
                Some(_) => drop(self.scanner.skip()?),
                None => {
                    self.index.unknown.note(place, &key);
                    self.scanner.skip()?;
                }
            }
            if found.inside.len() > MOST_TOOLS {
                return Err(many());
            }
        }
        Ok(found)
    }

    /// A string that has to be one.
    fn text(&mut self, otherwise: &Malformed) -> Result<String, Malformed> {
        if self.scanner.peek()? != b'"' {
            return Err(otherwise.clone());
        }
        let span = self.scanner.string()?;
        Ok(unquote(span.of(self.scanner.body())).into_owned())
    }
}

// === private helpers ===

fn many() -> Malformed {
    Malformed::Many { what: "tools", most: MOST_TOOLS }
}
