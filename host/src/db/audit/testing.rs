//! Databases for tests: a SQLite file always, PostgreSQL where there is one; and what a test does to them.

use std::path::Path;

use sqlx::QueryBuilder;

use crate::db::{Db, writing};

/// A new SQLite database in `dir`, migrated.
pub(crate) async fn sqlite(dir: &Path) -> Db {
    let db = Db::open(&format!("sqlite:{}", dir.join("audit.db").display())).await.unwrap();
    db.migrate().await.unwrap();
    db
}

/// Both databases, fresh and migrated; SQLite alone where no PostgreSQL was named.
pub(crate) async fn both(dir: &Path) -> Vec<Db> {
    let mut all = vec![sqlite(dir).await];
    #[expect(clippy::disallowed_methods, reason = "the test runner names the server")]
    let url = std::env::var("SALLYPORT_TEST_POSTGRES_URL");
    match url {
        Ok(url) => all.push(postgres(&url, dir).await),
        Err(_) => crate::db::testing::skipped(std::thread::current().name().unwrap_or("a test")),
    }
    all
}

/// A schema of its own on the server.
async fn postgres(url: &str, dir: &Path) -> Db {
    let name = dir.file_name().unwrap().to_str().unwrap().replace('.', "t").to_lowercase();
    let server = Db::open(url).await.unwrap();
    execute(&server, &format!("CREATE SCHEMA {name}")).await;
    server.close().await;
    let separator = if url.contains('?') { '&' } else { '?' };
    let db = Db::open(&format!("{url}{separator}options[search_path]={name}")).await.unwrap();
    db.migrate().await.unwrap();
    db
}

/// Runs a statement of a test.
pub(crate) async fn execute(db: &Db, sql: &str) {
    writing!(db, pool => { QueryBuilder::new(sql).build().execute(pool).await.unwrap(); });
}

/// A row of a trace, with this payload.
pub(crate) async fn insert_payload(db: &Db, tenant: &str, trace: &str, payload: &str) {
    let columns = "kind, user_id, session_id, trace_id, client_id, tenant_id, policy_ver, call_source, outcome, \
                   payload, replica, sequence";
    let values = format!(
        "'inference', 'u', 's', '{trace}', 'c', '{tenant}', 'v', 'api', 'allowed', '{payload}', 'r', 1"
    );
    execute(db, &format!("INSERT INTO audit_events ({columns}) VALUES ({values})")).await;
}

/// Takes the table away: every insert fails from now on.
pub(crate) async fn take_away(db: &Db) {
    execute(db, "ALTER TABLE audit_events RENAME TO audit_events_away").await;
}

/// Brings the table back.
pub(crate) async fn bring_back(db: &Db) {
    execute(db, "ALTER TABLE audit_events_away RENAME TO audit_events").await;
}
