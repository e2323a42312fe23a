//! The client's request body as a guest sees it: held by the host, read in pieces.

use crate::{Segment, bindings::policy::sallyport::gateway::types};

/// The client's request body. The gateway holds it; nothing is copied until a guest asks.
pub trait Body {
    /// Size in bytes.
    fn len(&self) -> u32;

    /// At most `len` bytes from `offset`; shorter at the end.
    fn read(&self, offset: u32, len: u32) -> Vec<u8>;

    /// Every text the client sent, in order, with where it stands.
    fn texts(&self) -> Vec<Segment>;

    /// Whether there is no body.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, for a guest that has to parse it. A host call copies at most a mebibyte.
    fn read_all(&self) -> Vec<u8> {
        let total = self.len();
        let mut bytes = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
        while let Ok(offset) = u32::try_from(bytes.len())
            && offset < total
        {
            let piece = self.read(offset, (total - offset).min(PIECE));
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        bytes
    }
}

/// The most that one call copies, so that a large body stays within what the host lends per call.
const PIECE: u32 = 1 << 20;

// === impl Body ===

impl Body for types::Body {
    fn len(&self) -> u32 {
        Self::len(self)
    }

    fn read(&self, offset: u32, len: u32) -> Vec<u8> {
        Self::read(self, offset, len)
    }

    fn texts(&self) -> Vec<Segment> {
        Self::texts(self)
    }
}
