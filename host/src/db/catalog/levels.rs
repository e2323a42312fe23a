//! What the corpus of conformance showed of providers, by the digests of component and configuration.

use time::OffsetDateTime;

use crate::db::{Db, DbError, reading, seconds, writing};

/// What was shown of one provider under one configuration.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredLevels {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The digest of the configuration.
    pub config: String,
    /// The edition of the corpus.
    pub corpus: String,
    /// By level: JSON.
    pub levels: String,
}

// === impl Db ===

impl Db {
    /// What this edition of the corpus showed; `None` where it was not tried, or another edition was.
    pub async fn component_levels(
        &self,
        digest: &str,
        config: &str,
        corpus: &str,
    ) -> Result<Option<StoredLevels>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT digest, config, corpus, levels FROM component_levels \
             WHERE digest = $1 AND config = $2 AND corpus = $3")
            .bind(digest).bind(config).bind(corpus).fetch_optional(pool).await?))
    }

    /// Everything that this edition of the corpus showed.
    pub async fn all_component_levels(&self, corpus: &str) -> Result<Vec<StoredLevels>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT digest, config, corpus, levels FROM component_levels WHERE corpus = $1")
            .bind(corpus).fetch_all(pool).await?))
    }

    /// Keeps what was shown, in place of what another edition showed.
    pub async fn keep_component_levels(
        &self,
        shown: &StoredLevels,
        tried_at: OffsetDateTime,
    ) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "INSERT INTO component_levels (digest, config, corpus, levels, tried_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (digest, config) DO UPDATE \
             SET corpus = excluded.corpus, levels = excluded.levels, tried_at = excluded.tried_at")
            .bind(&shown.digest).bind(&shown.config).bind(&shown.corpus).bind(&shown.levels)
            .bind(seconds(tried_at)).execute(pool).await.map(drop)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_both;

    on_both! {
        async fn what_was_shown_counts_for_one_edition_of_the_corpus_and_one_configuration(fresh: Fresh) {
            let db = &fresh.db;
            let shown = |config: &str, corpus: &str, levels: &str| StoredLevels {
                digest: "d".to_owned(), config: config.to_owned(), corpus: corpus.to_owned(), levels: levels.to_owned(),
            };
            let now = OffsetDateTime::UNIX_EPOCH;
            db.keep_component_levels(&shown("a", "1", "{}"), now).await.unwrap();
            db.keep_component_levels(&shown("b", "1", "[]"), now).await.unwrap();
            let of = |config: &'static str, corpus: &'static str| async move {
                db.component_levels("d", config, corpus).await.unwrap().map(|it| it.levels)
            };
            assert_eq!((of("a", "1").await.as_deref(), of("b", "1").await.as_deref()), (Some("{}"), Some("[]")));
            assert_eq!((of("a", "2").await, of("c", "1").await), (None, None));
            db.keep_component_levels(&shown("a", "2", "2"), now).await.unwrap();
            assert_eq!((of("a", "1").await, of("a", "2").await.as_deref()), (None, Some("2")));
            assert_eq!(db.all_component_levels("1").await.unwrap(), [shown("b", "1", "[]")]);
        }
    }
}
