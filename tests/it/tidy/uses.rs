//! What may use what, and where libraries live: the tables of ARCHITECTURE.md, held against the code. Both have to be whole: what
//! the code does and a table does not say is a fault, and so is what a table allows and nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::source::{Code, module_of, paths};
use super::{root, rust_files};

/// What stands for all modules, or all libraries.
const EVERYTHING: &str = "everything";
/// Folders of components: all crates there may use the same.
const COMPONENTS: [&str; 2] = ["guest-policies/", "guest-providers/"];
/// Where the gateway's modules are.
const HOST: &str = "host/src";

#[test]
fn modules_use_what_the_table_of_uses_allows_and_nothing_else() {
    let allowed = table("## What may use what");
    let used = uses_of_modules();
    let faults = compare(&allowed, &used);
    assert!(faults.is_empty(), "ARCHITECTURE.md, \"What may use what\": {faults:#?}");
}

#[test]
fn libraries_are_named_where_the_table_of_homes_says_and_nowhere_else() {
    let homes = table("## Where libraries live");
    let package = workspace().remove("sallyport").unwrap();
    let faults = strays(&homes, &package.dependencies, &libraries_of_modules());
    assert!(faults.is_empty(), "ARCHITECTURE.md, \"Where libraries live\": {faults:#?}");
}

#[test]
fn crates_depend_on_the_crates_of_the_table_and_no_others() {
    let allowed = table("## Which crate may use which");
    let workspace = workspace();
    let own: BTreeSet<&String> = workspace.keys().collect();
    let mut used = Table::new();
    for (name, package) in &workspace {
        let depends = package.dependencies.iter().chain(&package.other);
        let user = package.folder.as_ref().unwrap_or(name);
        used.entry(user.clone()).or_default().extend(depends.filter(|it| own.contains(it)).cloned());
    }
    let faults = compare(&allowed, &used);
    assert!(faults.is_empty(), "ARCHITECTURE.md, \"Which crate may use which\": {faults:#?}");
}

/// A crate of this workspace.
struct Package {
    /// The folder that has one row for all its crates, if it lies in one: whoever adds a component changes no table.
    folder: Option<String>,
    /// What it is linked with, by the names of packages.
    dependencies: BTreeSet<String>,
    /// What it needs for its tests or to be built.
    other: BTreeSet<String>,
}

type Table = BTreeMap<String, BTreeSet<String>>;

// === the rules ===

/// Uses that nothing allows, and permissions that nobody uses. A permission covers what lies below it: `db` covers `db::Db`.
fn compare(allowed: &Table, used: &Table) -> Vec<String> {
    let mut faults = Vec::new();
    for (user, paths) in used {
        let Some(allowed) = allowed.get(user) else {
            faults.push(format!("{user} is missing in the table"));
            continue;
        };
        if allowed.contains(EVERYTHING) {
            continue;
        }
        let strays = paths.iter().filter(|path| !allowed.iter().any(|it| covers(it, path)));
        faults.extend(strays.map(|path| format!("{user} uses {path}")));
        let idle = allowed.iter().filter(|it| !paths.iter().any(|path| covers(it, path)));
        faults.extend(idle.map(|it| format!("{user} may use {it}, and does not")));
    }
    let gone = allowed.keys().filter(|user| !used.contains_key(*user));
    faults.extend(gone.map(|user| format!("{user} is in the table, and not in the tree")));
    faults
}

fn covers(allowed: &str, path: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Libraries that are named outside of their homes, homes that do not name theirs, and libraries without a home.
fn strays(homes: &Table, dependencies: &BTreeSet<String>, named: &Table) -> Vec<String> {
    let mut faults = Vec::new();
    let covered = |package: &String| {
        homes.keys().any(|library| library.split("::").next() == Some(package.replace('-', "_").as_str()))
    };
    faults.extend(dependencies.iter().filter(|it| !covered(it)).map(|it| format!("{it} has no home")));
    for (library, home) in homes {
        let known = |it: &String| library.split("::").next() == Some(it.replace('-', "_").as_str());
        if !dependencies.iter().any(known) {
            faults.push(format!("{library} has a home, and is no dependency of the gateway"));
        }
        if home.contains(EVERYTHING) {
            continue;
        }
        let at = |paths: &BTreeSet<String>| paths.iter().any(|path| covers(library, path));
        for (module, paths) in named {
            if at(paths) && !home.contains(module) {
                faults.push(format!("{library} is named in {module}"));
            }
            if home.contains(module) && !at(paths) {
                faults.push(format!("{module} is a home of {library}, and does not name it"));
            }
        }
    }
    faults
}

// === what the tree says ===

/// What each module of the gateway uses of the others: `db::Db`, as deep as it is named.
fn uses_of_modules() -> Table {
    let mut used = Table::new();
    for (module, paths) in named_by_modules(Code::Shipped) {
        let foreign = paths.iter().filter_map(|path| path.strip_prefix("crate::"));
        let foreign = foreign.filter(|path| path.split("::").next() != Some(module.as_str()));
        used.entry(module.clone()).or_default().extend(foreign.map(str::to_owned));
    }
    used
}

/// What each module of the gateway names of libraries, tests included.
fn libraries_of_modules() -> Table {
    let mut named = named_by_modules(Code::Whole);
    for paths in named.values_mut() {
        paths.retain(|path| !path.starts_with("crate::"));
    }
    named
}

fn named_by_modules(code: Code) -> Table {
    let mut named = Table::new();
    for (file, text) in rust_files(HOST) {
        let place = module_of(&file, HOST);
        let Some(module) = place.first() else { continue };
        // Files of tests stand beside what they test; that they belong to tests is said by whoever names them.
        let of_tests = matches!(place.last().map(String::as_str), Some("tests" | "testing"))
            || place.iter().any(|part| part == "tests");
        if of_tests && code == Code::Shipped {
            continue;
        }
        named.entry(module.clone()).or_default().extend(paths(&text, &place, code));
    }
    named
}

/// The crates of this workspace and what they depend on, as cargo knows it.
fn workspace() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let read = packages.iter().map(|package| {
        let (mut dependencies, mut other) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            let of = if dependency["kind"].is_null() { &mut dependencies } else { &mut other };
            of.insert(text(&dependency["name"]));
        }
        let place = text(&package["manifest_path"]);
        let place = place.strip_prefix(root().to_str().unwrap()).unwrap_or_default().trim_start_matches('/');
        let folder = COMPONENTS.into_iter().find(|folder| place.starts_with(folder)).map(str::to_owned);
        (text(&package["name"]), Package { folder, dependencies, other })
    });
    read.collect()
}

/// The first table below a heading of ARCHITECTURE.md: what its rows name in their first column, and in their second.
fn table(heading: &str) -> Table {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = rows(&text, heading);
    assert!(!table.is_empty(), "ARCHITECTURE.md has no table below {heading:?}");
    table
}

fn rows(text: &str, heading: &str) -> Table {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let lines = below.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut table = Table::new();
    for line in lines.skip(2) {
        let mut cells = line.trim_matches('|').split(" | ");
        let (users, allowed) = (names(cells.next().unwrap_or_default()), cells.next().unwrap_or_default());
        for user in users {
            table.entry(user).or_default().extend(names(allowed));
        }
    }
    table
}

/// What stands between backticks; `everything` counts without.
fn names(cell: &str) -> Vec<String> {
    if cell.trim() == EVERYTHING {
        return vec![EVERYTHING.to_owned()];
    }
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

// === the rules can fail ===

fn made(rows: &[(&str, &[&str])]) -> Table {
    let made = rows
        .iter()
        .map(|(user, paths)| ((*user).to_owned(), paths.iter().map(|it| (*it).to_owned()).collect()));
    made.collect()
}

#[test]
fn a_table_is_read_from_below_its_heading() {
    let text = "## Uses\nWords.\n\n| module | may use |\n|---|---|\n| `a`, `b` | `c`, `d::E` for reasons |\n| `app` | everything |\n\n## More\n| x | y |\n|---|---|\n| `z` | `y` |\n";
    let read = rows(text, "## Uses");
    assert_eq!(read, made(&[("a", &["c", "d::E"]), ("app", &[EVERYTHING]), ("b", &["c", "d::E"])]));
    assert!(rows(text, "## Nothing").is_empty());
}

#[test]
fn a_use_that_no_row_allows_and_a_row_that_nobody_uses_are_found() {
    let allowed = made(&[("a", &["b", "c::D"]), ("b", &[]), ("app", &[EVERYTHING])]);
    let fine = made(&[("a", &["b::X", "c::D::new"]), ("b", &[]), ("app", &["a", "b", "c"])]);
    assert!(compare(&allowed, &fine).is_empty());
    for (used, fault) in [
        (made(&[("a", &["b", "c::D", "c::E"]), ("b", &[]), ("app", &[])]), "a uses c::E"),
        (made(&[("a", &["b", "c::D"]), ("b", &["a"]), ("app", &[])]), "b uses a"),
        (made(&[("a", &["b", "c::Different"]), ("b", &[]), ("app", &[])]), "a uses c::Different"),
        (made(&[("a", &["b"]), ("b", &[]), ("app", &[])]), "a may use c::D, and does not"),
        (
            made(&[("a", &["b", "c::D"]), ("b", &[]), ("app", &[]), ("new", &[])]),
            "new is missing in the table",
        ),
        (made(&[("a", &["b", "c::D"]), ("b", &[])]), "app is in the table, and not in the tree"),
    ] {
        assert!(
            compare(&allowed, &used).contains(&fault.to_owned()),
            "{fault}: {:?}",
            compare(&allowed, &used)
        );
    }
}

#[test]
fn a_library_outside_of_its_home_or_without_one_is_found() {
    let homes = made(&[("axum", &["http"]), ("hyper_util::client", &["upstream"]), ("serde", &[EVERYTHING])]);
    let dependencies = ["axum", "hyper-util", "serde"].map(str::to_owned).into();
    let fine =
        made(&[("http", &["axum::Router", "hyper_util::rt"]), ("upstream", &["hyper_util::client::legacy"])]);
    assert_eq!(strays(&homes, &dependencies, &fine), Vec::<String>::new());
    let stray =
        made(&[("http", &["axum::Router", "hyper_util::client"]), ("upstream", &["hyper_util::client"])]);
    assert_eq!(strays(&homes, &dependencies, &stray), ["hyper_util::client is named in http"]);
    let idle = made(&[("http", &[]), ("upstream", &["hyper_util::client"])]);
    assert_eq!(strays(&homes, &dependencies, &idle), ["http is a home of axum, and does not name it"]);
    let more = ["axum", "hyper-util", "serde", "sqlx"].map(str::to_owned).into();
    assert_eq!(strays(&homes, &more, &fine), ["sqlx has no home"]);
    let fewer = ["axum", "hyper-util"].map(str::to_owned).into();
    assert_eq!(strays(&homes, &fewer, &fine), ["serde has a home, and is no dependency of the gateway"]);
}
