//! The formats that are looked for: data with a date, which an entry's configuration can replace or add to.

use std::collections::BTreeSet;

use serde::{Deserialize, de::IgnoredAny};

use crate::shape::Shape;

/// What ships with the scanner.
pub(crate) const SHIPPED: &str = include_str!("../formats.json");

/// More formats than this are no list but a mistake.
const MOST: usize = 4_000;

/// Rules whose detectors are code, since no shape tells a secret of theirs from other text.
pub(crate) const BUILT_IN: [&str; 6] =
    [AWS_SECRET_KEY, PRIVATE_KEY, JWT, DSN_PASSWORD, CREDIT_CARD, GENERIC_SECRET];
pub(crate) const AWS_SECRET_KEY: &str = "aws_secret_key";
pub(crate) const PRIVATE_KEY: &str = "private_key";
pub(crate) const JWT: &str = "jwt";
pub(crate) const DSN_PASSWORD: &str = "dsn_password";
pub(crate) const CREDIT_CARD: &str = "credit_card";
pub(crate) const GENERIC_SECRET: &str = "generic_secret";

/// A list of formats as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// The day on which the list was looked through: `2026-11-26`.
    version: String,
    /// Rules that are flagged where the configuration does not say: those that can be mistaken.
    #[serde(default)]
    flagged: Vec<String>,
    formats: Vec<Written>,
}

/// One format as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    /// The rule that it belongs to: what configurations and rows call it.
    rule: String,
    /// What it is, for people.
    #[serde(default, rename = "is")]
    _is: IgnoredAny,
    /// How it looks.
    like: String,
    /// It is one only where it is assigned to a name that ends with one of these.
    #[serde(default)]
    named: Vec<String>,
    /// It begins like many words: no letter and no digit stands before it.
    #[serde(default)]
    alone: bool,
    /// What else has to hold.
    #[serde(default)]
    check: Option<Check>,
    /// Where its form is described, for people.
    #[serde(default, rename = "source")]
    _source: IgnoredAny,
}

/// What a shape does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    /// It was drawn by a machine: digits and letters take turns.
    Opaque,
    /// It is base64 of a name, a colon and a password.
    Basic,
}

/// Formats that can be looked for.
pub(crate) struct Formats {
    pub(crate) version: String,
    /// Names of all rules, those of the code first.
    pub(crate) rules: Vec<String>,
    pub(crate) flagged: BTreeSet<String>,
    pub(crate) list: Vec<Format>,
}

/// One format.
pub(crate) struct Format {
    /// The place of its rule.
    pub(crate) rule: usize,
    pub(crate) shape: Shape,
    pub(crate) named: Vec<String>,
    pub(crate) alone: bool,
    pub(crate) check: Option<Check>,
}

// === impl Formats ===

impl Formats {
    /// The shipped list, or what the configuration has instead, and what it adds.
    pub(crate) fn read(instead: Option<Listed>, more: Vec<Written>) -> Result<Self, String> {
        let shipped = || {
            serde_json::from_str::<Listed>(SHIPPED)
                .map_err(|error| format!("the shipped formats cannot be read: {error}"))
        };
        let (listed, place) = match instead {
            Some(listed) => (listed, "formats"),
            None => (shipped()?, "the shipped formats"),
        };
        let mut read = Self {
            version: listed.version,
            rules: BUILT_IN.map(str::to_owned).to_vec(),
            flagged: listed.flagged.into_iter().collect(),
            list: Vec::new(),
        };
        for (list, place) in [(listed.formats, place), (more, "more_formats")] {
            for (number, written) in list.into_iter().enumerate() {
                read.add(written).map_err(|error| format!("{place}[{number}]: {error}"))?;
            }
        }
        if read.list.len() > MOST {
            return Err(format!("there are more than {MOST} formats"));
        }
        Ok(read)
    }

    fn add(&mut self, written: Written) -> Result<(), String> {
        let Written { rule, like, named, alone, check, .. } = written;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if rule.is_empty() || rule.len() > 64 || !rule.bytes().all(plain) {
            return Err(format!("{rule:?} is no name of a rule: a-z, 0-9 and _"));
        }
        let shape = Shape::parse(&like).map_err(|error| format!("{like:?}: {error}"))?;
        if named.is_empty() && shape.anchor().is_none() {
            return Err(format!("{like:?} has no text of three characters to look for, and no name"));
        }
        if named.iter().any(|name| name.len() < 4) {
            return Err("a name has fewer than four characters".into());
        }
        let known = self.rules.iter().position(|known| *known == rule);
        let rule = known.unwrap_or_else(|| {
            self.rules.push(rule);
            self.rules.len() - 1
        });
        let named = named.iter().map(|name| name.to_ascii_lowercase().replace('-', "_")).collect();
        self.list.push(Format { rule, shape, named, alone, check });
        Ok(())
    }

    /// The place of a rule.
    pub(crate) fn rule(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule == name)
    }
}
