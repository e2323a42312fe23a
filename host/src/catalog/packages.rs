//! The packages that are at hand without an upload: those inside the binary, and the files that the configuration names.

use std::collections::{HashMap, HashSet};

use sallyport_protocol::package::{Kind, Package, Statement};
use time::OffsetDateTime;

use super::entry::{EntryError, PackagesError};
use crate::config::Config;
use crate::shipped::first_party;

/// The namespace of the components that come inside the binary.
pub(super) const NAMESPACE: &str = "sallyport";
/// How the name of a package file ends.
const SUFFIX: &str = ".sallyport";

/// The packages at hand, by name.
pub(super) struct LocalPackages {
    /// Names of those inside the binary.
    embedded: HashSet<String>,
    packages: HashMap<String, Package>,
    /// Names of the packages that the bundle names by their files.
    files: HashMap<String, String>,
}

// === impl LocalPackages ===

impl LocalPackages {
    pub(super) fn load(config: &Config) -> Result<Self, PackagesError> {
        let (mut packages, mut embedded_names) = (HashMap::new(), HashSet::new());
        for embedded in first_party() {
            let package = Package::parse(embedded.bytes)
                .map_err(|cause| PackagesError::Embedded { name: embedded.name, cause })?;
            packages.insert(embedded.name.to_owned(), package);
            embedded_names.insert(embedded.name.to_owned());
        }
        let mut files = HashMap::new();
        let listed = config.components.packages.iter().map(|file| (None, file.clone()));
        let named = config.bundle.iter().map(|entry| &entry.component).filter(|name| name.ends_with(SUFFIX));
        let named = named.map(|name| (Some(name.clone()), config.home.join(name)));
        for (wanted, file) in listed.chain(named) {
            let bytes = match std::fs::read(&file) {
                Ok(bytes) => bytes,
                Err(cause) => return Err(PackagesError::File { file, cause }),
            };
            let package = match Package::parse(bytes) {
                Ok(package) => package,
                Err(cause) => return Err(PackagesError::Package { file, cause }),
            };
            let name = package.statement().name.to_string();
            if name.starts_with(&format!("{NAMESPACE}/")) && packages.contains_key(&name) {
                return Err(PackagesError::Taken { file, name });
            }
            files.extend(wanted.map(|wanted| (wanted, name.clone())));
            packages.insert(name, package);
        }
        Ok(Self { embedded: embedded_names, packages, files })
    }

    /// When to look at the validity of a package: now, but for the components inside the binary. Those do not expire: a gateway
    /// that ran yesterday starts today, and whoever may not run them any more is told by a revocation.
    pub(super) fn looked_at(&self, statement: &Statement, now: OffsetDateTime) -> OffsetDateTime {
        let name = statement.name.as_str();
        if now < statement.expires || !self.embedded.contains(name) {
            return now;
        }
        tracing::warn!(
            component.name = name,
            "a component of this gateway was to be replaced by {}: it runs on, but a newer release is due",
            statement.expires.date()
        );
        statement.expires - time::Duration::SECOND
    }

    /// The name of what the bundle names by name or by file.
    pub(super) fn name<'a>(&'a self, wanted: &'a str) -> &'a str {
        self.files.get(wanted).map_or(wanted, String::as_str)
    }

    /// What the bundle names by name or by file.
    pub(super) fn find(&self, wanted: &str) -> Option<(&str, &Package)> {
        let (name, package) = self.packages.get_key_value(self.name(wanted))?;
        Some((name, package))
    }

    /// The component that serves routes with this provider tag: the gateway's own before all others.
    pub(super) fn provider(&self, tag: &str) -> Result<(&str, &Package), EntryError> {
        let own = format!("{NAMESPACE}/{tag}");
        let found = self.packages.get_key_value(&own);
        let found = found.or_else(|| self.packages.iter().find(|(name, _)| serves(name, tag)));
        let (name, package) = found.ok_or(EntryError::Unknown)?;
        if package.statement().kind != Kind::Provider {
            return Err(EntryError::Kind { name: name.clone(), wanted: Kind::Provider });
        }
        Ok((name, package))
    }
}

// === private helpers ===

/// Whether a component of this name is meant by a route's `provider`: by its full name, or by what follows the namespace.
pub(super) fn serves(name: &str, tag: &str) -> bool {
    name == tag || name.split_once('/').is_some_and(|(_, last)| last == tag)
}
