//! `sallyport serve`: the gateway, until it is told to stop. SIGHUP reads the configuration again; SIGTERM and SIGINT let
//! running answers end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Ending;
use crate::app::{App, Deps, Sockets};
use crate::config::{Config, Server};

/// Serves until a signal ends it.
pub(super) async fn run(file: &Path) -> anyhow::Result<Ending> {
    let config = Config::load(file)?;
    warn_about(&config);
    let Server { listen, admin_listen, metrics_listen, .. } = config.server;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let app = App::build(config, Deps::default()).await?;
    let clients = bind(listen).await?;
    let (administration, metrics) = (bind_one(admin_listen).await?, bind_one(metrics_listen).await?);
    let sockets = Sockets { clients, administration, metrics };

    let shutdown = CancellationToken::new();
    // Side by side: a gateway that compiles what it has just read serves on, and can be stopped.
    let reloads = async {
        loop {
            hangup.recv().await;
            reload(&app, file).await;
        }
    };
    let stops = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => stop(&shutdown),
                _ = interrupt.recv() => stop(&shutdown),
            }
        }
    };
    tokio::select! {
        ended = app.serve(sockets, shutdown.clone()) => ended.map(|()| Ending::Done),
        never = reloads => never,
        never = stops => never,
    }
}

async fn bind_one(listen: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    Ok(match listen {
        Some(listen) => Some(bind(listen).await?),
        None => None,
    })
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    info!(server.address = %address, "listening on {address}");
    Ok(listener)
}

fn stop(shutdown: &CancellationToken) {
    if !shutdown.is_cancelled() {
        info!("stopping: running answers may end");
        shutdown.cancel();
    }
}

/// A configuration that is refused changes nothing.
async fn reload(app: &App, file: &Path) {
    match read(file.to_owned()).await {
        Ok(config) => {
            warn_about(&config);
            match app.reload(config).await {
                Ok(()) => info!("the configuration was read again and is in force"),
                Err(error) => error!("the old configuration stays in force: {error:#}"),
            }
        }
        Err(report) => error!("the old configuration stays in force: {report}"),
    }
}

/// Reads the configuration in a thread of its own: a secret may be what a command prints, and that takes its time. Nobody waits
/// for the thread when the gateway ends.
async fn read(file: PathBuf) -> anyhow::Result<Config> {
    let (done, loaded) = oneshot::channel();
    thread::Builder::new().name("config".to_owned()).spawn(move || {
        // The gateway may be ending.
        drop(done.send(Config::load(&file)));
    })?;
    Ok(loaded.await??)
}

fn warn_about(config: &Config) {
    for warning in &config.warnings {
        warn!(config.path = warning.path, "{warning}");
    }
}
