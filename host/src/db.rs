//! The database: the only module that names sqlx. One file per aggregate, one SQL text for SQLite and PostgreSQL.

pub mod audit;

use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use time::OffsetDateTime;

use crate::modes;

pub mod catalog;
pub mod certificate;
pub mod component;
pub mod entitlement;
pub mod evidence;
pub mod oauth;
pub mod pat;
pub mod provider;
pub mod revocation;
pub mod scim;
pub mod scim_group;
pub mod sign_in;
pub mod spending;
pub mod stored;
pub mod tenant;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod token_key;
pub mod user;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections to either database.
#[derive(Debug, Clone)]
pub enum Db {
    /// One file, one node: the default. It takes one writer at a time, and answers readers meanwhile
    /// (<https://www.sqlite.org/wal.html>): with pools of their own, nobody who only reads waits behind those who wait to write.
    Sqlite {
        /// One connection: its users wait for it in their order, and none finds that another changed what it has just read.
        writing: SqlitePool,
        /// Connections that cannot write.
        reading: SqlitePool,
    },
    /// Several replicas share it.
    Postgres(PgPool),
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The URL is neither `sqlite:` nor `postgres:`.
    #[error("the database URL must start with sqlite: or postgres:")]
    UnknownScheme,
    /// The database did not answer, or refused a statement.
    #[error("the database failed")]
    Query(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database schema could not be migrated")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Runs the same body on whichever pool there is: `writing!(db, pool => sqlx::query(..).execute(pool).await)`.
macro_rules! writing {
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::db::Db::Sqlite { writing: $pool, .. } => $body,
            $crate::db::Db::Postgres($pool) => $body,
        }
    };
}
pub(crate) use writing;

/// The same for what only reads: it is answered while another process keeps the database locked for writes.
macro_rules! reading {
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::db::Db::Sqlite { reading: $pool, .. } => $body,
            $crate::db::Db::Postgres($pool) => $body,
        }
    };
}
pub(crate) use reading;

/// What every change of the catalog does last, in its transaction: gateways that see another epoch read all of it again.
const CATALOG_MOVED: &str = "UPDATE catalog_epoch SET epoch = epoch + 1 WHERE id = 1";
/// The same for what authentication keeps in memory.
const AUTH_MOVED: &str = "UPDATE auth_epoch SET epoch = epoch + 1 WHERE id = 1";

// === impl Db ===

impl Db {
    /// Connects; does not migrate. `url` is `sqlite:<path>` or `postgres://...`.
    pub async fn open(url: &str) -> Result<Self, DbError> {
        let wait = Duration::from_secs(5);
        if url.starts_with("sqlite:") {
            if let Some(file) = Self::file_of(url) {
                // SQLite makes files that everybody may read. What else goes wrong here it says itself.
                drop(modes::create_private(&file));
                for file in modes::sqlite_files(&file) {
                    modes::make_private(&file);
                }
            }
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(false)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(wait);
            let pool = SqlitePoolOptions::new()
                .acquire_timeout(wait)
                .after_release(|connection, _| Box::pin(without_transaction(connection)));
            // For a database that is made now; one from before keeps what it frees for itself. To say so takes the lock of writers.
            let new = options.clone().create_if_missing(true).auto_vacuum(SqliteAutoVacuum::Incremental);
            let writing = pool.clone().max_connections(1).connect_with(new).await?;
            // A file that was removed while the gateway runs must not come back empty with the next connection.
            writing.set_connect_options(options.clone());
            let reading = match file(&options) {
                Some(_) => pool.max_connections(4).connect_lazy_with(options.pragma("query_only", "ON")),
                // In memory, readers would wait for writers all the same.
                None => writing.clone(),
            };
            return Ok(Self::Sqlite { writing, reading });
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return Ok(Self::Postgres(
                PgPoolOptions::new().max_connections(8).acquire_timeout(wait).connect(url).await?,
            ));
        }
        Err(DbError::UnknownScheme)
    }

    /// Brings the schema up to date. Migrations only go forward.
    pub async fn migrate(&self) -> Result<(), DbError> {
        match self {
            Self::Sqlite { writing, .. } => SQLITE.run(writing).await?,
            Self::Postgres(pool) => POSTGRES.run(pool).await?,
        }
        Ok(())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        reading!(self, pool => sqlx::query("SELECT 1").execute(pool).await.map(drop)?);
        Ok(())
    }

    /// The file that a URL of a SQLite database names; `None` for a server, and for a database in memory.
    pub fn file_of(url: &str) -> Option<std::path::PathBuf> {
        let options = url.starts_with("sqlite:").then(|| SqliteConnectOptions::from_str(url).ok())??;
        file(&options)
    }

    /// The file that a SQLite database is in; `None` for a server, and for a database in memory.
    pub fn file(&self) -> Option<std::path::PathBuf> {
        match self {
            Self::Sqlite { writing, .. } => file(&writing.connect_options()),
            Self::Postgres(_) => None,
        }
    }

    /// Closes the pool: waits for connections in use.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writing, reading } => {
                // The last one to close leaves one file instead of three, if it may write.
                reading.close().await;
                writing.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Whole seconds in UTC: what the tables hold, so that times compare the same as text and as timestamps.
pub(crate) fn seconds(at: OffsetDateTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.unix_timestamp()).unwrap_or(at)
}

/// The file of a SQLite database. sqlx names a database in memory by a URI, `file:sqlx-in-memory-..`.
fn file(options: &SqliteConnectOptions) -> Option<std::path::PathBuf> {
    Some(options.get_filename().to_owned()).filter(|file| !file.to_string_lossy().starts_with("file:"))
}

/// Makes a connection fit for its next user; false if it cannot be. SQLite ends a transaction by itself where the disk is full or
/// fails (<https://www.sqlite.org/lang_transaction.html>), and sqlx goes on to count it: what the next user begins is a savepoint
/// then, and its rollback would leave a transaction open, with reads of an old state and writes that are never committed. The
/// connection is kept, since a new one cannot be made while the disk is full.
async fn without_transaction(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if !connection.is_in_transaction() {
        return Ok(true);
    }
    // A rollback may be on its way: the answer comes behind it.
    connection.ping().await?;
    if !connection.is_in_transaction() {
        return Ok(true);
    }
    match sqlx::query("ROLLBACK").execute(connection).await {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) => Ok(error.message().contains("no transaction is active")),
        Err(_) => Ok(false),
    }
}

/// A stored value that no longer reads as what was written.
fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> DbError {
    DbError::Query(sqlx::Error::Decode(Box::new(error)))
}
