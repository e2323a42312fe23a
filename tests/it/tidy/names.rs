//! A type's name is unique in its crate: who reads `Step` knows which one is meant.

use std::collections::BTreeMap;

use super::rust_files;
use super::source::types;

const CRATES: [&str; 9] = [
    "host/src",
    "helper/src",
    "protocol/src",
    "guest-sdk/src",
    "guest-codec/src",
    "guest-chat/src",
    "guest-gemini/src",
    "guest-responses/src",
    "xtask/src",
];

#[test]
fn a_types_name_is_unique_in_its_crate() {
    for folder in CRATES {
        let faults = shared_names(&defined(&rust_files(folder)));
        assert!(faults.is_empty(), "{folder}: {faults:#?}");
    }
}

/// Names that two types have.
fn shared_names(defined: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let twice = defined.iter().filter(|(_, files)| files.len() > 1);
    twice.map(|(name, files)| format!("{name} is defined in {}", files.join(", "))).collect()
}

/// Every type, and the files that define one of this name.
fn defined(files: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in files.iter().filter(|(file, _)| !is_of_tests(file)) {
        for name in types(text) {
            defined.entry(name).or_default().push(file.clone());
        }
    }
    defined
}

/// Files that a `#[cfg(test)] mod` names: they stand beside what they test.
fn is_of_tests(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.ends_with("/testing.rs") || file.contains("/tests/")
}

// === the rule can fail ===

#[test]
fn a_name_that_stands_for_two_types_is_found() {
    let files = [
        ("a.rs", "struct Step; enum Other {}"),
        ("b.rs", "mod m { type Step = u8; }"),
        ("c/tests.rs", "struct Other;"),
    ]
    .map(|(file, text)| (file.to_owned(), text.to_owned()));
    assert_eq!(shared_names(&defined(&files)), ["Step is defined in a.rs, b.rs"]);
}
