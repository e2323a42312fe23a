//! What a request holds that the index does not know: kept by name, so that a policy can decide about it.

/// How many names are kept.
const MOST: usize = 32;
/// Longest part of a name that the client chose.
const LONGEST: usize = 64;

/// Names of what is not known, each once, in the order of the request. A field is named by where it stands (`messages.mood`,
/// `content.text.shade`), a type by its value (`content.type=news`). The last one is `...` where there were more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown(Vec<String>);

// === impl Unknown ===

impl Unknown {
    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether everything is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all names but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }

    /// Notes `name` at `place`, which ends in what joins them.
    pub(super) fn note(&mut self, place: &str, name: &str) {
        if self.0.len() > MOST {
            return;
        }
        let clipped = name.get(..name.floor_char_boundary(LONGEST)).unwrap_or_default();
        let clean: String = clipped.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let name = format!("{place}{clean}");
        if self.0.contains(&name) {
            return;
        }
        self.0.push(if self.0.len() == MOST { "...".to_owned() } else { name });
    }
}
