//! The body of a request, in pieces that leave one after the other: what is cut out of a client's body is not copied around.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::component::contract::Edit;

/// More pieces than this are put together: a write takes only so many, and each costs more than a copy of it.
const MOST_PIECES: usize = 64;

/// Bytes in an order. None of the pieces is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    /// Backwards, so that the next one is the last.
    pieces: Vec<Bytes>,
}

// === impl Pieces ===

impl Pieces {
    /// `original` but for the edits, which ascend and do not overlap; `None` if they do not.
    pub(super) fn spliced(original: &Bytes, edits: Vec<Edit>) -> Option<Self> {
        let mut pieces = Vec::with_capacity(2 * edits.len() + 1);
        let mut at = 0;
        for Edit { offset, len, replacement } in edits {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            if start < at || end > original.len() {
                return None;
            }
            pieces.push(original.slice(at..start));
            pieces.push(Bytes::from(replacement));
            at = end;
        }
        pieces.push(original.slice(at..));
        pieces.retain(|piece| !piece.is_empty());
        if pieces.len() > MOST_PIECES {
            return Some(Self::from(pieces.iter().flatten().copied().collect::<Bytes>()));
        }
        pieces.reverse();
        Some(Self { pieces })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Each, in its order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().rev()
    }

    /// All of it at once.
    #[cfg(test)]
    pub(super) fn together(&self) -> Bytes {
        self.iter().flatten().copied().collect()
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self { pieces: if bytes.is_empty() { Vec::new() } else { vec![bytes] } }
    }
}

/// As HTTP/2 takes it.
impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}
