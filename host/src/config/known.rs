//! Names of components that may stand in the file: those of the packages inside the binary, and of the packages that the file lists.
//! What a component is, and whether it needs an upstream, is what its own package says.

use std::collections::BTreeSet;
use std::path::Path;

use sallyport_protocol::package::{Kind, Name, Package, Statement};

use super::node::Node;
use crate::shipped::statements;

/// The namespace of the components that ship with the gateway.
pub(super) const OWN_NAMESPACE: &str = "sallyport";

/// Names that may stand in the file.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Tags of providers, and full names of those that do not ship with the gateway.
    providers: BTreeSet<String>,
    /// What a bundle may hold. A provider in the bundle is configured there.
    components: BTreeSet<String>,
    /// Predicates.
    predicates: BTreeSet<String>,
    /// Those among `providers` that ship with the gateway.
    shipped_providers: BTreeSet<String>,
    /// Those among `providers` that adapt an upstream: their routes need its address.
    with_upstream: BTreeSet<String>,
    /// Paths in which the address of an upstream may end.
    paths: BTreeSet<String>,
}

// === impl Known ===

impl Known {
    /// What ships with the gateway.
    pub(super) fn shipped() -> Self {
        let mut known = Self::default();
        for statement in statements() {
            if statement.kind == Kind::Provider {
                known.shipped_providers.insert(statement.name.name().to_owned());
            }
            known.add(&statement);
        }
        known
    }

    /// Adds the package in the file `path`, which `node` names.
    pub(super) fn add_file(&mut self, node: &Node<'_>, path: &Path) {
        let Some(package) = read_package(node, path) else { return };
        let statement = package.statement();
        let tag = statement.name.name();
        if statement.kind == Kind::Provider && self.shipped_providers.contains(tag) {
            let name = &statement.name;
            node.error(format!(
                "{name} would take the place of the provider {tag} that ships with the gateway"
            ));
        } else {
            self.add(statement);
        }
    }

    fn add(&mut self, statement: &Statement) {
        let (full, tag) = (statement.name.to_string(), statement.name.name().to_owned());
        match statement.kind {
            Kind::Predicate => {
                self.predicates.insert(full);
                return;
            }
            Kind::Provider => {
                let mut names = vec![tag];
                names.extend((statement.name.namespace() != OWN_NAMESPACE).then(|| full.clone()));
                if let Some(upstream) = &statement.upstream {
                    self.paths.extend(upstream.paths.iter().cloned());
                    self.with_upstream.extend(names.iter().cloned());
                }
                self.providers.extend(names);
            }
            Kind::Policy | Kind::Scanner | Kind::Hook => {}
        }
        self.components.insert(full);
    }

    /// Whether a route to this provider needs an endpoint.
    pub(super) fn needs_endpoint(&self, provider: &str) -> bool {
        self.with_upstream.contains(provider)
    }

    /// Paths in which the address of an upstream may end.
    pub(super) fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// Looks for the provider that a route names.
    pub(super) fn check_provider(&self, node: &Node<'_>, wanted: &str) {
        self.check(node, "provider", wanted, &self.providers);
    }

    /// Looks for the predicate that a route names.
    pub(super) fn check_predicate(&self, node: &Node<'_>, wanted: &str) {
        self.check(node, "predicate", wanted, &self.predicates);
    }

    /// Looks for the component that an entry of the bundle names.
    pub(super) fn check_component(&self, node: &Node<'_>, wanted: &str) {
        if self.predicates.contains(wanted) {
            node.error("is a predicate: a route names it");
        } else if !self.components.contains(wanted) {
            node.error(format!("there is no component {wanted}; there are {}", listed(&self.components)));
        }
    }

    /// A full name that no package here has may be the catalog's, which is not read here.
    fn check(&self, node: &Node<'_>, kind: &str, wanted: &str, among: &BTreeSet<String>) {
        if among.contains(wanted) {
            return;
        }
        let full = Name::parse(wanted).is_ok_and(|name| name.namespace() != OWN_NAMESPACE);
        let is_here = [&self.providers, &self.components, &self.predicates];
        if full && !is_here.into_iter().any(|names| names.contains(wanted)) {
            node.warn("is in no package here: no call takes this route unless the catalog has it in force");
        } else {
            node.error(format!("there is no {kind} {wanted}; there are {}", listed(among)));
        }
    }
}

/// Reads a package far enough to know what it says it is. Whether that may be believed is decided when it is loaded.
pub(super) fn read_package(node: &Node<'_>, path: &Path) -> Option<Package> {
    let bytes = std::fs::read(path)
        .map_err(|error| node.error(format!("{} cannot be read: {error}", path.display())))
        .ok()?;
    Package::parse(bytes)
        .map_err(|error| node.error(format!("{} is no package: {error}", path.display())))
        .ok()
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
