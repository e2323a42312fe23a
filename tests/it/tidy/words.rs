//! Words that this tree does not use: metaphors for which the field has a word of its own. `docs/README.md` and the glossary of
//! ARCHITECTURE.md say which words there are.

use std::fs;

use super::{files, shown};

/// What is not written, and what is written instead. In two parts each, so that this file is clean itself.
const METAPHORS: [(&str, &str, &str); 11] = [
    ("fur", "niture", "stubbed interface"),
    ("err", "and", "egress call"),
    ("cle", "rk", "task"),
    ("on_st", "age", "for_self_test"),
    ("PATI", "ENCE", "TIMEOUT"),
    ("FARE", "WELL", "SHUTDOWN_GRACE"),
    ("See the mod", "ule.", "a sentence"),
    ("way o", "ut that", "egress grant"),
    ("ways o", "ut of a hook", "egress grants"),
    ("stood st", "ill", "frozen"),
    ("the world out", "side", "other servers"),
];

/// Kinds of files that people write.
const KINDS: [&str; 6] = ["md", "rs", "sh", "toml", "wit", "yaml"];

#[test]
fn metaphors_for_which_the_field_has_a_word_are_not_used() {
    let written = |file: &std::path::PathBuf| {
        let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        // What was changed once was called so then.
        KINDS.contains(&kind) && !file.ends_with("CHANGELOG.md")
    };
    let texts = files("").into_iter().filter(written).filter_map(|file| {
        let text = fs::read_to_string(&file).ok()?;
        Some((shown(&file), text))
    });
    let found: Vec<_> = texts.flat_map(|(file, text)| metaphors(&file, &text)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

fn metaphors(file: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let found = lines.flat_map(|(number, line)| {
        METAPHORS.iter().filter_map(move |(begin, end, instead)| {
            let word = format!("{begin}{end}");
            line.contains(&word).then(|| format!("{file}:{}: {word}: say {instead}", number + 1))
        })
    });
    found.collect()
}

#[test]
fn a_metaphor_is_found_wherever_it_stands() {
    for (begin, end, _) in METAPHORS {
        assert_eq!(metaphors("a.rs", &format!("// fine\n// the {begin}{end} it\n")).len(), 1, "{begin}{end}");
    }
    assert!(metaphors("a.rs", "// a timeout, and a frozen clock\n").is_empty());
}
