//! The day from which a price holds, as it is written: `2026-12-01`.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};
use time::{Date, Month};

/// A day as it is written; `None` for every other text, and for days that no calendar has.
pub(super) fn parse(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !plain(year, 4) || !plain(month, 2) || !plain(day, 2) {
        return None;
    }
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a field over like this"
)]
pub(super) fn serialize<S: Serializer>(day: &Option<Date>, to: S) -> Result<S::Ok, S::Error> {
    match day {
        None => to.serialize_none(),
        Some(day) => {
            to.serialize_str(&format!("{:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day()))
        }
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(from)?;
    let bad = || D::Error::custom(format!("`from` is no day of the form 2026-12-01: {text:?}"));
    parse(&text).map(Some).ok_or_else(bad)
}
