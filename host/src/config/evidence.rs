//! The `evidence:` block: what is recorded of decisions, so that they can be run again.

use serde_json::{Value, json};

use super::key::{ConfigBlock, ConfigKey, Word};
use super::node::Section;
use super::server::MAX_BODY;
use crate::evidence::{EvidenceSettings, Recording};

/// Ten years, in days.
const MAX_KEEP_DAYS: u64 = 3_650;

const RECORD: ConfigKey = ConfigKey::choice::<Recording>(
    "record",
    "`calls`: what components were asked in calls and what they answered is kept, sealed, so that it can be run again \
     ([evidence](../guide/evidence.md))",
)
.or_default::<Recording>();
const MAX_BODY_BYTES: ConfigKey = ConfigKey::number(
    "max_body_bytes",
    &(1024..=MAX_BODY as u64),
    1_048_576,
    "A call with a longer body is not recorded",
);
const KEEP_DAYS: ConfigKey =
    ConfigKey::number("keep_days", &(1..=MAX_KEEP_DAYS), 30, "Records are deleted after so many days");

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "evidence",
    &ConfigBlock {
        about: "What is recorded of decisions.",
        keys: &[RECORD, MAX_BODY_BYTES, KEEP_DAYS],
        notes: "",
    },
    "What is recorded of decisions",
);

/// Reads the block.
pub(super) fn read(top: &Section<'_>) -> EvidenceSettings {
    let section = top.block(&KEY);
    EvidenceSettings {
        record: section.choice(&RECORD),
        max_body_bytes: section.number(&MAX_BODY_BYTES),
        keep_days: section.number(&KEEP_DAYS),
    }
}

/// As `sallyport config show` prints it.
pub(super) fn show(settings: &EvidenceSettings) -> Value {
    json!({
        "record": settings.record.as_str(),
        "max_body_bytes": settings.max_body_bytes,
        "keep_days": settings.keep_days,
    })
}

impl Word for Recording {
    const ALL: &'static [Self] = &[Self::Off, Self::Calls];

    fn word(self) -> &'static str {
        self.as_str()
    }
}
