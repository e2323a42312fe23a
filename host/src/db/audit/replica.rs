//! What the database knows of itself and of the gateways that write rows: which database it is, how far the rows of a replica are
//! in it, and which spool may write under that name. Rows and the mark that says how far they are change in one transaction.

use sqlx::QueryBuilder;

use super::{INSERT, NewRow, Stamp, TOGETHER, insert_rows};
use crate::db::{Db, DbError, reading, writing};

/// So many seconds a name belongs to whoever wrote under it last.
pub const LEASE: i64 = 15;

/// How far the rows of a replica are in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The record of the spool that comes next.
    pub next: u64,
    /// The hash of the record before it, as hexadecimal digits.
    pub hash: String,
    /// The last row of the replica in the table; 0 if there is none.
    pub last_row: u64,
}

/// What a database says of itself and of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which database it is; `None` if somebody removed that.
    pub identity: Option<String>,
    /// How far the replica's rows are; `None` if the database does not know the replica.
    pub mark: Option<Mark>,
    /// The spool that wrote under the name last.
    pub holder: Option<String>,
    /// So many seconds the name still belongs to it.
    pub lease: i64,
    /// The last row of the replica that is really there; 0 if there is none.
    pub last: u64,
}

/// Who writes: the name in the rows, the spool, and the database that it means.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaWriter<'a> {
    /// The name of the replica.
    pub replica: &'a str,
    /// The spool.
    pub holder: &'a str,
    /// The identity of the database.
    pub identity: &'a str,
}

/// What became of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// They are in the table, and the mark is behind them.
    Done,
    /// Nothing was written: the database is not as this spool left it.
    Moved,
    /// Nothing was written: another row has this number.
    Taken(i64),
}

type FoundReplica =
    (Option<String>, Option<i64>, Option<String>, Option<i64>, Option<String>, Option<i64>, Option<i64>);

// === impl Db ===

impl Db {
    /// What the database says of itself and of a replica.
    pub async fn audit_standing(&self, replica: &str) -> Result<Standing, DbError> {
        let found: FoundReplica = reading!(self, pool => sqlx::query_as(
            "SELECT d.identity, r.next_record, r.hash, r.last_row, r.holder, r.leased_until - c.seconds, \
             (SELECT MAX(sequence) FROM audit_events WHERE replica = $1) \
             FROM audit_clock c LEFT JOIN audit_database d ON d.id = 1 \
             LEFT JOIN audit_replicas r ON r.replica = $1")
            .bind(replica)
            .fetch_one(pool)
            .await?);
        let (identity, next, hash, last_row, holder, lease, last) = found;
        let mark = match (next, hash, last_row) {
            (Some(next), Some(hash), Some(last_row)) => {
                Some(Mark { next: positive(next), hash, last_row: positive(last_row) })
            }
            _ => None,
        };
        Ok(Standing { identity, mark, holder, lease: lease.unwrap_or(0), last: positive(last.unwrap_or(0)) })
    }

    /// Whether the database has lost the table that says which one it is.
    pub async fn audit_is_empty(&self) -> Result<bool, DbError> {
        let found = reading!(self, pool => sqlx::query("SELECT identity FROM audit_database")
            .fetch_optional(pool)
            .await
            .map(drop));
        match found.map_err(DbError::from) {
            Ok(()) => Ok(false),
            Err(error) if error.misses_a_table() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes the name for a spool and says from where its rows go on. `found` is what the database was seen to say: false if it
    /// says something else by now, or the name belongs to another spool.
    pub async fn audit_attach(
        &self,
        writer: ReplicaWriter<'_>,
        found: Option<&Mark>,
        mark: &Mark,
    ) -> Result<bool, DbError> {
        let changed = match found {
            None => writing!(self, pool => sqlx::query(
                "INSERT INTO audit_replicas (replica, next_record, hash, last_row, holder, leased_until) \
                 SELECT $1, $2, $3, $4, $5, seconds + $6 FROM audit_clock \
                 WHERE EXISTS (SELECT 1 FROM audit_database WHERE id = 1 AND identity = $7) \
                 ON CONFLICT (replica) DO NOTHING")
                .bind(writer.replica)
                .bind(number(mark.next))
                .bind(mark.hash.as_str())
                .bind(number(mark.last_row))
                .bind(writer.holder)
                .bind(LEASE)
                .bind(writer.identity)
                .execute(pool)
                .await?
                .rows_affected()),
            Some(found) => writing!(self, pool => sqlx::query(
                "UPDATE audit_replicas SET next_record = $1, hash = $2, last_row = $3, holder = $4, \
                 leased_until = (SELECT seconds FROM audit_clock) + $5 \
                 WHERE replica = $6 AND next_record = $7 AND hash = $8 AND last_row = $9 \
                 AND (holder = $4 OR leased_until <= (SELECT seconds FROM audit_clock)) \
                 AND EXISTS (SELECT 1 FROM audit_database WHERE id = 1 AND identity = $10)")
                .bind(number(mark.next))
                .bind(mark.hash.as_str())
                .bind(number(mark.last_row))
                .bind(writer.holder)
                .bind(LEASE)
                .bind(writer.replica)
                .bind(number(found.next))
                .bind(found.hash.as_str())
                .bind(number(found.last_row))
                .bind(writer.identity)
                .execute(pool)
                .await?
                .rows_affected()),
        };
        Ok(changed > 0)
    }

    /// Keeps the name; false if another spool has it by now.
    pub async fn audit_renew(&self, writer: ReplicaWriter<'_>) -> Result<bool, DbError> {
        Ok(writing!(self, pool => sqlx::query(
            "UPDATE audit_replicas SET leased_until = (SELECT seconds FROM audit_clock) + $1 \
             WHERE replica = $2 AND holder = $3")
            .bind(LEASE)
            .bind(writer.replica)
            .bind(writer.holder)
            .execute(pool)
            .await?
            .rows_affected())
            > 0)
    }

    /// Gives the name up: another spool may have it at once.
    pub async fn audit_release(&self, writer: ReplicaWriter<'_>) -> Result<(), DbError> {
        writing!(self, pool => sqlx::query(
            "UPDATE audit_replicas SET leased_until = 0 WHERE replica = $1 AND holder = $2")
            .bind(writer.replica)
            .bind(writer.holder)
            .execute(pool)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Writes rows and moves the mark from `from` to `to`, both or neither. Rows that are there already must be these rows.
    pub async fn audit_deliver(
        &self,
        writer: ReplicaWriter<'_>,
        from: &Mark,
        to: &Mark,
        rows: &[NewRow],
    ) -> Result<Delivery, DbError> {
        writing!(self, pool => {
            let mut transaction = pool.begin().await?;
            let moved = sqlx::query(
                "UPDATE audit_replicas SET next_record = $1, hash = $2, last_row = $3, \
                 leased_until = (SELECT seconds FROM audit_clock) + $4 \
                 WHERE replica = $5 AND holder = $6 AND next_record = $7 AND hash = $8 AND last_row = $9 \
                 AND EXISTS (SELECT 1 FROM audit_database WHERE id = 1 AND identity = $10) \
                 AND COALESCE((SELECT MAX(sequence) FROM audit_events WHERE replica = $5), 0) = $9")
                .bind(number(to.next))
                .bind(to.hash.as_str())
                .bind(number(to.last_row))
                .bind(LEASE)
                .bind(writer.replica)
                .bind(writer.holder)
                .bind(number(from.next))
                .bind(from.hash.as_str())
                .bind(number(from.last_row))
                .bind(writer.identity)
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            if moved == 0 {
                transaction.rollback().await?;
                return Ok(Delivery::Moved);
            }
            for part in rows.chunks(TOGETHER) {
                let new = insert_rows!(&mut *transaction, writer.replica, part);
                let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
                if new == part.len() as u64 {
                    continue;
                }
                let there: Vec<Stamp> = sqlx::query_as(
                    "SELECT sequence, trace_id, kind, occurred_at FROM audit_events \
                     WHERE replica = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence")
                    .bind(writer.replica)
                    .bind(first.sequence)
                    .bind(last.sequence)
                    .fetch_all(&mut *transaction)
                    .await?;
                if let Some(other) = other_row(part, &there) {
                    transaction.rollback().await?;
                    return Ok(Delivery::Taken(other));
                }
            }
            transaction.commit().await?;
        });
        Ok(Delivery::Done)
    }

    /// Whether the table takes a row; nothing is written.
    pub async fn audit_try(&self, replica: &str, row: &NewRow) -> Result<(), DbError> {
        writing!(self, pool => {
            let mut transaction = pool.begin().await?;
            let one = std::slice::from_ref(row);
            insert_rows!(&mut *transaction, replica, one);
            transaction.rollback().await?;
        });
        Ok(())
    }
}

// === impl Standing ===

impl Standing {
    /// Whether nothing changed but the time that is left of the lease.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let lease = self.lease;
        *self == Self { lease, ..other.clone() }
    }
}

/// The first of these rows whose number another row has.
pub fn other_row(rows: &[NewRow], there: &[Stamp]) -> Option<i64> {
    let mut there = there.iter().peekable();
    for row in rows {
        while there.next_if(|stamp| stamp.sequence < row.sequence).is_some() {}
        if let Some(stamp) = there.next_if(|stamp| stamp.sequence == row.sequence) {
            let same = *row.trace_id == stamp.trace_id && *row.kind == stamp.kind;
            if !same || row.occurred_at != stamp.occurred_at {
                return Some(row.sequence);
            }
        }
    }
    None
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
