//! The rows of a call as bodies of records. Whoever brings them pays for this, in linear time; the writer only copies bodies, each
//! of a bounded size. Nothing is left out: a call with many rows has many records, the first of which says what it was and what it
//! cost.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::event::{self, Event, Kind, RowColumns};
use super::spool::frame::OVERHEAD;
use super::{Intent, RowFields, Unavailable};
use crate::clip::{self, TEXT};

/// Rows are put into one record up to so many bytes.
const PART: usize = 32 * 1024;
/// An intent's payload has to leave room for the row that says that the call was interrupted.
pub(super) const LARGEST_INTENT: usize = 6 * 1024;
/// What an intent takes, mostly.
const INTENT: usize = 1024;
/// What a row takes besides its components, mostly.
const ROW: usize = 2 * 1024;
/// What is always kept of what a component did.
const EVIDENCE: [&str; 8] =
    ["name", "version", "digest", "config", "verdict", "mode", "micros", "remembered"];

/// Some rows as the body of one record.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) body: Vec<u8>,
    pub(super) count: u32,
}

/// All rows of a call, or one that belongs to none.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) first: Rows,
    pub(super) rest: VecDeque<Rows>,
}

// === impl Rows ===

impl Rows {
    /// What it takes in the spool.
    pub(super) fn size(&self) -> u64 {
        (OVERHEAD + self.body.len()) as u64
    }

    fn begin() -> Self {
        Self::with_room(0)
    }

    /// None yet, with room for so many bytes of them.
    fn with_room(bytes: usize) -> Self {
        let mut body = Vec::with_capacity(bytes + 2);
        body.push(b'[');
        Self { body, count: 0 }
    }

    fn push(&mut self, line: &[u8]) {
        if self.count > 0 {
            self.body.push(b',');
        }
        self.body.extend_from_slice(line);
        self.count += 1;
    }

    fn end(mut self) -> Self {
        self.body.push(b']');
        self
    }
}

// === impl Records ===

impl Records {
    /// One row.
    pub(super) fn one(row: Event, record: u64) -> Result<Self, Unavailable> {
        Self::new(vec![row], record)
    }

    /// All rows of a call in records of at most `record` bytes. A row that has no form is an error: the call must not end as if
    /// it had one.
    pub(super) fn new(mut rows: Vec<Event>, record: u64) -> Result<Self, Unavailable> {
        event::in_order(&mut rows);
        event::cost_once(&mut rows);
        let room = usize::try_from(record).unwrap_or(usize::MAX).saturating_sub(OVERHEAD + 2);
        let part = PART.min(room);
        let mut lines = Vec::with_capacity(rows.len());
        for row in &rows {
            lines.push(line(row, room)?);
        }
        let whole: usize = lines.iter().map(|line| line.len() + 1).sum();
        if whole <= part || rows.len() < 2 {
            let mut all = Rows::with_room(whole);
            for line in &lines {
                all.push(line);
            }
            return Ok(Self { first: all.end(), rest: VecDeque::new() });
        }
        // The call and its cost first: whatever happens to the rest, they are there. The call says how many rows it has.
        let count = rows.len();
        if let (Some(call), Some(line_of_call)) = (rows.first_mut(), lines.first_mut()) {
            call.payload.set("rows", count);
            *line_of_call = line(call, room)?;
        }
        let head = |(at, row): (usize, &Event)| at == 0 || row.kind == Kind::Cost;
        let heads: Vec<bool> = rows.iter().enumerate().map(head).collect();
        let of = |wanted: bool| {
            lines.iter().zip(&heads).filter(move |(_, head)| **head == wanted).map(|(line, _)| line)
        };
        let mut first = Rows::begin();
        for line in of(true) {
            first.push(line);
        }
        let mut rest = VecDeque::new();
        let mut current = Rows::begin();
        for line in of(false) {
            if current.count > 0 && current.body.len() + line.len() + 2 > part {
                rest.push_back(std::mem::replace(&mut current, Rows::begin()).end());
            }
            current.push(line);
        }
        if current.count > 0 {
            rest.push_back(current.end());
        }
        Ok(Self { first: first.end(), rest })
    }

    /// What the writer takes of it in one turn at least.
    pub(super) fn size(&self) -> u64 {
        self.first.size()
    }
}

/// The intent as the body of a record.
pub(super) fn intent(intent: &Intent) -> Result<Vec<u8>, Unavailable> {
    let mut small;
    let mut intent = intent;
    let long = |model: &Option<Arc<str>>| model.as_deref().is_some_and(|model| model.len() > clip::NAME / 6);
    if long(&intent.model) || !intent.payload.are_short(clip::NAME) {
        small = intent.clone();
        small.model = small.model.map(|model| clip::clip(&model, clip::NAME).into());
        small.payload = small.payload.clipped(clip::NAME);
        intent = &small;
    }
    let mut bytes = Vec::with_capacity(INTENT);
    serde_json::to_writer(&mut bytes, intent).map_err(|error| unwritable(&error))?;
    if bytes.len() <= LARGEST_INTENT {
        return Ok(bytes);
    }
    let payload = intent.payload.core();
    let bytes =
        serde_json::to_vec(&Intent { payload, ..intent.clone() }).map_err(|error| unwritable(&error))?;
    if bytes.len() > LARGEST_INTENT {
        return Err(Unavailable::Row("an intent is too large".to_owned()));
    }
    Ok(bytes)
}

/// A row as a JSON object of at most `room` bytes.
fn line(row: &Event, room: usize) -> Result<Vec<u8>, Unavailable> {
    if row.components.are_short(TEXT) && row.payload.are_short(TEXT) {
        let bytes = write(row, &row.payload, row.components.json())?;
        if bytes.len() <= room {
            return Ok(bytes);
        }
    }
    let mut payload = row.payload.clone();
    if !row.components.json().is_empty() {
        let components = row.components.values().map_err(|error| unwritable(&error))?;
        payload.set("components", components);
    }
    let payload = payload.clipped(TEXT);
    let mut bytes = write(row, &payload, b"")?;
    if bytes.len() > room {
        bytes = write(row, &payload.core(), b"")?;
    }
    if bytes.len() > room {
        return Err(Unavailable::Row(format!("a row takes {} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// The row with this payload, and with these components in it, which are entries of a list in JSON.
fn write(row: &Event, payload: &RowFields, components: &[u8]) -> Result<Vec<u8>, Unavailable> {
    let line = RowColumns::new(row, payload);
    let mut bytes = Vec::with_capacity(ROW + components.len());
    serde_json::to_writer(&mut bytes, &line).map_err(|error| unwritable(&error))?;
    // Both objects end here: the payload is the last field.
    if !components.is_empty() {
        bytes.truncate(bytes.len() - 2);
        let comma: &[u8] = if bytes.ends_with(b"{") { b"" } else { b"," };
        for piece in [comma, b"\"components\":[", components, b"]}}"] {
            bytes.extend_from_slice(piece);
        }
    }
    if memchr::memmem::find(&bytes, br"\u0000").is_none() {
        return Ok(bytes);
    }
    // PostgreSQL has no NUL in text: one in a tool's name must not keep the row, and all behind it, out of the table.
    let mut clean: Value = serde_json::from_slice(&bytes).map_err(|error| unwritable(&error))?;
    without_nul(&mut clean);
    serde_json::to_vec(&clean).map_err(|error| unwritable(&error))
}

/// What a payload that is too large keeps of a field: a single value, what each component was and said; of lists and objects their
/// length and digest.
pub(super) fn core(name: &str, value: &Value) -> Value {
    match value {
        Value::Array(entries) if name == "components" => entries.iter().map(evidence).collect(),
        Value::Array(_) | Value::Object(_) => clip::left_out(value),
        Value::String(text) => Value::from(clip::clip(text, clip::NAME)),
        single => single.clone(),
    }
}

fn evidence(entry: &Value) -> Value {
    let Some(fields) = entry.as_object() else { return clip::left_out(entry) };
    let kept = fields.iter().filter(|(name, _)| EVIDENCE.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(fields) => {
            let owned = std::mem::take(fields);
            fields.extend(owned.into_iter().map(|(name, mut value)| {
                without_nul(&mut value);
                (name.replace('\0', "\u{fffd}"), value)
            }));
        }
        _ => {}
    }
}

fn unwritable(error: &serde_json::Error) -> Unavailable {
    Unavailable::Row(error.to_string())
}
