//! One record of the spool on disk: length, CRC, sequence, hash of the record before, and the body.
//!
//! ```text
//! u32 length of what follows the CRC | u32 CRC-32 of the length and what follows
//! u64 sequence | [u8; 32] previous | u8 tag | u64 call | u64 first row | u32 rows | body
//! ```
//! All integers are little-endian. The hash of a record is BLAKE3 over what follows its CRC, so it covers the hash before.

/// A BLAKE3 hash, keyed if the chain has a key.
pub(crate) type Hash = [u8; 32];

/// Length and CRC.
const HEAD: usize = 8;
/// Everything between the CRC and the body.
const FIXED: usize = 8 + 32 + 1 + 8 + 8 + 4;
/// What a record takes besides its body.
pub(crate) const OVERHEAD: usize = HEAD + FIXED;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// A call is about to go upstream; the body is the intent.
    Intent,
    /// A call ended; `call` is the sequence of its intent, the body its rows.
    Close,
    /// A call ended, as with `Close`, but it has more rows than these: the call and its cost. The others follow.
    Closing,
    /// More rows of a call, and not the last.
    More,
    /// The last rows of a call.
    Last,
    /// Rows that belong to no call.
    Rows,
    /// An intent moved forward so that its segment could go; `call` is its first sequence.
    Carried,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) sequence: u64,
    pub(crate) previous: Hash,
    pub(crate) tag: Tag,
    pub(crate) call: u64,
    pub(crate) first_row: u64,
    pub(crate) rows: u32,
    pub(crate) body: &'a [u8],
}

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A record, its size on disk, and its hash.
    Frame { frame: Frame<'a>, size: usize, hash: Hash },
    /// Nothing was written here.
    End,
    /// Something that is not a whole record.
    Broken,
}

/// The key of the chain, and how it hashes.
#[derive(Clone, Copy)]
pub(crate) struct Chain(pub(crate) Option<[u8; 32]>);

// === impl Tag ===

impl Tag {
    fn byte(self) -> u8 {
        match self {
            Self::Intent => 1,
            Self::Close => 2,
            Self::Rows => 3,
            Self::Carried => 4,
            Self::Closing => 5,
            Self::More => 6,
            Self::Last => 7,
        }
    }

    fn parse(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Intent),
            2 => Some(Self::Close),
            3 => Some(Self::Rows),
            4 => Some(Self::Carried),
            5 => Some(Self::Closing),
            6 => Some(Self::More),
            7 => Some(Self::Last),
            _ => None,
        }
    }
}

// === impl Chain ===

impl Chain {
    pub(crate) fn hash(self, bytes: &[u8]) -> Hash {
        match self.0 {
            Some(key) => *blake3::keyed_hash(&key, bytes).as_bytes(),
            None => *blake3::hash(bytes).as_bytes(),
        }
    }

    /// Appends the record to `out`; returns its hash.
    pub(crate) fn write(self, out: &mut Vec<u8>, frame: &Frame<'_>) -> Hash {
        let start = out.len();
        let length = u32::try_from(FIXED + frame.body.len()).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&frame.sequence.to_le_bytes());
        out.extend_from_slice(&frame.previous);
        out.push(frame.tag.byte());
        out.extend_from_slice(&frame.call.to_le_bytes());
        out.extend_from_slice(&frame.first_row.to_le_bytes());
        out.extend_from_slice(&frame.rows.to_le_bytes());
        out.extend_from_slice(frame.body);
        let content = out.get(start + HEAD..).unwrap_or_default();
        let hash = self.hash(content);
        let crc = crc(length, content).to_le_bytes();
        if let Some(place) = out.get_mut(start + 4..start + HEAD) {
            place.copy_from_slice(&crc);
        }
        hash
    }

    /// What stands at the beginning of `bytes`.
    pub(crate) fn read(self, bytes: &[u8]) -> Found<'_> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Found::End };
        let size = u32::from_le_bytes(*length) as usize;
        if size == 0 {
            return Found::End;
        }
        let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Found::Broken };
        let Some(content) = rest.get(..size) else { return Found::Broken };
        if crc(*length, content) != u32::from_le_bytes(*sum) {
            return Found::Broken;
        }
        match parse(content) {
            Some(frame) => Found::Frame { frame, size: HEAD + size, hash: self.hash(content) },
            None => Found::Broken,
        }
    }
}

fn crc(length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

fn parse(content: &[u8]) -> Option<Frame<'_>> {
    let (sequence, rest) = content.split_first_chunk::<8>()?;
    let (previous, rest) = rest.split_first_chunk::<32>()?;
    let (tag, rest) = rest.split_first()?;
    let (call, rest) = rest.split_first_chunk::<8>()?;
    let (first_row, rest) = rest.split_first_chunk::<8>()?;
    let (rows, body) = rest.split_first_chunk::<4>()?;
    Some(Frame {
        sequence: u64::from_le_bytes(*sequence),
        previous: *previous,
        tag: Tag::parse(*tag)?,
        call: u64::from_le_bytes(*call),
        first_row: u64::from_le_bytes(*first_row),
        rows: u32::from_le_bytes(*rows),
        body,
    })
}
