//! Finds words that must not leave the house.

use sallyport_guest_sdk::scanner::{Action, Finding, Scanner, TextKind};
use serde::Deserialize;

/// What the gateway's configuration says about this scanner. A key that is not listed here is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The words; case matters.
    words: Vec<String>,
}

/// The scanner, configured.
pub struct Words(Config);

// One line makes a component of the type.
sallyport_guest_sdk::export_scanner!(Words);

impl Scanner for Words {
    type Config = Config;

    /// Runs once, when the scanner becomes active: check what you were given, and build what every text needs.
    fn configure(config: Config) -> Result<Self, String> {
        if config.words.iter().any(String::is_empty) {
            return Err("words holds an empty text: it is in every text".into());
        }
        Ok(Self(config))
    }

    /// Runs for every text that the gateway has not seen yet. The same text must give the same findings.
    fn scan(&self, _kind: TextKind, text: &str) -> Vec<Finding> {
        let hits = self.0.words.iter().flat_map(|word| text.match_indices(word.as_str()));
        hits.map(|(at, hit)| Finding::new("word", Action::Deny, at..at + hit.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::configured;

    use super::*;

    #[test]
    fn a_word_is_found_where_its_bytes_stand() {
        let scanner = configured(r#"{"words":["Nightfall"]}"#, Words::configure).unwrap();
        let found = scanner.scan(TextKind::User, "Über Nightfall");
        assert_eq!(found, [Finding::new("word", Action::Deny, 6..15)]);
    }
}
