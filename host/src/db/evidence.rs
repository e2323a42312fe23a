//! Evidence as stored: sealed records of calls, sealed configurations, and the wrapped data key of each tenant. What the seals
//! hold is nothing to this module.

use time::OffsetDateTime;

use super::{Db, DbError, reading, seconds, writing};

/// A sealed call.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SealedCall {
    /// Whose call it was.
    pub tenant_id: String,
    /// Its trace.
    pub trace_id: String,
    /// The gateway's id of the HTTP request.
    pub request_id: String,
    /// When it was recorded, in milliseconds since 1970.
    pub recorded_ms: i64,
    /// The record.
    pub sealed: Vec<u8>,
}

/// A tenant's data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct WrappedKey {
    /// Tells it from the keys that the tenant had before.
    pub key_id: String,
    /// The key under the gateway's evidence key.
    pub wrapped: Vec<u8>,
}

/// Where a page of calls begins: behind this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// When it was recorded.
    pub recorded_ms: i64,
    /// Its request.
    pub request_id: String,
}

// === impl Db ===

impl Db {
    /// Keeps a call; `false` if it is there already.
    pub async fn insert_evidence(&self, call: &SealedCall) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => sqlx::query(
            "INSERT INTO call_evidence (tenant_id, trace_id, request_id, recorded_ms, sealed) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
            .bind(&call.tenant_id).bind(&call.trace_id).bind(&call.request_id)
            .bind(call.recorded_ms).bind(&call.sealed)
            .execute(pool).await?.rows_affected());
        Ok(inserted == 1)
    }

    /// The calls of a trace, oldest first; of `tenant` alone, if one is given.
    pub async fn evidence_of(&self, trace: &str, tenant: Option<&str>) -> Result<Vec<SealedCall>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, trace_id, request_id, recorded_ms, sealed FROM call_evidence \
             WHERE trace_id = $1 AND ($2 = '' OR tenant_id = $2) ORDER BY recorded_ms, request_id")
            .bind(trace).bind(tenant.unwrap_or("")).fetch_all(pool).await?))
    }

    /// How many calls of each tenant were recorded from `since_ms` to before `until_ms`; of `tenant` alone, if one is given.
    pub async fn evidence_counts(
        &self,
        since_ms: i64,
        until_ms: i64,
        tenant: Option<&str>,
    ) -> Result<Vec<(String, i64)>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, COUNT(*) FROM call_evidence \
             WHERE recorded_ms >= $1 AND recorded_ms < $2 AND ($3 = '' OR tenant_id = $3) \
             GROUP BY tenant_id ORDER BY tenant_id")
            .bind(since_ms).bind(until_ms).bind(tenant.unwrap_or("")).fetch_all(pool).await?))
    }

    /// The next calls behind `after`, oldest first; of `tenant` alone, if one is given.
    pub async fn evidence_page(
        &self,
        after: &After,
        tenant: Option<&str>,
        limit: i64,
    ) -> Result<Vec<SealedCall>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, trace_id, request_id, recorded_ms, sealed FROM call_evidence \
             WHERE (recorded_ms, request_id) > ($1, $2) AND ($3 = '' OR tenant_id = $3) \
             ORDER BY recorded_ms, request_id LIMIT $4")
            .bind(after.recorded_ms).bind(&after.request_id).bind(tenant.unwrap_or("")).bind(limit)
            .fetch_all(pool).await?))
    }

    /// Deletes the calls that were recorded before, and configurations that were last used before.
    pub async fn expire_evidence(
        &self,
        calls_before_ms: i64,
        configs_before_ms: i64,
    ) -> Result<u64, DbError> {
        Ok(writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let calls = sqlx::query("DELETE FROM call_evidence WHERE recorded_ms < $1")
                .bind(calls_before_ms).execute(&mut *tx).await?.rows_affected();
            sqlx::query("DELETE FROM evidence_configs WHERE used_ms < $1")
                .bind(configs_before_ms).execute(&mut *tx).await?;
            tx.commit().await?;
            calls
        }))
    }

    /// Keeps a configuration, or says that it is in use still. What is sealed there is replaced: it may be under a key that is
    /// gone.
    pub async fn put_evidence_config(
        &self,
        tenant: &str,
        digest: &str,
        used_ms: i64,
        sealed: &[u8],
    ) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "INSERT INTO evidence_configs (tenant_id, digest, used_ms, sealed) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant_id, digest) DO UPDATE SET used_ms = excluded.used_ms, sealed = excluded.sealed")
            .bind(tenant).bind(digest).bind(used_ms).bind(sealed).execute(pool).await.map(drop)?);
        Ok(())
    }

    /// A configuration; `None` if it is not kept.
    pub async fn evidence_config(&self, tenant: &str, digest: &str) -> Result<Option<Vec<u8>>, DbError> {
        Ok(reading!(self, pool => sqlx::query_scalar(
            "SELECT sealed FROM evidence_configs WHERE tenant_id = $1 AND digest = $2")
            .bind(tenant).bind(digest).fetch_optional(pool).await?))
    }

    /// The data key of a tenant; `None` if it has none, or none any more.
    pub async fn tenant_data_key(&self, tenant: &str) -> Result<Option<WrappedKey>, DbError> {
        Ok(
            reading!(self, pool => sqlx::query_as("SELECT key_id, wrapped FROM tenant_data_keys WHERE tenant_id = $1")
            .bind(tenant).fetch_optional(pool).await?),
        )
    }

    /// Keeps a new data key; `false` if the tenant has one.
    pub async fn insert_tenant_data_key(
        &self,
        tenant: &str,
        key: &WrappedKey,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => sqlx::query(
            "INSERT INTO tenant_data_keys (tenant_id, key_id, wrapped, made_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING")
            .bind(tenant).bind(&key.key_id).bind(&key.wrapped).bind(seconds(now))
            .execute(pool).await?.rows_affected());
        Ok(inserted == 1)
    }

    /// Deletes the data key of a tenant, and with it the sense of all that it sealed; `false` if there was none.
    pub async fn delete_tenant_data_key(&self, tenant: &str) -> Result<bool, DbError> {
        let deleted = writing!(self, pool => sqlx::query("DELETE FROM tenant_data_keys WHERE tenant_id = $1")
            .bind(tenant).execute(pool).await?.rows_affected());
        Ok(deleted == 1)
    }

    /// Every package with this component, of the tenant or of the platform, whatever became of it.
    pub async fn component_packages_of(&self, tenant: &str, digest: &str) -> Result<Vec<Vec<u8>>, DbError> {
        Ok(reading!(self, pool => sqlx::query_scalar(
            "SELECT package FROM component_versions WHERE digest = $1 AND (tenant_id = '' OR tenant_id = $2)")
            .bind(digest).bind(tenant).fetch_all(pool).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_both;

    fn call(tenant: &str, trace: &str, request: &str, recorded_ms: i64) -> SealedCall {
        SealedCall {
            tenant_id: tenant.to_owned(),
            trace_id: trace.to_owned(),
            request_id: request.to_owned(),
            recorded_ms,
            sealed: vec![1, 2, 3],
        }
    }

    on_both! {
        async fn a_trace_has_its_calls_and_each_tenant_its_own(fresh: Fresh) {
            let db = fresh.db;
            for it in [call("acme", "t", "2", 20), call("acme", "t", "1", 10), call("other", "t", "3", 5)] {
                assert!(db.insert_evidence(&it).await.unwrap());
                assert!(!db.insert_evidence(&it).await.unwrap(), "a call is kept once");
            }
            let requests = |calls: Vec<SealedCall>| calls.into_iter().map(|it| it.request_id).collect::<Vec<_>>();
            assert_eq!(requests(db.evidence_of("t", None).await.unwrap()), ["3", "1", "2"]);
            assert_eq!(requests(db.evidence_of("t", Some("acme")).await.unwrap()), ["1", "2"]);
            assert_eq!(db.evidence_of("u", None).await.unwrap(), []);
            assert_eq!(db.evidence_of("t", None).await.unwrap()[1].sealed, [1, 2, 3]);
        }

        async fn pages_follow_each_other_without_gap_or_repetition(fresh: Fresh) {
            let db = fresh.db;
            for number in 0..7_i64 {
                let tenant = if number == 3 { "other" } else { "acme" };
                // Two of them in the same millisecond.
                db.insert_evidence(&call(tenant, "t", &number.to_string(), number / 2)).await.unwrap();
            }
            let mut seen = Vec::new();
            let mut after = After { recorded_ms: -1, request_id: String::new() };
            loop {
                let page = db.evidence_page(&after, Some("acme"), 2).await.unwrap();
                let Some(last) = page.last() else { break };
                after = After { recorded_ms: last.recorded_ms, request_id: last.request_id.clone() };
                seen.extend(page.into_iter().map(|it| it.request_id));
            }
            assert_eq!(seen, ["0", "1", "2", "4", "5", "6"]);
            let counts = db.evidence_counts(1, 3, None).await.unwrap();
            assert_eq!(counts, [("acme".to_owned(), 3), ("other".to_owned(), 1)]);
            assert_eq!(db.evidence_counts(0, 9, Some("other")).await.unwrap(), [("other".to_owned(), 1)]);
        }

        async fn what_is_old_goes_and_what_is_in_use_stays(fresh: Fresh) {
            let db = fresh.db;
            db.insert_evidence(&call("acme", "old", "1", 10)).await.unwrap();
            db.insert_evidence(&call("acme", "new", "2", 20)).await.unwrap();
            db.put_evidence_config("acme", "sha256:a", 5, b"one").await.unwrap();
            db.put_evidence_config("acme", "sha256:b", 5, b"two").await.unwrap();
            db.put_evidence_config("acme", "sha256:b", 20, b"three").await.unwrap();
            assert_eq!(db.expire_evidence(20, 20).await.unwrap(), 1);
            assert!(db.evidence_of("old", None).await.unwrap().is_empty());
            assert_eq!(db.evidence_of("new", None).await.unwrap().len(), 1);
            assert_eq!(db.evidence_config("acme", "sha256:a").await.unwrap(), None);
            assert_eq!(db.evidence_config("acme", "sha256:b").await.unwrap().as_deref(), Some(b"three".as_slice()));
            assert_eq!(db.evidence_config("other", "sha256:b").await.unwrap(), None);
        }

        async fn a_tenant_has_one_data_key_until_it_is_shredded(fresh: Fresh) {
            let db = fresh.db;
            let key = |id: &str| WrappedKey { key_id: id.to_owned(), wrapped: id.as_bytes().to_vec() };
            let now = OffsetDateTime::UNIX_EPOCH;
            assert!(db.insert_tenant_data_key("acme", &key("a"), now).await.unwrap());
            assert!(!db.insert_tenant_data_key("acme", &key("b"), now).await.unwrap());
            assert_eq!(db.tenant_data_key("acme").await.unwrap(), Some(key("a")));
            assert_eq!(db.tenant_data_key("other").await.unwrap(), None);
            assert!(db.delete_tenant_data_key("acme").await.unwrap());
            assert!(!db.delete_tenant_data_key("acme").await.unwrap());
            assert_eq!(db.tenant_data_key("acme").await.unwrap(), None);
        }
    }
}
