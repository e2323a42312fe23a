//! The `hooks:` block: when a session has ended.

use std::time::Duration;

use serde_json::{Value, json};

use super::key::{ConfigBlock, ConfigKey};
use super::node::Section;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

const SESSION_IDLE: ConfigKey = ConfigKey::number(
    "session_idle_seconds",
    &(1..=DAY),
    30 * MINUTE,
    "A session that was silent for so long has ended (`SessionEnd`)",
);

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "hooks",
    &ConfigBlock {
        about: "What holds for all [hooks](../guide/hooks.md).",
        keys: &[SESSION_IDLE],
        notes: "",
    },
    "What holds for all hooks",
);

/// The `hooks:` block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookSettings {
    /// How long a session may be silent before its end is told to hooks.
    pub session_idle: Duration,
}

// === impl HookSettings ===

impl HookSettings {
    /// Reads the block.
    pub(super) fn read(top: &Section<'_>) -> Self {
        Self { session_idle: top.block(&KEY).seconds(&SESSION_IDLE) }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(self) -> Value {
        json!({ "session_idle_seconds": self.session_idle.as_secs() })
    }
}
