//! Batches and files that upstreams keep for tenants: whose each is, who keeps it, and what was last said of it.

use super::{Db, DbError, reading, writing};

/// What an upstream keeps for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredObject {
    /// Whose it is.
    pub tenant_id: String,
    /// `batch` or `file`.
    pub kind: String,
    /// The upstream's id.
    pub id: String,
    /// Who made it.
    pub user_id: String,
    /// The provider of who keeps it.
    pub provider: String,
    /// The address of who keeps it.
    pub address: String,
    /// The name of the credential under which it is kept.
    pub credential: String,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: i64,
    /// What the upstream last said of it: JSON.
    pub object: String,
    /// 1 where the upstream will say nothing else.
    pub settled: i64,
}

/// For whom the cost of a batch is found out, and when its upstream is asked for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAsk {
    /// For whom its rows are written: JSON.
    pub maker: String,
    /// In milliseconds since 1970.
    pub ask_ms: i64,
}

/// A batch whose upstream is to be asked what became of it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DueBatch {
    /// The batch.
    #[sqlx(flatten)]
    pub stored: StoredObject,
    /// For whom its rows are written: JSON.
    pub maker: String,
    /// How often its upstream was asked.
    pub asks: i64,
    /// Since when it is due.
    pub ask_ms: i64,
}

/// A part of a tenant's list, in which the newest stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPart<'a> {
    /// From its beginning.
    First,
    /// What is older than this one.
    After(&'a StoredObject),
    /// What is newer than this one, as near to it as possible.
    Before(&'a StoredObject),
}

// === impl Db ===

impl Db {
    /// Keeps one; of a batch or file that the tenant has already, what is said now. `first_ask`: of a new batch whose cost is to be found out.
    pub async fn keep_stored(
        &self,
        stored: &StoredObject,
        first_ask: Option<&FirstAsk>,
    ) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "INSERT INTO stored_objects \
                 (tenant_id, kind, id, user_id, provider, address, credential, made_ms, object, settled, maker, ask_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (tenant_id, kind, id) DO UPDATE SET object = excluded.object, settled = excluded.settled")
            .bind(&stored.tenant_id).bind(&stored.kind).bind(&stored.id).bind(&stored.user_id)
            .bind(&stored.provider).bind(&stored.address).bind(&stored.credential).bind(stored.made_ms)
            .bind(&stored.object).bind(stored.settled)
            .bind(first_ask.map_or("", |ask| ask.maker.as_str())).bind(first_ask.map(|ask| ask.ask_ms))
            .execute(pool).await.map(drop)?);
        Ok(())
    }

    /// One of a tenant's; `None` if it has no such one, whoever else has.
    pub async fn stored(&self, tenant: &str, kind: &str, id: &str) -> Result<Option<StoredObject>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, kind, id, user_id, provider, address, credential, made_ms, object, settled \
             FROM stored_objects WHERE tenant_id = $1 AND kind = $2 AND id = $3")
            .bind(tenant).bind(kind).bind(id).fetch_optional(pool).await?))
    }

    /// A part of a tenant's list, at most `limit` of them.
    pub async fn stored_part(
        &self,
        tenant: &str,
        kind: &str,
        part: StoredPart<'_>,
        limit: i64,
    ) -> Result<Vec<StoredObject>, DbError> {
        let older = |from: (i64, String)| async move {
            Ok::<_, DbError>(reading!(self, pool => sqlx::query_as(
                "SELECT tenant_id, kind, id, user_id, provider, address, credential, made_ms, object, settled \
                 FROM stored_objects WHERE tenant_id = $1 AND kind = $2 AND (made_ms, id) < ($3, $4) \
                 ORDER BY made_ms DESC, id DESC LIMIT $5")
                .bind(tenant).bind(kind).bind(from.0).bind(from.1).bind(limit).fetch_all(pool).await?))
        };
        match part {
            StoredPart::First => older((i64::MAX, String::new())).await,
            StoredPart::After(it) => older((it.made_ms, it.id.clone())).await,
            StoredPart::Before(it) => {
                let mut newer: Vec<StoredObject> = reading!(self, pool => sqlx::query_as(
                    "SELECT tenant_id, kind, id, user_id, provider, address, credential, made_ms, object, settled \
                     FROM stored_objects WHERE tenant_id = $1 AND kind = $2 AND (made_ms, id) > ($3, $4) \
                     ORDER BY made_ms, id LIMIT $5")
                    .bind(tenant).bind(kind).bind(it.made_ms).bind(&it.id).bind(limit)
                    .fetch_all(pool).await?);
                newer.reverse();
                Ok(newer)
            }
        }
    }

    /// How many a tenant has.
    pub async fn count_stored(&self, tenant: &str, kind: &str) -> Result<i64, DbError> {
        Ok(reading!(self, pool => sqlx::query_scalar(
            "SELECT COUNT(*) FROM stored_objects WHERE tenant_id = $1 AND kind = $2")
            .bind(tenant).bind(kind).fetch_one(pool).await?))
    }

    /// Forgets one.
    pub async fn forget_stored(&self, tenant: &str, kind: &str, id: &str) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "DELETE FROM stored_objects WHERE tenant_id = $1 AND kind = $2 AND id = $3")
            .bind(tenant).bind(kind).bind(id).execute(pool).await.map(drop)?);
        Ok(())
    }

    /// Forgets those of a tenant that were made before, except for batches whose cost is still to be found out.
    pub async fn expire_stored(&self, tenant: &str, kind: &str, before_ms: i64) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "DELETE FROM stored_objects WHERE tenant_id = $1 AND kind = $2 AND made_ms < $3 AND ask_ms IS NULL")
            .bind(tenant).bind(kind).bind(before_ms).execute(pool).await.map(drop)?);
        Ok(())
    }

    /// Batches whose upstreams are to be asked by now: of each tenant the one that waits longest, those that wait longest first.
    pub async fn due_batches(&self, now_ms: i64, limit: i64) -> Result<Vec<DueBatch>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, kind, id, user_id, provider, address, credential, made_ms, object, settled, maker, asks, ask_ms \
             FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY tenant_id ORDER BY ask_ms, id) AS place \
                   FROM stored_objects WHERE ask_ms <= $1) AS due \
             WHERE place = 1 ORDER BY ask_ms, tenant_id LIMIT $2")
            .bind(now_ms).bind(limit).fetch_all(pool).await?))
    }

    /// Says when the upstream of a batch is asked again. `false` if somebody else has said so since
    /// it was due at `seen_ms`, or the cost is known. Of several who say so at once, one is told `true`: it does the asking.
    pub async fn take_due_batch(
        &self,
        stored: &StoredObject,
        seen_ms: i64,
        next_ms: i64,
    ) -> Result<bool, DbError> {
        let taken = writing!(self, pool => sqlx::query(
            "UPDATE stored_objects SET ask_ms = $4, asks = asks + 1 \
             WHERE tenant_id = $1 AND kind = 'batch' AND id = $2 AND ask_ms = $3 AND priced_ms IS NULL")
            .bind(&stored.tenant_id).bind(&stored.id).bind(seen_ms).bind(next_ms)
            .execute(pool).await?.rows_affected());
        Ok(taken == 1)
    }

    /// Says when the upstream of a batch is asked next, if nobody has said otherwise since that was `seen_ms`; `None`: never again.
    pub async fn ask_batch_at(
        &self,
        stored: &StoredObject,
        seen_ms: i64,
        next_ms: Option<i64>,
    ) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "UPDATE stored_objects SET ask_ms = $4 \
             WHERE tenant_id = $1 AND kind = 'batch' AND id = $2 AND ask_ms = $3")
            .bind(&stored.tenant_id).bind(&stored.id).bind(seen_ms).bind(next_ms)
            .execute(pool).await.map(drop)?);
        Ok(())
    }

    /// Says that the cost of a batch is written now; `false` if it was before. Of several who ask at once, one is told `true`.
    pub async fn price_stored(&self, tenant: &str, id: &str, now_ms: i64) -> Result<bool, DbError> {
        let priced = writing!(self, pool => sqlx::query(
            "UPDATE stored_objects SET priced_ms = $3, ask_ms = NULL \
             WHERE tenant_id = $1 AND kind = 'batch' AND id = $2 AND priced_ms IS NULL")
            .bind(tenant).bind(id).bind(now_ms).execute(pool).await?.rows_affected());
        Ok(priced == 1)
    }

    /// Takes that back, since the row with the cost could not be written; the upstream is asked again at `ask_ms`.
    pub async fn unprice_stored(&self, tenant: &str, id: &str, ask_ms: i64) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "UPDATE stored_objects SET priced_ms = NULL, ask_ms = CASE WHEN maker = '' THEN NULL ELSE $3 END \
             WHERE tenant_id = $1 AND kind = 'batch' AND id = $2")
            .bind(tenant).bind(id).bind(ask_ms).execute(pool).await.map(drop)?);
        Ok(())
    }

    /// Whether nobody has written yet what a batch cost.
    pub async fn is_unpriced(&self, tenant: &str, id: &str) -> Result<bool, DbError> {
        let unpriced: i64 = reading!(self, pool => sqlx::query_scalar(
            "SELECT COUNT(*) FROM stored_objects \
             WHERE tenant_id = $1 AND kind = 'batch' AND id = $2 AND priced_ms IS NULL")
            .bind(tenant).bind(id).fetch_one(pool).await?);
        Ok(unpriced > 0)
    }

    /// Whether somebody else has one with this id, and the tenant has not.
    pub async fn is_stored_elsewhere(&self, tenant: &str, kind: &str, id: &str) -> Result<bool, DbError> {
        let (own, all): (i64, i64) = reading!(self, pool => sqlx::query_as(
            "SELECT COUNT(CASE WHEN tenant_id = $1 THEN 1 END), COUNT(*) FROM stored_objects \
             WHERE kind = $2 AND id = $3")
            .bind(tenant).bind(kind).bind(id).fetch_one(pool).await?);
        Ok(own == 0 && all > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_both;

    fn batch(tenant: &str, id: &str, made_ms: i64) -> StoredObject {
        StoredObject {
            tenant_id: tenant.to_owned(),
            kind: "batch".to_owned(),
            id: id.to_owned(),
            user_id: "user_1".to_owned(),
            provider: "anthropic".to_owned(),
            address: "https://up.example".to_owned(),
            credential: "key".to_owned(),
            made_ms,
            object: "{}".to_owned(),
            settled: 0,
        }
    }

    fn ids(list: &[StoredObject]) -> Vec<&str> {
        list.iter().map(|stored| stored.id.as_str()).collect()
    }

    on_both! {
        async fn a_list_is_a_tenants_own_newest_first_and_is_read_both_ways(fresh: Fresh) {
            let db = &fresh.db;
            for (id, made_ms) in [("a", 1), ("b", 2), ("c", 2), ("d", 3)] {
                db.keep_stored(&batch("one", id, made_ms), None).await.unwrap();
            }
            db.keep_stored(&batch("other", "e", 9), None).await.unwrap();
            let part = |part, limit| async move { db.stored_part("one", "batch", part, limit).await.unwrap() };
            assert_eq!(ids(&part(StoredPart::First, 10).await), ["d", "c", "b", "a"]);
            let c = batch("one", "c", 2);
            assert_eq!(ids(&part(StoredPart::After(&c), 1).await), ["b"]);
            let a = batch("one", "a", 1);
            assert_eq!(ids(&part(StoredPart::Before(&a), 2).await), ["c", "b"], "the nearest, in the order of the list");
            assert_eq!(db.count_stored("one", "batch").await.unwrap(), 4);
            assert_eq!(db.stored_part("one", "file", StoredPart::First, 10).await.unwrap(), []);
            db.expire_stored("one", "batch", 2).await.unwrap();
            assert_eq!(db.stored("one", "batch", "a").await.unwrap(), None);
            assert_eq!(db.count_stored("other", "batch").await.unwrap(), 1);
        }

        async fn what_a_tenant_has_no_other_finds_and_its_price_is_written_once(fresh: Fresh) {
            let db = &fresh.db;
            db.keep_stored(&batch("one", "a", 1), None).await.unwrap();
            assert_eq!(db.stored("one", "batch", "a").await.unwrap(), Some(batch("one", "a", 1)));
            assert_eq!(db.stored("other", "batch", "a").await.unwrap(), None);
            assert!(db.is_stored_elsewhere("other", "batch", "a").await.unwrap());
            assert!(!db.is_stored_elsewhere("one", "batch", "a").await.unwrap());
            assert!(!db.is_stored_elsewhere("other", "batch", "b").await.unwrap());
            assert!(!db.price_stored("other", "a", 5).await.unwrap());
            assert!(db.price_stored("one", "a", 5).await.unwrap());
            assert!(!db.price_stored("one", "a", 6).await.unwrap());
            let ended = StoredObject { object: r#"{"ended":1}"#.to_owned(), settled: 1, ..batch("one", "a", 7) };
            db.keep_stored(&ended, None).await.unwrap();
            let kept = db.stored("one", "batch", "a").await.unwrap().unwrap();
            assert_eq!((kept.object.as_str(), kept.settled, kept.made_ms), (r#"{"ended":1}"#, 1, 1));
            assert!(!db.price_stored("one", "a", 8).await.unwrap(), "what is said of it later does not price it again");
            db.forget_stored("other", "batch", "a").await.unwrap();
            assert!(db.stored("one", "batch", "a").await.unwrap().is_some());
            db.forget_stored("one", "batch", "a").await.unwrap();
            assert_eq!(db.stored("one", "batch", "a").await.unwrap(), None);
        }

        async fn a_batch_is_due_until_its_cost_is_known_and_one_replica_asks(fresh: Fresh) {
            let db = &fresh.db;
            let ask = |ask_ms| FirstAsk { maker: "{}".to_owned(), ask_ms };
            for (tenant, id, ask_ms) in [("one", "a", 10), ("one", "b", 5), ("other", "c", 7), ("late", "d", 99)] {
                db.keep_stored(&batch(tenant, id, 1), Some(&ask(ask_ms))).await.unwrap();
            }
            db.keep_stored(&batch("one", "from-before", 1), None).await.unwrap();
            let due = |now_ms, limit| async move {
                let due = db.due_batches(now_ms, limit).await.unwrap();
                due.into_iter().map(|it| (it.stored.id, it.asks, it.ask_ms)).collect::<Vec<_>>()
            };
            let of = |id: &str, asks, ask_ms| (id.to_owned(), asks, ask_ms);
            assert_eq!(due(4, 10).await, []);
            assert_eq!(due(10, 10).await, [of("b", 0, 5), of("c", 0, 7)], "one of each tenant");
            assert_eq!(due(10, 1).await, [of("b", 0, 5)]);
            let b = batch("one", "b", 1);
            assert!(db.take_due_batch(&b, 5, 50).await.unwrap());
            assert!(!db.take_due_batch(&b, 5, 60).await.unwrap(), "the second has seen what is no more");
            assert_eq!(due(50, 10).await, [of("c", 0, 7), of("a", 0, 10)]);
            db.ask_batch_at(&b, 5, Some(8)).await.unwrap();
            db.ask_batch_at(&b, 50, Some(8)).await.unwrap();
            assert_eq!(due(8, 10).await, [of("c", 0, 7), of("b", 1, 8)]);
            assert!(db.is_unpriced("one", "b").await.unwrap());
            assert!(db.price_stored("one", "b", 9).await.unwrap());
            assert!(!db.is_unpriced("one", "b").await.unwrap());
            assert!(!db.take_due_batch(&b, 8, 70).await.unwrap(), "its cost is known");
            db.keep_stored(&b, Some(&ask(1))).await.unwrap();
            assert_eq!(due(9, 10).await, [of("c", 0, 7)], "what is said of it later does not make it due again");
            db.unprice_stored("one", "b", 20).await.unwrap();
            assert_eq!(due(20, 10).await, [of("c", 0, 7), of("a", 0, 10)]);
            db.expire_stored("one", "batch", 5).await.unwrap();
            assert_eq!(db.stored("one", "batch", "from-before").await.unwrap(), None);
            assert!(db.stored("one", "batch", "a").await.unwrap().is_some(), "its cost is still to be found out");
            db.ask_batch_at(&batch("one", "a", 1), 10, None).await.unwrap();
            assert_eq!(due(90, 10).await, [of("c", 0, 7), of("b", 1, 20)]);
            db.expire_stored("one", "batch", 5).await.unwrap();
            assert_eq!(db.stored("one", "batch", "a").await.unwrap(), None);
        }
    }
}
