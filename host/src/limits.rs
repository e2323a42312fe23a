//! Every limit that a client, an upstream or a component can meet, as one table: the documentation is printed from it, so that
//! it cannot say anything else than the code. Each part of the gateway lists its own, and `app` gathers them.

use std::time::Duration;

use serde::Serialize;

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What it is called.
    pub name: &'static str,
    /// How much, in `unit`.
    pub value: u64,
    /// What is counted.
    pub unit: Unit,
    /// What happens beyond it.
    pub beyond: &'static str,
    /// Which part of the gateway keeps it.
    pub part: &'static str,
    /// The key of the configuration that changes it; empty where none does.
    pub key: &'static str,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Microseconds.
    Micros,
    /// Things.
    Count,
}

/// Limits as a table in Markdown.
pub fn markdown(limits: &[Limit]) -> String {
    let mut text = String::from("| part | limit | value | beyond it | key |\n|---|---|---|---|---|\n");
    for limit in limits {
        let key = if limit.key.is_empty() { String::new() } else { format!("`{}`", limit.key) };
        let row = [limit.part, limit.name, &limit.spelled(), limit.beyond, &key].join(" | ");
        for piece in ["| ", &row, " |\n"] {
            text.push_str(piece);
        }
    }
    text
}

// === impl Limit ===

impl Limit {
    /// A limit in bytes.
    pub(crate) fn bytes(part: &'static str, name: &'static str, value: usize, beyond: &'static str) -> Self {
        let value = u64::try_from(value).unwrap_or(u64::MAX);
        Self { name, value, unit: Unit::Bytes, beyond, part, key: "" }
    }

    /// A limit of time.
    pub(crate) fn time(
        part: &'static str,
        name: &'static str,
        value: Duration,
        beyond: &'static str,
    ) -> Self {
        let value = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        Self { name, value, unit: Unit::Micros, beyond, part, key: "" }
    }

    /// A limit of a number of things.
    pub(crate) fn count(part: &'static str, name: &'static str, value: u64, beyond: &'static str) -> Self {
        Self { name, value, unit: Unit::Count, beyond, part, key: "" }
    }

    /// The same, which a key of the configuration changes.
    #[must_use]
    pub(crate) fn set_by(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// The value for people: `32 MiB`, `20 ms`, `10,000`.
    pub fn spelled(&self) -> String {
        let whole = |steps: &[(u64, &str)]| {
            let step = steps.iter().find(|(size, _)| self.value >= *size && self.value.is_multiple_of(*size));
            step.map(|(size, unit)| format!("{} {unit}", grouped(self.value / size)))
        };
        let spelled = match self.unit {
            Unit::Bytes => whole(&[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")]),
            Unit::Micros => whole(&[(60_000_000, "min"), (1_000_000, "s"), (1_000, "ms"), (1, "\u{b5}s")]),
            Unit::Count => None,
        };
        spelled.unwrap_or_else(|| grouped(self.value))
    }
}

// === private helpers ===

/// Digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_spelled_for_people() {
        let bytes = |value| Limit::bytes("p", "n", value, "b").spelled();
        assert_eq!(bytes(32 << 20), "32 MiB");
        assert_eq!(bytes(8_000), "8,000 bytes");
        let time = |value| Limit::time("p", "n", value, "b").spelled();
        assert_eq!(time(Duration::from_millis(20)), "20 ms");
        assert_eq!(time(Duration::from_mins(5)), "5 min");
        assert_eq!(Limit::count("p", "n", 10_000, "b").spelled(), "10,000");
    }

    #[test]
    fn a_table_has_a_row_for_each_limit() {
        let limits = [Limit::count("p", "n", 3, "b"), Limit::count("p", "m", 4, "b").set_by("k")];
        let text = markdown(&limits);
        assert_eq!(
            text.lines().skip(2).collect::<Vec<_>>(),
            ["| p | n | 3 | b |  |", "| p | m | 4 | b | `k` |"]
        );
    }
}
