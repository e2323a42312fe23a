//! What is no text: bytes in base64 that the API carries beside the conversation, and the few words of the API itself that stand in
//! every request.

/// Shorter ones are shown: a password may look like base64.
const SHORTEST: usize = 64;
/// Longest value that is compared with the words of the API.
const LONGEST: usize = 128;

/// Keys and values of small settings that stand in most requests.
const WORDS: [&str; 30] = [
    "1h",
    "5m",
    "adaptive",
    "all",
    "any",
    "auto",
    "budget_tokens",
    "clear_thinking_20251015",
    "clear_tool_uses_20250919",
    "direct",
    "disable_parallel_tool_use",
    "disabled",
    "display",
    "edits",
    "effort",
    "enabled",
    "ephemeral",
    "global",
    "high",
    "keep",
    "low",
    "max",
    "medium",
    "minimal",
    "none",
    "omitted",
    "ttl",
    "type",
    "updates",
    "xhigh",
];

/// Whether the JSON string `raw`, quotes included, is base64 of some length: nobody reads words in it.
#[expect(clippy::needless_bitwise_bool, reason = "without a branch for each byte: images are megabytes")]
pub(super) fn is_base64(raw: &[u8]) -> bool {
    let Some(inside) = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")) else { return false };
    if inside.len() < SHORTEST {
        return false;
    }
    // Escapes of line breaks and slashes, as some writers make them, spell no other character.
    let escapes = memchr::memchr_iter(b'\\', inside);
    let harmless = |at: usize| matches!(inside.get(at + 1), Some(b'n' | b'r' | b'/'));
    let plain = inside.iter().fold(true, |plain, byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        plain & (letter | digit | (*byte == b'+') | (*byte == b'/') | (*byte == b'=') | (*byte == b'\\'))
    });
    plain && escapes.into_iter().all(harmless)
}

/// Whether a value is made of the API's own words, numbers and `true` and `false` alone.
pub(super) fn is_setting(raw: &[u8]) -> bool {
    if raw.len() > LONGEST || memchr::memchr(b'\\', raw).is_some() {
        return false;
    }
    let Ok(text) = std::str::from_utf8(raw) else { return false };
    // Without escapes every second piece is the inside of a string.
    text.split('"').skip(1).step_by(2).all(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_told_from_what_people_write() {
        let long = "QUJDRA+/".repeat(9);
        assert!(is_base64(format!("\"{long}==\"").as_bytes()));
        assert!(is_base64(format!("\"{long}\\n{long}\\/\"").as_bytes()));
        for text in [
            "\"QUJD\"".to_owned(),
            format!("\"{long} {long}\""),
            format!("\"{long}_\""),
            format!("\"{long}\\u0020{long}\""),
            format!("\"{long}\\t{long}\""),
            format!("\"{long}\u{e9}\""),
            "7".to_owned(),
        ] {
            assert!(!is_base64(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn only_the_words_of_the_api_are_a_setting() {
        for setting in [
            r#"{"type":"ephemeral"}"#,
            r#"{ "type": "ephemeral", "ttl": "1h" }"#,
            r#"{"effort":"high"}"#,
            r#"{"type":"auto","disable_parallel_tool_use":true}"#,
            "null",
            "[1,true]",
        ] {
            assert!(is_setting(setting.as_bytes()), "{setting}");
        }
        for other in [
            r#"{"type":"ephemeral","note":"ghp_x"}"#,
            r#"{"type":"hello"}"#,
            r#"{"ghp_x":1}"#,
            r#"{"type":"\u0061uto"}"#,
        ] {
            assert!(!is_setting(other.as_bytes()), "{other}");
        }
    }
}
