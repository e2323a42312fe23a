//! The one wildcard of the product, shared by routes and price lists so that a pattern means the same
//! everywhere.

/// Whether `text` matches `pattern`, where `*` stands for any run of characters, also none; every other
/// character stands for itself. Linear in practice: it never backtracks past the last `*`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (Some((head, rest)), text) = (pattern.split_once('*'), text) else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some((_, after)) = text.split_once(part) else {
            return false;
        };
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "gpt-5"),
            ("claude-*", "claude-opus-4-5"),
            ("claude-opus-*", "claude-opus-"),
            ("*-mini", "gpt-5-mini"),
            ("gpt-*-mini", "gpt-4o-mini-mini"),
            ("a*b*c", "abbc"),
            ("**", "x"),
            ("exact", "exact"),
        ] {
            assert!(matches(pattern, text), "{pattern} should match {text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (pattern, text) in [
            ("", "x"),
            ("claude-*", "claude"),
            ("*-mini", "gpt-5-mini-2026"),
            ("a*b*c", "acb"),
            ("ab*ba", "aba"),
            ("exact", "Exact"),
        ] {
            assert!(!matches(pattern, text), "{pattern} should not match {text}");
        }
    }
}
