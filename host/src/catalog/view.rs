//! What administrators are shown of a catalog: the shapes of the answers, of which the reference is printed.

use std::collections::BTreeMap;

use sallyport_protocol::hooks::OnFault;
use sallyport_protocol::package::Kind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;

use super::place::HookAttachment;
use crate::component::Mode;
use crate::db::catalog::RevocationKind;

/// Every component of a catalog.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ComponentList {
    /// By name.
    pub components: Vec<ListedComponent>,
    /// What the catalog holds.
    pub usage: CatalogUsage,
}

/// A component, in short.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListedComponent {
    /// `namespace/name`
    pub name: String,
    /// What it is.
    #[schemars(schema_with = "kind")]
    pub kind: String,
    /// Its place in bundles; null before its first step.
    pub place: Option<ComponentPlace>,
    /// In the order in which they were uploaded.
    pub versions: Vec<ComponentVersion>,
}

/// A component: its versions, its place, what it may do, and what the newest release wants besides.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ShownComponent {
    /// `namespace/name`
    pub name: String,
    /// What it is.
    #[schemars(schema_with = "kind")]
    pub kind: String,
    /// Its place in bundles; null before its first step.
    pub place: Option<ComponentPlace>,
    /// In the order in which they were uploaded.
    pub versions: Vec<ComponentVersion>,
    /// What it was granted.
    pub grants: Vec<ShownGrant>,
    /// What the newest release asks for.
    pub newest: NewestRelease,
}

/// A component's place in bundles.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ComponentPlace {
    /// Lower numbers are asked first; of equal ones the name decides.
    pub order: i32,
    /// For hooks: how it is attached to events.
    pub attachment: HookAttachment,
    /// Rises with every step.
    pub revision: i64,
    /// What is in force.
    pub active: Option<ActiveRelease>,
    /// What is tried.
    pub trial: Option<TriedRelease>,
    /// Versions that were in force before, the last one last.
    pub previous: Vec<String>,
}

/// A release that is in force.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ActiveRelease {
    /// The publisher's version.
    pub version: String,
    /// What is done with what it says.
    #[schemars(schema_with = "mode")]
    pub mode: Mode,
    /// What `configure` got.
    pub config: Value,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// Whether it was put there again after a later one.
    pub rolled_back: bool,
}

/// A release that is tried.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TriedRelease {
    /// How far the trial is: `shadow` or `canary`.
    pub stage: VersionStage,
    /// Of a hundred users, for a canary.
    pub percent: Option<u8>,
    /// The publisher's version.
    pub version: String,
    /// What is done with what it says.
    #[schemars(schema_with = "mode")]
    pub mode: Mode,
    /// What `configure` got.
    pub config: Value,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// A version, and where it is in its life.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ComponentVersion {
    /// The publisher's version.
    pub version: String,
    /// The publisher's serial.
    pub serial: i64,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Where it is in its life.
    pub stage: VersionStage,
    /// When it was uploaded.
    #[schemars(extend("format" = "date-time"))]
    pub uploaded_at: String,
    /// By whom.
    pub uploaded_by: String,
    /// What a vendor's provider was shown to carry of the Messages API, level by level, under its configuration in force or on trial, else under
    /// none; null where that was not tried, or another edition of the corpus was.
    pub levels: Option<BTreeMap<String, String>>,
}

/// Where a version is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum VersionStage {
    /// It is there, and nobody asks it.
    Staged,
    /// It is asked beside what is in force, and decides nothing.
    Shadow,
    /// It is in force for a share of users.
    Canary,
    /// It is in force.
    Active,
    /// It was in force.
    Superseded,
}

/// A capability that was granted.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ShownGrant {
    /// `egress:<name>`, `rewrite`, `settle`.
    pub capability: String,
    /// When it was granted.
    #[schemars(extend("format" = "date-time"))]
    pub granted_at: String,
    /// By whom.
    pub granted_by: String,
    /// Until when; null: without end.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
}

/// What the newest release of a component asks for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NewestRelease {
    /// The publisher's version.
    pub version: String,
    /// What it asks for besides its world.
    pub capabilities: Vec<String>,
    /// For hooks: which events it wants to know of.
    pub events: Vec<String>,
    /// What it asks for, and the one in force does not.
    pub added_capabilities: Vec<String>,
    /// What the one in force asks for, and it does not.
    pub dropped_capabilities: Vec<String>,
    /// What has to be granted before it can be put in force.
    pub needs_grant: Vec<String>,
}

/// What a catalog holds, and may hold.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CatalogUsage {
    /// Bytes of packages.
    pub bytes: i64,
    /// Versions of components, all together.
    pub versions: i64,
    /// How many bytes it may hold; null: the platform's has no such limit.
    pub max_bytes: Option<u64>,
    /// How many versions it may hold; null: the platform's has no such limit.
    pub max_versions: Option<u32>,
}

/// A version that was deleted.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DeletedVersion {
    /// `namespace/name`
    pub name: String,
    /// The version.
    pub deleted: String,
    /// What the catalog holds now.
    pub usage: CatalogUsage,
}

/// The publishers of a catalog.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PublisherList {
    /// One for each key and namespace.
    pub publishers: Vec<ShownPublisher>,
}

/// A key that is trusted.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ShownPublisher {
    /// Its id.
    pub key: String,
    /// The key itself.
    pub public_key: String,
    /// Which namespace it may sign.
    pub namespace: String,
    /// Which kinds it may sign.
    #[schemars(schema_with = "kinds")]
    pub kinds: Vec<String>,
    /// Whose it is, in words.
    pub label: String,
    /// Since when it is trusted.
    #[schemars(extend("format" = "date-time"))]
    pub trusted_at: String,
    /// By whom.
    pub trusted_by: String,
    /// Until when; null: without end.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
}

/// What was revoked.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RevocationList {
    /// One for each.
    pub revocations: Vec<ShownRevocation>,
}

/// A revocation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ShownRevocation {
    /// What it names.
    #[schemars(schema_with = "revocation")]
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// When.
    #[schemars(extend("format" = "date-time"))]
    pub revoked_at: String,
    /// By whom.
    pub revoked_by: String,
}

/// What was revoked just now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NewlyRevoked {
    /// What it names.
    #[schemars(schema_with = "revocation")]
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// Why.
    pub reason: String,
}

// === private helpers ===

/// A kind of component.
fn kind(_: &mut SchemaGenerator) -> Schema {
    words(&Kind::ALL.map(Kind::as_str))
}

/// Kinds of components.
pub fn kinds(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": kind(generator) })
}

/// A mode.
pub fn mode(_: &mut SchemaGenerator) -> Schema {
    words(&[Mode::Enforce, Mode::Shadow, Mode::Off].map(Mode::as_str))
}

/// What becomes of an event that a hook does not answer; null: what is usual for the event.
pub(super) fn on_fault(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": [OnFault::Block, OnFault::Continue, null] })
}

fn revocation(_: &mut SchemaGenerator) -> Schema {
    let all = [RevocationKind::Digest, RevocationKind::Version, RevocationKind::Key];
    words(&all.map(RevocationKind::as_str))
}

fn words(words: &[&str]) -> Schema {
    json_schema!({ "type": "string", "enum": words })
}
