//! Fresh databases for tests: each body runs once on SQLite and once on PostgreSQL, so that one SQL text is tried on both.

use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;

use super::Db;

/// A migrated, empty database.
pub(crate) struct Fresh {
    pub(crate) db: Db,
    /// Where a second process would connect.
    pub(crate) url: String,
    _directory: Option<TempDir>,
}

/// Makes two tests of one body: `name::on_sqlite` and `name::on_postgresql`. The second needs a server, named by
/// `SALLYPORT_TEST_POSTGRES_URL`; without one it says that it was skipped.
macro_rules! on_both {
    ($(async fn $name:ident($fresh:ident: Fresh) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn body($fresh: $crate::db::testing::Fresh) $body

            #[tokio::test]
            async fn on_sqlite() {
                body($crate::db::testing::Fresh::sqlite().await).await;
            }

            #[tokio::test]
            async fn on_postgresql() {
                match $crate::db::testing::Fresh::postgres().await {
                    Some(fresh) => body(fresh).await,
                    None => $crate::db::testing::skipped(module_path!()),
                }
            }
        }
    )*};
}
pub(crate) use on_both;

/// Says by name what did not run on PostgreSQL, straight to the runner's output: what a passing test prints is not shown, and
/// `cargo xtask test` counts these lines.
pub(crate) fn skipped(what: &str) {
    use std::io::Write as _;
    let line = format!("skipped: {what} on PostgreSQL (SALLYPORT_TEST_POSTGRES_URL is not set)\n");
    drop(std::io::stdout().write_all(line.as_bytes()));
}

/// Edits a table behind everybody's back; returns how many rows it hit.
macro_rules! tamper {
    ($db:expr, $sql:literal $(, $value:expr)*) => {
        $crate::db::writing!(&$db, pool => {
            sqlx::query($sql)$(.bind($value))*.execute(pool).await.unwrap().rows_affected()
        })
    };
}
pub(crate) use tamper;

// === impl Fresh ===

impl Fresh {
    /// A database in a file of its own.
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("test.sqlite").display());
        let db = Db::open(&url).await.unwrap();
        db.migrate().await.unwrap();
        Self { db, url, _directory: Some(directory) }
    }

    /// A schema of its own on the server that the environment names.
    #[expect(clippy::disallowed_methods, reason = "a test is told by its environment where the server is")]
    pub(crate) async fn postgres() -> Option<Self> {
        let server = std::env::var("SALLYPORT_TEST_POSTGRES_URL").ok()?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let schema = format!("test_{}", sallyport_protocol::canonical::hex(&random));
        let options =
            PgConnectOptions::from_str(&server).unwrap().options([("search_path", schema.as_str())]);
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        sqlx::raw_sql(
            "DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I', current_setting('search_path')); END $$",
        )
        .execute(&pool)
        .await
        .unwrap();
        pool.close().await;
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options=-c%20search_path%3D{schema}");
        let db = Db::open(&url).await.unwrap();
        db.migrate().await.unwrap();
        Some(Self { db, url, _directory: None })
    }
}
