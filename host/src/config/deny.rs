//! The `deny:` block: how a denial is told to the client.

use serde_json::{Value, json};

use super::key::{ConfigBlock, ConfigKey, Word};
use super::node::Section;

const STATUS: ConfigKey = ConfigKey::choice::<DenyStatus>(
    "status",
    "How a policy's denial is told to the client: `451` (clients show it once), `403`, `400`, or `answer` (a normal reply that \
     names the policy)",
)
.or_default::<DenyStatus>();

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "deny",
    &ConfigBlock { about: "What a client sees of a policy's denial.", keys: &[STATUS], notes: "" },
    "What a client sees of a policy's denial",
);

/// The `deny:` block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deny {
    /// How a denial is told to the client.
    pub status: DenyStatus,
}

/// How a denial is told to the client: `deny.status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DenyStatus {
    /// 451: clients show it once and do not try again.
    #[default]
    S451,
    /// 403.
    S403,
    /// 400.
    S400,
    /// A normal answer of one block that names the policy.
    Answer,
}

// === impl Deny ===

impl Deny {
    /// Reads the block.
    pub(super) fn read(top: &Section<'_>) -> Self {
        Self { status: top.block(&KEY).choice(&STATUS) }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(self) -> Value {
        json!({ "status": self.status.as_str() })
    }
}

// === impl DenyStatus ===

impl DenyStatus {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S451 => "451",
            Self::S403 => "403",
            Self::S400 => "400",
            Self::Answer => "answer",
        }
    }
}

impl Word for DenyStatus {
    const ALL: &'static [Self] = &[Self::S451, Self::S403, Self::S400, Self::Answer];

    fn word(self) -> &'static str {
        self.as_str()
    }
}
