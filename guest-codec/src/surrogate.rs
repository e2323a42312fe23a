//! Halves of characters: some servers cut a character outside the basic plane in two, and write each half as an escape in an
//! event of its own. No JSON reader takes half of one. Halves that meet are joined; one that stays alone is U+FFFD.

/// An escape, `\ud83d`, whose other half may begin the next text.
pub type Half = [u8; 6];

const REPLACED: &[u8] = b"\\ufffd";

/// JSON without half characters. `waiting` keeps the half that ends a string, for the string that begins with the other; without
/// it, and where the other does not come, it is replaced.
pub fn mend(json: &[u8], mut waiting: Option<&mut Option<Half>>) -> Vec<u8> {
    let before = waiting.as_mut().and_then(|it| it.take());
    let mut before = before;
    let mut out = Vec::with_capacity(json.len() + REPLACED.len());
    let mut rest = json;
    let mut at_start = false;
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'\\' {
            at_start = first == b'"';
            out.push(first);
            rest = tail;
            continue;
        }
        let Some((escape, code)) = escape(rest) else {
            let pair = rest.split_at_checked(2).map_or(rest, |(pair, _)| pair);
            out.extend_from_slice(pair);
            rest = rest.get(pair.len()..).unwrap_or_default();
            at_start = false;
            continue;
        };
        rest = rest.get(escape.len()..).unwrap_or_default();
        match code {
            0xd800..=0xdbff => match self::escape(rest) {
                Some((low, 0xdc00..=0xdfff)) => {
                    out.extend_from_slice(&escape);
                    out.extend_from_slice(&low);
                    rest = rest.get(low.len()..).unwrap_or_default();
                }
                _ => match &mut waiting {
                    Some(waiting) if rest.first() == Some(&b'"') => **waiting = Some(escape),
                    _ => out.extend_from_slice(REPLACED),
                },
            },
            0xdc00..=0xdfff => match before.take().filter(|_| at_start) {
                Some(high) => {
                    out.extend_from_slice(&high);
                    out.extend_from_slice(&escape);
                }
                None => out.extend_from_slice(REPLACED),
            },
            _ => out.extend_from_slice(&escape),
        }
        at_start = false;
    }
    out
}

/// The escape `\uXXXX` that `json` begins with, and what it stands for.
fn escape(json: &[u8]) -> Option<(Half, u32)> {
    let escape: &Half = json.first_chunk()?;
    let digits = escape.strip_prefix(b"\\u")?;
    let code = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    digits.iter().all(u8::is_ascii_hexdigit).then_some((*escape, code))
}

#[cfg(test)]
mod tests {
    use super::mend;

    fn alone(json: &str) -> String {
        String::from_utf8(mend(json.as_bytes(), None)).unwrap()
    }

    #[test]
    fn what_is_whole_stays_as_it_is() {
        for json in
            [r#"{"a":"\ud83d\ude00","b":"\\ud83d","c":"\n\u00e9"}"#, "", r#""\"#, r#""\u12"#, r#""\uzzzz""#]
        {
            assert_eq!(alone(json), json);
        }
    }

    #[test]
    fn a_half_that_stays_alone_is_replaced() {
        assert_eq!(
            alone(r#"{"a":"x\ud83d","b":"\ude00y\ud83dz"}"#),
            r#"{"a":"x\ufffd","b":"\ufffdy\ufffdz"}"#
        );
        assert_eq!(alone(r#""\\\ud83d""#), r#""\\\ufffd""#);
    }

    #[test]
    fn halves_of_two_texts_are_joined() {
        let mut waiting = None;
        let first = mend(br#"{"a":"x\ud83d"}"#, Some(&mut waiting));
        assert_eq!(first, br#"{"a":"x"}"#);
        let second = mend(br#"{"a":"\ude00y"}"#, Some(&mut waiting));
        assert_eq!(second, br#"{"a":"\ud83d\ude00y"}"#);
        assert_eq!(waiting, None);
    }
}
