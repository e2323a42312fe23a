//! How one gateway learns at once that another one changed the catalog. PostgreSQL says so (migration `0006_catalog_news`); on
//! SQLite there is no other one, and whoever writes behind its back is found by looking at the epoch.

use std::future::pending;

use sqlx::postgres::PgListener;

use crate::db::{Db, DbError};

const CHANNEL: &str = "sallyport_catalog";

/// News of changes.
#[derive(Debug)]
pub struct Changes {
    news: Option<News>,
}

/// What is said to all gateways of the database; those of another schema are not meant.
#[derive(Debug)]
struct News {
    listener: PgListener,
    schema: String,
}

// === impl Db ===

impl Db {
    /// Listens for changes from now on.
    pub async fn catalog_changes(&self) -> Result<Changes, DbError> {
        let news = match self {
            Self::Sqlite { .. } => None,
            Self::Postgres(pool) => {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.listen(CHANNEL).await?;
                let schema = sqlx::query_scalar("SELECT current_schema()").fetch_one(pool).await?;
                Some(News { listener, schema })
            }
        };
        Ok(Changes { news })
    }
}

// === impl Changes ===

impl Changes {
    /// Waits until somebody changes something; forever where nobody says so.
    pub async fn next(&mut self) -> Result<(), DbError> {
        let Some(News { listener, schema }) = &mut self.news else { return pending().await };
        while listener.recv().await?.payload() != schema.as_str() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::db::testing::{Fresh, tamper};

    #[tokio::test]
    async fn whoever_moves_the_catalog_is_heard_on_postgresql() {
        let (Some(fresh), Some(other)) = (Fresh::postgres().await, Fresh::postgres().await) else {
            eprintln!("skipped, SALLYPORT_TEST_POSTGRES_URL is not set: {}", module_path!());
            return;
        };
        let mut changes = fresh.db.catalog_changes().await.unwrap();
        let mut heard = async |within: u64| {
            tokio::time::timeout(Duration::from_millis(within), changes.next()).await.map(Result::unwrap)
        };
        for (db, is_news) in [(&other.db, false), (&fresh.db, true)] {
            tamper!(*db, "UPDATE catalog_epoch SET epoch = epoch + 1 WHERE id = 1");
            assert_eq!(heard(if is_news { 10_000 } else { 500 }).await.is_ok(), is_news);
        }
    }
}
