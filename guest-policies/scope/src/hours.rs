//! Time windows of rules: hours of the day and days of the week, at a fixed distance from UTC.

use serde::{Deserialize, Deserializer, de::Error};

/// A window of the day, on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hours {
    from: u32,
    to: u32,
    /// Monday is 0.
    days: Option<Vec<u32>>,
    offset: i32,
}

const DAY: u32 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// 1 January 1970 was a Thursday.
const FIRST_DAY: u64 = 3;

/// As written in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// `08:00`
    from: String,
    /// `18:00`; before `from`: the window ends on the next day.
    to: String,
    /// `mon` to `sun`: the days on which the window begins. Every day, if not said.
    #[serde(default)]
    days: Option<Vec<String>>,
    /// `+01:00`; UTC, if not said.
    #[serde(default)]
    utc_offset: Option<String>,
}

// === impl Hours ===

impl Hours {
    /// Whether this moment, in milliseconds since 1970, lies in the window.
    pub(crate) fn contains(&self, time_ms: u64) -> bool {
        let local = (time_ms / 60_000).saturating_add_signed(self.offset.into());
        let (day, minute) =
            (local / u64::from(DAY), u32::try_from(local % u64::from(DAY)).unwrap_or_default());
        let wraps = self.to <= self.from;
        if minute >= self.from && (wraps || minute < self.to) {
            self.on(day)
        } else {
            // The part after midnight belongs to the window that began the day before.
            wraps && minute < self.to && day.checked_sub(1).is_some_and(|day| self.on(day))
        }
    }

    fn on(&self, day: u64) -> bool {
        let weekday = u32::try_from((day + FIRST_DAY) % 7).unwrap_or_default();
        self.days.as_ref().is_none_or(|days| days.contains(&weekday))
    }

    fn checked(written: &Written) -> Result<Self, String> {
        let (from, to) = (minutes(&written.from)?, minutes(&written.to)?);
        if from == to {
            return Err("hours.from and hours.to are the same".into());
        }
        let days = match &written.days {
            None => None,
            Some(days) if days.is_empty() => return Err("hours.days is empty".into()),
            Some(days) => Some(days.iter().map(|day| weekday(day)).collect::<Result<_, _>>()?),
        };
        let offset = written.utc_offset.as_deref().map_or(Ok(0), offset)?;
        Ok(Self { from, to, days, offset })
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(&Written::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn minutes(written: &str) -> Result<u32, String> {
    let two = |digits: &str| match digits.as_bytes() {
        [b'0'..=b'9', b'0'..=b'9'] => digits.parse::<u32>().ok(),
        _ => None,
    };
    written
        .split_once(':')
        .and_then(|(hours, minutes)| Some((two(hours)?, two(minutes)?)))
        .filter(|(hours, minutes)| *minutes < 60 && hours * 60 + minutes <= DAY)
        .map(|(hours, minutes)| hours * 60 + minutes)
        .ok_or_else(|| format!("{written:?} is no time of day: it has to look like 08:30"))
}

fn weekday(written: &str) -> Result<u32, String> {
    let day = DAYS.iter().position(|day| *day == written);
    day.and_then(|day| u32::try_from(day).ok())
        .ok_or_else(|| format!("{written:?} is no day: mon, tue, wed, thu, fri, sat and sun are"))
}

fn offset(written: &str) -> Result<i32, String> {
    let sign = |rest: &str, sign: i32| Some(sign * i32::try_from(minutes(rest).ok()?).ok()?);
    let east = written.strip_prefix('+').and_then(|rest| sign(rest, 1));
    let offset = east.or_else(|| written.strip_prefix('-').and_then(|rest| sign(rest, -1)));
    offset.ok_or_else(|| format!("{written:?} is no distance from UTC: it has to look like +01:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 5 January 2026, 00:00 UTC.
    const MONDAY: u64 = 1_767_571_200_000;
    const HOUR: u64 = 3_600_000;

    fn hours(json: &str) -> Result<Hours, String> {
        sallyport_guest_sdk::testing::configured(json, Ok)
    }

    #[test]
    fn office_hours_hold_from_the_first_minute_up_to_the_last() {
        let office = hours(r#"{"from":"08:00","to":"18:00","days":["mon","fri"]}"#).unwrap();
        assert!(office.contains(MONDAY + 8 * HOUR));
        assert!(office.contains(MONDAY + 18 * HOUR - 1));
        assert!(!office.contains(MONDAY + 8 * HOUR - 1));
        assert!(!office.contains(MONDAY + 18 * HOUR));
        assert!(!office.contains(MONDAY + 24 * HOUR + 9 * HOUR));
        assert!(office.contains(MONDAY + 4 * 24 * HOUR + 9 * HOUR));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = hours(r#"{"from":"22:00","to":"06:00","days":["mon"]}"#).unwrap();
        assert!(night.contains(MONDAY + 23 * HOUR));
        assert!(night.contains(MONDAY + 24 * HOUR + 5 * HOUR));
        assert!(!night.contains(MONDAY + 5 * HOUR));
        assert!(!night.contains(MONDAY + 24 * HOUR + 23 * HOUR));
    }

    #[test]
    fn the_window_moves_with_the_distance_from_utc() {
        let east = hours(r#"{"from":"00:00","to":"24:00","days":["mon"],"utc_offset":"+05:30"}"#).unwrap();
        assert!(east.contains(MONDAY - 5 * HOUR));
        assert!(!east.contains(MONDAY + 19 * HOUR));
        let west = hours(r#"{"from":"00:00","to":"24:00","days":["mon"],"utc_offset":"-08:00"}"#).unwrap();
        assert!(!west.contains(MONDAY + 7 * HOUR));
        assert!(west.contains(MONDAY + 31 * HOUR));
    }

    #[test]
    fn a_window_that_makes_no_sense_is_refused() {
        for json in [
            r#"{"from":"8:00","to":"18:00"}"#,
            r#"{"from":"08:00","to":"25:00"}"#,
            r#"{"from":"08:00","to":"08:60"}"#,
            r#"{"from":"08:00","to":"08:00"}"#,
            r#"{"from":"+8:00","to":"09:00"}"#,
            r#"{"from":"08:00","to":"09:00","days":[]}"#,
            r#"{"from":"08:00","to":"09:00","days":["Monday"]}"#,
            r#"{"from":"08:00","to":"09:00","utc_offset":"CET"}"#,
            r#"{"from":"08:00","to":"09:00","zone":"CET"}"#,
        ] {
            assert!(hours(json).is_err(), "{json}");
        }
    }
}
