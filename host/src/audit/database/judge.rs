//! Whether a database is the one that a spool delivered to: what the spool remembers, what it holds, and what the database says.

use std::io;
use std::path::{Path, PathBuf};

use super::hex;
use crate::audit::spool::cursor;
use crate::audit::spool::frame::Chain;
use crate::audit::spool::place::KnownDatabase;
use crate::audit::spool::recover::Marks;
use crate::db::audit::replica::{Mark, Standing};

/// What is wrong with a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::audit) enum OtherDatabase {
    #[error("the database file {path} was removed")]
    Removed { path: PathBuf },
    #[error(
        "the database file {path} was replaced while the gateway ran: put it back, or start the gateway again"
    )]
    Replaced { path: PathBuf },
    #[error("the database does not know this gateway any more: it was emptied")]
    Emptied,
    #[error("it is not the database that the spool delivered to, but another one")]
    Another,
    #[error(
        "the database is an older state of itself, as from a backup: it has rows up to {last} of this gateway, and up to \
         {delivered} were delivered"
    )]
    Older { last: u64, delivered: u64 },
    #[error(
        "row {delivered} of this gateway was delivered and is not in the database, which ends with row {last}"
    )]
    RowsGone { last: u64, delivered: u64 },
    #[error("the database has row {last} of this gateway, which delivered none beyond {delivered}")]
    RowsAdded { last: u64, delivered: u64 },
    #[error("the database has rows of this gateway's name that its spool did not write")]
    Forked,
    #[error(
        "row {row} of replica {replica} in the database is not the one in the spool: two gateways use this name"
    )]
    Taken { replica: String, row: i64 },
    #[error("the database has rows up to {last} of this gateway's name, and its spool ends before {next}")]
    Ahead { last: u64, next: u64 },
    #[error("another gateway writes under this name: {holder}, for {seconds} s more at least")]
    Leased { holder: String, seconds: i64 },
    #[error("another gateway is taking this name")]
    Busy,
}

/// What the spool holds.
#[derive(Debug, Clone, Copy)]
pub(in crate::audit) struct Spool {
    /// Its first record.
    pub(in crate::audit) begin: Marks,
    /// What comes behind its last record.
    pub(in crate::audit) end: Marks,
    /// There was none.
    pub(in crate::audit) fresh: bool,
    /// Part of it was set aside.
    pub(in crate::audit) broken: bool,
    /// At the database's mark, if that record is here.
    pub(in crate::audit) at_mark: Option<Marks>,
    /// At the remembered place.
    pub(in crate::audit) at_place: Option<Marks>,
}

// === impl Spool ===

impl Spool {
    /// Reads where it begins and ends.
    pub(in crate::audit) fn look(dir: &Path, chain: Chain) -> io::Result<Self> {
        let nothing = Marks { first_sequence: 1, first_row: 1, previous: [0; 32] };
        let bounds = cursor::bounds(dir, chain)?;
        let (begin, end) = bounds.unwrap_or((nothing, nothing));
        Ok(Self { begin, end, fresh: bounds.is_none(), broken: false, at_mark: None, at_place: None })
    }

    /// Whether the record before the mark is in this spool, or was.
    fn continues(&self, mark: &Mark) -> bool {
        self.at_mark.is_some_and(|at| hex(&at.previous) == mark.hash)
    }
}

/// From which mark on rows go to this database.
pub(super) fn judge(
    known: Option<&KnownDatabase>,
    standing: &Standing,
    spool: &Spool,
) -> Result<Mark, OtherDatabase> {
    let Some(identity) = &standing.identity else { return Err(OtherDatabase::Emptied) };
    if let Some(known) = known {
        if known.identity != *identity {
            return Err(OtherDatabase::Another);
        }
        let Some(mark) = &standing.mark else { return Err(OtherDatabase::Emptied) };
        if spool.broken {
            return Ok(restart(standing, spool));
        }
        if mark.next < known.mark.next {
            return Err(OtherDatabase::Older { last: standing.last, delivered: known.mark.last_row });
        }
        if *mark != known.mark && !(mark.next > known.mark.next && spool.continues(mark)) {
            return Err(beyond(mark, standing, spool));
        }
        return same_rows(mark, standing);
    }
    if spool.broken {
        return Ok(restart(standing, spool));
    }
    match &standing.mark {
        Some(mark) if spool.fresh => Ok(Mark { last_row: standing.last, ..mark.clone() }),
        Some(mark) if spool.continues(mark) => same_rows(mark, standing),
        Some(mark) => Err(beyond(mark, standing, spool)),
        None if spool.fresh => Ok(at(&spool.begin, standing)),
        // A spool of an earlier version, or one whose place is lost.
        None => {
            let place = spool.at_place.unwrap_or(spool.begin);
            let delivered = place.first_row.saturating_sub(1);
            if standing.last < delivered {
                return Err(OtherDatabase::Older { last: standing.last, delivered });
            }
            if standing.last >= spool.end.first_row {
                return Err(OtherDatabase::Ahead { last: standing.last, next: spool.end.first_row });
            }
            Ok(at(&place, standing))
        }
    }
}

/// What was delivered beyond a break cannot be told from what was not: the spool goes on where it ends, or where the database is
/// if that is before.
fn restart(standing: &Standing, spool: &Spool) -> Mark {
    match &standing.mark {
        Some(mark) if spool.continues(mark) => Mark { last_row: standing.last, ..mark.clone() },
        _ => at(&spool.at_place.unwrap_or(spool.end), standing),
    }
}

fn beyond(mark: &Mark, standing: &Standing, spool: &Spool) -> OtherDatabase {
    if mark.next > spool.end.first_sequence {
        return OtherDatabase::Ahead { last: standing.last, next: spool.end.first_row };
    }
    OtherDatabase::Forked
}

fn same_rows(mark: &Mark, standing: &Standing) -> Result<Mark, OtherDatabase> {
    let (last, delivered) = (standing.last, mark.last_row);
    match last.cmp(&delivered) {
        std::cmp::Ordering::Less => Err(OtherDatabase::RowsGone { last, delivered }),
        std::cmp::Ordering::Greater => Err(OtherDatabase::RowsAdded { last, delivered }),
        std::cmp::Ordering::Equal => Ok(mark.clone()),
    }
}

fn at(marks: &Marks, standing: &Standing) -> Mark {
    Mark { next: marks.first_sequence, hash: hex(&marks.previous), last_row: standing.last }
}
