//! What a translation dropped or approximated, for the audit row. Equal losses are one entry with a count, so that a
//! long conversation does not fill the audit row.

use std::fmt::Display;

use sallyport_guest_sdk::provider::Loss;

use crate::json::Field;

/// Losses of one request, in the order they were met.
#[derive(Debug, Default)]
pub struct Losses {
    entries: Vec<Entry>,
    /// Losses beyond [`LIMIT`] different ones.
    more: u32,
}

#[derive(Debug)]
struct Entry {
    field: String,
    how: &'static str,
    count: u32,
}

/// Different losses named one by one; a client invents as many field names as it likes.
const LIMIT: usize = 48;
/// The longest field path kept.
const LONGEST: usize = 160;

// === impl Losses ===

impl Losses {
    /// Records that `field` was not carried over as it was. Fields that differ in their indices only are counted
    /// under the first of them.
    pub fn add(&mut self, field: impl Display, how: &'static str) {
        let mut field = field.to_string();
        if let Some(entry) = self.entries.iter_mut().find(|it| it.how == how && same_shape(&it.field, &field))
        {
            entry.count = entry.count.saturating_add(1);
        } else if self.entries.len() < LIMIT {
            if let Some((end, _)) = field.char_indices().nth(LONGEST) {
                field.truncate(end);
            }
            self.entries.push(Entry { field, how, count: 1 });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Records each of these fields of the object at `path` as dropped; the body is at no path, which is an empty text.
    pub fn dropped(&mut self, path: impl Display, fields: &[Field<'_>]) {
        if fields.is_empty() {
            return;
        }
        let path = path.to_string();
        let dot = if path.is_empty() { "" } else { "." };
        for Field { name, .. } in fields {
            self.add(format!("{path}{dot}{name}"), "dropped");
        }
    }

    /// The entries for the audit row.
    pub fn into_losses(self) -> Vec<Loss> {
        let more = self.more;
        let mut losses: Vec<Loss> = self
            .entries
            .into_iter()
            .map(|Entry { field, how, count }| Loss {
                field,
                how: if count == 1 { how.to_owned() } else { format!("{how} ({count} times)") },
            })
            .collect();
        if more > 0 {
            losses.push(Loss { field: "*".to_owned(), how: format!("{more} further losses") });
        }
        losses
    }
}

/// Whether two paths are equal but for the numbers in their brackets.
fn same_shape(a: &str, b: &str) -> bool {
    a == b || (a.contains('[') && shape(a).eq(shape(b)))
}

fn shape(path: &str) -> impl Iterator<Item = u8> + '_ {
    let mut inside = false;
    path.bytes().filter(move |byte| {
        match byte {
            b'[' => inside = true,
            b']' => inside = false,
            _ => {}
        }
        !(inside && byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::Losses;

    #[test]
    fn losses_that_differ_in_their_indices_are_one_entry_with_a_count() {
        let mut losses = Losses::default();
        losses.add("messages[1].content[0].cache_control", "dropped");
        losses.add("messages[14].content[2].cache_control", "dropped");
        losses.add("top_k", "dropped");
        let losses = losses.into_losses();
        assert_eq!(losses.len(), 2);
        assert_eq!(losses[0].field, "messages[1].content[0].cache_control");
        assert_eq!(losses[0].how, "dropped (2 times)");
        assert_eq!(losses[1].how, "dropped");
    }

    #[test]
    fn a_client_that_invents_fields_does_not_fill_the_row() {
        let mut losses = Losses::default();
        for n in 0..1000 {
            losses.add(format!("x{n}"), "dropped");
        }
        let losses = losses.into_losses();
        assert_eq!(losses.len(), super::LIMIT + 1);
        assert_eq!(losses.last().map(|it| it.how.as_str()), Some("952 further losses"));
    }
}
