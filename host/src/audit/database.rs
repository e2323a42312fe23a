//! The database that the spool delivers to. A spool remembers which one it is and how far it is; before rows go there, and every few
//! seconds, both must still be true. A database that was removed, emptied, exchanged or brought back from a backup takes no rows, and
//! the gateway refuses calls until it is back or somebody has said that things go on from here (`reconcile.rs`).

mod judge;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::judge::OtherDatabase;
use self::judge::{Spool, judge};
use super::drain::DrainError;
use super::reconcile::{Approval, View};
use super::spool::cursor::{self, Batch};
use super::spool::frame::Chain;
use super::spool::place::{DeliveryPlace, KnownDatabase, PlaceFile};
use super::spool::recover::{Marks, Recovered};
use super::spool::segment::replace;
use super::{AuditStartError, Event, place};
use crate::clock::{Clock, Entropy};
use crate::db::audit::NewRow;
use crate::db::audit::replica::{Delivery, Mark, ReplicaWriter, Standing};
use crate::db::{Db, DbError};

/// A database that nobody writes to is looked at this often.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// The name is kept by a write this often, if no rows keep it. The lease is three times as long.
const RENEW: Duration = Duration::from_secs(5);
/// The file with the name of the spool in leases.
const HOLDER: &str = "id";

/// Checks the database before each delivery, and refuses one that is not the one that the spool knows.
pub(super) struct AuditDatabase {
    db: Db,
    dir: PathBuf,
    chain: Chain,
    replica: String,
    /// The spool's name in leases.
    holder: String,
    clock: Arc<dyn Clock>,
    file: Option<DatabaseFile>,
    remembers: PlaceFile,
    known: Option<KnownDatabase>,
    /// Whether the database was found to be the known one, and still is as far as anybody knows.
    attached: bool,
    /// Part of the spool was set aside at the start.
    broken: bool,
    /// What the database said when it was refused last, and why it was.
    refused: Option<(Standing, OtherDatabase)>,
    looked: Duration,
    renewed: Duration,
}

/// Where a start or a new look goes on.
pub(super) struct Attached {
    /// The record that the database needs next.
    pub(super) next: u64,
    /// What is said in a row of its own: that somebody let the gateway go on with this database.
    pub(super) reconciled: Option<Event>,
}

/// Why nothing goes to the database now.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error("the spool cannot be read")]
    Spool(#[from] io::Error),
    #[error("the database does not take audit rows")]
    Database(#[from] DbError),
    #[error(transparent)]
    Other(#[from] OtherDatabase),
}

/// A SQLite database is a file, and a file that was removed can still be written.
#[derive(Debug, Clone)]
struct DatabaseFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

// === impl AuditDatabase ===

impl AuditDatabase {
    /// Reads what the spool in `dir` remembers. Its directory exists and is ours.
    pub(super) fn load(
        db: Db,
        dir: &Path,
        chain: Chain,
        replica: &str,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> io::Result<Self> {
        let remembers = place(dir, "database");
        let known = DeliveryPlace::load(&remembers)?.and_then(|place| place.known);
        Ok(Self {
            file: db.file().and_then(|path| DatabaseFile::find(path).ok()),
            holder: holder(dir, entropy)?,
            remembers: PlaceFile::new(remembers),
            dir: dir.to_owned(),
            replica: replica.to_owned(),
            attached: false,
            broken: false,
            refused: None,
            looked: Duration::ZERO,
            renewed: Duration::ZERO,
            db,
            chain,
            clock,
            known,
        })
    }

    /// The directory of the spool.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// At start: says where the spool goes on, and from which number on rows are numbered.
    pub(super) async fn attach_at_start(
        &mut self,
        recovered: &mut Recovered,
    ) -> Result<Result<Attached, OtherDatabase>, AuditStartError> {
        // Numbers that were given out beyond a break must not be given out again, where the database does not say which.
        let seen = recovered.seen_row;
        self.broken = recovered.broken.is_some();
        let spool = Spool {
            begin: Marks { first_sequence: recovered.begin, ..recovered.marks },
            end: recovered.marks,
            fresh: recovered.fresh,
            broken: self.broken,
            at_mark: None,
            at_place: None,
        };
        match self.attach(Some(spool)).await {
            Ok((attached, standing)) => {
                let next_row = &mut recovered.marks.first_row;
                if recovered.fresh || recovered.broken.is_some() {
                    *next_row = (*next_row).max(standing.last + 1);
                }
                if recovered.fresh && recovered.broken.is_none() {
                    // A new spool goes on with the chain that the database knows.
                    let known = self.known.as_ref().map(|known| &known.mark);
                    if let Some(mark) = known.filter(|mark| mark.next > recovered.marks.first_sequence) {
                        recovered.marks.first_sequence = mark.next;
                        recovered.marks.previous = unhex(&mark.hash);
                        recovered.begin = mark.next;
                    }
                }
                Ok(Ok(attached))
            }
            Err(AttachError::Other(OtherDatabase::Leased { holder, seconds })) => {
                Err(AuditStartError::Leased { replica: self.replica.clone(), holder, seconds })
            }
            Err(AttachError::Other(OtherDatabase::Ahead { last, next })) => {
                Err(AuditStartError::Foreign { replica: self.replica.clone(), last, next })
            }
            Err(AttachError::Other(other)) => {
                recovered.marks.first_row = recovered.marks.first_row.max(seen);
                Ok(Err(other))
            }
            Err(AttachError::Spool(source)) => Err(AuditStartError::Spool { dir: self.dir.clone(), source }),
            Err(AttachError::Database(error)) if recovered.fresh => Err(AuditStartError::Database(error)),
            Err(AttachError::Database(error)) => {
                tracing::warn!(error = %error, "the database does not say yet how far the audit trail is");
                recovered.marks.first_row = recovered.marks.first_row.max(seen);
                let next = self.remembered()?.unwrap_or(recovered.begin);
                Ok(Ok(Attached { next, reconciled: None }))
            }
        }
    }

    fn remembered(&self) -> Result<Option<u64>, AuditStartError> {
        let place = DeliveryPlace::load(&place(&self.dir, "database"));
        let place = place.map_err(|source| AuditStartError::Spool { dir: self.dir.clone(), source })?;
        Ok(place.map(|place| place.next))
    }

    /// Whether rows may go to the database now. If it had to be found again: where it goes on.
    pub(super) async fn ready(&mut self) -> Result<Option<Attached>, AttachError> {
        self.same_file()?;
        let now = self.clock.monotonic();
        if self.attached && now.saturating_sub(self.looked) < LOOK {
            return Ok(None);
        }
        if self.attached {
            let standing = standing(&self.db, &self.replica).await?;
            if self.is_as_left(&standing) {
                self.looked = now;
                if now.saturating_sub(self.renewed) >= RENEW {
                    self.attached = self.db.audit_renew(self.writer()).await?;
                    self.renewed = now;
                }
                if self.attached {
                    return Ok(None);
                }
            }
        }
        self.attached = false;
        let (attached, _) = self.attach(None).await?;
        Ok(Some(attached))
    }

    /// Hands the rows of a batch over, and moves the database's mark behind it. False if the database is not as it was left:
    /// nothing was written then.
    pub(super) async fn deliver(&mut self, batch: &Batch, rows: &[NewRow]) -> Result<bool, DrainError> {
        let Some(known) = self.known.clone().filter(|_| self.attached) else { return Ok(false) };
        let last = rows.last().and_then(|row| u64::try_from(row.sequence).ok());
        let to = Mark {
            next: batch.end.first_sequence,
            hash: hex(&batch.end.previous),
            last_row: last.unwrap_or(0).max(known.mark.last_row),
        };
        let writer = ReplicaWriter { identity: &known.identity, ..self.writer() };
        let delivered = match self.db.audit_deliver(writer, &known.mark, &to, rows).await {
            Err(error) if error.refuses_values() => {
                let rows = self.without_refused(rows).await?;
                self.db.audit_deliver(writer, &known.mark, &to, &rows).await
            }
            delivered => delivered,
        };
        match delivered.map_err(DrainError::Database)? {
            Delivery::Done => {}
            Delivery::Moved => {
                self.attached = false;
                return Ok(false);
            }
            Delivery::Taken(row) => {
                return Err(OtherDatabase::Taken { replica: self.replica.clone(), row }.into());
            }
        }
        // What was committed to a file that is no longer there was not delivered.
        self.same_file()?;
        let now = self.clock.monotonic();
        (self.looked, self.renewed) = (now, now);
        self.known = Some(KnownDatabase { mark: to, ..known });
        Ok(true)
    }

    /// The consumer is at `next`: remembers that, and how far the database is.
    pub(super) fn remember(&mut self, next: u64) -> io::Result<()> {
        self.remembers.write(&DeliveryPlace { next, known: self.known.clone() })
    }

    /// The gateway ends: whoever comes next may have the name at once.
    pub(super) async fn release(&mut self) {
        if self.attached
            && let Err(error) = self.db.audit_release(self.writer()).await
        {
            tracing::warn!(error = %error, "the name of this gateway stays taken for some seconds");
        }
        self.attached = false;
    }

    /// Finds out whether this is the database that the spool knows, takes the name, and remembers both.
    async fn attach(&mut self, spool: Option<Spool>) -> Result<(Attached, Standing), AttachError> {
        self.same_file()?;
        let standing = standing(&self.db, &self.replica).await?;
        let approval = Approval::load(&self.dir)?;
        if let Some((before, other)) = self.refused.take()
            && approval.is_none()
            && before.says_the_same(&standing)
        {
            self.refused = Some((before, other.clone()));
            return Err(other.into());
        }
        if let Some(holder) = standing.holder.as_ref().filter(|holder| **holder != self.holder)
            && standing.lease > 0
        {
            return Err(OtherDatabase::Leased { holder: holder.clone(), seconds: standing.lease }.into());
        }
        let spool = look(&self.dir, self.chain, &standing, spool, self.broken).await?;
        let now = self.clock.now();
        let (mark, reconciled) = match (judge(self.known.as_ref(), &standing, &spool), approval) {
            (Ok(mark), None) => (mark, None),
            // The gateway ended between what was approved and the row that says so.
            (Ok(mark), Some(approval)) => (mark, Some(approval.row(now, None))),
            (Err(other), Some(approval)) if approval.means(&standing, &self.replica) => {
                let view = View { dir: &self.dir, chain: self.chain, replica: &self.replica };
                let plan =
                    view.plan(&self.db, approval.was(), self.known.as_ref(), &standing, &other).await?;
                (plan.mark.clone(), Some(approval.row(now, Some(&plan))))
            }
            (Err(other), _) => {
                self.refused = Some((standing, other.clone()));
                return Err(other.into());
            }
        };
        // Nothing is approved for a database that does not say which one it is.
        let identity = standing.identity.clone().ok_or(OtherDatabase::Emptied)?;
        let known = KnownDatabase { identity, mark };
        let next = known.mark.next;
        let place = DeliveryPlace { next, known: Some(known.clone()) };
        if reconciled.is_some() {
            // First the spool: if the gateway ends in between, the approval is still there.
            self.remembers.write_durably(&place)?;
        }
        let writer = ReplicaWriter { identity: &known.identity, ..self.writer() };
        if !self.db.audit_attach(writer, standing.mark.as_ref(), &known.mark).await? {
            // Somebody else was faster; the next look says who.
            return Err(OtherDatabase::Busy.into());
        }
        self.remembers.write_durably(&place)?;
        let now = self.clock.monotonic();
        (self.looked, self.renewed, self.attached) = (now, now, true);
        self.known = Some(known);
        Ok((Attached { next, reconciled }, standing))
    }

    fn is_as_left(&self, standing: &Standing) -> bool {
        self.known.as_ref().is_some_and(|known| {
            standing.identity.as_ref() == Some(&known.identity)
                && standing.mark.as_ref() == Some(&known.mark)
                && standing.holder.as_ref() == Some(&self.holder)
                && standing.last == known.mark.last_row
        })
    }

    fn writer(&self) -> ReplicaWriter<'_> {
        let identity = self.known.as_ref().map_or("", |known| known.identity.as_str());
        ReplicaWriter { replica: &self.replica, holder: &self.holder, identity }
    }

    /// Rows that the database refuses must not keep all behind them in the spool: they go in without their payload.
    async fn without_refused(&self, rows: &[NewRow]) -> Result<Vec<NewRow>, DrainError> {
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            match self.db.audit_try(&self.replica, row).await {
                Ok(()) => kept.push(row.clone()),
                Err(error) if error.refuses_values() => {
                    tracing::error!(row = row.sequence, error = %error, "the database refuses an audit payload");
                    kept.push(row.without_payload().map_err(DrainError::Record)?);
                }
                Err(error) => return Err(DrainError::Database(error)),
            }
        }
        Ok(kept)
    }

    fn same_file(&self) -> Result<(), OtherDatabase> {
        self.file.as_ref().map_or(Ok(()), DatabaseFile::check)
    }
}

// === impl DatabaseFile ===

impl DatabaseFile {
    fn find(path: PathBuf) -> io::Result<Self> {
        let found = fs::metadata(&path)?;
        Ok(Self { path, device: found.dev(), inode: found.ino() })
    }

    /// Whether the file that this process has open is the one with this name.
    fn check(&self) -> Result<(), OtherDatabase> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(()),
            Ok(_) => Err(OtherDatabase::Replaced { path: self.path.clone() }),
            Err(_) => Err(OtherDatabase::Removed { path: self.path.clone() }),
        }
    }
}

/// What a database says, and whether that fits what the spool remembers and holds. Nothing is written.
pub(super) async fn compare(
    db: &Db,
    dir: &Path,
    chain: Chain,
    replica: &str,
    known: Option<&KnownDatabase>,
) -> Result<(Standing, Result<Mark, OtherDatabase>), AttachError> {
    let standing = standing(db, replica).await?;
    let spool = look(dir, chain, &standing, None, false).await?;
    let verdict = judge(known, &standing, &spool);
    Ok((standing, verdict))
}

/// What the spool holds at the places that matter. It is read on the blocking pool.
async fn look(
    dir: &Path,
    chain: Chain,
    standing: &Standing,
    spool: Option<Spool>,
    broken: bool,
) -> io::Result<Spool> {
    let dir = dir.to_owned();
    let mark = standing.mark.as_ref().map(|mark| mark.next);
    let read = move || {
        let mut spool = match spool {
            Some(spool) => spool,
            None => Spool { broken, ..Spool::look(&dir, chain)? },
        };
        let (begin, end) = (spool.begin.first_sequence, spool.end.first_sequence);
        let at = |next: u64| {
            if next == end { Ok(Some(spool.end)) } else { cursor::marks_at(&dir, chain, next) }
        };
        let remembered = DeliveryPlace::load(&place(&dir, "database"))?.map_or(begin, |place| place.next);
        let at_place = at(remembered.clamp(begin, end.max(begin)))?;
        let at_mark = mark.map(at).transpose()?.flatten();
        (spool.at_place, spool.at_mark) = (at_place, at_mark);
        Ok(spool)
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

async fn standing(db: &Db, replica: &str) -> Result<Standing, AttachError> {
    match db.audit_standing(replica).await {
        Ok(standing) => Ok(standing),
        Err(error) if error.misses_a_table() && db.audit_is_empty().await.unwrap_or(false) => {
            Err(OtherDatabase::Emptied.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The name of the spool in leases, made once.
fn holder(dir: &Path, entropy: &dyn Entropy) -> io::Result<String> {
    let path = dir.join(HOLDER);
    match fs::read_to_string(&path) {
        Ok(found) if !found.trim().is_empty() => Ok(found.trim().to_owned()),
        Ok(_) => made(&path, entropy),
        Err(error) if error.kind() == io::ErrorKind::NotFound => made(&path, entropy),
        Err(error) => Err(error),
    }
}

fn made(path: &Path, entropy: &dyn Entropy) -> io::Result<String> {
    let mut random = [0; 8];
    entropy.fill(&mut random);
    // Whoever looks for the other gateway wants to know where it runs.
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine: String =
        machine.trim().chars().filter(|it| it.is_ascii_alphanumeric() || *it == '-').collect();
    let machine = if machine.is_empty() { "gateway".to_owned() } else { machine };
    let name = format!("{}-{}", machine.get(..32).unwrap_or(&machine), hex(&random));
    replace(path, name.as_bytes())?;
    Ok(name)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    sallyport_protocol::canonical::hex(bytes)
}

fn unhex(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    hash
}
