//! What holds for every connection, whoever uses it.

use std::time::Duration;

use sallyport_protocol::id::TenantId;
use sqlx::sqlite::SqlitePool;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use super::Db;
use super::testing::Fresh;

async fn keys(db: &Db) -> i64 {
    let Db::Sqlite { reading: pool, .. } = db else { panic!("the test is about SQLite") };
    sqlx::query_scalar("SELECT COUNT(*) FROM kept").fetch_one(pool).await.unwrap()
}

/// Does with every connection of the pool what a failing disk does: SQLite ends the transaction, and its owner does not know.
async fn lose_transactions(pool: &SqlitePool) {
    let mut open = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        let mut transaction = pool.begin().await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *transaction).await.unwrap();
        open.push(transaction);
    }
}

#[tokio::test]
async fn what_is_written_after_a_transaction_was_lost_is_committed_and_seen() {
    let fresh = Fresh::sqlite().await;
    let Db::Sqlite { writing: pool, .. } = &fresh.db else { panic!("the test is about SQLite") };
    sqlx::query("CREATE TABLE kept (id INTEGER)").execute(pool).await.unwrap();
    lose_transactions(pool).await;
    for _ in 0..8 {
        pool.begin().await.unwrap().rollback().await.unwrap();
    }
    let beside = Db::open(&fresh.url).await.unwrap();
    for id in 1..=8 {
        sqlx::query("INSERT INTO kept (id) VALUES ($1)").bind(id).execute(pool).await.unwrap();
        assert_eq!(keys(&beside).await, id, "another process sees it");
        assert_eq!(keys(&fresh.db).await, id, "and every connection of this one");
    }
}

#[tokio::test]
async fn a_database_file_that_was_removed_does_not_come_back_empty() {
    let fresh = Fresh::sqlite().await;
    let file = fresh.db.file().unwrap();
    let Db::Sqlite { reading: pool, .. } = &fresh.db else { panic!("the test is about SQLite") };
    let held = pool.acquire().await.unwrap();
    for end in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{end}", file.display())));
    }
    // Those that are open still answer; a new one has nothing to open.
    let mut others = Vec::new();
    let refused = loop {
        match pool.acquire().await {
            Ok(connection) => others.push(connection),
            Err(error) => break error,
        }
        assert!(others.len() < 4, "a connection was made to a file that is gone");
    };
    assert!(matches!(refused, sqlx::Error::Database(_) | sqlx::Error::PoolTimedOut), "{refused:?}");
    assert!(!file.exists(), "nothing was made in its place");
    drop(held);
}

#[tokio::test]
async fn a_database_in_memory_has_no_file() {
    let db = Db::open("sqlite::memory:").await.unwrap();
    assert_eq!(db.file(), None);
    assert_eq!(Db::file_of("sqlite::memory:"), None);
}

/// Another process, a backup or a person with a shell, writes for as long as it likes.
#[tokio::test]
async fn reads_are_answered_while_everybody_waits_to_write() {
    let fresh = Fresh::sqlite().await;
    let tenant = TenantId::parse("acme").unwrap();
    fresh.db.insert_tenant(&tenant, "Acme", OffsetDateTime::UNIX_EPOCH).await.unwrap();
    let beside = Db::open(&fresh.url).await.unwrap();
    let Db::Sqlite { writing: pool, .. } = &beside else { panic!("the test is about SQLite") };
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();

    let mut writers = JoinSet::new();
    for _ in 0..16 {
        let (db, tenant) = (fresh.db.clone(), tenant.clone());
        writers.spawn(async move { db.disable_tenant(&tenant, OffsetDateTime::UNIX_EPOCH).await });
    }
    // Each writer waits by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..100 {
        let known = fresh.db.tenant(&tenant).await.unwrap().unwrap();
        assert_eq!(known.disabled_at, None);
    }
    assert_eq!(writers.try_join_next().map(|_| ()), None, "no writer got through or gave up meanwhile");

    lock.rollback().await.unwrap();
    while let Some(written) = writers.join_next().await {
        assert!(written.unwrap().unwrap());
    }
    let known = fresh.db.tenant(&tenant).await.unwrap().unwrap();
    assert_eq!(known.disabled_at, Some(OffsetDateTime::UNIX_EPOCH), "what was written is read at once");
}

#[tokio::test]
async fn a_connection_that_reads_cannot_write() {
    let fresh = Fresh::sqlite().await;
    let Db::Sqlite { reading, .. } = &fresh.db else { panic!("the test is about SQLite") };
    let refused = sqlx::query("UPDATE auth_epoch SET epoch = 7").execute(reading).await.unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");
}
