//! The highest serial of each component that was ever in force.

use super::{Db, DbError, reading, writing};

/// What was in force.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Floor {
    /// The publisher's serial.
    pub serial: i64,
    /// SHA-256 of the component, in hex.
    pub digest: String,
}

impl Db {
    /// The floor of a component; `None` if it was never in force.
    pub async fn component_floor(&self, name: &str) -> Result<Option<Floor>, DbError> {
        Ok(
            reading!(self, pool => sqlx::query_as("SELECT serial, digest FROM component_floors WHERE name = $1")
            .bind(name)
            .fetch_optional(pool)
            .await?),
        )
    }

    /// Raises the floor of a component; a floor never falls.
    pub async fn raise_component_floor(&self, name: &str, floor: &Floor) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "INSERT INTO component_floors (name, serial, digest) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET serial = excluded.serial, digest = excluded.digest \
             WHERE component_floors.serial <= excluded.serial")
            .bind(name)
            .bind(floor.serial)
            .bind(&floor.digest)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::audit::testing::both;

    #[tokio::test]
    async fn a_floor_rises_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        for db in both(dir.path()).await {
            let floor = |serial, digest: &str| Floor { serial, digest: digest.to_owned() };
            assert_eq!(db.component_floor("a/b").await.unwrap(), None);
            for (serial, digest) in [(2, "two"), (1, "one"), (3, "three"), (3, "again")] {
                db.raise_component_floor("a/b", &floor(serial, digest)).await.unwrap();
            }
            assert_eq!(db.component_floor("a/b").await.unwrap(), Some(floor(3, "again")));
            assert_eq!(db.component_floor("a/c").await.unwrap(), None);
        }
    }
}
