//! A bundle: the ordered set of components and configurations in force, and the hash that is its policy version.

use std::collections::BTreeMap;
use std::sync::Arc;

use sallyport_protocol::canonical;
use sallyport_protocol::id::PolicyVersion;
use sallyport_protocol::package::Kind;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admit::Component;

/// What is done with what a component says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// It is asked, and what it says is recorded.
    Shadow,
    /// It is not asked.
    Off,
}

/// A component in its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which one.
    pub component: Arc<Component>,
    /// What is done with what it says.
    pub mode: Mode,
}

/// What is in force for a tenant.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Hash over everything below, in order.
    pub version: PolicyVersion,
    /// Policies, in the order in which they are asked.
    pub policies: Vec<Entry>,
    /// Scanners, in the order in which they are asked.
    pub scanners: Vec<Entry>,
    /// Hooks, in the order in which they are told.
    pub hooks: Vec<Entry>,
    /// Providers, by the tag that routes name.
    pub providers: BTreeMap<String, Arc<Component>>,
}

// === impl Mode ===

impl Mode {
    /// As it stands in configuration and audit rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

// === impl Bundle ===

impl Bundle {
    /// Nothing in force.
    pub fn empty() -> Self {
        Self::assemble(&[], BTreeMap::new())
    }

    /// Sorts `entries` by kind, keeping their order within it, and names the result by its hash. A provider among `entries`
    /// is ignored: providers have tags.
    pub fn assemble(entries: &[Entry], providers: BTreeMap<String, Arc<Component>>) -> Self {
        let of =
            |kind| entries.iter().filter(|entry| entry.component.kind() == kind).cloned().collect::<Vec<_>>();
        let (policies, scanners, hooks) = (of(Kind::Policy), of(Kind::Scanner), of(Kind::Hook));
        let version = version(&[&policies, &scanners, &hooks], &providers);
        Self { version, policies, scanners, hooks, providers }
    }
}

// === private helpers ===

fn version(entries: &[&Vec<Entry>], providers: &BTreeMap<String, Arc<Component>>) -> PolicyVersion {
    let component = |component: &Component, place: &str| {
        json!({
            "kind": component.kind().as_str(),
            "name": component.name(),
            "version": component.version().to_string(),
            "digest": component.digest(),
            "config": component.config_digest(),
            "place": place,
        })
    };
    let mut all: Vec<_> = entries
        .iter()
        .flat_map(|entries| entries.iter())
        .map(|entry| component(&entry.component, entry.mode.as_str()))
        .collect();
    all.extend(providers.iter().map(|(tag, provider)| component(provider, tag)));
    PolicyVersion::parse(&canonical::digest(&all.into())).unwrap_or_else(|_| PolicyVersion::unversioned())
}
