//! How one gateway learns at once that another one changed the catalog. PostgreSQL says so; on SQLite there is no other one,
//! and whoever writes behind its back is found by looking at the epoch.

use std::future::pending;

use sqlx::postgres::PgListener;

use crate::db::{Db, DbError};

const CHANNEL: &str = "sallyport_catalog";

/// News of changes.
#[derive(Debug)]
pub struct Changes {
    listener: Option<PgListener>,
}

// === impl Db ===

impl Db {
    /// Listens for changes from now on.
    pub async fn catalog_changes(&self) -> Result<Changes, DbError> {
        let listener = match self {
            Self::Sqlite(_) => None,
            Self::Postgres(pool) => {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.listen(CHANNEL).await?;
                Some(listener)
            }
        };
        Ok(Changes { listener })
    }

    /// Tells the other gateways. It is news, not the change: who misses it finds the epoch moved.
    pub(in crate::db) async fn announce_catalog(&self) -> Result<(), DbError> {
        if let Self::Postgres(pool) = self {
            sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(pool).await?;
        }
        Ok(())
    }
}

// === impl Changes ===

impl Changes {
    /// Waits until somebody changes something; forever where nobody says so.
    pub async fn next(&mut self) -> Result<(), DbError> {
        match &mut self.listener {
            Some(listener) => listener.recv().await.map(drop).map_err(DbError::from),
            None => pending().await,
        }
    }
}
