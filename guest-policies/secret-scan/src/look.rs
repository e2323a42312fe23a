//! What bytes look like: drawn by a machine or written by a person, and whether a word goes on.

/// A longer text of the same kind over and over is filling, a shorter one may be chance.
const PLACEHOLDERS: [&[u8]; 7] =
    [b"your_", b"your-", b"example", b"xxxxx", b"placeholder", b"redacted", b"changeme"];

/// Whether this was drawn by a machine: a long run that mixes digits and letters and spreads over its alphabet. A path, a
/// date, a version, words in snake case and a UUID are not.
pub(crate) fn random(value: &[u8]) -> bool {
    let longest = value.split(|byte| matches!(byte, b'-' | b'_' | b'/')).max_by_key(|part| part.len());
    let Some(longest) = longest.filter(|part| part.len() >= 16) else { return false };
    changes(longest) >= 4 && entropy(value) >= 3.2
}

/// Whether a token of unknown make was drawn: it mixes digits and letters and spreads over its alphabet.
pub(crate) fn opaque(value: &[u8]) -> bool {
    changes(value) >= 4 && entropy(value) >= 3.2
}

/// How often digits and other bytes take turns.
fn changes(value: &[u8]) -> usize {
    let turn = |pair: &&[u8]| matches!(pair, [one, two] if one.is_ascii_digit() != two.is_ascii_digit());
    value.windows(2).filter(turn).count()
}

/// Bits a byte.
fn entropy(value: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for byte in value {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let total: f32 = counts.iter().map(|count| f32::from(*count)).sum();
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f32::from(*count) / total)
        .map(|part| -part * part.log2())
        .sum()
}

/// Whether pieces of a key are more than filling, such as `xxxx`, `1234` or `your-key-here`.
pub(crate) fn drawn(pieces: &[&[u8]]) -> bool {
    let mut seen = [false; 256];
    let (mut length, mut steps) = (0_usize, 0_usize);
    let (mut lower, mut upper, mut digit, mut joint) = (false, false, false, false);
    for piece in pieces {
        length += piece.len();
        for byte in *piece {
            if let Some(seen) = seen.get_mut(usize::from(*byte)) {
                *seen = true;
            }
            lower |= byte.is_ascii_lowercase();
            upper |= byte.is_ascii_uppercase();
            digit |= byte.is_ascii_digit();
            joint |= matches!(byte, b'_' | b'-');
        }
        steps += piece
            .windows(2)
            .filter(|pair| matches!(pair, [one, two] if one == two || one.wrapping_add(1) == *two))
            .count();
    }
    let different = seen.iter().filter(|seen| **seen).count();
    let words = (lower && !upper && !digit) || (upper && joint && !lower && !digit);
    different > if length < 24 { 5 } else { 8 }
        && steps * 2 < length
        && !words
        && !pieces.iter().any(|piece| PLACEHOLDERS.iter().any(|known| holds(piece, known)))
}

fn holds(piece: &[u8], word: &[u8]) -> bool {
    piece.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// Whether a letter or digit of the same word stands before. After a backslash it is the `n` of a line end, and after a
/// percent sign a byte of a URL.
pub(crate) fn within_word(bytes: &[u8], at: usize) -> bool {
    match bytes.get(..at) {
        Some([.., b'\\', b'n' | b'r' | b't']) => false,
        Some([.., b'%', one, two]) if one.is_ascii_hexdigit() && two.is_ascii_hexdigit() => false,
        Some([.., last]) => last.is_ascii_alphanumeric(),
        _ => false,
    }
}
