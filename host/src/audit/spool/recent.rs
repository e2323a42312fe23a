//! The records that the writer wrote last, in memory: a consumer that keeps up reads no file. One that fell behind, and every one
//! after a start, reads the files, which are the truth.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cursor::{Batch, RowRecord};
use super::frame::{Frame, Hash, OVERHEAD};
use super::recover::Marks;

/// So many bytes of records are kept at most.
pub(crate) const KEPT: usize = 4 << 20;

/// The latest records, as many as the ring holds.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Ring>);

/// Records whose sequences follow each other.
#[derive(Default)]
struct Ring {
    records: VecDeque<KeptRecord>,
    bytes: usize,
}

struct KeptRecord {
    sequence: u64,
    /// Its rows, if it has any.
    entry: Option<Arc<RowRecord>>,
    /// What follows it.
    end: Marks,
    bytes: usize,
}

// === impl Recent ===

impl Recent {
    /// Keeps a record that goes to the file now. Consumers read what is durable, so that they cannot be ahead of the disk.
    pub(super) fn keep(&self, frame: &Frame<'_>, hash: Hash) {
        let kept = KeptRecord {
            sequence: frame.sequence,
            entry: RowRecord::of(frame),
            end: Marks::behind(frame, hash),
            bytes: OVERHEAD + frame.body.len(),
        };
        let mut ring = self.lock();
        ring.bytes += kept.bytes;
        ring.records.push_back(kept);
        while ring.bytes > KEPT {
            ring.drop_first();
        }
    }

    /// Lets go of the records before the sequence `needed`.
    pub(super) fn release(&self, needed: u64) {
        let mut ring = self.lock();
        while ring.records.front().is_some_and(|kept| kept.sequence < needed) {
            ring.drop_first();
        }
    }

    /// The records from the sequence `next` on, before the sequence `end`, which are known to be durable; `None` if the first of
    /// them is not here.
    pub(crate) fn read(&self, next: u64, end: u64) -> Option<Batch> {
        let ring = self.lock();
        let first = ring.records.front()?.sequence;
        let before = usize::try_from(next.checked_sub(first)?).ok()?;
        let mut batch = Batch::begin(next);
        for kept in ring.records.iter().skip(before).take_while(|kept| kept.sequence < end) {
            if !batch.has_room() {
                break;
            }
            batch.push(kept.entry.clone(), kept.end);
        }
        (batch.end.first_sequence > next).then_some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // No code panics while it holds the lock; a poisoned ring is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ring ===

impl Ring {
    fn drop_first(&mut self) {
        let bytes = self.records.pop_front().map_or(self.bytes, |kept| kept.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Tag;
    use super::*;

    fn keep(recent: &Recent, sequence: u64, body: &[u8]) {
        let rows = u32::from(!body.is_empty());
        let frame =
            Frame { sequence, previous: [0; 32], tag: Tag::Rows, call: 0, first_row: sequence, rows, body };
        recent.keep(&frame, [u8::try_from(sequence).unwrap(); 32]);
    }

    /// The first rows of what is read, and where it ends.
    fn read(recent: &Recent, next: u64, end: u64) -> Option<(Vec<u64>, u64)> {
        let batch = recent.read(next, end)?;
        Some((batch.entries.iter().map(|entry| entry.first_row).collect(), batch.end.first_sequence))
    }

    #[test]
    fn what_is_kept_is_read_up_to_what_is_durable() {
        let recent = Recent::default();
        assert_eq!(read(&recent, 5, 9), None);
        for sequence in 5..9 {
            keep(&recent, sequence, if sequence == 6 { b"" } else { b"[]" });
        }
        assert_eq!(read(&recent, 5, 9), Some((vec![5, 7, 8], 9)));
        assert_eq!(read(&recent, 6, 8), Some((vec![7], 8)));
        assert_eq!(recent.read(6, 8).unwrap().end.previous, [7; 32]);
        for (next, end) in [(4, 9), (9, 9), (6, 6), (10, 12)] {
            assert_eq!(read(&recent, next, end), None, "{next} to {end}");
        }
        recent.release(7);
        assert_eq!(read(&recent, 6, 9), None, "the slowest consumer is behind it");
        assert_eq!(read(&recent, 7, 9), Some((vec![7, 8], 9)));
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let recent = Recent::default();
        for sequence in 1..=10 {
            keep(&recent, sequence, &vec![b'x'; KEPT / 4]);
            assert!(recent.lock().bytes <= KEPT);
        }
        assert_eq!(read(&recent, 7, 11), None);
        assert_eq!(read(&recent, 8, 11), Some((vec![8, 9, 10], 11)));
        keep(&recent, 11, &vec![b'x'; KEPT + 1]);
        assert!(recent.lock().records.is_empty());
        assert_eq!(recent.lock().bytes, 0);
    }
}
