//! What a user spent, as the audit trail has it.

use time::OffsetDateTime;

use super::audit::At;
use super::{Db, DbError, reading};

// === impl Db ===

impl Db {
    /// Microdollars that the calls of a user cost since each of three moments. The row of a call's cost alone carries it.
    pub async fn spent_since(
        &self,
        tenant: &str,
        user: &str,
        since: [OffsetDateTime; 3],
    ) -> Result<[i64; 3], DbError> {
        let earliest = since.into_iter().min().unwrap_or(since[0]);
        let [first, second, third] = since.map(At);
        let (first, second, third) = reading!(self, pool => sqlx::query_as(
            "SELECT CAST(COALESCE(SUM(CASE WHEN occurred_at >= $4 THEN cost_micro END), 0) AS BIGINT), \
                    CAST(COALESCE(SUM(CASE WHEN occurred_at >= $5 THEN cost_micro END), 0) AS BIGINT), \
                    CAST(COALESCE(SUM(CASE WHEN occurred_at >= $6 THEN cost_micro END), 0) AS BIGINT) \
             FROM audit_events WHERE tenant_id = $1 AND user_id = $2 AND occurred_at >= $3")
            .bind(tenant).bind(user).bind(At(earliest)).bind(first).bind(second).bind(third).fetch_one(pool).await?);
        Ok([first, second, third])
    }
}
