//! Keys of access tokens, as stored: of which salt each is, and from when to when it counts.

use time::OffsetDateTime;

use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// A key that signs, will sign, or signed what is still good.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TokenKeyRow {
    /// Its id: the thumbprint of its public half.
    pub kid: String,
    /// What it is derived from, together with a secret of the gateway; none for the key that every gateway begins with.
    pub salt: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From when on it signs.
    pub signs_at: OffsetDateTime,
    /// From when on it verifies no more; none while it is the last one.
    pub ends_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// The keys that count now or will, in the order in which they sign.
    pub async fn token_keys(&self, now: OffsetDateTime) -> Result<Vec<TokenKeyRow>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT kid, salt, created_at, signs_at, ends_at FROM token_keys \
             WHERE ends_at IS NULL OR ends_at > $1 ORDER BY signs_at, created_at, kid")
            .bind(seconds(now)).fetch_all(pool).await?))
    }

    /// Adds a key. Those before it end at `ends_at` at the latest; `first`: the key that there was before any was stored. `false` if
    /// there are `most` already.
    pub async fn rotate_token_key(
        &self,
        key: &TokenKeyRow,
        first: &TokenKeyRow,
        ends_at: OffsetDateTime,
        most: i64,
    ) -> Result<bool, DbError> {
        let (now, ends_at) = (seconds(key.created_at), seconds(ends_at));
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query(
                "INSERT INTO token_keys (kid, salt, created_at, signs_at, ends_at) SELECT $1, NULL, $2, $3, NULL \
                 WHERE NOT EXISTS (SELECT 1 FROM token_keys) ON CONFLICT DO NOTHING")
                .bind(&first.kid).bind(seconds(first.created_at)).bind(seconds(first.signs_at))
                .execute(&mut *tx).await?;
            sqlx::query("UPDATE token_keys SET ends_at = $1 WHERE ends_at IS NULL OR ends_at > $1")
                .bind(ends_at).execute(&mut *tx).await?;
            let inserted = sqlx::query(
                "INSERT INTO token_keys (kid, salt, created_at, signs_at, ends_at) SELECT $1, $2, $3, $4, NULL \
                 WHERE (SELECT COUNT(*) FROM token_keys WHERE ends_at > $3) < $5 ON CONFLICT DO NOTHING")
                .bind(&key.kid).bind(&key.salt).bind(now).bind(seconds(key.signs_at)).bind(most)
                .execute(&mut *tx).await?.rows_affected();
            if inserted == 1 {
                // Not before: an empty table means that the first key counts.
                sqlx::query("DELETE FROM token_keys WHERE ends_at <= $1").bind(now).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
                tx.commit().await?;
            } else {
                tx.rollback().await?;
            }
            inserted
        });
        Ok(inserted == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_both;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    fn key(kid: &str, created: i64, signs: i64) -> TokenKeyRow {
        let salt = (kid != "first").then(|| vec![1, 2, 3]);
        TokenKeyRow { kid: kid.to_owned(), salt, created_at: at(created), signs_at: at(signs), ends_at: None }
    }

    on_both! {
        async fn a_key_follows_the_one_before_which_ends_once_and_is_forgotten(fresh: Fresh) {
            let db = fresh.db;
            assert_eq!(db.token_keys(at(0)).await.unwrap(), []);
            let epoch = db.auth_epoch().await.unwrap();
            assert!(db.rotate_token_key(&key("a", 10, 15), &key("first", 0, 0), at(100), 8).await.unwrap());
            assert!(db.auth_epoch().await.unwrap() > epoch);
            let ended = |kid: &str, created, signs, ends| TokenKeyRow { ends_at: Some(at(ends)), ..key(kid, created, signs) };
            let kept = db.token_keys(at(10)).await.unwrap();
            assert_eq!(kept, [ended("first", 0, 0, 100), key("a", 10, 15)]);

            // The end of what ends already is not put off.
            assert!(db.rotate_token_key(&key("b", 20, 25), &key("first", 0, 0), at(110), 8).await.unwrap());
            let kept = db.token_keys(at(20)).await.unwrap();
            assert_eq!(kept, [ended("first", 0, 0, 100), ended("a", 10, 15, 110), key("b", 20, 25)]);
            assert_eq!(db.token_keys(at(100)).await.unwrap().len(), 2, "the end is not a moment in which it counts");

            // At once: nothing before it counts any more.
            assert!(db.rotate_token_key(&key("c", 30, 30), &key("first", 0, 0), at(30), 8).await.unwrap());
            assert_eq!(db.token_keys(at(0)).await.unwrap(), [key("c", 30, 30)]);
        }

        async fn so_many_keys_count_at_once_and_one_too_many_changes_nothing(fresh: Fresh) {
            let db = fresh.db;
            assert!(db.rotate_token_key(&key("a", 10, 15), &key("first", 0, 0), at(100), 2).await.unwrap());
            let before = db.token_keys(at(10)).await.unwrap();
            assert!(!db.rotate_token_key(&key("b", 20, 25), &key("first", 0, 0), at(110), 2).await.unwrap());
            assert_eq!(db.token_keys(at(10)).await.unwrap(), before);
            assert!(db.rotate_token_key(&key("b", 100, 105), &key("first", 0, 0), at(200), 2).await.unwrap());
        }
    }
}
