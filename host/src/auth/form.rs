//! What names, roles and scopes look like: one answer for what is stored, what is put into a token and what is believed in one.

/// What a credential may be used for, and what each of it means.
pub const SCOPES: [(&str, &str); 3] = [
    ("inference", "send messages and list models"),
    ("admin", "manage components, as far as the user's roles go"),
    ("openid", "learn the user's id, name and roles"),
];

/// Keeping users and groups over SCIM: for personal access tokens alone, so that no client is granted it.
pub const SCIM: &str = "scim";

/// The scope a credential has unless told otherwise.
pub const DEFAULT_SCOPE: &str = "inference";

/// How many roles a user may have: they all have to fit into a token.
pub(crate) const MAX_ROLES: usize = 32;

const MAX_LABEL: usize = 128;
const MAX_ROLE: usize = 64;

/// A role: up to 64 lower-case letters, digits, `-` and `_`, a letter first.
pub(crate) fn role(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    text.len() <= MAX_ROLE && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(legal)
}

/// A name for people: 1 to 128 bytes, no control or formatting character, no white space at its ends.
pub(crate) fn label(text: &str) -> bool {
    // Marks that reorder or hide text could make one name look like another in a table.
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    !text.is_empty()
        && text.len() <= MAX_LABEL
        && text.trim() == text
        && !text.chars().any(|c| c.is_control() || hidden(c))
}

/// The `jti` of a token of ours.
pub(crate) fn token_id(text: &str) -> bool {
    let hex = |part: &str, len| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    text.split_once('.').is_some_and(|(pat, random)| hex(pat, 16) && hex(random, 32))
}

/// 32 bytes in base64url without padding: the SHA-256 of a certificate, or of a verifier.
pub(crate) fn thumbprint(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The scopes of a space-separated list; `None` if it is empty, names one that we do not know, or one twice.
pub(crate) fn scopes(text: &str) -> Option<Vec<String>> {
    let mut scopes: Vec<String> = Vec::new();
    for scope in text.split(' ') {
        let known = scope == SCIM || SCOPES.iter().any(|(known, _)| *known == scope);
        if !known || scopes.iter().any(|it| it == scope) {
            return None;
        }
        scopes.push(scope.to_owned());
    }
    Some(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_deceive_a_reader_are_refused() {
        for name in ["alice", "alice@example.org", "Zoë Ångström", "山田"] {
            assert!(label(name), "{name}");
        }
        let long = "x".repeat(129);
        for name in [
            "",
            " alice",
            "alice ",
            "ali\0ce",
            "ali\nce",
            "ali\u{202e}ce",
            "ali\u{200b}ce",
            "\u{1b}[2J",
            long.as_str(),
        ] {
            assert!(!label(name), "{name:?}");
        }
    }

    #[test]
    fn roles_and_scopes_are_closed_in_form() {
        assert!(role("tenant-admin") && role("ring_2"));
        for text in ["", "Admin", "2nd", "a b", "a\n", "ä", "-a"] {
            assert!(!role(text), "{text:?}");
        }
        assert_eq!(scopes("inference"), Some(vec!["inference".to_owned()]));
        for text in ["", " ", "inference ", "inference inference", "root", "Inference"] {
            assert_eq!(scopes(text), None, "{text:?}");
        }
    }
}
