//! From the configuration's list of components to a bundle: every package is verified, admitted with its configuration, and
//! put in its place. One that is not admitted keeps the whole bundle from being put in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use sallyport_protocol::id::PolicyVersion;
use sallyport_protocol::package::{Kind, Package, Publisher};
use serde_json::{Value, json};

use crate::audit::{self, Event, Outcome, Who};
use crate::clock::Clock;
use crate::component::{Bundle, Component, Components, Entry, Mode, first_party, first_party_publisher};
use crate::config::{self, Config};
use crate::db::Db;
use crate::db::component::Floor;

/// The namespace of the components that come inside the binary.
const NAMESPACE: &str = "sallyport";
/// How the name of a package file ends.
const SUFFIX: &str = ".sallyport";

/// What decides whether a package may run here.
#[derive(Clone, Copy)]
pub(super) struct Gatehouse<'a> {
    pub(super) components: &'a Components,
    pub(super) db: &'a Db,
    pub(super) clock: &'a dyn Clock,
}

/// The packages at hand, by name.
struct Shelf {
    packages: HashMap<String, Package>,
    /// Names of the packages that the bundle names by their files.
    files: HashMap<String, String>,
    publishers: Vec<Publisher>,
}

// === impl Gatehouse ===

impl Gatehouse<'_> {
    /// What `config` puts in force.
    pub(super) async fn assemble(self, config: &Config) -> anyhow::Result<Bundle> {
        let shelf = Shelf::stock(config)?;
        let nothing = json!({});
        let mut entries = Vec::new();
        let mut configs: HashMap<&str, &Value> = HashMap::new();
        for (number, wanted) in config.bundle.iter().enumerate() {
            let place = || format!("bundle[{number}]: {}", wanted.component);
            let (name, package) = shelf.find(&wanted.component).with_context(place)?;
            if package.statement().kind == Kind::Provider {
                // A provider's entry configures it; which calls it serves is for the routes to say.
                configs.insert(name, &wanted.config);
                continue;
            }
            let component =
                self.admit(package, &shelf.publishers, &wanted.config).await.with_context(place)?;
            entries.push(Entry::new(component, mode(wanted.mode)));
        }
        let mut providers = BTreeMap::new();
        let tags: BTreeSet<_> = config.gateway.routes.iter().map(|route| route.provider.as_str()).collect();
        for tag in tags {
            let place = || format!("the provider {tag}");
            let (name, package) = shelf.provider(tag).with_context(place)?;
            let config = configs.get(name).copied().unwrap_or(&nothing);
            let component = self.admit(package, &shelf.publishers, config).await.with_context(place)?;
            providers.insert(tag.to_owned(), component);
        }
        let all = entries.iter().map(|entry| &entry.component).chain(providers.values());
        for component in all {
            self.raise_floor(component).await?;
        }
        Ok(Bundle::assemble(&entries, providers, BTreeMap::new()))
    }

    async fn admit(
        self,
        package: &Package,
        publishers: &[Publisher],
        config: &Value,
    ) -> anyhow::Result<Arc<Component>> {
        let host = semver::Version::parse(env!("CARGO_PKG_VERSION")).context("the gateway's own version")?;
        let name = package.statement().name.to_string();
        let floor = self.db.component_floor(&name).await.context("the floor of serials is not known")?;
        let serial = floor.as_ref().and_then(|floor| u64::try_from(floor.serial).ok());
        let verified = package
            .verify(publishers, self.clock.now(), &host, None, serial)
            .context("the package is not trusted")?;
        let component =
            self.components.admit(&verified, config).await.context("the component is not admitted")?;
        // A developer builds the same serial again and again; a publisher does not.
        let same = floor.filter(|floor| Some(component.serial()) == u64::try_from(floor.serial).ok());
        if same.is_some_and(|floor| floor.digest != component.digest()) && !verified.is_development() {
            bail!("the serial {} of {name} was in force with other bytes", component.serial());
        }
        Ok(component)
    }

    async fn raise_floor(self, component: &Component) -> anyhow::Result<()> {
        let serial = i64::try_from(component.serial()).context("the serial is too large")?;
        let floor = Floor { serial, digest: component.digest().to_owned() };
        self.db
            .raise_component_floor(component.name(), &floor)
            .await
            .context("the floor of serials could not be raised")
    }
}

// === impl Shelf ===

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

    /// What the bundle names by name or by file.
    fn find(&self, wanted: &str) -> anyhow::Result<(&str, &Package)> {
        let name = self.files.get(wanted).map_or(wanted, String::as_str);
        let found = self.packages.get_key_value(name).context("there is no such component")?;
        Ok((found.0, found.1))
    }

    /// The component that serves routes with this provider tag: the gateway's own before all others.
    fn provider(&self, tag: &str) -> anyhow::Result<(&str, &Package)> {
        let own = format!("{NAMESPACE}/{tag}");
        let named = |name: &str| name.split_once('/').is_some_and(|(_, last)| last == tag);
        let found = self.packages.get_key_value(&own);
        let found = found.or_else(|| self.packages.iter().find(|(name, _)| named(name)));
        let (name, package) = found.context("there is no such component")?;
        if package.statement().kind != Kind::Provider {
            bail!("{name} is no provider");
        }
        Ok((name, package))
    }
}

// === private helpers ===

/// The row that says that a bundle was put in force.
pub(super) fn row(version: &PolicyVersion, clock: &dyn Clock) -> Event {
    let who = Who { policy_ver: version.as_str().to_owned(), call_source: "cli".to_owned(), ..Who::nobody() };
    let payload = json!({ "code": "bundle_swapped", "reason": "the configuration was read again" });
    Event::plain(clock.now(), audit::Kind::Admin, who, Outcome::Allowed, payload)
}

fn mode(mode: config::Mode) -> Mode {
    match mode {
        config::Mode::Enforce => Mode::Enforce,
        config::Mode::Shadow => Mode::Shadow,
        config::Mode::Off => Mode::Off,
    }
}
