//! `--since`: a time, or how long ago.

use anyhow::{Context as _, bail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::clean;

/// The time that `text` names.
pub(super) fn since(text: &str, now: OffsetDateTime) -> anyhow::Result<OffsetDateTime> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(at);
    }
    let hint = "a time like 2026-04-01T00:00:00Z, or how long ago: 30m, 24h, 7d";
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => bail!("--since {} is not {hint}", clean(text)),
    };
    let count: i64 = text
        .get(..text.len() - 1)
        .and_then(|count| count.parse().ok())
        .with_context(|| format!("--since {} is not {hint}", clean(text)))?;
    let ago = time::Duration::seconds(count.saturating_mul(unit));
    now.checked_sub(ago).with_context(|| format!("--since {} is too long ago", clean(text)))
}
