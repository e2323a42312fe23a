//! The `audit:` block: how the trail is kept until the database has it, and where else it goes.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
use super::node::{Node, Section};
use crate::audit::{AuditSettings, DEFAULT_REPLICA, Durability, Sink};

const DURABILITY: ConfigKey = ConfigKey::choice::<Durability>(
    "durability",
    "`spool`: a call counts once it is safe on the local disk; `strict`: once the database has committed it",
)
.or_default::<Durability>();
const SPOOL_DIR: ConfigKey =
    ConfigKey::text("spool_dir", "A directory on a local disk, for one gateway alone")
        .or(Absent::Text("spool"));
const MAX_BYTES: ConfigKey = ConfigKey::number(
    "max_bytes",
    &(1_048_576..=1 << 40),
    1 << 30,
    "How much the spool may hold while the database is away",
);
const MAX_AGE: ConfigKey = ConfigKey::number(
    "max_age_minutes",
    &(1..=10_080),
    60,
    "How long the gateway serves while the database is away",
);
const SIEM: ConfigKey = ConfigKey::list(
    "siem",
    &Form::Either(&[Form::Choice(stdout), Form::Mapping(&SINK)]),
    "Every row as a line of JSON: `stdout`, `{ file: PATH }`",
);
const REPLICA: ConfigKey = ConfigKey::text(
    "replica",
    "Name of this gateway in the trail; unique among those that share a database. At most 64 letters, digits, dots, dashes and \
     underscores",
)
.or(Absent::Text(DEFAULT_REPLICA));

const FILE: ConfigKey = ConfigKey::text("file", "A file to which lines are appended").required();
const SINK: ConfigBlock = ConfigBlock { about: "A sink that is a file.", keys: &[FILE], notes: "" };

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "audit",
    &ConfigBlock {
        about: "How the audit trail is kept until the database has it, and where else it goes.",
        keys: &[DURABILITY, SPOOL_DIR, MAX_BYTES, MAX_AGE, SIEM, REPLICA],
        notes: "",
    },
    "How the audit trail is kept",
);

/// The one sink that has no settings.
#[derive(Clone, Copy)]
struct Stdout;

/// Reads the block.
pub(super) fn read(top: &Section<'_>, home: &Path) -> AuditSettings {
    let section = top.block(&KEY);
    let usual = AuditSettings::new(home.join("spool"));
    AuditSettings {
        durability: section.choice(&DURABILITY),
        siem: section.items(&SIEM).iter().filter_map(|item| sink(item, home)).collect(),
        spool_dir: section.text(&SPOOL_DIR).map_or(usual.spool_dir, |text| home.join(text)),
        max_bytes: section.number(&MAX_BYTES),
        max_age: Duration::from_mins(section.number(&MAX_AGE)),
        replica: section.get(&REPLICA).and_then(|node| node.parsed(replica)).unwrap_or(usual.replica),
        chain_key: None,
    }
}

/// As `sallyport config show` prints it.
pub(super) fn show(settings: &AuditSettings) -> Value {
    let sink = |sink: &Sink| match sink {
        Sink::Stdout => json!(Stdout.word()),
        Sink::File(path) => json!({ "file": path }),
    };
    json!({
        "durability": settings.durability.word(),
        "spool_dir": settings.spool_dir,
        "max_bytes": settings.max_bytes,
        "max_age_minutes": settings.max_age.as_secs() / 60,
        "siem": settings.siem.iter().map(sink).collect::<Vec<_>>(),
        "replica": settings.replica,
    })
}

fn replica(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be at most 64 letters, digits, dots, dashes and underscores")
    }
}

fn sink(item: &Node<'_>, home: &Path) -> Option<Sink> {
    if item.value().is_string() {
        return item.choice::<Stdout>().map(|_| Sink::Stdout);
    }
    let node = item.section(&SINK).required(&FILE)?;
    Some(Sink::File(home.join(node.text()?)))
}

fn stdout() -> Vec<&'static str> {
    vec![Stdout.word()]
}

impl Word for Stdout {
    const ALL: &'static [Self] = &[Self];

    fn word(self) -> &'static str {
        "stdout"
    }
}

impl Word for Durability {
    const ALL: &'static [Self] = &[Self::Spool, Self::Strict];

    fn word(self) -> &'static str {
        match self {
            Self::Spool => "spool",
            Self::Strict => "strict",
        }
    }
}
