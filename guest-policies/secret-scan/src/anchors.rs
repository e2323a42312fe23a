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
    triples: Box<[u64; TRIPLES / 64]>,
    /// Which formats each triple may belong to, in order.
    formats: Vec<(u32, u16)>,
}

// === impl Anchors ===

impl Anchors {
    pub(crate) fn new(formats: &Formats) -> Self {
        let mut anchors = Self { triples: Box::new([0; TRIPLES / 64]), formats: Vec::new() };
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

    /// The first anchor from `from` on. What is shorter than four bytes is no secret.
    pub(crate) fn next(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        // Eight places in one turn, without a branch for any of them: which of them may begin something cannot be foretold, that none
        // does nearly always can.
        while let Some((eight, next)) = text.get(at..).and_then(sixteen) {
            let mut found = signs(eight);
            found |= self.bit(mixed(eight));
            for place in 1..8 {
                found |= self.bit(mixed(eight >> (8 * place) | next << (64 - 8 * place)));
            }
            if found != 0 {
                // A byte behind a sign may look like one.
                if let Some(place) = self.first(text.get(at..at + 11)?) {
                    return Some(at + place);
                }
            }
            at += 8;
        }
        self.first(text.get(at..)?).map(|place| at + place)
    }

    /// The first place of `bytes` that is an anchor.
    fn first(&self, bytes: &[u8]) -> Option<usize> {
        let may_begin = |four: &[u8]| match four {
            [b'=' | b':', ..] => true,
            [first, second, third, _] => self.bit(hash([*first, *second, *third])) != 0,
            _ => false,
        };
        bytes.windows(4).position(may_begin)
    }

    /// One, if a triple with this hash was added; else nothing.
    fn bit(&self, at: usize) -> u64 {
        self.triples.get(at / 64).map_or(0, |word| word >> (at % 64) & 1)
    }

    /// The formats whose anchor may stand at the beginning of `bytes`.
    pub(crate) fn formats(&self, bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
        let wanted = match bytes {
            [first, second, third, ..] if self.bit(hash([*first, *second, *third])) != 0 => {
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
    mixed(u64::from(key(three)))
}

/// A place in the table for the three lowest bytes of a word.
fn mixed(word: u64) -> usize {
    // The upper 17 bits of a product mix all three bytes.
    ((low(word) & 0x00FF_FFFF).wrapping_mul(0x9E37_79B1) >> 15) as usize
}

/// The lower half of a word.
fn low(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Sixteen bytes as two words, the first byte in the lowest place.
fn sixteen(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*first), u64::from_le_bytes(*rest.first_chunk::<8>()?)))
}

/// Not zero, if one of eight bytes is a sign of assignment.
fn signs(eight: u64) -> u64 {
    let holds = |sign: u8| {
        // A byte that is zero borrows from its upper bit.
        let zero_where_equal = eight ^ u64::from_le_bytes([sign; 8]);
        zero_where_equal.wrapping_sub(u64::from_le_bytes([0x01; 8]))
            & !zero_where_equal
            & u64::from_le_bytes([0x80; 8])
    };
    holds(b'=') | holds(b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_that_one_look_at_a_time_finds() {
        let anchors = Anchors::new(&Formats::read(None, Vec::new()).unwrap());
        let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
        let alphabet = b"abcdefghijklmnop eyJAKIAsk-ghp_=:<;>29\x01\x80\xff";
        for length in 0..200 {
            let text: Vec<u8> = (0..length)
                .map(|_| {
                    chance ^= chance << 13;
                    chance ^= chance >> 7;
                    chance ^= chance << 17;
                    alphabet[usize::try_from(chance % alphabet.len() as u64).unwrap()]
                })
                .collect();
            let expected: Vec<usize> = (0..text.len())
                .filter(|at| {
                    let four = text.get(*at..at + 4);
                    four.is_some_and(|four| {
                        matches!(four[0], b'=' | b':')
                            || anchors.triples[hash([four[0], four[1], four[2]]) / 64]
                                >> (hash([four[0], four[1], four[2]]) % 64)
                                & 1
                                == 1
                    })
                })
                .collect();
            let (mut found, mut at) = (Vec::new(), 0);
            while let Some(place) = anchors.next(&text, at) {
                found.push(place);
                at = place + 1;
            }
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
