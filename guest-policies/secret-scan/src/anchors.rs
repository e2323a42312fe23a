//! Where the pass stops: three bytes with which a secret may begin, or announce itself. Everything else is passed over with one
//! look into a small table.

use crate::formats::Formats;

/// The label of every PEM block.
pub(crate) const PEM: &str = "-----BEGIN ";

/// Bits of a table of triples.
const TRIPLES: usize = 1 << 17;

/// Which three bytes may begin a secret. Built by `configure`, so it comes with the snapshot.
pub(crate) struct Anchors {
    /// All triples, by a hash: few others share it. Not those that a sign of assignment begins, since anything follows it.
    triples: Vec<u64>,
    /// Which formats each triple may belong to, in order.
    formats: Vec<(u32, u16)>,
}

// === impl Anchors ===

impl Anchors {
    pub(crate) fn new(formats: &Formats) -> Self {
        let mut anchors = Self { triples: vec![0; TRIPLES / 64], formats: Vec::new() };
        for (number, format) in formats.list.iter().enumerate() {
            let Some([first, second, third]) =
                format.named.is_empty().then(|| format.shape.anchor()).flatten()
            else {
                continue;
            };
            for first in first {
                for second in &second {
                    for third in &third {
                        anchors.add([first, *second, *third]);
                        let number = u16::try_from(number).unwrap_or(u16::MAX);
                        anchors.formats.push((key([first, *second, *third]), number));
                    }
                }
            }
        }
        anchors.formats.sort_unstable();
        for start in [PEM, "eyJ"] {
            if let [first, second, third, ..] = *start.as_bytes() {
                anchors.add([first, second, third]);
            }
        }
        // Card numbers begin with 2 to 6 and go on with digits.
        for first in b'2'..=b'6' {
            for second in b'0'..=b'9' {
                for third in b'0'..=b'9' {
                    anchors.add([first, second, third]);
                }
            }
        }
        anchors
    }

    /// The first anchor from `from` on.
    pub(crate) fn next(&self, text: &[u8], from: usize) -> Option<usize> {
        // One word and no branch for each condition: which of them holds cannot be foretold, that none does can. What is
        // shorter than a word is no secret.
        #[expect(clippy::needless_bitwise_bool, reason = "a branch for each costs more than all of them")]
        let may_begin = |four: &[u8]| match four {
            [first, second, third, fourth] => {
                let word = u32::from_le_bytes([*first, *second, *third, *fourth]);
                has(&self.triples, mixed(word & 0x00FF_FFFF)) | (*first == b'=') | (*first == b':')
            }
            _ => false,
        };
        text.get(from..)?.windows(4).position(may_begin).map(|at| at + from)
    }

    /// The formats whose anchor may stand at the beginning of `bytes`.
    pub(crate) fn formats(&self, bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
        let wanted = match bytes {
            [first, second, third, ..] if has(&self.triples, hash([*first, *second, *third])) => {
                key([*first, *second, *third])
            }
            _ => u32::MAX,
        };
        let start = match wanted {
            u32::MAX => self.formats.len(),
            wanted => self.formats.partition_point(|(key, _)| *key < wanted),
        };
        let found = self.formats.iter().skip(start).take_while(move |(key, _)| *key == wanted);
        found.map(|(_, number)| usize::from(*number))
    }

    fn add(&mut self, three: [u8; 3]) {
        let at = hash(three);
        if let Some(word) = self.triples.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }
}

fn key([first, second, third]: [u8; 3]) -> u32 {
    u32::from_le_bytes([first, second, third, 0])
}

fn hash(three: [u8; 3]) -> usize {
    mixed(key(three))
}

fn mixed(key: u32) -> usize {
    // The upper 17 bits of a product mix all three bytes.
    (key.wrapping_mul(0x9E37_79B1) >> 15) as usize
}

fn has(bits: &[u64], at: usize) -> bool {
    bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
}
