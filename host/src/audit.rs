//! The audit trail: no row, no answer. Calls are recorded in a local spool before they go upstream and before they complete;
//! from there the rows go to the database, and to a SIEM.

mod direct;
mod drain;
mod event;
mod row;
mod rows;
mod siem;
mod spool;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::direct::{COMMAND_LINE, DirectError, record_directly};
use self::drain::{Consumer, Target};
pub use self::event::{Event, Intent, Kind, Outcome, Who};
pub use self::row::{OpenRow, Opening};
use self::rows::Records;
use self::siem::Outlet;
use self::spool::cursor::{Cursor, remembered};
use self::spool::frame::Chain;
use self::spool::recover::{Recovered, recover};
use self::spool::segment::{Disk, LocalDisk, replace};
use self::spool::shared::Shared;
use self::spool::{Command, Sizes, Writer};
use crate::clock::Clock;
use crate::db::{Db, DbError};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The spool: survives the process, however it dies.
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
    /// A row of the call has no form that can be stored.
    #[error("an audit row cannot be written: {0}")]
    Row(String),
    /// The gateway is shutting down.
    #[error("the audit trail is closed")]
    Stopped,
}

/// Why the trail could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    ) -> Result<Arc<Self>, StartError> {
        Self::start_on(&settings, db, clock, Arc::new(LocalDisk)).await
    }

    async fn start_on(
        settings: &AuditSettings,
        db: Db,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, StartError> {
        let dir = settings.spool_dir.clone();
        let failed = |source| StartError::Spool { dir: dir.clone(), source };
        let (lock, first) = tokio::task::spawn_blocking({
            let (dir, replica) = (dir.clone(), settings.replica.clone());
            move || claim(&dir, &replica)
        })
        .await
        .map_err(StartError::Task)??;
        let chain = Chain(settings.chain_key.as_ref().map(|key| key.0));
        let now = clock.now();
        let mut recovered = tokio::task::spawn_blocking({
            let place = place(&dir, "database");
            let dir = dir.clone();
            move || recover(&dir, chain, remembered(&place)?, now.unix_timestamp())
        })
        .await
        .map_err(StartError::Task)?
        .map_err(failed)?;
        number_rows(&settings.replica, &db, &mut recovered).await?;

        let next = recovered.marks.first_sequence;
        let begin = recovered.begin;
        let mut targets = vec![("database".to_owned(), Target::Database(db))];
        targets.extend(settings.siem.iter().map(|sink| (siem::name(sink), Target::Siem(Outlet::new(sink)))));
        let mut starts = Vec::new();
        for (name, _) in &targets {
            // A new sink begins with what is still in the spool; a place beyond a break goes back to where the spool ends.
            let remembered = remembered(&place(&dir, name)).map_err(failed)?;
            starts.push(remembered.unwrap_or(begin).clamp(begin, next.max(begin)));
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
        .map_err(StartError::Task)?
        .map_err(failed)?;

        let hurry = Arc::new(Notify::new());
        let consumers =
            targets.into_iter().zip(starts).enumerate().map(|(index, ((name, target), start))| {
                let cursor = Cursor::new(&dir, place(&dir, &name), chain, start);
                let replica = settings.replica.clone();
                Consumer::new(index, name, replica, Arc::clone(&shared), Arc::clone(&hurry), cursor, target)
            });
        let consumers = consumers.collect();
        let audit = Self { shared, consumers, hurry, writer: Mutex::new(Some(writer)), _lock: lock };
        if let Some(what) = broken {
            tracing::error!(spool = %dir.display(), "the audit spool was broken: {what}");
            audit.say_broken(now, &what).await;
        } else if first {
            tracing::info!(spool = %dir.display(), replica = settings.replica, "a new audit spool was begun");
        }
        Ok(Arc::new(audit))
    }

    /// Begins to record a call. Nothing may go upstream before the answer.
    pub fn open(&self, intent: Intent) -> Opening {
        Opening::new(&self.shared, intent)
    }

    /// Records a row that belongs to no call.
    pub async fn record(&self, event: Event) -> Result<(), Unavailable> {
        self.shared.admit()?;
        let rows = Records::one(event, self.shared.record)?.first;
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Add { rows, reply });
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
        self.shared.send(Command::Stop { reply });
        if stopped.await.is_err() {
            tracing::warn!("the audit writer had ended before");
        }
        if tokio::time::timeout(LAST_DELIVERY, self.flush()).await != Ok(true) {
            tracing::warn!("audit rows stay in the spool until the next start");
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
        let payload = json!({ "code": "spool_broken", "reason": what });
        let row = Event::plain(now, Kind::Admin, Who::nobody(), Outcome::Error, payload);
        let (reply, answer) = oneshot::channel();
        let rows = Records::one(row, self.shared.record).map(|records| records.first);
        let sent = rows.is_ok_and(|rows| self.shared.send(Command::Add { rows, reply }));
        if !sent || !matches!(answer.await, Ok(Ok(_))) {
            tracing::error!("the row that says that the spool was broken could not be written");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        self.shared.send(Command::Stop { reply });
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Audit").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// Makes the directory ours alone. Whether it is new.
fn claim(dir: &Path, replica: &str) -> Result<(File, bool), StartError> {
    let failed = |source| StartError::Spool { dir: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let lock =
        File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(StartError::Locked { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    let name = dir.join("replica");
    match fs::read_to_string(&name) {
        Ok(found) if found == replica => Ok((lock, false)),
        Ok(found) => Err(StartError::Replica { dir: dir.to_owned(), found, wanted: replica.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            replace(&name, replica.as_bytes()).map_err(failed)?;
            Ok((lock, true))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Where a consumer's place is remembered.
fn place(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.place"))
}

/// Row numbers go on where the database ends, if it knows more than the spool.
async fn number_rows(replica: &str, db: &Db, recovered: &mut Recovered) -> Result<(), StartError> {
    let next = &mut recovered.marks.first_row;
    let last = match db.audit_last(replica).await {
        Ok(last) => u64::try_from(last.unwrap_or(0)).unwrap_or(0),
        Err(error) if recovered.fresh => return Err(StartError::Database(error)),
        Err(_) => {
            // Beyond a break there may be rows that were delivered: their numbers must not be used again.
            *next = (*next).max(recovered.seen_row);
            return Ok(());
        }
    };
    if last >= *next {
        if !recovered.fresh && recovered.broken.is_none() {
            return Err(StartError::Foreign { replica: replica.to_owned(), last, next: *next });
        }
        *next = last + 1;
    }
    Ok(())
}
