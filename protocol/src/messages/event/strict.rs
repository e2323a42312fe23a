//! The reading of an event that a decision depends on. What two readers could read differently is refused, so that what was
//! judged is what the client sees: a name twice in one object, a letter of a name written as an escape, a name that is a known
//! one but for its case, a type that is not the event's name, content where the gateway looks for none.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Block, Delta, EventKind, StreamEvent, Usage, parse};
use crate::strict_json::pass_over;

/// Names that mean something to a client. One that differs in its case alone is another name to some readers and the same to
/// others.
const KNOWN: [&str; 20] = [
    "type",
    "index",
    "message",
    "content",
    "content_block",
    "delta",
    "usage",
    "error",
    "id",
    "name",
    "input",
    "text",
    "thinking",
    "signature",
    "data",
    "partial_json",
    "role",
    "model",
    "stop_reason",
    "stop_sequence",
];
/// So many names of one object are compared one by one, without a list for them; more are kept in a set.
const FEW: usize = 8;
/// The type of a block that makes a client run something.
const TOOL_USE: &str = "tool_use";

/// Why something is not read.
#[derive(Debug, thiserror::Error)]
pub enum Ambiguous {
    /// Not JSON, or JSON that readers could read differently.
    #[error("it can be read in more than one way, or in none")]
    Json(#[source] serde_json::Error),
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    Utf8,
    /// The data has no type, or another one than the event's name.
    #[error("its type and its name differ")]
    Name,
    /// A `message_start` that brings content.
    #[error("a message begins with content")]
    Content,
    /// A tool call where none is looked for.
    #[error("it holds a tool call in a place where there should be none")]
    Hidden,
    /// A tool's input that is not exactly one JSON object.
    #[error("the input of a tool is not one JSON object")]
    Input,
}

/// What is known of JSON that reads in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Objects of type `tool_use`, those inside a tool's input left out.
    pub tool_uses: usize,
}

/// Reads the event with this `event` field (`None` where there is none) and this data as every client reads it. An event, block
/// or delta of an unknown type becomes `Raw`, if no tool call is in it. Errors: see [`Ambiguous`].
pub fn strict(name: Option<&str>, data: &[u8]) -> Result<StreamEvent, Ambiguous> {
    read(name, data, Said::Kept)
}

/// The same for whoever needs not know what is said: the text of a piece of text or thinking is empty. Errors: those of [`strict`].
pub fn strict_unsaid(name: Option<&str>, data: &[u8]) -> Result<StreamEvent, Ambiguous> {
    read(name, data, Said::Dropped)
}

fn read(name: Option<&str>, data: &[u8], said: Said) -> Result<StreamEvent, Ambiguous> {
    let data = std::str::from_utf8(data).map_err(|_| Ambiguous::Utf8)?;
    let mut found = Checked::default();
    let mut deserializer = serde_json::Deserializer::from_str(data);
    let mut parts = ReadEvent(&mut found).deserialize(&mut deserializer).map_err(Ambiguous::Json)?;
    deserializer.end().map_err(Ambiguous::Json)?;
    let Some(kind) = parts.kind.take() else { return Err(Ambiguous::Name) };
    if name.is_some_and(|name| name != kind) {
        return Err(Ambiguous::Name);
    }
    if parts.content {
        return Err(Ambiguous::Content);
    }
    let due = usize::from(parts.starts_tool && EventKind::of(kind.as_bytes()) == EventKind::BlockStart);
    if found.tool_uses != due {
        return Err(Ambiguous::Hidden);
    }
    parts.event(&kind, data, said).map_err(Ambiguous::Json)
}

/// Whether this JSON reads in one way only, and how many tool calls are in it.
pub fn check(json: &[u8]) -> Result<Checked, Ambiguous> {
    let json = std::str::from_utf8(json).map_err(|_| Ambiguous::Utf8)?;
    let mut found = Checked::default();
    checked(json, ValuePlace::Known, &mut found).map_err(Ambiguous::Json)?;
    Ok(found)
}

/// Whether a tool's input is exactly one JSON object that reads in one way only. Errors: [`Ambiguous::Input`].
pub fn tool_input(json: &str) -> Result<(), Ambiguous> {
    if !json.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(Ambiguous::Input);
    }
    checked(json, ValuePlace::Input, &mut Checked::default()).map_err(|_| Ambiguous::Input)
}

fn checked(json: &str, place: ValuePlace, found: &mut Checked) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Check { place, found }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// What becomes of the text of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Kept,
    Dropped,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValuePlace {
    /// Where a client looks for names that it knows.
    Known,
    /// Elsewhere.
    Other,
    /// In a tool's input, where every name is the tool's own.
    Input,
}

/// The members of an event, as far as they are read.
#[derive(Default)]
struct EventParts<'de> {
    kind: Option<Cow<'de, str>>,
    index: Option<u32>,
    block: Option<&'de RawValue>,
    delta: Option<DeltaParts<'de>>,
    usage: Option<Usage>,
    content: bool,
    starts_tool: bool,
}

/// The members of a delta, as far as they are read.
#[derive(Default)]
struct DeltaParts<'de> {
    kind: Option<Cow<'de, str>>,
    text: Option<Cow<'de, [u8]>>,
    thinking: Option<Cow<'de, [u8]>>,
    signature: Option<Cow<'de, str>>,
    partial_json: Option<Cow<'de, str>>,
    stop_reason: Option<Cow<'de, str>>,
    stop_sequence: Option<Cow<'de, str>>,
}

// === impl EventParts ===

impl EventParts<'_> {
    fn event(self, kind: &str, data: &str, said: Said) -> Result<StreamEvent, serde_json::Error> {
        let lacks = |what: &'static str| <serde_json::Error as de::Error>::missing_field(what);
        let index = self.index.ok_or_else(|| lacks("index"));
        Ok(match EventKind::of(kind.as_bytes()) {
            EventKind::BlockDelta => {
                let delta = self.delta.ok_or_else(|| lacks("delta"))?.delta(said)?;
                StreamEvent::BlockDelta { index: index?, delta }
            }
            EventKind::BlockStop => StreamEvent::BlockStop { index: index? },
            EventKind::BlockStart => {
                let block = parse::block(self.block.ok_or_else(|| lacks("content_block"))?.get())?;
                StreamEvent::BlockStart { index: index?, block }
            }
            EventKind::MessageDelta => {
                let DeltaParts { stop_reason, stop_sequence, .. } = self.delta.unwrap_or_default();
                StreamEvent::MessageDelta {
                    stop_reason: stop_reason.map(Cow::into_owned),
                    stop_sequence: stop_sequence.map(Cow::into_owned),
                    usage: self.usage.unwrap_or_default(),
                }
            }
            EventKind::MessageStop => StreamEvent::MessageStop,
            EventKind::Ping => StreamEvent::Ping,
            // These are rare, and were looked through already: what reads every event reads them too.
            EventKind::MessageStart | EventKind::Error | EventKind::Other => parse::read(kind, data)?,
        })
    }
}

// === impl DeltaParts ===

impl DeltaParts<'_> {
    fn delta(self, said: Said) -> Result<Delta, serde_json::Error> {
        let lossy = |bytes: Option<Cow<'_, [u8]>>| {
            let bytes = bytes.filter(|_| said == Said::Kept);
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
        };
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
        let kind = self.kind.ok_or_else(|| <serde_json::Error as de::Error>::missing_field("type"))?;
        Ok(match kind.as_ref() {
            "text_delta" => Delta::Text(lossy(self.text)),
            "input_json_delta" => Delta::InputJson(text(self.partial_json)),
            "thinking_delta" => Delta::Thinking(lossy(self.thinking)),
            "signature_delta" => Delta::Signature(text(self.signature)),
            // What it holds was looked through; nobody here reads more of it than its type.
            other => Delta::Raw(serde_json::json!({ "type": other }).to_string()),
        })
    }
}

// === the reading ===

/// Reads the members of an event.
struct ReadEvent<'c>(&'c mut Checked);

impl<'de> DeserializeSeed<'de> for ReadEvent<'_> {
    type Value = EventParts<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EventParts<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReadEvent<'_> {
    type Value = EventParts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<EventParts<'de>, A::Error> {
        let found = self.0;
        let mut parts = EventParts::default();
        let mut names = Names::new(ValuePlace::Known);
        while let Some(name) = names.next(&mut members)? {
            match name.as_ref() {
                "type" => parts.kind = Some(members.next_value_seed(BorrowedText)?),
                "index" => parts.index = Some(members.next_value()?),
                "delta" => parts.delta = Some(members.next_value_seed(ReadPiece(found))?),
                "message" => {
                    let message: &RawValue = members.next_value()?;
                    let mut content = false;
                    let mut deserializer = serde_json::Deserializer::from_str(message.get());
                    ReadMessage { found, content: &mut content }
                        .deserialize(&mut deserializer)
                        .map_err(de::Error::custom)?;
                    parts.content = content;
                }
                "content_block" => {
                    let block: &RawValue = members.next_value()?;
                    let before = found.tool_uses;
                    checked(block.get(), ValuePlace::Known, found).map_err(de::Error::custom)?;
                    parts.starts_tool = found.tool_uses > before
                        && matches!(parse::block(block.get()), Ok(Block::ToolUse { .. }));
                    parts.block = Some(block);
                }
                "usage" => {
                    let usage: &RawValue = members.next_value()?;
                    checked(usage.get(), ValuePlace::Other, found).map_err(de::Error::custom)?;
                    parts.usage = serde_json::from_str(usage.get()).map_err(de::Error::custom)?;
                }
                _ => members.next_value_seed(Check { place: child(ValuePlace::Known, &name), found })?,
            }
            names.keep(name);
        }
        if parts.kind.as_deref() == Some(TOOL_USE) {
            found.tool_uses += 1;
        }
        Ok(parts)
    }
}

/// Reads the members of a delta.
struct ReadPiece<'c>(&'c mut Checked);

impl<'de> DeserializeSeed<'de> for ReadPiece<'_> {
    type Value = DeltaParts<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DeltaParts<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReadPiece<'_> {
    type Value = DeltaParts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delta")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<DeltaParts<'de>, A::Error> {
        let found = self.0;
        let mut piece = DeltaParts::default();
        let mut names = Names::new(ValuePlace::Known);
        while let Some(name) = names.next(&mut members)? {
            match name.as_ref() {
                "type" => piece.kind = Some(members.next_value_seed(BorrowedText)?),
                // Half of a character is no reason to end an answer; it is read as a client shows it.
                "text" => piece.text = Some(members.next_value_seed(Bytes)?),
                "thinking" => piece.thinking = Some(members.next_value_seed(Bytes)?),
                "signature" => piece.signature = Some(members.next_value_seed(BorrowedText)?),
                "partial_json" => piece.partial_json = Some(members.next_value_seed(BorrowedText)?),
                "stop_reason" => piece.stop_reason = members.next_value_seed(OptionalText)?,
                "stop_sequence" => piece.stop_sequence = members.next_value_seed(OptionalText)?,
                _ => members.next_value_seed(Check { place: child(ValuePlace::Known, &name), found })?,
            }
            names.keep(name);
        }
        if piece.kind.as_deref() == Some(TOOL_USE) {
            found.tool_uses += 1;
        }
        Ok(piece)
    }
}

/// Looks through the message of a `message_start`.
struct ReadMessage<'c> {
    found: &'c mut Checked,
    content: &'c mut bool,
}

impl<'de> DeserializeSeed<'de> for ReadMessage<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReadMessage<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { found, content } = self;
        let mut names = Names::new(ValuePlace::Known);
        while let Some(name) = names.next(&mut members)? {
            if name == "content" {
                let value: &RawValue = members.next_value()?;
                checked(value.get(), ValuePlace::Known, found).map_err(de::Error::custom)?;
                let inside = value.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let empty = inside.is_some_and(|inside| inside.trim_ascii().is_empty());
                *content = !empty && value.get() != "null";
            } else if name == "type" {
                if members.next_value_seed(IsToolUse(&mut *found))? {
                    found.tool_uses += 1;
                }
            } else {
                members
                    .next_value_seed(Check { place: child(ValuePlace::Known, &name), found: &mut *found })?;
            }
            names.keep(name);
        }
        Ok(())
    }
}

/// Looks through any value and keeps nothing of it.
struct Check<'c> {
    place: ValuePlace,
    found: &'c mut Checked,
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    pass_over! { () => unit, bool, str, number }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { place, found } = self;
        while items.next_element_seed(Check { place, found: &mut *found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { place, found } = self;
        let mut names = Names::new(place);
        while let Some(name) = names.next(&mut members)? {
            if name == "type" && place != ValuePlace::Input {
                if members.next_value_seed(IsToolUse(&mut *found))? {
                    found.tool_uses += 1;
                }
            } else {
                members.next_value_seed(Check { place: child(place, &name), found: &mut *found })?;
            }
            names.keep(name);
        }
        Ok(())
    }
}

/// Whether a `type` is that of a tool call; one that is no text is looked through like any other value.
struct IsToolUse<'c>(&'c mut Checked);

impl<'de> DeserializeSeed<'de> for IsToolUse<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IsToolUse<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type")
    }

    fn visit_str<E: de::Error>(self, kind: &str) -> Result<bool, E> {
        Ok(kind == TOOL_USE)
    }

    pass_over! { false => unit, bool, number }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<bool, A::Error> {
        Check { place: ValuePlace::Other, found: self.0 }.visit_seq(items).map(|()| false)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<bool, A::Error> {
        Check { place: ValuePlace::Other, found: self.0 }.visit_map(members).map(|()| false)
    }
}

/// The names of one object so far.
struct Names<'de> {
    place: ValuePlace,
    few: [Option<Cow<'de, str>>; FEW],
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    fn new(place: ValuePlace) -> Self {
        Self { place, few: [const { None }; FEW], many: HashSet::new() }
    }

    /// The next name, if there is one and it is no reason to stop.
    fn next<A: MapAccess<'de>>(&mut self, members: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        let Some(KeyName { text, escaped }) = members.next_key()? else { return Ok(None) };
        if escaped && spells_letters(&text) {
            return Err(de::Error::custom("a letter of a name is written as an escape"));
        }
        if self.few.iter().map_while(Option::as_ref).any(|name| *name == text) || self.many.contains(&text) {
            return Err(de::Error::custom("a name stands twice in one object"));
        }
        if self.place == ValuePlace::Known && folds_to_known(&text) {
            return Err(de::Error::custom("a name is a known one but for its case"));
        }
        Ok(Some(text))
    }

    fn keep(&mut self, name: Cow<'de, str>) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(name),
            None => drop(self.many.insert(name)),
        }
    }
}

/// A name, and whether it was written with escapes.
struct KeyName<'de> {
    text: Cow<'de, str>,
    escaped: bool,
}

impl<'de> de::Deserialize<'de> for KeyName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = BorrowedText.deserialize(deserializer)?;
        Ok(Self { escaped: matches!(text, Cow::Owned(_)), text })
    }
}

/// A text, borrowed where it has no escapes.
struct BorrowedText;

impl<'de> DeserializeSeed<'de> for BorrowedText {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for BorrowedText {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A text or null.
struct OptionalText;

impl<'de> DeserializeSeed<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or null")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        BorrowedText.deserialize(deserializer).map(Some)
    }
}

/// A text that may hold half of a pair of surrogates.
struct Bytes;

impl<'de> DeserializeSeed<'de> for Bytes {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Bytes {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

// === private helpers ===

/// Where the value of `name` stands, in an object that stands at `place`.
fn child(place: ValuePlace, name: &str) -> ValuePlace {
    match (place, name) {
        (ValuePlace::Input, _) | (_, "input") => ValuePlace::Input,
        (ValuePlace::Known, "message" | "content" | "content_block" | "delta" | "error") => ValuePlace::Known,
        _ => ValuePlace::Other,
    }
}

/// Whether a name that was written with an escape is made of what no writer escapes. Some write every letter beyond ASCII as an
/// escape, and some do so with what has a meaning in HTML; none does with the names that the API knows.
fn spells_letters(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether this is a known name for readers that do not look at case, and another name for those that do.
fn folds_to_known(name: &str) -> bool {
    if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        return false;
    }
    let fold = |letter: char| match letter {
        // The two letters beyond ASCII that fold to one within it.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    KNOWN.iter().any(|known| known.chars().eq(name.chars().map(fold)))
}

#[cfg(test)]
mod tests;
