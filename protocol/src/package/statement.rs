//! What a publisher signs about a component.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;

use super::capability::Capability;
use super::credential::CredentialForm;
use super::fact::Fact;

/// Most paths that an upstream may name.
const MAX_PATHS: usize = 16;
/// Most facts that a policy may say it reads.
const MAX_FACTS: usize = 64;

/// The signed statement about a component. JSON with exactly these members; empty lists and absent limits may
/// be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// `namespace/name`
    pub name: Name,
    /// The publisher's version of it, for people.
    pub version: semver::Version,
    /// Rises with every release; what decides which of two releases is the later one. At most 2^53 - 1.
    pub serial: u64,
    /// What it is.
    pub kind: Kind,
    /// The WIT world it was built against: `policy@0.1.0`.
    pub world: World,
    /// SHA-256 of its exact bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The events it wants, for hooks; empty for every other kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<HookEvent>,
    /// Capabilities it asks for; each needs an admin's grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// For policies: the facts of a call that it reads. It is told nothing else, and what it said is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Vec<Fact>>,
    /// Limits it is content with, at most those of the host.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// For providers: the upstream that it adapts; none where it answers by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// For providers: how the upstream takes a credential; `bearer` if not said. A route may say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialForm>,
    /// The lowest version of the host it runs on.
    pub min_host: semver::Version,
    /// From when it may be accepted (RFC 3339).
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// From when it may be accepted no longer (RFC 3339).
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
}

/// What the gateway has to know of the upstream that a provider adapts, before it asks the provider anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Paths that the vendor's documents give as the API's address (`/v1/messages`): a route's `endpoint` may end in one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// What it has of the Messages API besides messages, at the paths and in the shapes of Anthropic's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apis: Vec<UpstreamApi>,
}

/// A part of Anthropic's API that the gateway itself hands through, where the upstream has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamApi {
    /// `/v1/messages/batches`
    Batches,
    /// `/v1/files`
    Files,
}

/// Limits a component is content with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Linear memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPU time of one call in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u32>,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Adapts an upstream.
    Provider,
    /// Allows, denies or asks.
    Policy,
    /// Looks at texts.
    Scanner,
    /// Answers lifecycle events.
    Hook,
    /// Says whether a route takes a call.
    Predicate,
}

/// The ten lifecycle events, by the names that Claude Code gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HookEvent {
    /// A session began.
    SessionStart,
    /// A session ended.
    SessionEnd,
    /// The user sent a prompt.
    UserPromptSubmit,
    /// The model wants to use a tool.
    PreToolUse,
    /// A tool answered.
    PostToolUse,
    /// A tool failed.
    PostToolUseFailure,
    /// The client notified its user.
    Notification,
    /// The model finished its turn.
    Stop,
    /// A subagent began.
    SubagentStart,
    /// A subagent ended.
    SubagentStop,
}

/// A component's name: `namespace/name`, each 1 to 64 of `a-z`, `0-9`, `-`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A WIT world and its version: `policy@0.1.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// `policy`
    pub name: String,
    /// `0.1.0`
    pub version: semver::Version,
}

/// `sha256:<64 hex>` of a component's exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// Why a statement, or a part of one, makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not `namespace/name`.
    #[error("a component is named namespace/name, in lower-case letters, digits and hyphens")]
    Name,
    /// Not `sha256:` and 64 hex digits.
    #[error("a digest is sha256: and 64 lower-case hex digits")]
    Digest,
    /// Not `name@version`.
    #[error("a world is written name@version")]
    World,
    /// The world belongs to another kind.
    #[error("a {kind} is not built against the world {world}")]
    WorldOfAnotherKind {
        /// The component's kind.
        kind: Kind,
        /// Its world.
        world: String,
    },
    /// A hook without events, or events of what is no hook.
    #[error("a hook names its events, and nothing else does")]
    Events,
    /// What is no policy says what it reads, or a policy that settles does, or it reads more than there is.
    #[error("only a policy says what it reads, at most 64 facts, and none that settles")]
    Reads,
    /// An event, a capability or a fact stands there twice.
    #[error("{0} stands there twice")]
    Twice(String),
    /// What is no provider names an upstream.
    #[error("only a provider names an upstream")]
    Upstream,
    /// A path of the upstream does not begin with `/`, is not plain, or is one too many.
    #[error("paths of an upstream are at most 16, begin with / and are plain")]
    UpstreamPath,
    /// What is no provider says how a credential is sent.
    #[error("only a provider says how a credential is sent")]
    Credential,
    /// It expires before it is valid.
    #[error("it expires before it is valid")]
    Lifetime,
    /// A size of no bytes, a limit of zero, or a serial beyond 2^53 - 1.
    #[error("{0} is out of range")]
    Range(&'static str),
}

// === impl Statement ===

impl Statement {
    /// Checks what the types alone do not: that the parts agree. Errors: see [`StatementError`].
    pub fn check(&self) -> Result<(), StatementError> {
        if self.world.name != self.kind.as_str() {
            return Err(StatementError::WorldOfAnotherKind {
                kind: self.kind,
                world: self.world.to_string(),
            });
        }
        if (self.kind == Kind::Hook) == self.events.is_empty() {
            return Err(StatementError::Events);
        }
        if let Some(twice) = twice(&self.events) {
            return Err(StatementError::Twice(twice.as_str().to_owned()));
        }
        if let Some(twice) = twice(&self.capabilities) {
            return Err(StatementError::Twice(twice.to_string()));
        }
        if let Some(reads) = &self.reads {
            let settles = self.capabilities.contains(&Capability::Settle);
            if self.kind != Kind::Policy || settles || reads.len() > MAX_FACTS {
                return Err(StatementError::Reads);
            }
            if let Some(twice) = twice(reads) {
                return Err(StatementError::Twice(twice.to_string()));
            }
        }
        if let Some(upstream) = &self.upstream {
            if self.kind != Kind::Provider {
                return Err(StatementError::Upstream);
            }
            if upstream.paths.len() > MAX_PATHS || !upstream.paths.iter().all(|path| is_plain_path(path)) {
                return Err(StatementError::UpstreamPath);
            }
            if let Some(twice) = twice(&upstream.apis) {
                return Err(StatementError::Twice(twice.as_str().to_owned()));
            }
        }
        if self.credential.is_some() && self.kind != Kind::Provider {
            return Err(StatementError::Credential);
        }
        if self.expires <= self.not_before {
            return Err(StatementError::Lifetime);
        }
        if self.serial > crate::strict_json::MAX_INTEGER {
            return Err(StatementError::Range("serial"));
        }
        if self.size == 0 {
            return Err(StatementError::Range("size"));
        }
        if self.limits.memory_bytes == Some(0) {
            return Err(StatementError::Range("limits.memory_bytes"));
        }
        if self.limits.cpu_ms == Some(0) {
            return Err(StatementError::Range("limits.cpu_ms"));
        }
        Ok(())
    }
}

// === impl UpstreamApi ===

impl UpstreamApi {
    /// As it stands in statements.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batches => "batches",
            Self::Files => "files",
        }
    }
}

// === impl Limits ===

impl Limits {
    /// Whether it names no limit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Provider, Self::Policy, Self::Scanner, Self::Hook, Self::Predicate];

    /// As it stands in statements, and as its world is named.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Policy => "policy",
            Self::Scanner => "scanner",
            Self::Hook => "hook",
            Self::Predicate => "predicate",
        }
    }

    /// The kind with this name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl HookEvent ===

impl HookEvent {
    /// Every event.
    pub const ALL: [Self; 10] = [
        Self::SessionStart,
        Self::SessionEnd,
        Self::UserPromptSubmit,
        Self::PreToolUse,
        Self::PostToolUse,
        Self::PostToolUseFailure,
        Self::Notification,
        Self::Stop,
        Self::SubagentStart,
        Self::SubagentStop,
    ];

    /// As it stands in statements and in what clients report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "SessionStart",
            Self::SessionEnd => "SessionEnd",
            Self::UserPromptSubmit => "UserPromptSubmit",
            Self::PreToolUse => "PreToolUse",
            Self::PostToolUse => "PostToolUse",
            Self::PostToolUseFailure => "PostToolUseFailure",
            Self::Notification => "Notification",
            Self::Stop => "Stop",
            Self::SubagentStart => "SubagentStart",
            Self::SubagentStop => "SubagentStop",
        }
    }

    /// The event with this name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == text)
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Name ===

impl Name {
    /// Checks `text`. Errors: [`StatementError::Name`].
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let (namespace, name) = text.split_once('/').ok_or(StatementError::Name)?;
        if is_label(namespace) && is_label(name) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StatementError::Name)
        }
    }

    /// `namespace/name`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `/`.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the `/`.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

// === impl World ===

impl World {
    /// Checks `text`. Errors: [`StatementError::World`].
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let (name, version) = text.split_once('@').ok_or(StatementError::World)?;
        let version = semver::Version::parse(version).map_err(|_| StatementError::World)?;
        if is_label(name) { Ok(Self { name: name.to_owned(), version }) } else { Err(StatementError::World) }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

// === impl Digest ===

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crate::canonical::sha256(bytes))
    }

    /// Checks `text`. Errors: [`StatementError::Digest`].
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let hex = text.strip_prefix("sha256:").ok_or(StatementError::Digest)?;
        let fine = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fine { Ok(Self(text.to_owned())) } else { Err(StatementError::Digest) }
    }

    /// `sha256:<64 hex>`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits alone.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
text!(Name);
text!(Digest);

macro_rules! wire {
    ($name:ident) => {
        impl std::str::FromStr for $name {
            type Err = StatementError;
            fn from_str(text: &str) -> Result<Self, StatementError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
wire!(Name);
wire!(World);
wire!(Digest);

fn is_label(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(fine) && !text.starts_with('-')
}

/// `/a/b`: segments of letters, digits, `-`, `_`, `.` and `:`, none of them empty or made of dots alone.
fn is_plain_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    let segment = |part: &str| part.bytes().all(plain) && part.bytes().any(|b| b != b'.');
    path.len() <= 128 && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

fn twice<T: PartialEq>(items: &[T]) -> Option<&T> {
    items
        .iter()
        .enumerate()
        .find(|(position, item)| items.iter().take(*position).any(|i| i == *item))
        .map(|(_, item)| item)
}
