//! Where the parts meet, and nowhere else: from a checked configuration to a gateway that serves.

mod bundle;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, ChainKey};
use crate::auth::Auth;
use crate::auth::keys::Keys;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::component::{self, Components, Registry, first_party_publisher};
use crate::config::Config;
use crate::db::Db;
use crate::http::{self, Edge, Strangers};
use crate::pipeline::{InForce, LocalCounters, Parts, Pipeline};
use crate::upstream::{Patience, Upstream};

use self::bundle::Gatehouse;

/// Where a gateway that serves says its address: a file in its home.
const ADDRESS_FILE: &str = "address";

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
    db: Db,
    home: PathBuf,
    tasks: TaskTracker,
    /// Reloads come one at a time.
    reloading: tokio::sync::Mutex<()>,
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
        Keys::complete(&config.keys_dir(), entropy.as_ref()).context("cannot make the gateway's keys")?;
        let keys = Keys::load(&config.keys_dir()).context("cannot load the gateway's keys")?;
        let db = Db::open(&config.database_url).await.context("cannot open the database")?;
        db.migrate().await.context("cannot bring the database up to date")?;

        let mut audit_settings = config.audit.clone();
        audit_settings.chain_key = Some(ChainKey(*keys.audit_chain().expose()));
        let audit = Audit::start(audit_settings, db.clone(), Arc::clone(&clock))
            .await
            .context("cannot open the audit trail")?;
        let auth =
            Auth::open(db.clone(), &keys, config.auth.clone(), Arc::clone(&clock), Arc::clone(&entropy))
                .await
                .context("cannot start authentication")?;
        let compiler = match compiler {
            Some(compiler) => compiler,
            None => std::env::current_exe().context("cannot find this binary")?,
        };
        let settings = component::Settings {
            pool: config.components.pool,
            cache_dir: config.cache_dir(),
            cache_key: *keys.component_cache().expose(),
            compiler,
            development,
        };
        let counters = Arc::new(LocalCounters::new(Arc::clone(&clock)));
        let components = Components::start(settings, counters, Arc::clone(&entropy), Arc::clone(&clock))
            .context("cannot start the component host")?;
        let gatehouse = Gatehouse { components: &components, db: &db, clock: clock.as_ref() };
        let bundle = gatehouse.assemble(&config).await.context("cannot put the bundle in force")?;
        let tasks = TaskTracker::new();
        let edge_settings = http::Settings { body_limit: config.server.body_limit, deny: config.deny_status };
        let home = config.home.clone();
        let pipeline = Pipeline::new(Parts {
            components: Arc::clone(&components),
            audit: Arc::clone(&audit),
            upstream: Upstream::new(Patience::default())
                .context("cannot load the certificate authorities")?,
            in_force: InForce { config: Arc::new(config), registry: Registry::new(bundle) },
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        });
        let edge = Arc::new(Edge {
            pipeline,
            auth,
            audit,
            components,
            db: db.clone(),
            clock,
            entropy,
            settings: ArcSwap::from_pointee(edge_settings),
            strangers: Strangers::default(),
        });
        Ok(Self { edge, db, home, tasks, reloading: tokio::sync::Mutex::new(()) })
    }

    /// Serves on `listener` until `shutdown`; then lets running answers end, delivers what it can of the trail, and closes.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        let address = listener.local_addr().context("the listener has no address")?;
        let file = self.home.join(ADDRESS_FILE);
        announce(&file, &address.to_string()).context("cannot write the address file")?;
        let background = CancellationToken::new();
        let keepers = TaskTracker::new();
        keepers.spawn(Arc::clone(&self.edge.audit).run(background.clone()));
        keepers.spawn(Arc::clone(&self.edge.auth).run(background.clone()));

        http::serve(listener, http::router(Arc::clone(&self.edge)), &self.tasks, shutdown).await;

        drop(std::fs::remove_file(&file));
        self.tasks.close();
        if tokio::time::timeout(std::time::Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls are cut");
        }
        background.cancel();
        keepers.close();
        keepers.wait().await;
        self.edge.audit.close().await;
        self.db.close().await;
        Ok(())
    }

    /// Puts another configuration in force. Calls in progress end under the old one; an error changes nothing.
    pub async fn reload(&self, config: Config) -> anyhow::Result<()> {
        let _one_at_a_time = self.reloading.lock().await;
        let gatehouse =
            Gatehouse { components: &self.edge.components, db: &self.db, clock: self.edge.clock.as_ref() };
        let bundle = gatehouse.assemble(&config).await.context("cannot put the bundle in force")?;
        let version = bundle.version.clone();
        self.edge
            .audit
            .record(bundle::row(&version, self.edge.clock.as_ref()))
            .await
            .context("cannot record the change")?;
        let settings = http::Settings { body_limit: config.server.body_limit, deny: config.deny_status };
        self.edge.pipeline.swap(InForce { config: Arc::new(config), registry: Registry::new(bundle) });
        self.edge.settings.store(Arc::new(settings));
        Ok(())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("App").field("home", &self.home).finish_non_exhaustive()
    }
}

// === private helpers ===

/// Written whole or not at all, so that whoever waits for it never reads half an address.
fn announce(file: &Path, address: &str) -> std::io::Result<()> {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, address)?;
    std::fs::rename(fresh, file)
}
