//! Tidiness: the rules of the source tree that no compiler checks. Each rule is a function over text with tests of its own,
//! so that it is known to be able to fail.

mod names;
mod source;
mod uses;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of more lines than this holds more than one thing.
const MOST_LINES: usize = 800;

/// Folders whose Rust files say in their first line what they own.
const SPEAKING: [&str; 13] = [
    "protocol",
    "host",
    "helper",
    "guest-sdk",
    "guest-codec",
    "guest-chat",
    "guest-gemini",
    "guest-responses",
    "guest-policies",
    "guest-providers",
    "xtask",
    "tests",
    "fuzz",
];

/// Where some people keep their checkouts, and others do not. Put together here, so that this file is clean itself.
const WORKPLACES: [&str; 2] = [concat!("/", "work", "/"), concat!("/", "root", "/")];

/// Hidden folders that belong to the repository; the others belong to somebody's tools.
const HIDDEN: [&str; 3] = [".cargo", ".ci", ".github"];

// === the tree ===

#[test]
fn unsafe_code_stands_where_the_security_page_says_and_nowhere_else() {
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let exception = concat!("expect(", "unsafe_code");
    let places: Vec<_> = rust_files("")
        .into_iter()
        .filter(|(file, text)| text.contains(exception) && !file.contains("guest"))
        .map(|(file, _)| file)
        .collect();
    assert!(places.iter().all(|file| security.contains(file.as_str())), "{places:?}");
    assert_eq!(places.len(), 3, "the page counts three: {places:?}");
}

#[test]
fn no_file_is_longer_than_one_thing_needs() {
    let long: Vec<_> = rust_files("")
        .into_iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:#?}");
}

#[test]
fn every_file_says_first_what_it_owns() {
    for folder in SPEAKING {
        let silent: Vec<_> = rust_files(folder)
            .into_iter()
            .filter(|(file, text)| !says_what_it_owns(file, text))
            .map(|(file, _)| file)
            .collect();
        assert!(silent.is_empty(), "the first line is not `//! ..`: {silent:#?}");
    }
}

#[test]
fn anyhow_is_for_the_command_line_and_for_what_puts_parts_together() {
    let strays: Vec<_> = rust_files("host/src")
        .into_iter()
        .filter(|(file, _)| !matches!(source::module_of(file, "host/src").first(), Some(it) if it == "app" || it == "cli"))
        .filter(|(_, text)| text.contains("anyhow"))
        .map(|(file, _)| file)
        .collect();
    assert!(strays.is_empty(), "an error that a caller tells apart is an enum: {strays:#?}");
}

#[test]
fn one_file_dials_and_one_says_whose_certificates_are_believed() {
    for (words, home) in [
        (&["TcpStream::connect", "HttpConnector::new", "TcpSocket::new"][..], "upstream/connect.rs"),
        (&["lookup_host", "to_socket_addrs"][..], "upstream/address.rs"),
        (&["ClientConfig::builder", "load_native_certs"][..], "upstream/trusted.rs"),
    ] {
        let places: BTreeSet<_> = rust_files("host/src")
            .into_iter()
            .filter(|(_, text)| names_before_tests(text, words))
            .map(|(file, _)| file)
            .filter(|file| !file.ends_with("/tests.rs") && !file.contains("/tests/"))
            .collect();
        assert_eq!(places, BTreeSet::from([format!("host/src/{home}")]), "{words:?}");
    }
}

#[test]
fn every_hostile_guest_has_its_test() {
    let tests: String = rust_files("tests/it").into_iter().map(|(_, text)| text).collect();
    let tests = test_names(&tests);
    let guests: Vec<String> = files("tests/hostile-guests")
        .iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "wat" || kind == "rs"))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert!(!guests.is_empty(), "no hostile guest was found");
    let alone: Vec<_> = guests.iter().filter(|guest| !has_test(guest, &tests)).collect();
    assert!(alone.is_empty(), "no test named guest_NN_..: {alone:#?}");
}

#[test]
fn no_file_mentions_the_place_where_somebody_wrote_it() {
    let mut read = 0;
    for file in files("") {
        // What is no text mentions nothing.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        read += 1;
        let found = workplaces(&text);
        assert!(found.is_empty(), "{}: {found:#?}", shown(&file));
    }
    assert!(read > 100, "only {read} files were found");
}

#[test]
fn a_component_that_ships_is_named_in_its_own_folder_alone() {
    let places = ["guest-providers", "guest-policies"];
    let manifest = |file: &PathBuf| {
        file.ends_with("Cargo.toml") && places.iter().any(|it| file.starts_with(root().join(it)))
    };
    let crates: Vec<(String, PathBuf)> = files("")
        .into_iter()
        .filter(manifest)
        .map(|file| {
            (crate_name(&fs::read_to_string(&file).unwrap()).unwrap(), file.parent().unwrap().to_owned())
        })
        .collect();
    assert!(crates.len() > 10, "{crates:?}");
    let mut found = Vec::new();
    for file in files("") {
        // What people read may name one as an example, and what cargo writes names all.
        let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if matches!(kind, "md" | "lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let strangers = crates.iter().filter(|(_, folder)| !file.starts_with(folder));
        let named = strangers.filter(|(name, _)| text.contains(name.as_str()));
        found.extend(named.map(|(name, _)| format!("{}: {name}", shown(&file))));
    }
    assert!(found.is_empty(), "a list that the next one would have to be added to: {found:#?}");
}

// === the rules ===

/// The name of a crate, as its manifest has it.
fn crate_name(manifest: &str) -> Option<String> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}

/// Whether a Rust file begins as it should. The tests of a module stand beside it, under its own first line.
fn says_what_it_owns(file: &str, text: &str) -> bool {
    let begins = text
        .strip_prefix("//!")
        .is_some_and(|rest| rest.lines().next().is_some_and(|line| !line.trim().is_empty()));
    begins || file.ends_with("/tests.rs")
}

/// Whether the part of a file that ships holds one of the words.
fn names_before_tests(text: &str, words: &[&str]) -> bool {
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    words.iter().any(|word| shipped.contains(word))
}

/// Names of the functions that are tests.
fn test_names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            continue;
        }
        if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(rest.split('(').next().map(str::to_owned));
        }
        is_test = false;
    }
    names
}

/// Whether a guest `NN-what-it-does` has a test. The guests of number 00 are honest: the others are measured by them.
fn has_test(guest: &str, tests: &BTreeSet<String>) -> bool {
    match guest.split_once('-') {
        Some(("00", _)) => true,
        Some((number, _)) => tests.iter().any(|test| test.contains(&format!("guest_{number}_"))),
        None => false,
    }
}

/// Lines with an absolute path of a workplace. `target/work/x` and `https://host/work/x` are none.
fn workplaces(text: &str) -> Vec<String> {
    let is_absolute = |line: &str, at: usize| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|char| {
            !(char.is_alphanumeric() || matches!(char, '.' | '_' | '-' | '}' | ')' | '>' | '*'))
        })
    };
    let names_one = |line: &&str| {
        WORKPLACES.iter().any(|place| line.match_indices(place).any(|(at, _)| is_absolute(line, at)))
    };
    text.lines().filter(names_one).map(str::to_owned).collect()
}

// === the walk ===

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// The Rust files below a folder of the repository, by their path in it, and what they hold; at least one.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let rust: Vec<_> = files(folder)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "rs"))
        .map(|file| (shown(&file), fs::read_to_string(&file).unwrap()))
        .collect();
    assert!(!rust.is_empty(), "no Rust file below {folder:?}");
    rust
}

/// The files below a folder of the repository, without what was built or belongs to somebody's tools.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let foreign = name == ".git" || name == "target" || name == "node_modules";
            if foreign || path.is_symlink() {
                continue;
            }
            if !path.is_dir() {
                found.push(path);
            } else if !name.starts_with('.') || HIDDEN.contains(&name.as_str()) {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

// === the rules can fail ===

#[test]
fn a_first_line_that_says_nothing_is_found() {
    assert!(says_what_it_owns("host/src/a.rs", "//! Owns a.\n"));
    assert!(says_what_it_owns("host/src/a/tests.rs", "use super::*;\n"));
    for text in ["", "use std::fs;\n//! late", "//!\nuse std::fs;\n", "// Owns a.\n", "\n//! Owns a.\n"] {
        assert!(!says_what_it_owns("host/src/a.rs", text), "{text:?}");
    }
}

#[test]
fn a_word_counts_in_what_ships_and_not_in_its_tests() {
    let text = "fn dial() {}\n#[cfg(test)]\nmod tests { fn look() {} }\n";
    assert!(names_before_tests(text, &["look", "dial"]));
    assert!(!names_before_tests(text, &["look"]));
}

#[test]
fn a_guest_without_a_test_is_found() {
    let tests = test_names(
        "#[test]\nfn guest_01_loop_ends() {}\n\n#[tokio::test(flavor = \"multi_thread\")]\n#[expect(x)]\nasync fn guest_02_x() {}\n\
         // guest_03_x\nfn guest_04_helps() {}\n",
    );
    assert_eq!(tests.len(), 2);
    for guest in ["00-honest", "01-loop", "02-start-loop"] {
        assert!(has_test(guest, &tests), "{guest}");
    }
    for guest in ["03-recursion", "04-memory-grow", "1-loop", "loop"] {
        assert!(!has_test(guest, &tests), "{guest}");
    }
}

#[test]
fn an_absolute_path_of_a_workplace_is_found_and_a_relative_one_is_none() {
    for place in WORKPLACES {
        for text in [
            format!("see {place}notes"),
            format!("\"{place}x\""),
            format!("file://{place}x"),
            format!("{place}x"),
        ] {
            assert_eq!(workplaces(&text).len(), 1, "{text}");
        }
        for text in
            [format!("target{place}x"), format!("https://example.org{place}x"), format!("{{home}}{place}x")]
        {
            assert!(workplaces(&text).is_empty(), "{text}");
        }
    }
}
