//! An upstream that serves honest calls, lies where a model's name asks it to, and notes whatever should never have reached it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::upstream::{Script, Seen, Upstream};

use super::replies;

/// A prompt that no upstream may see: a rule of the story's gateway blocks it.
pub const FORBIDDEN: &str = "the nightjar plan";
/// A tool that no upstream may be offered.
pub const FORBIDDEN_TOOL: &str = "mcp__vault__open";
/// A secret that no upstream may see: nobody's, in the form of a token of GitHub.
pub const SECRET: &str = concat!("ghp", "_", "R8vT3mKq7LwZ2xYc5NdB9fHj4PsG6aUe1oXi");
/// In the value of a header that has to stay at the gateway.
pub const SMUGGLED: &str = "smuggled-by-a-client";

/// What reached an upstream and should not have.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    seen: Arc<Mutex<Vec<String>>>,
}

// === impl Witness ===

impl Witness {
    /// Has an upstream answer for the attacks and note what should not come.
    pub fn of(upstream: &Upstream) -> Self {
        let witness = Self::default();
        let noting = witness.clone();
        upstream.choose(move |seen| {
            noting.look(seen);
            let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            let model = body["model"].as_str().unwrap_or_default();
            replies::script(model, seen).unwrap_or_else(|| Script::text("Served."))
        });
        witness
    }

    /// What came so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, seen: &Seen) {
        let mut places = vec![("the body", readable(&seen.body)), ("the target", seen.target.clone())];
        for (name, value) in &seen.headers {
            places.push(("a header", format!("{name}: {value}")));
        }
        for (place, text) in places {
            for what in [FORBIDDEN, FORBIDDEN_TOOL, SECRET, SMUGGLED] {
                if text.contains(what) {
                    let at = text.find(what).unwrap_or_default();
                    let around: String = text.chars().skip(at.saturating_sub(60)).take(160).collect();
                    self.seen
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(format!("{place}: {around}"));
                }
            }
        }
    }
}

/// A body as a model reads it: its texts without escapes, blocks of one text joined.
fn readable(body: &[u8]) -> String {
    fn walk(value: &serde_json::Value, out: &mut String) {
        match value {
            serde_json::Value::String(text) => {
                out.push_str(text);
                out.push('\n');
            }
            serde_json::Value::Array(elements) => elements.iter().for_each(|element| walk(element, out)),
            serde_json::Value::Object(members) => members.iter().for_each(|(name, value)| {
                out.push_str(name);
                out.push('\n');
                walk(value, out);
            }),
            _ => {}
        }
    }
    let mut out = String::from_utf8_lossy(body).into_owned();
    out.push('\n');
    if let Ok(value) = serde_json::from_slice(body) {
        walk(&value, &mut out);
    }
    out
}
