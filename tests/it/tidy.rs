//! Tidiness: the rules of the source tree that no compiler checks. Each rule is a function over text with tests of its own,
//! so that it is known to be able to fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A library and the one module of the host that may name it.
struct Home {
    library: &'static str,
    /// Paths of the library, as Rust writes them; a crate of the same family (`wasmtime_wasi`) counts as its head.
    paths: &'static [&'static str],
    module: &'static str,
}

const HOMES: [Home; 5] = [
    Home { library: "wasmtime", paths: &["wasmtime"], module: "component" },
    Home { library: "sqlx", paths: &["sqlx"], module: "db" },
    Home { library: "the cipher", paths: &["chacha20poly1305"], module: "evidence" },
    Home { library: "axum", paths: &["axum"], module: "http" },
    Home {
        library: "the HTTP client",
        paths: &["hyper_util::client", "hyper_rustls", "hyper::client", "reqwest"],
        module: "upstream",
    },
];

/// A file of more lines than this holds more than one thing.
const MOST_LINES: usize = 800;

/// Folders whose Rust files say in their first line what they own.
const SPEAKING: [&str; 8] =
    ["protocol", "host", "guest-sdk", "guest-policies", "guest-providers", "xtask", "tests", "fuzz"];

/// Where some people keep their checkouts, and others do not. Put together here, so that this file is clean itself.
const WORKPLACES: [&str; 2] = [concat!("/", "work", "/"), concat!("/", "root", "/")];

/// Hidden folders that belong to the repository; the others belong to somebody's tools.
const HIDDEN: [&str; 3] = [".cargo", ".ci", ".github"];

// === the tree ===

#[test]
fn every_library_is_named_in_its_home_alone() {
    let files = rust_files("host/src");
    for home in &HOMES {
        let strays: Vec<_> = files
            .iter()
            .filter(|(file, _)| !is_in_module(file, home.module))
            .flat_map(|(file, text)| {
                named(text, home.paths).into_iter().map(move |path| format!("{file}: {path}"))
            })
            .collect();
        assert!(strays.is_empty(), "{} lives in host/src/{}: {strays:#?}", home.library, home.module);
    }
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

// === the rules ===

/// Whether `file` is `host/src/<module>.rs` or stands below `host/src/<module>/`.
fn is_in_module(file: &str, module: &str) -> bool {
    file.strip_prefix("host/src/")
        .and_then(|rest| rest.strip_prefix(module))
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The paths in `text` that begin with one of `wanted`, comments aside.
fn named(text: &str, wanted: &[&str]) -> BTreeSet<String> {
    let code = text.lines().map(before_comment).collect::<Vec<_>>().join("\n");
    let imported = imports(&code);
    imported
        .into_iter()
        .chain(inline_paths(&code))
        .filter(|path| wanted.iter().any(|wanted| begins(path, wanted)))
        .collect()
}

/// Whether `path` is `wanted`, lies below it, or belongs to a crate of its family (`wasmtime_wasi::..` for `wasmtime`).
fn begins(path: &str, wanted: &str) -> bool {
    path.strip_prefix(wanted).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with("::") || (rest.starts_with('_') && !wanted.contains("::"))
    })
}

/// A line up to its comment. A `//` within a text (an address) is no comment.
fn before_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| {
        let before = line.get(..*at).unwrap_or_default();
        !before.ends_with(':') && before.matches('"').count().is_multiple_of(2)
    });
    comment.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// Every path that a `use` brings in, groups written out: `use a::{b, c::d};` is `a::b` and `a::c::d`.
fn imports(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        if !(line.is_empty() || line == "pub" || (line.starts_with("pub(") && line.ends_with(')'))) {
            continue;
        }
        let tree = code.get(at + 4..).unwrap_or_default().split(';').next().unwrap_or_default();
        let tree = tree.split(" as ").map(str::trim).collect::<Vec<_>>().join(" as ");
        expand("", tree.trim().trim_start_matches("::"), &mut paths);
    }
    paths
}

/// Writes out one `use` tree below `prefix`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        if !path.is_empty() {
            paths.push(format!("{prefix}{path}"));
        }
        return;
    };
    let inner = group.rsplit_once('}').map_or(group, |(inner, _)| inner);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0_i32, 0);
    for (at, char) in inner.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, inner.get(start..at).unwrap_or_default().trim(), paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, inner.get(start..).unwrap_or_default().trim(), paths);
}

/// Every path that stands in the code itself: `sqlx::query(..)`.
fn inline_paths(code: &str) -> Vec<String> {
    let is_path = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
    let words = code.split(|char| !is_path(char)).map(|word| word.trim_matches(':'));
    words.filter(|word| word.contains("::")).map(str::to_owned).collect()
}

/// Whether a Rust file begins as it should. The tests of a module stand beside it, under its own first line.
fn says_what_it_owns(file: &str, text: &str) -> bool {
    let begins = text
        .strip_prefix("//!")
        .is_some_and(|rest| rest.lines().next().is_some_and(|line| !line.trim().is_empty()));
    begins || file.ends_with("/tests.rs")
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

fn shown(file: &Path) -> String {
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
fn files(folder: &str) -> Vec<PathBuf> {
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
fn a_library_is_found_however_it_is_imported() {
    for code in [
        "use axum::Router;",
        "use axum as web;",
        "    pub(crate) use ::axum::Router;",
        "use {std::fs, axum::{Router, routing::get}};",
        "use std::{\n    fs,\n};\nuse {\n    bytes::Bytes,\n    axum::Json,\n};",
        "fn serve(router: axum::Router) {}",
        "let answer = axum::serve(listener, router).await;",
        "use axum_extra::TypedHeader;",
        "let at = \"http://127.0.0.1\"; axum::serve(at)",
    ] {
        assert!(!named(code, &["axum"]).is_empty(), "{code}");
    }
    for code in [
        "// axum::Router is not for here",
        "//! The only module that names axum.",
        "use crate::axumlike;",
        "let axum = 1;",
    ] {
        assert!(named(code, &["axum"]).is_empty(), "{code}");
    }
}

#[test]
fn a_part_of_a_library_is_found_and_the_rest_of_it_is_free() {
    let client = &["hyper_util::client"];
    for code in [
        "use hyper_util::client::legacy::Client;",
        "use hyper_util::{client, rt::TokioIo};",
        "use hyper_util::{rt::TokioIo, client::legacy::{Client, connect::HttpConnector}};",
        "type Sender = hyper_util::client::legacy::Client<C, B>;",
    ] {
        assert!(!named(code, client).is_empty(), "{code}");
    }
    for code in [
        "use hyper_util::rt::TokioIo;",
        "use hyper_util::{rt, server::conn::auto};",
        "use hyper_util::client_side;",
    ] {
        assert!(named(code, client).is_empty(), "{code}");
    }
}

#[test]
fn a_home_is_a_module_and_not_its_namesakes() {
    assert!(is_in_module("host/src/db.rs", "db"));
    assert!(is_in_module("host/src/db/pat.rs", "db"));
    assert!(!is_in_module("host/src/dbase.rs", "db"));
    assert!(!is_in_module("host/src/http/db.rs", "db"));
    assert!(!is_in_module("tests/src/db.rs", "db"));
}

#[test]
fn a_first_line_that_says_nothing_is_found() {
    assert!(says_what_it_owns("host/src/a.rs", "//! Owns a.\n"));
    assert!(says_what_it_owns("host/src/a/tests.rs", "use super::*;\n"));
    for text in ["", "use std::fs;\n//! late", "//!\nuse std::fs;\n", "// Owns a.\n", "\n//! Owns a.\n"] {
        assert!(!says_what_it_owns("host/src/a.rs", text), "{text:?}");
    }
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
