//! Where the parts meet, and nowhere else: from a checked configuration to a gateway that serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Action, Audit, ChainKey, Event, Outcome, Who};
use crate::auth::keys::Keys;
use crate::auth::{self, Auth};
use crate::catalog::{self, Assembled, Catalog, Keeper};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::component::{self, Components, Registry};
use crate::config::Config;
use crate::db::Db;
use crate::evidence::{Evidence, Vault};
use crate::http::{
    self, Bodies, Counts, Edge, ExportRates, HttpListener, Spending, Surface, UnauthenticatedRowLimiter,
};
use crate::limits::Limit;
use crate::modes;
use crate::pipeline::{InForce, LocalCounters, Parts, Pipeline};
use crate::shipped::first_party_publisher;
use crate::tls::Tls;
use crate::trust::Trust;
use crate::upstream::{Collector, DocumentClient, EgressClient, Outbound, TrustedServers, Upstream};

/// Where a gateway that serves says its address, as `https://..` where it speaks TLS: a file in its home.
const ADDRESS_FILE: &str = "address";
/// The same of administration, where that has a listener of its own.
const ADMIN_ADDRESS_FILE: &str = "admin-address";

/// The same of figures.
const METRICS_ADDRESS_FILE: &str = "metrics-address";

/// How long to wait after what is stored could not be put in force.
const RETRY: Duration = Duration::from_millis(500);
const DAY: Duration = Duration::from_hours(24);

/// What a gateway is built with besides its configuration.
#[derive(Clone)]
pub struct Deps {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The binary that compiles components; this one where nothing is said.
    pub compiler: Option<PathBuf>,
}

/// A gateway.
pub struct App {
    edge: Arc<Edge>,
    evidence: Arc<Evidence>,
    db: Db,
    home: PathBuf,
    tasks: TaskTracker,
    /// Whoever serves keeps what is in force true.
    keeper: tokio::sync::Mutex<Keeper>,
    /// Reloads come one at a time.
    reloading: tokio::sync::Mutex<()>,
}

/// What a gateway listens on.
#[derive(Debug)]
pub struct Sockets {
    /// For clients, and for administration too unless that has a listener of its own.
    pub clients: TcpListener,
    /// For administration alone.
    pub administration: Option<TcpListener>,
    /// For figures alone.
    pub metrics: Option<TcpListener>,
}

// === impl Deps ===

impl Default for Deps {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::default()), entropy: Arc::new(SystemEntropy), compiler: None }
    }
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Deps").field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

/// Every limit that clients, upstreams and components can meet, by part.
pub fn limits() -> Vec<Limit> {
    [
        http::limits(),
        auth::limits(),
        crate::config::limits(),
        crate::pipeline::limits(),
        component::limits(),
        crate::upstream::limits(),
    ]
    .concat()
}

/// The endpoints of administrators, as the reference page prints them.
pub fn admin_reference() -> String {
    http::admin_reference()
}

/// The same as an `OpenAPI` document.
pub fn admin_openapi() -> String {
    http::admin_openapi()
}

// === impl Sockets ===

impl Sockets {
    /// What they are for. `tls`: for those of them that speak it.
    fn listeners(self, tls: Option<&Arc<Tls>>) -> Vec<HttpListener> {
        let listener = |socket, surface: Surface| {
            let tls = tls.filter(|tls| tls.handshake(surface.name()).is_some()).cloned();
            HttpListener { socket, surface, tls }
        };
        let surface = if self.administration.is_some() { Surface::Clients } else { Surface::Whole };
        let clients = listener(self.clients, surface);
        let administration = self.administration.map(|socket| listener(socket, Surface::Administration));
        let metrics = self.metrics.map(|socket| listener(socket, Surface::Metrics));
        std::iter::once(clients).chain(administration).chain(metrics).collect()
    }
}

// === impl App ===

impl App {
    /// Opens everything that the configuration names. Nothing is served yet.
    pub async fn build(config: Config, deps: Deps) -> anyhow::Result<Self> {
        let Deps { clock, entropy, compiler } = deps;
        let development = first_party_publisher().is_some_and(|publisher| publisher.development);
        if development && !config.is_local() {
            bail!(
                "this binary holds components signed with a development key: it serves on a loopback address only, not on {}",
                config.server.listen
            );
        }
        modes::keep_others_from_changing(&config.home);
        Keys::complete(&config.keys_dir(), entropy.as_ref()).context("cannot make the gateway's keys")?;
        let keys = Keys::load(&config.keys_dir()).context("cannot load the gateway's keys")?;
        let db = Db::open(&config.database.url).await.context("cannot open the database")?;
        db.migrate().await.context("cannot bring the database up to date")?;

        // A database that init has never seen gets what init gives one: a tenant and an administrator, and no credential.
        auth::bootstrap(&db, clock.as_ref(), entropy.as_ref()).await.context("cannot make the first user")?;

        let mut audit_settings = config.audit.clone();
        audit_settings.chain_key = Some(ChainKey(*keys.audit_chain().expose()));
        let audit = Audit::start(audit_settings, db.clone(), Arc::clone(&clock), entropy.as_ref())
            .await
            .context("cannot open the audit trail")?;
        let auth =
            Auth::open(db.clone(), &keys, config.auth.clone(), Arc::clone(&clock), Arc::clone(&entropy))
                .await
                .context("cannot start authentication")?;
        let compiler = match compiler {
            Some(compiler) => compiler,
            None => component::own_program().context("cannot find this binary")?,
        };
        let settings = component::Settings {
            pool: config.components.pool,
            cache_dir: config.cache_dir(),
            cache_key: *keys.component_cache().expose(),
            compiler,
            development,
            fuel: component::Fuel::Off,
            compile_seconds: config.components.quota.compile_seconds_per_hour,
        };
        let counters = Arc::new(LocalCounters::new(Arc::clone(&clock)));
        let components = Components::start(settings, counters, Arc::clone(&clock))
            .context("cannot start the component host")?;
        let outbound =
            Outbound::new(&TrustedServers::System).context("cannot load the certificate authorities")?;
        let egress = EgressClient::new(&outbound, Arc::clone(&clock));
        let host = semver::Version::parse(env!("CARGO_PKG_VERSION"))
            .context("the version of this binary cannot be read")?;
        let catalog = Catalog::new(catalog::CatalogParts {
            db: db.clone(),
            components: Arc::clone(&components),
            audit: Arc::clone(&audit),
            clock: Arc::clone(&clock),
            trust: Trust::new(db.clone(), keys.rollback().clone(), host),
            egress: Box::new(move |settings| egress.grant(settings)),
        });
        let tls = config.tls.clone().map(|settings| Tls::open(settings, Arc::clone(&clock)));
        let tls = tls.transpose().context("cannot use the certificate")?;
        let config = Arc::new(config);
        let assembled = catalog.assemble(&config).await.context("cannot put the bundle in force")?;
        catalog.adopt(&assembled);
        let keeper = Keeper::new(Arc::clone(&catalog), &assembled);
        let evidence = Evidence::new(Vault::new(
            db.clone(),
            keys.evidence().clone(),
            Arc::clone(&clock),
            Arc::clone(&entropy),
        ));
        let tasks = TaskTracker::new();
        let edge_settings = http::HttpSettings::of(&config);
        let home = config.home.clone();
        let upstream = Upstream::new(&outbound, Arc::clone(&clock));
        let identity_servers = Arc::new(upstream.clone());
        let pipeline = Pipeline::new(Parts {
            components: Arc::clone(&components),
            audit: Arc::clone(&audit),
            upstream,
            in_force: in_force(config, assembled),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            evidence: Arc::clone(&evidence),
            tasks: tasks.clone(),
            db: db.clone(),
        });
        let edge = Arc::new(Edge {
            pipeline,
            auth,
            identity_servers,
            client_documents: Arc::new(DocumentClient::new(&outbound)),
            audit,
            components,
            catalog,
            db: db.clone(),
            tls,
            clock,
            entropy,
            settings: ArcSwap::from_pointee(edge_settings),
            counts: Counts::default(),
            bodies: Bodies::new(),
            unauthenticated_rows: UnauthenticatedRowLimiter::default(),
            spending: Spending::new(),
            collector: Collector::new(&outbound),
            export_rates: ExportRates::default(),
        });
        Ok(Self {
            edge,
            evidence,
            db,
            home,
            tasks,
            keeper: tokio::sync::Mutex::new(keeper),
            reloading: tokio::sync::Mutex::new(()),
        })
    }

    /// Serves on `sockets` until `shutdown`; then lets running answers end, delivers what it can of the trail, and closes.
    pub async fn serve(&self, sockets: Sockets, shutdown: CancellationToken) -> anyhow::Result<()> {
        let files = [ADMIN_ADDRESS_FILE, METRICS_ADDRESS_FILE, ADDRESS_FILE].map(|name| self.home.join(name));
        for file in &files {
            // Of an earlier run: administration may have had a listener then.
            drop(std::fs::remove_file(file));
        }
        let listeners = sockets.listeners(self.edge.tls.as_ref());
        // Last the one of clients: whoever waits for it finds the others.
        for listener in listeners.iter().rev() {
            let [admin_file, metrics_file, file] = &files;
            let file = match listener.surface {
                Surface::Administration => admin_file,
                Surface::Metrics => metrics_file,
                Surface::Whole | Surface::Clients => file,
            };
            announce(file, listener).context("cannot write an address file")?;
        }
        // To the very end: what calls leave behind and connections to the database may stand on their runtimes.
        let threads =
            http::ServingThreads::start().context("cannot start the threads that serve connections")?;
        let background = CancellationToken::new();
        let keepers = TaskTracker::new();
        keepers.spawn(Arc::clone(&self.edge.audit).run(background.clone()));
        keepers.spawn(Arc::clone(&self.edge.auth).run(background.clone()));
        keepers.spawn(Arc::clone(&self.evidence).run(background.clone()));
        keepers.spawn(Arc::clone(&self.edge.pipeline).keep_sessions(background.clone()));
        keepers.spawn(Arc::clone(&self.edge.pipeline).settle_batches(background.clone()));
        keepers.spawn(Arc::clone(&self.edge.collector).run(background.clone()));

        tokio::select! {
            () = http::serve(listeners, Arc::clone(&self.edge), &threads, &self.tasks, shutdown) => {}
            () = self.keep_current() => {}
            () = self.edge.catalog.keep_revoked_out() => {}
            () = self.edge.catalog.keep_admitting() => {}
            () = self.forget_evidence() => {}
            () = self.keep_certificates() => {}
        }
        self.keeper.lock().await.rest();

        for file in &files {
            drop(std::fs::remove_file(file));
        }
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls are cut");
        }
        background.cancel();
        keepers.close();
        keepers.wait().await;
        self.edge.components.close().await;
        self.edge.audit.close().await;
        self.db.close().await;
        Ok(())
    }

    /// Puts another configuration in force. Calls in progress end under the old one; an error changes nothing.
    pub async fn reload(&self, config: Config) -> anyhow::Result<()> {
        let _one_at_a_time = self.reloading.lock().await;
        let catalog = &self.edge.catalog;
        let tls = match (&self.edge.tls, &config.tls) {
            (Some(tls), Some(settings)) => Some((tls, tls.prepare(settings.clone())?)),
            (None, None) => None,
            _ => {
                bail!("whether listeners speak TLS is fixed for the life of the process: restart the gateway")
            }
        };
        let config = Arc::new(config);
        let assembled = catalog.assemble(&config).await.context("cannot put the bundle in force")?;
        let clock = self.edge.clock.as_ref();
        self.edge
            .audit
            .record(bundle_swapped(assembled.default.version.as_str(), clock))
            .await
            .context("cannot record the change")?;
        let settings = http::HttpSettings::of(&config);
        if let Some((tls, prepared)) = tls {
            tls.adopt(prepared);
        }
        catalog.adopt(&assembled);
        self.edge.auth.adopt_providers(&config.auth.providers);
        self.edge.pipeline.swap(in_force(config, assembled));
        self.edge.settings.store(Arc::new(settings));
        Ok(())
    }

    /// Takes over certificates that change, until it is dropped.
    async fn keep_certificates(&self) {
        match &self.edge.tls {
            Some(tls) => tls.keep().await,
            None => std::future::pending().await,
        }
    }

    /// Deletes evidence whose days are over, at start and every day, until it is dropped.
    async fn forget_evidence(&self) {
        loop {
            if let Err(error) = self.expire_evidence().await {
                tracing::error!("old evidence is still there: {error:#}");
            }
            tokio::time::sleep(DAY).await;
        }
    }

    async fn expire_evidence(&self) -> anyhow::Result<()> {
        let keep_days = self.edge.pipeline.config().evidence.keep_days;
        let expiry = self.evidence.expired(keep_days).await.context("the evidence cannot be counted")?;
        // Nothing is deleted that no row tells of.
        for (tenant, count) in &expiry.counts {
            let row = evidence_expired(tenant, *count, keep_days, self.edge.clock.as_ref());
            self.edge.audit.record(row).await.context("the deletion cannot be recorded")?;
        }
        let deleted = self.evidence.expire(&expiry).await.context("it cannot be deleted")?;
        if deleted > 0 {
            tracing::info!(deleted, keep_days, "old evidence was deleted");
        }
        Ok(())
    }

    /// Puts in force what administrators, other gateways and the passing of a date changed, until it is dropped.
    async fn keep_current(&self) {
        let mut keeper = self.keeper.lock().await;
        loop {
            keeper.next().await;
            if let Err(error) = self.follow(&mut keeper).await {
                tracing::error!("what is in force stays: {error:#}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Puts in force what the catalog says now, under the configuration that is in force.
    async fn follow(&self, keeper: &mut Keeper) -> anyhow::Result<()> {
        let _one_at_a_time = self.reloading.lock().await;
        let config = self.edge.pipeline.config();
        let assembled = self.edge.catalog.assemble(&config).await?;
        keeper.assembled(&assembled);
        self.edge.catalog.adopt(&assembled);
        self.edge.pipeline.swap(in_force(config, assembled));
        keeper.applied();
        Ok(())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("App").field("home", &self.home).finish_non_exhaustive()
    }
}

// === private helpers ===

fn in_force(config: Arc<Config>, assembled: Assembled) -> InForce {
    let Assembled { default, tenants, .. } = assembled;
    InForce { config, registry: Registry::with_tenants(default, tenants) }
}

/// The row that says that a configuration was put in force.
fn bundle_swapped(version: &str, clock: &dyn Clock) -> Event {
    let who = Who { policy_ver: version.into(), call_source: "cli".into(), ..Who::nobody() };
    let payload = json!({ "reason": "the configuration was read again" });
    Event::change(clock.now(), Action::BundleSwap, who, Outcome::Allowed, payload)
}

/// The row that says that evidence of a tenant is deleted since its days are over.
fn evidence_expired(tenant: &str, count: i64, keep_days: u16, clock: &dyn Clock) -> Event {
    let who = Who { user_id: "gateway".into(), tenant_id: tenant.into(), ..Who::nobody() };
    let payload = json!({ "detail": { "calls": count, "keep_days": keep_days } });
    Event::change(clock.now(), Action::EvidenceExpire, who, Outcome::Allowed, payload)
}

/// Written whole or not at all, so that whoever waits for it never reads half an address.
fn announce(file: &Path, listener: &HttpListener) -> std::io::Result<()> {
    let scheme = if listener.tls.is_some() { "https://" } else { "" };
    let address = format!("{scheme}{}", listener.socket.local_addr()?);
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, address)?;
    std::fs::rename(fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_stands_in_the_table_twice_and_each_says_what_happens() {
        let all = limits();
        assert!(all.len() > 20, "{}", all.len());
        for (at, limit) in all.iter().enumerate() {
            assert!(!limit.beyond.is_empty() && limit.value > 0, "{limit:?}");
            let same = |other: &Limit| other.part == limit.part && other.name == limit.name;
            assert!(!all.iter().take(at).any(same), "{} twice", limit.name);
        }
    }
}
