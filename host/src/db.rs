//! The database: the only module that names sqlx. One file per aggregate, one SQL text for SQLite and PostgreSQL.

pub mod audit;

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use time::OffsetDateTime;

pub mod catalog;
pub mod component;
pub mod evidence;
pub mod pat;
pub mod revocation;
pub mod tenant;
#[cfg(test)]
pub(crate) mod testing;
pub mod user;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// A pool of connections to either database.
#[derive(Debug, Clone)]
pub enum Db {
    /// One file, one node: the default.
    Sqlite(SqlitePool),
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

/// Runs the same body on whichever pool there is: `on!(db, pool => sqlx::query(..).execute(pool).await)`.
macro_rules! on {
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::db::Db::Sqlite($pool) => $body,
            $crate::db::Db::Postgres($pool) => $body,
        }
    };
}
pub(crate) use on;

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
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                // For a database that is made now; one from before keeps what it frees for itself.
                .auto_vacuum(SqliteAutoVacuum::Incremental)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(wait);
            return Ok(Self::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(4)
                    .acquire_timeout(wait)
                    .connect_with(options)
                    .await?,
            ));
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
            Self::Sqlite(pool) => SQLITE.run(pool).await?,
            Self::Postgres(pool) => POSTGRES.run(pool).await?,
        }
        Ok(())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        on!(self, pool => sqlx::query("SELECT 1").execute(pool).await.map(drop)?);
        Ok(())
    }

    /// Closes the pool: waits for connections in use.
    pub async fn close(&self) {
        on!(self, pool => pool.close().await);
    }
}

/// Whole seconds in UTC: what the tables hold, so that times compare the same as text and as timestamps.
pub(crate) fn seconds(at: OffsetDateTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.unix_timestamp()).unwrap_or(at)
}

/// A stored value that no longer reads as what was written.
fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> DbError {
    DbError::Query(sqlx::Error::Decode(Box::new(error)))
}
