//! Which names a component of each kind may import and must export.

use sallyport_protocol::package::{CONFIGURABLE, CONTRACT, Kind};
use serde::{Deserialize, Serialize};

use super::inspect::Structure;

/// The version of the contract that this host speaks; a component may be built against any `0.1.x`.
const COMPATIBLE: &str = "0.1.";
/// The version of the contract that this host was built with.
pub const VERSION: &str = "0.1.0";

/// Stubbed WASI 0.2 interfaces: what they give is empty, frozen or seeded. Sockets and HTTP are not among them.
const INERT: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// What a component needs besides what every component of its kind gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// The inert system interfaces.
    pub inert: bool,
    /// An egress grant.
    pub egress: bool,
}

/// Why a component does not fit its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// It wants what its world does not give.
    #[error("a {kind} may not import {import}")]
    Import {
        /// Its kind.
        kind: Kind,
        /// What it wants.
        import: String,
    },
    /// It does not do what its kind does.
    #[error("a {kind} must export {missing}, this component exports {found}")]
    Export {
        /// Its kind.
        kind: Kind,
        /// What is missing.
        missing: String,
        /// What is there instead.
        found: String,
    },
}

/// Checks the names against the kind. Some languages import all that a world offers, used or not: an import is no request, and
/// what a package does not declare is not granted.
pub fn check(kind: Kind, structure: &Structure) -> Result<Needs, WorldError> {
    let mut needs = Needs::default();
    for import in &structure.imports {
        if is_inert(import) {
            needs.inert = true;
        } else if kind.granted_imports().iter().any(|interface| is_ours(import, interface)) {
            needs.egress = true;
        } else if !kind.imports().iter().any(|interface| is_ours(import, interface)) {
            return Err(WorldError::Import { kind, import: import.clone() });
        }
    }
    for interface in [CONFIGURABLE, kind.api()] {
        if !structure.exports.iter().any(|export| is_ours(export, interface)) {
            return Err(WorldError::Export {
                kind,
                missing: format!("{CONTRACT}{interface}@{COMPATIBLE}x"),
                found: listed(&structure.exports),
            });
        }
    }
    Ok(needs)
}

/// The kind whose interface a component exports, if it exports that of exactly one.
pub fn kind_of(structure: &Structure) -> Option<Kind> {
    let exports = |kind: &Kind| structure.exports.iter().any(|export| is_ours(export, kind.api()));
    let mut kinds = Kind::ALL.into_iter().filter(exports);
    kinds.next().filter(|_| kinds.next().is_none())
}

/// The export that holds `configure`.
pub(crate) fn configurable(structure: &Structure) -> &str {
    structure.exports.iter().find(|export| is_ours(export, CONFIGURABLE)).map_or("", String::as_str)
}

// === private helpers ===

fn is_ours(name: &str, interface: &str) -> bool {
    let Some((path, version)) = name.split_once('@') else { return false };
    path.strip_prefix(CONTRACT) == Some(interface) && version.starts_with(COMPATIBLE)
}

fn is_inert(name: &str) -> bool {
    name.split_once('@').is_some_and(|(path, version)| INERT.contains(&path) && version.starts_with("0.2."))
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(imports: &[&str], exports: &[&str]) -> Structure {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Structure { imports: owned(imports), exports: owned(exports), ..Structure::default() }
    }

    const POLICY: [&str; 2] = ["sallyport:gateway/configurable@0.1.0", "sallyport:gateway/policy-api@0.1.0"];
    const SCANNER: [&str; 2] =
        ["sallyport:gateway/configurable@0.1.3", "sallyport:gateway/scanner-api@0.1.3"];

    #[test]
    fn a_policy_may_count_and_note() {
        let imports = [
            "sallyport:gateway/types@0.1.0",
            "sallyport:gateway/counters@0.1.7",
            "sallyport:gateway/evidence@0.1.0",
        ];
        assert_eq!(check(Kind::Policy, &structure(&imports, &POLICY)), Ok(Needs::default()));
    }

    #[test]
    fn egress_is_for_hooks() {
        let egress = ["sallyport:gateway/egress@0.1.0"];
        let hook = ["sallyport:gateway/configurable@0.1.0", "sallyport:gateway/hook-api@0.1.0"];
        let fits = check(Kind::Hook, &structure(&egress, &hook));
        assert_eq!(fits, Ok(Needs { inert: false, egress: true }));
        let error = check(Kind::Policy, &structure(&egress, &POLICY)).unwrap_err();
        assert_eq!(error.to_string(), "a policy may not import sallyport:gateway/egress@0.1.0");
    }

    #[test]
    fn a_scanner_may_import_nothing_of_the_gateway() {
        let error =
            check(Kind::Scanner, &structure(&["sallyport:gateway/types@0.1.0"], &SCANNER)).unwrap_err();
        assert_eq!(error.to_string(), "a scanner may not import sallyport:gateway/types@0.1.0");
        let furnished = check(Kind::Scanner, &structure(&["wasi:cli/stderr@0.2.6"], &SCANNER));
        assert_eq!(furnished, Ok(Needs { inert: true, egress: false }));
    }

    #[test]
    fn sockets_http_and_what_nobody_knows_are_refused_by_name() {
        for import in [
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:filesystem/types@0.3.0",
            "sallyport:gateway/secrets@0.1.0",
            "sallyport:gateway/types@0.2.0",
            "sallyport:gateway/types",
            "evil:corp/types@0.1.0",
        ] {
            let error = check(Kind::Policy, &structure(&[import], &POLICY)).unwrap_err();
            assert_eq!(error, WorldError::Import { kind: Kind::Policy, import: import.to_owned() });
        }
    }

    #[test]
    fn a_component_of_another_kind_is_refused_with_what_it_exports() {
        let error = check(Kind::Provider, &structure(&[], &POLICY)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a provider must export sallyport:gateway/provider-api@0.1.x, this component exports \
             sallyport:gateway/configurable@0.1.0, sallyport:gateway/policy-api@0.1.0"
        );
    }
}
