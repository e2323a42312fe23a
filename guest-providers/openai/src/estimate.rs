//! An estimate of input tokens, for upstreams that cannot count: biased high, so that a client which trusts it does
//! not run into the end of the context. The formula is in the README.

use std::iter::Peekable;
use std::str::Bytes;

use crate::chat::{Message, Part, Request, Url, UserContent};

/// What a message costs besides its text: role and separators.
const PER_MESSAGE: u64 = 4;
/// What a reply's beginning and the frame of the prompt cost.
const FRAME: u64 = 8;
/// What a tool's definition costs besides its texts.
const PER_TOOL: u64 = 12;
/// An image of the largest size that is not scaled down.
const IMAGE: u64 = 1600;
/// Characters of base64 for each token of a PDF, beyond one page at [`IMAGE`].
const PDF_CHARS: u64 = 8;

/// Input tokens of a request.
pub(crate) fn tokens(request: &Request<'_>) -> u32 {
    let messages: u64 = request.messages.iter().map(|it| PER_MESSAGE.saturating_add(message(it))).sum();
    let tools: u64 = request
        .tools
        .iter()
        .map(|tool| {
            let description = tool.function.description.map_or(0, |it| text(it.get()));
            let parameters = tool.function.parameters.as_ref().map_or(0, |it| text(it.get()));
            let texts = description.saturating_add(parameters);
            PER_TOOL.saturating_add(text(&tool.function.name)).saturating_add(texts)
        })
        .sum();
    u32::try_from(FRAME.saturating_add(messages).saturating_add(tools)).unwrap_or(u32::MAX)
}

fn message(message: &Message<'_>) -> u64 {
    match message {
        Message::System { content }
        | Message::Developer { content }
        | Message::User { content: UserContent::Text(content) } => text(content.get()),
        Message::User { content: UserContent::Parts(parts) } => parts.iter().map(part).sum(),
        Message::Assistant { content, reasoning_content, tool_calls } => {
            let calls: u64 = tool_calls
                .iter()
                .map(|it| {
                    PER_TOOL
                        .saturating_add(text(&it.function.name))
                        .saturating_add(text(it.function.arguments))
                })
                .sum();
            let texts = [content, reasoning_content].into_iter().flatten();
            texts.map(|it| text(it.get())).sum::<u64>().saturating_add(calls)
        }
        Message::Tool { content, .. } => PER_MESSAGE.saturating_add(text(content.get())),
    }
}

fn part(part: &Part<'_>) -> u64 {
    match part {
        Part::Text { text: it } => text(it.get()),
        Part::ImageUrl { .. } => IMAGE,
        Part::File { file } => {
            let chars = match &file.file_data {
                Url::Link(link) => link.get().len(),
                Url::Data { data, .. } => data.len(),
            };
            let chars = u64::try_from(chars).unwrap_or(u64::MAX);
            IMAGE.saturating_add(chars / PDF_CHARS)
        }
    }
}

/// Tokens of a text: a run of letters costs one for each four, begun ones too; digits one for each two and one more; each other
/// visible ASCII character one; white space nothing alone and one for each four in a run; other characters one for two
/// bytes of UTF-8, begun ones too.
fn text(text: &str) -> u64 {
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
