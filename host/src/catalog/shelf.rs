//! The packages that are at hand without an upload: those inside the binary, and the files that the configuration names.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, bail};
use sallyport_protocol::package::{Kind, Package, Statement};
use time::OffsetDateTime;

use crate::component::first_party;
use crate::config::Config;

/// The namespace of the components that come inside the binary.
pub(super) const NAMESPACE: &str = "sallyport";
/// How the name of a package file ends.
const SUFFIX: &str = ".sallyport";

/// The packages at hand, by name.
pub(super) struct Shelf {
    /// Names of those inside the binary.
    embedded: HashSet<String>,
    packages: HashMap<String, Package>,
    /// Names of the packages that the bundle names by their files.
    files: HashMap<String, String>,
}

// === impl Shelf ===

impl Shelf {
    pub(super) fn stock(config: &Config) -> anyhow::Result<Self> {
        let (mut packages, mut embedded_names) = (HashMap::new(), HashSet::new());
        for embedded in first_party() {
            let package = Package::parse(embedded.bytes).with_context(|| embedded.name.to_owned())?;
            packages.insert(embedded.name.to_owned(), package);
            embedded_names.insert(embedded.name.to_owned());
        }
        let mut files = HashMap::new();
        let listed = config.components.packages.iter().map(|file| (None, file.clone()));
        let named = config.bundle.iter().map(|entry| &entry.component).filter(|name| name.ends_with(SUFFIX));
        let named = named.map(|name| (Some(name.clone()), config.home.join(name)));
        for (wanted, file) in listed.chain(named) {
            let shown = file.display().to_string();
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {shown}"))?;
            let package = Package::parse(bytes).with_context(|| format!("{shown} is no package"))?;
            let name = package.statement().name.to_string();
            if name.starts_with(&format!("{NAMESPACE}/")) && packages.contains_key(&name) {
                bail!("{shown} would take the place of {name}, which comes with the gateway");
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
    pub(super) fn find(&self, wanted: &str) -> anyhow::Result<(&str, &Package)> {
        let found = self.packages.get_key_value(self.name(wanted)).context("there is no such component")?;
        Ok((found.0, found.1))
    }

    /// The component that serves routes with this provider tag: the gateway's own before all others.
    pub(super) fn provider(&self, tag: &str) -> anyhow::Result<(&str, &Package)> {
        let own = format!("{NAMESPACE}/{tag}");
        let found = self.packages.get_key_value(&own);
        let found = found.or_else(|| self.packages.iter().find(|(name, _)| serves(name, tag)));
        let (name, package) = found.context("there is no such component")?;
        if package.statement().kind != Kind::Provider {
            bail!("{name} is no provider");
        }
        Ok((name, package))
    }
}

// === private helpers ===

/// Whether a component of this name is meant by a route's `provider`: by its full name, or by what follows the namespace.
pub(super) fn serves(name: &str, tag: &str) -> bool {
    name == tag || name.split_once('/').is_some_and(|(_, last)| last == tag)
}
