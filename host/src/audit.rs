//! The audit trail: no row, no answer. Calls are recorded in a local spool before they go upstream and before they complete;
//! from there the rows go to the database, and to a SIEM.

mod database;
mod direct;
mod drain;
mod event;
mod fields;
mod reconcile;
mod row;
mod rows;
mod siem;
mod spool;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use sallyport_protocol::errors::ErrorCode;
use serde_json::json;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::database::AuditDatabase;
pub use self::direct::{COMMAND_LINE, DirectError, record_directly};
use self::drain::{Consumer, Target};
pub(crate) use self::event::CATALOG;
pub use self::event::{Action, Event, Intent, JsonEntries, Kind, Outcome, Who};
pub use self::fields::RowFields;
use self::reconcile::Approval;
pub use self::reconcile::{Survey, SurveyError};
pub use self::row::{OpenRow, Opening};
use self::rows::Records;
use self::siem::Outlet;
use self::spool::cursor::Cursor;
use self::spool::frame::Chain;
use self::spool::place::{DeliveryPlace, PlaceFile};
use self::spool::recover::recover;
use self::spool::segment::{Disk, LocalDisk, replace};
use self::spool::shared::Shared;
use self::spool::{Sizes, Writer, WriterCommand};
use crate::clock::{Clock, Entropy};
use crate::db::{Db, DbError};
use crate::modes;

/// How the trail is kept.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The directory of the spool: on a local disk, for one gateway alone.
    pub spool_dir: PathBuf,
    /// What an outcome waits for.
    pub durability: Durability,
    /// The spool takes at most so much of the disk.
    pub max_bytes: u64,
    /// So long the gateway serves while the database fails.
    pub max_age: Duration,
    /// Where every row goes besides the database.
    pub siem: Vec<Sink>,
    /// The name of this gateway in the rows. No other gateway on the same database may have it.
    pub replica: String,
    /// The key of the hash chain; without it the chain shows damage, but not a forger who writes a new one.
    pub chain_key: Option<ChainKey>,
}

/// What an outcome waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The spool: survives the process, however it dies.
    #[default]
    Spool,
    /// The database's commit.
    Strict,
}

/// Where rows go besides the database, as lines of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file that rotates by size.
    File(PathBuf),
}

/// The key of the hash chain.
#[derive(Clone)]
pub struct ChainKey(pub [u8; 32]);

/// How the trail is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Rows come through.
    Ok,
    /// Calls are served, but somebody must look.
    Degraded(String),
    /// Calls are refused.
    Down(String),
}

/// The call cannot be recorded, so it must not happen: 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no room for the call and its outcome.
    #[error("the audit spool is full")]
    Full,
    /// The spool cannot be written.
    #[error("the audit spool is down: {0}")]
    Down(String),
    /// The database was away for too long, or is away and rows must wait for it.
    #[error("the database does not take audit rows")]
    Database,
    /// The database was removed, emptied, exchanged or brought back from a backup, or another gateway writes under this name.
    #[error("{0}; the gateway serves again once that is mended, or after `sallyport audit reconcile`")]
    OtherDatabase(String),
    /// A row of the call has no form that can be stored.
    #[error("an audit row cannot be written: {0}")]
    Row(String),
    /// The gateway is shutting down.
    #[error("the audit trail is closed")]
    Stopped,
}

/// Why the trail could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditStartError {
    /// The directory of the spool.
    #[error("the audit spool at {dir} cannot be used")]
    Spool {
        /// The directory.
        dir: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// Another process holds it.
    #[error("the audit spool at {dir} is in use by another gateway")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The configured name is not the spool's.
    #[error(
        "the audit spool at {dir} belongs to replica {found}, not to {wanted}: drain it under its own name first"
    )]
    Replica {
        /// The directory.
        dir: PathBuf,
        /// The spool's name.
        found: String,
        /// The configured name.
        wanted: String,
    },
    /// Another gateway writes under the name.
    #[error(
        "another gateway writes audit rows as replica {replica}: its spool is {holder}, and the name is its own for {seconds} s more; \
         give each gateway its own audit.replica, or wait if that one is gone"
    )]
    Leased {
        /// The name.
        replica: String,
        /// The other gateway's spool.
        holder: String,
        /// How long the name is taken at least.
        seconds: i64,
    },
    /// The database has rows that this spool never wrote.
    #[error(
        "the database has rows of replica {replica} up to {last}, this spool ends before {next}: \
         another gateway uses this name, or the spool is an old copy"
    )]
    Foreign {
        /// The name.
        replica: String,
        /// The last row in the database.
        last: u64,
        /// The row that the spool would write next.
        next: u64,
    },
    /// A new spool must know where its row numbers begin.
    #[error("the database did not say which audit rows it has")]
    Database(#[source] DbError),
    /// A background task ended early.
    #[error("a background task ended early")]
    Task(#[source] tokio::task::JoinError),
}

/// The audit trail.
pub struct Audit {
    shared: Arc<Shared>,
    consumers: Vec<Consumer>,
    hurry: Arc<Notify>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    _lock: File,
}

/// The name of a gateway that was given none.
pub const DEFAULT_REPLICA: &str = "gateway-1";
/// The file with the name of the spool's gateway.
const NAME: &str = "replica";
/// The last delivery at shutdown may take so long; what is left waits in the spool.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

// === impl AuditSettings ===

impl AuditSettings {
    /// The defaults, with the spool in `spool_dir`.
    pub fn new(spool_dir: PathBuf) -> Self {
        Self {
            spool_dir,
            durability: Durability::Spool,
            max_bytes: 1 << 30,
            max_age: Duration::from_hours(1),
            siem: Vec::new(),
            replica: DEFAULT_REPLICA.to_owned(),
            chain_key: None,
        }
    }
}

// === impl ChainKey ===

impl std::fmt::Debug for ChainKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ChainKey(..)")
    }
}

// === impl Audit ===

impl Audit {
    /// Opens the spool, verifies it, and closes every call that a crash interrupted. The schema must be up to date.
    pub async fn start(
        settings: AuditSettings,
        db: Db,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Arc<Self>, AuditStartError> {
        Self::start_on(&settings, db, clock, entropy, Arc::new(LocalDisk)).await
    }

    async fn start_on(
        settings: &AuditSettings,
        db: Db,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, AuditStartError> {
        let dir = settings.spool_dir.clone();
        let failed = |source| AuditStartError::Spool { dir: dir.clone(), source };
        let (lock, first) = tokio::task::spawn_blocking({
            let (dir, replica) = (dir.clone(), settings.replica.clone());
            move || claim(&dir, &replica)
        })
        .await
        .map_err(AuditStartError::Task)??;
        let chain = Chain(settings.chain_key.as_ref().map(|key| key.0));
        let now = clock.now();
        let mut recovered = tokio::task::spawn_blocking({
            let place = place(&dir, "database");
            let dir = dir.clone();
            move || {
                recover(
                    &dir,
                    chain,
                    DeliveryPlace::load(&place)?.map(|place| place.next),
                    now.unix_timestamp(),
                )
            }
        })
        .await
        .map_err(AuditStartError::Task)?
        .map_err(failed)?;
        let (replica, times) = (&settings.replica, Arc::clone(&clock));
        let mut database = AuditDatabase::load(db, &dir, chain, replica, times, entropy).map_err(failed)?;
        let (place_there, mut reconciled, other) = match database.attach_at_start(&mut recovered).await? {
            Ok(attached) => (Some(attached.next), attached.reconciled, None),
            Err(other) => (None, None, Some(other)),
        };

        let next = recovered.marks.first_sequence;
        let begin = recovered.begin;
        let mut targets = vec![("database".to_owned(), Target::Database(Box::new(database)))];
        for sink in &settings.siem {
            let name = siem::name(sink);
            let remembers = PlaceFile::new(place(&dir, &name));
            targets.push((name, Target::Siem(Outlet::new(sink), remembers)));
        }
        let mut starts = Vec::new();
        for (name, target) in &targets {
            // A new sink begins with what is still in the spool; a place beyond a break goes back to where the spool ends.
            let remembered = DeliveryPlace::load(&place(&dir, name)).map_err(failed)?.map(|place| place.next);
            let there = if matches!(target, Target::Database(_)) { place_there } else { None };
            starts.push(there.or(remembered).unwrap_or(begin).clamp(begin, next.max(begin)));
        }
        let (commands, received) = mpsc::channel();
        let sizes = Sizes::new(settings.max_bytes);
        let broken = recovered.broken.clone();
        let shared =
            Arc::new(Shared::new(clock, settings, sizes.record, commands, &starts, next, broken.clone()));
        let writer = tokio::task::spawn_blocking({
            let (dir, shared) = (dir.clone(), Arc::clone(&shared));
            move || {
                let writer = Writer::begin(&dir, sizes, chain, disk, recovered, Arc::clone(&shared))?;
                let writer = Arc::new(Mutex::new(writer));
                shared.lend(&writer);
                let serve = move || spool::run(&writer, &received);
                thread::Builder::new().name("audit-writer".to_owned()).spawn(serve)
            }
        })
        .await
        .map_err(AuditStartError::Task)?
        .map_err(failed)?;

        let hurry = Arc::new(Notify::new());
        let consumers =
            targets.into_iter().zip(starts).enumerate().map(|(index, ((name, target), start))| {
                let cursor = Cursor::new(&dir, chain, start);
                let replica = settings.replica.clone();
                Consumer::new(index, name, replica, Arc::clone(&shared), Arc::clone(&hurry), cursor, target)
            });
        let consumers = consumers.collect();
        let audit = Self { shared, consumers, hurry, writer: Mutex::new(Some(writer)), _lock: lock };
        if let Some(other) = other {
            audit.shared.set_other(Some(other.to_string()));
        }
        if let (Some(row), Some(consumer)) = (reconciled.take(), audit.consumers.first())
            && let Err(error) = consumer.say_reconciled(&dir, row).await
        {
            tracing::error!(error = %error, "the row that says that the database was reconciled could not be written");
        }
        if let Some(what) = broken {
            tracing::error!(spool = %dir.display(), "the audit spool was broken: {what}");
            audit.say_broken(now, &what).await;
        } else if first {
            tracing::info!(spool = %dir.display(), replica = settings.replica, "a new audit spool was begun");
        }
        Ok(Arc::new(audit))
    }

    /// Begins to record a call. Nothing may go upstream before the answer.
    pub fn open(&self, intent: impl Borrow<Intent>) -> Opening {
        Opening::new(&self.shared, intent.borrow())
    }

    /// Records a row that belongs to no call.
    pub async fn record(&self, event: Event) -> Result<(), Unavailable> {
        self.shared.admit()?;
        let rows = Records::one(event, self.shared.record)?.first;
        let (reply, answer) = oneshot::channel();
        self.shared.send(WriterCommand::Add { rows, reply });
        let sequence = answer.await.unwrap_or(Err(Unavailable::Stopped))?;
        row::settled(&self.shared, sequence).await
    }

    /// Moves records to the database and the SIEM until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        join_all(self.consumers.iter().map(|consumer| consumer.run(shutdown.clone()))).await;
    }

    /// How the trail is doing.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Why the database is not the one that the trail was delivered to; `None` if it is.
    pub fn other_database(&self) -> Option<String> {
        self.shared.other()
    }

    /// The health whenever the spool, the database or a SIEM fails or recovers.
    pub fn changes(&self) -> watch::Receiver<Health> {
        self.shared.changes()
    }

    /// Delivers everything recorded so far; false if the database or a SIEM does not take it now.
    pub async fn flush(&self) -> bool {
        self.hurry.notify_waiters();
        let results = join_all(self.consumers.iter().map(Consumer::catch_up)).await;
        results.iter().all(Result::is_ok)
    }

    /// Refuses new calls, ends the writer and delivers what it can. Rows still open at this point are closed as interrupted
    /// at the next start.
    pub async fn close(&self) {
        self.shared.stop();
        let (reply, stopped) = oneshot::channel();
        self.shared.send(WriterCommand::Stop { reply });
        if stopped.await.is_err() {
            tracing::warn!("the audit writer had ended before");
        }
        if tokio::time::timeout(LAST_DELIVERY, self.flush()).await != Ok(true) {
            tracing::warn!("audit rows stay in the spool until the next start");
        } else if let Some(database) = self.consumers.first() {
            database.release().await;
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the audit writer ended in a panic");
            }
        }
    }

    /// The break is itself a row, so that it reaches whoever reads the trail.
    async fn say_broken(&self, now: time::OffsetDateTime, what: &str) {
        let payload = json!({ "code": ErrorCode::SpoolBroken, "reason": what });
        let row = Event::plain(now, Kind::Admin, Who::nobody(), Outcome::Error, payload);
        let (reply, answer) = oneshot::channel();
        let rows = Records::one(row, self.shared.record).map(|records| records.first);
        let sent = rows.is_ok_and(|rows| self.shared.send(WriterCommand::Add { rows, reply }));
        if !sent || !matches!(answer.await, Ok(Ok(_))) {
            tracing::error!("the row that says that the spool was broken could not be written");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        self.shared.send(WriterCommand::Stop { reply });
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Audit").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// Makes the directory ours alone. Whether it is new.
fn claim(dir: &Path, replica: &str) -> Result<(File, bool), AuditStartError> {
    let failed = |source| AuditStartError::Spool { dir: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    modes::make_private_whole(dir);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(AuditStartError::Locked { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    let name = dir.join(NAME);
    match replica_of(dir).map_err(failed)? {
        Some(found) if found == replica => Ok((lock, false)),
        Some(found) => {
            // Somebody approved that its rows go on under another name.
            let approval = Approval::load(dir).map_err(failed)?;
            if approval.is_none_or(|approval| approval.replica != replica) {
                return Err(AuditStartError::Replica {
                    dir: dir.to_owned(),
                    found,
                    wanted: replica.to_owned(),
                });
            }
            replace(&name, replica.as_bytes()).map_err(failed)?;
            Ok((lock, false))
        }
        None => {
            replace(&name, replica.as_bytes()).map_err(failed)?;
            Ok((lock, true))
        }
    }
}

/// The name of the gateway whose spool this is.
fn replica_of(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(dir.join(NAME)) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a consumer's place is remembered.
fn place(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.place"))
}
