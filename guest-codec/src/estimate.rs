//! An estimate of tokens, for upstreams that cannot count: biased high, so that a client which trusts it does not run into the end of
//! the context. Tokenizers of vendors differ and change; this is one formula for all of them.

use std::iter::Peekable;
use std::str::Bytes;

/// What a message costs besides its text: role and separators.
pub const PER_MESSAGE: u64 = 4;
/// What a reply's beginning and the frame of the prompt cost.
pub const FRAME: u64 = 8;
/// What a tool's definition, or a call of one, costs besides its texts.
pub const PER_TOOL: u64 = 12;
/// An image of the largest size that is not scaled down:
/// <https://docs.claude.com/en/docs/build-with-claude/vision#calculate-image-costs>.
pub const IMAGE: u64 = 1600;
/// Characters of base64 for each token of a PDF, beyond one page at [`IMAGE`].
pub const PDF_CHARS: u64 = 8;

/// Tokens of a text: a run of letters costs one for each four, begun ones too; digits one for each two and one more; each other
/// visible ASCII character one; white space nothing alone and one for each four in a run; other characters one for two
/// bytes of UTF-8, begun ones too.
pub fn text(text: &str) -> u64 {
    let mut tokens = 0;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        tokens += match byte {
            b'a'..=b'z' | b'A'..=b'Z' => run(&mut bytes, u8::is_ascii_alphabetic).div_ceil(4),
            b'0'..=b'9' => run(&mut bytes, u8::is_ascii_digit).div_ceil(2) + 1,
            b' ' | b'\t' | b'\n' | b'\r' => run(&mut bytes, u8::is_ascii_whitespace) / 4,
            0x80.. => run(&mut bytes, |it| *it >= 0x80).div_ceil(2),
            _ => 1,
        };
    }
    tokens
}

/// Tokens of a PDF with so many characters of base64.
pub fn pdf(chars: usize) -> u64 {
    IMAGE.saturating_add(u64::try_from(chars).unwrap_or(u64::MAX) / PDF_CHARS)
}

/// The length of a run whose first byte was taken already.
fn run(bytes: &mut Peekable<Bytes<'_>>, is: fn(&u8) -> bool) -> u64 {
    let mut length = 1;
    while bytes.next_if(is).is_some() {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn the_estimate_is_above_what_known_tokenizers_count_and_not_absurd() {
        // Counts of o200k_base, which OpenAI publishes.
        for (sample, counted) in [
            ("hello world", 2),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("tiktoken is great!", 6),
            ("2 + 2 = 4", 7),
        ] {
            let estimate = text(sample);
            assert!(estimate >= counted, "{sample}: {estimate} < {counted}");
            assert!(estimate <= counted * 3, "{sample}: {estimate} is far above {counted}");
        }
        assert!(text("お誕生日おめでとう") >= 8);
        assert!(text(&" ".repeat(400)) <= 100);
    }
}
