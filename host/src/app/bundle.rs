//! From the configuration's list of components to a bundle: every package is verified, admitted with its configuration, and
//! put in its place. One that is not admitted keeps the whole bundle from being put in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use sallyport_protocol::id::PolicyVersion;
use sallyport_protocol::package::{Kind, Package, Publisher};
use serde_json::json;

use crate::audit::{self, Event, Outcome, Who};
use crate::clock::Clock;
use crate::component::{Bundle, Component, Components, Entry, Mode, first_party, first_party_publisher};
use crate::config::{self, Config};

/// The namespace of the components that come inside the binary.
const NAMESPACE: &str = "sallyport";
/// How the name of a package file ends.
const SUFFIX: &str = ".sallyport";

/// What `config` puts in force.
pub(super) async fn assemble(
    components: &Components,
    config: &Config,
    clock: &dyn Clock,
) -> anyhow::Result<Bundle> {
    let shelf = Shelf::stock(config)?;
    let nothing = json!({});
    let mut entries = Vec::new();
    let mut configs: HashMap<String, &serde_json::Value> = HashMap::new();
    for (number, wanted) in config.bundle.iter().enumerate() {
        if shelf.package(&wanted.component).is_some_and(|package| package.statement().kind == Kind::Provider)
        {
            // A provider's entry configures it; which calls it serves is for the routes to say.
            let name = shelf.name(&wanted.component).to_owned();
            configs.insert(name, &wanted.config);
            continue;
        }
        let admitted = shelf
            .admit(components, &wanted.component, &wanted.config, clock)
            .await
            .with_context(|| format!("bundle[{number}]: {}", wanted.component))?;
        entries.push(Entry { component: admitted, mode: mode(wanted.mode) });
    }
    let mut providers = BTreeMap::new();
    let tags: BTreeSet<_> = config.gateway.routes.iter().map(|route| route.provider.as_str()).collect();
    for tag in tags {
        let name = shelf.provider(tag).with_context(|| format!("there is no provider {tag}"))?;
        let admitted = shelf
            .admit(components, &name, configs.get(&name).copied().unwrap_or(&nothing), clock)
            .await
            .with_context(|| format!("the provider {tag}"))?;
        providers.insert(tag.to_owned(), admitted);
    }
    Ok(Bundle::assemble(&entries, providers))
}

/// The row that says that a bundle was put in force.
pub(super) fn row(version: &PolicyVersion, clock: &dyn Clock) -> Event {
    let operator = || "-".to_owned();
    Event {
        occurred_at: clock.now(),
        kind: audit::Kind::Admin,
        who: Who {
            user_id: operator(),
            session_id: operator(),
            trace_id: operator(),
            client_id: operator(),
            tenant_id: operator(),
            policy_ver: version.as_str().to_owned(),
            call_source: "cli".to_owned(),
        },
        model: None,
        provider: None,
        tokens_in: None,
        tokens_out: None,
        cost_micro: None,
        latency_ms: None,
        outcome: Outcome::Allowed,
        payload: json!({ "code": "bundle_swapped", "reason": "the configuration was read again" }),
    }
}

/// The packages at hand, by name.
struct Shelf {
    packages: HashMap<String, Package>,
    /// Names of the packages that the bundle names by their files.
    files: HashMap<String, String>,
    publishers: Vec<Publisher>,
}

impl Shelf {
    fn stock(config: &Config) -> anyhow::Result<Self> {
        let mut packages = HashMap::new();
        for embedded in first_party() {
            let package = Package::parse(embedded.bytes).with_context(|| embedded.name.to_owned())?;
            packages.insert(embedded.name.to_owned(), package);
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
        let mut publishers = config.components.publishers.clone();
        publishers.extend(first_party_publisher());
        Ok(Self { packages, files, publishers })
    }

    /// The component that serves routes with this provider tag.
    fn provider(&self, tag: &str) -> Option<String> {
        let own = format!("{NAMESPACE}/{tag}");
        if self.packages.contains_key(&own) {
            return Some(own);
        }
        let named = |name: &&String| name.split_once('/').is_some_and(|(_, last)| last == tag);
        self.packages.keys().find(named).cloned()
    }

    /// The name of what the bundle names by name or by file.
    fn name<'a>(&'a self, wanted: &'a str) -> &'a str {
        self.files.get(wanted).map_or(wanted, String::as_str)
    }

    fn package(&self, wanted: &str) -> Option<&Package> {
        self.packages.get(self.name(wanted))
    }

    async fn admit(
        &self,
        components: &Components,
        wanted: &str,
        config: &serde_json::Value,
        clock: &dyn Clock,
    ) -> anyhow::Result<Arc<Component>> {
        let package = self.package(wanted).context("there is no such component")?;
        let host = semver::Version::parse(env!("CARGO_PKG_VERSION")).context("the gateway's own version")?;
        let verified = package
            .verify(&self.publishers, clock.now(), &host, None, None)
            .context("the package is not trusted")?;
        components.admit(&verified, config).await.context("the component is not admitted")
    }
}

fn mode(mode: config::Mode) -> Mode {
    match mode {
        config::Mode::Enforce => Mode::Enforce,
        config::Mode::Shadow => Mode::Shadow,
        config::Mode::Off => Mode::Off,
    }
}
