//! What a user spent, as the audit trail has it.

use time::OffsetDateTime;

use super::audit::At;
use super::{Db, DbError, reading};

// === impl Db ===

impl Db {
    /// Microdollars that the calls of a user cost since a moment. The row of a call's cost alone carries it.
    pub async fn spent_since(&self, tenant: &str, user: &str, since: OffsetDateTime) -> Result<i64, DbError> {
        Ok(reading!(self, pool => sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(cost_micro), 0) AS BIGINT) FROM audit_events \
             WHERE tenant_id = $1 AND user_id = $2 AND occurred_at >= $3")
            .bind(tenant).bind(user).bind(At(since)).fetch_one(pool).await?))
    }
}
