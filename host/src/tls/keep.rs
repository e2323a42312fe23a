//! What is in use, and how it is exchanged: by a reload, and whenever a file changes. New files that cannot be used change nothing
//! but what is said of the gateway's health.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::accept::{Handshake, unix};
use super::certificate::fingerprint;
use super::client::ClientCertificate;
use super::files::Material;
use super::{FileProblem, ListenerName, TlsSettings};
use crate::clock::Clock;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often certificates of clients that are connected are looked at again.
const RECHECK: Duration = Duration::from_mins(1);
/// How often the log says that a certificate ends soon.
const REMINDER: Duration = Duration::from_hours(12);

/// The certificate of the gateway and what belongs to it, as connections meet it.
pub(crate) struct Tls {
    clock: Arc<dyn Clock>,
    in_use: ArcSwap<InUse>,
    /// What the files were when they were last read, and what was wrong with them.
    read: Mutex<LastRead>,
    /// Rises whenever something else comes into use.
    changes: watch::Sender<u64>,
}

/// Whether TLS is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsHealth {
    /// Until when the certificate in use is valid.
    pub(crate) valid_until: OffsetDateTime,
    /// What somebody has to look at, where something is.
    pub(crate) trouble: Option<String>,
}

/// Why a reload did not change TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// Files cannot be used.
    #[error("{}", list(.0))]
    Files(Vec<FileProblem>),
    /// The library refuses.
    #[error("the certificate cannot be used")]
    Refused(#[source] rustls::Error),
    /// Another set of listeners.
    #[error("which listeners speak TLS is fixed for the life of the process: restart the gateway")]
    Fixed,
}

struct InUse {
    settings: TlsSettings,
    material: Material,
    /// How each listener that speaks TLS does it.
    handshakes: Vec<(ListenerName, Handshake)>,
}

#[derive(Default)]
struct LastRead {
    stamps: Vec<FileStamp>,
    trouble: Option<String>,
}

/// What changes when a file does: where it lies, how long it is, and when it was last touched.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp(Option<(u64, u64, u64, i64, i64)>);

// === impl Tls ===

impl Tls {
    /// Reads the files.
    pub(crate) fn open(settings: TlsSettings, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let stamps = FileStamp::all(&settings);
        let in_use = InUse::read(settings, &clock)?;
        let tls = Self {
            clock,
            in_use: ArcSwap::from_pointee(in_use),
            read: Mutex::new(LastRead { stamps, trouble: None }),
            changes: watch::Sender::new(0),
        };
        tls.remind();
        Ok(Arc::new(tls))
    }

    /// How a listener shakes hands now; `None` if it speaks in clear.
    pub(crate) fn handshake(&self, listener: ListenerName) -> Option<Handshake> {
        let in_use = self.in_use.load();
        in_use.handshakes.iter().find(|(name, _)| *name == listener).map(|(_, handshake)| handshake.clone())
    }

    /// What a reload of the configuration would put in use: everything is read, and nothing is changed.
    pub(crate) fn prepare(&self, settings: TlsSettings) -> Result<NextTls, TlsError> {
        let old = self.in_use.load();
        let all = [ListenerName::Public, ListenerName::Admin, ListenerName::Metrics];
        if all.iter().any(|listener| old.settings.covers(*listener) != settings.covers(*listener)) {
            return Err(TlsError::Fixed);
        }
        let stamps = FileStamp::all(&settings);
        Ok(NextTls { in_use: InUse::read(settings, &self.clock)?, stamps })
    }

    /// Puts it in use: connections that come from now on meet it.
    pub(crate) fn adopt(&self, prepared: NextTls) {
        let NextTls { in_use, stamps } = prepared;
        self.in_use.store(Arc::new(in_use));
        *self.lock() = LastRead { stamps, trouble: None };
        self.changes.send_modify(|count| *count += 1);
        self.remind();
    }

    /// Looks at the files until it is dropped, and takes them over when they change.
    pub(crate) async fn keep(&self) {
        let mut reminded = self.clock.monotonic();
        loop {
            tokio::time::sleep(LOOK).await;
            self.look().await;
            if self.clock.monotonic().saturating_sub(reminded) >= REMINDER {
                reminded = self.clock.monotonic();
                self.remind();
            }
        }
    }

    /// Resolves when a certificate that was taken once is taken no more: it was revoked, it ended, or its authority is trusted no longer.
    pub(crate) async fn distrusts(&self, certificate: &ClientCertificate) {
        let mut changes = self.changes.subscribe();
        loop {
            let now = unix(self.clock.now());
            let in_use = self.in_use.load_full();
            let clients = in_use.material.clients.as_ref();
            if !clients.zip(now).is_some_and(|(clients, now)| clients.takes(certificate, now)) {
                return;
            }
            // Time passes as well.
            drop(tokio::time::timeout(RECHECK, changes.changed()).await);
        }
    }

    /// How it does.
    pub(crate) fn health(&self) -> TlsHealth {
        let in_use = self.in_use.load();
        let valid_until = in_use.material.valid_until;
        let now = self.clock.now();
        let expired = (valid_until <= now).then(|| format!("the certificate ended on {}", day(valid_until)));
        let lists = in_use.material.clients.as_ref().and_then(|clients| clients.lists_until);
        let expired = expired.or_else(|| {
            let over = lists.filter(|until| *until <= now)?;
            Some(format!(
                "a list of revoked certificates ended on {}: no certificate of a client is taken",
                day(over)
            ))
        });
        TlsHealth { valid_until, trouble: self.lock().trouble.clone().or(expired) }
    }

    /// Takes over files that changed. Files that cannot be used are told of once for each change.
    async fn look(&self) {
        let in_use = self.in_use.load_full();
        let settings = in_use.settings.clone();
        let clock = Arc::clone(&self.clock);
        let before = self.lock().stamps.clone();
        let read = tokio::task::spawn_blocking(move || {
            let stamps = FileStamp::all(&settings);
            (stamps != before).then(|| (stamps, InUse::read(settings, &clock)))
        });
        let Ok(Some((stamps, read))) = read.await else { return };
        let mut last = self.lock();
        if !Arc::ptr_eq(&in_use, &self.in_use.load()) {
            // A reload was faster; what it read is newer.
            return;
        }
        match read {
            Ok(new) => {
                tracing::info!(
                    tls.fingerprint = new.fingerprint(),
                    "the files of the certificate changed, and are in use: it is valid until {}",
                    day(new.material.valid_until)
                );
                self.in_use.store(Arc::new(new));
                *last = LastRead { stamps, trouble: None };
                drop(last);
                self.changes.send_modify(|count| *count += 1);
                self.remind();
            }
            Err(error) => {
                let trouble = error.to_string();
                tracing::warn!(
                    "the files of the certificate changed and cannot be used, so the old ones stay: {trouble}"
                );
                *last = LastRead { stamps, trouble: Some(format!("new files cannot be used: {trouble}")) };
            }
        }
    }

    /// Warns of a certificate that ends soon.
    fn remind(&self) {
        let in_use = self.in_use.load();
        let end = in_use.material.valid_until;
        let left = end - self.clock.now();
        if left <= time::Duration::ZERO {
            tracing::warn!("the gateway's certificate ended on {}: clients refuse it", day(end));
        } else if left <= in_use.settings.warn_before {
            tracing::warn!("the gateway's certificate ends on {}: renew it", day(end));
        }
        let lists = in_use.material.clients.as_ref().and_then(|clients| clients.lists_until);
        if let Some(over) = lists.filter(|until| *until <= self.clock.now()) {
            tracing::warn!(
                "a list of revoked certificates ended on {}: no certificate of a client is taken",
                day(over)
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LastRead> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What was read for a reload, and not put in use yet.
pub(crate) struct NextTls {
    in_use: InUse,
    stamps: Vec<FileStamp>,
}

// === impl InUse ===

impl InUse {
    fn read(settings: TlsSettings, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let material = Material::read(&settings).map_err(TlsError::Files)?;
        let handshake = |listener: &ListenerName| {
            let made = Handshake::new(&material, settings.clients.of(*listener), clock);
            Ok((*listener, made.map_err(TlsError::Refused)?))
        };
        let handshakes = settings.listeners.iter().map(handshake).collect::<Result<_, _>>()?;
        Ok(Self { settings, material, handshakes })
    }

    fn fingerprint(&self) -> String {
        self.material.shown.cert.first().map(|der| fingerprint(der)).unwrap_or_default()
    }
}

// === impl FileStamp ===

impl FileStamp {
    fn all(settings: &TlsSettings) -> Vec<Self> {
        settings.files().into_iter().map(|file| Self::of(file)).collect()
    }

    /// A file that cannot be looked at has a stamp too: that it is back is a change.
    fn of(file: &Path) -> Self {
        let found = fs::metadata(file).ok();
        Self(found.map(|it| (it.dev(), it.ino(), it.len(), it.ctime(), it.ctime_nsec())))
    }
}

// === private helpers ===

fn list(problems: &[FileProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn day(at: OffsetDateTime) -> String {
    at.date().to_string()
}
