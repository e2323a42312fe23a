//! What a Rust file names and defines, read from its syntax tree: every path from the root of its crate, and every type.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, UseTree};

/// Which code is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// All of it.
    Whole,
    /// What is compiled into the gateway: without what only tests have.
    Shipped,
}

/// Every path that `text` names, from the root of its crate: `crate::db::Db` and `std::fs::read`, however it is written.
/// `module` is where the file stands: `["catalog", "place"]`.
pub(super) fn paths(text: &str, module: &[String], code: Code) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inline = Vec::new();
    // What a name of this file stands for: `db` for `crate::db`, once that is imported.
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    walk(&parsed(text).items, module, code, &mut |module, item| match item {
        Item::Use(item) => {
            let mut imports = Vec::new();
            expand(&mut Vec::new(), &item.tree, &mut imports);
            for (path, name) in imports {
                let path = rooted(module, path);
                found.insert(path.join("::"));
                aliases.extend(name.map(|name| (name, path)));
            }
        }
        other => {
            let mut paths = Vec::new();
            tokens(other.to_token_stream(), &[], &mut paths);
            inline.extend(paths.into_iter().map(|path| rooted(module, path)));
        }
    });
    for path in inline {
        let (first, rest) = path.split_first().unwrap();
        let path = match aliases.get(first) {
            Some(alias) => [alias, rest].concat(),
            None => path,
        };
        found.insert(path.join("::"));
    }
    found
}

/// The names of the types that `text` defines outside of tests.
pub(super) fn types(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&parsed(text).items, &[], Code::Shipped, &mut |_, item| {
        let name = match item {
            Item::Struct(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            _ => return,
        };
        found.push(name.to_string());
    });
    found
}

/// The module that a file of `folder` is: `host/src/catalog/place.rs` is `["catalog", "place"]`, `lib.rs` the root.
pub(super) fn module_of(file: &str, folder: &str) -> Vec<String> {
    let rest = file.strip_prefix(folder).unwrap_or(file).trim_matches('/');
    let rest = rest.strip_suffix(".rs").unwrap_or(rest);
    rest.split('/').filter(|part| !matches!(*part, "lib" | "main" | "")).map(str::to_owned).collect()
}

fn parsed(text: &str) -> syn::File {
    syn::parse_file(text)
        .unwrap_or_else(|error| panic!("a file that the compiler takes is not read: {error}"))
}

/// Goes through items, into the modules that are written out among them.
fn walk(items: &[Item], module: &[String], code: Code, visit: &mut impl FnMut(&[String], &Item)) {
    for item in items {
        if code == Code::Shipped && attributes(item).iter().any(is_for_tests) {
            continue;
        }
        match item {
            Item::Mod(inner) => {
                let Some((_, items)) = &inner.content else { continue };
                let module = [module, &[inner.ident.to_string()]].concat();
                walk(items, &module, code, visit);
            }
            other => visit(module, other),
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.to_token_stream().to_string().contains("test")
}

/// Writes out a `use` tree, with the name that each path has in the file: `a::{b, c::d}` is `a::b` and `a::c::d`; `a::{self}` is
/// `a`.
fn expand(prefix: &mut Vec<String>, tree: &UseTree, found: &mut Vec<(Vec<String>, Option<String>)>) {
    let below = |prefix: &[String], name: &Ident| match name.to_string() {
        this if this == "self" => prefix.to_vec(),
        name => [prefix, &[name]].concat(),
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            expand(prefix, &path.tree, found);
            prefix.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| expand(prefix, tree, found)),
        UseTree::Name(name) => {
            let path = below(prefix, &name.ident);
            let name = path.last().cloned();
            found.push((path, name));
        }
        UseTree::Rename(name) => found.push((below(prefix, &name.ident), Some(name.rename.to_string()))),
        UseTree::Glob(_) => found.push((prefix.clone(), None)),
    }
}

/// Paths of two parts or more among tokens, macros included; a `use` within a function is written out.
fn tokens(stream: TokenStream, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = prefix.to_vec();
    let mut colons = 0;
    let mut end = |path: &mut Vec<String>| {
        if path.len() > prefix.len() && path.len() > 1 {
            found.push(path.clone());
        }
        path.truncate(0);
        path.extend(prefix.iter().cloned());
    };
    let mut groups = Vec::new();
    for tree in stream {
        match tree {
            TokenTree::Ident(word) => {
                if colons != 2 {
                    end(&mut path);
                }
                path.push(word.to_string());
                colons = 0;
            }
            TokenTree::Punct(sign) if sign.as_char() == ':' => {
                colons += 1;
                if colons > 2 {
                    end(&mut path);
                }
            }
            TokenTree::Group(group) => {
                let continues =
                    colons == 2 && group.delimiter() == Delimiter::Brace && path.len() > prefix.len();
                let below = if continues { path.clone() } else { Vec::new() };
                groups.push((group.stream(), below));
                end(&mut path);
                colons = 0;
            }
            _ => {
                end(&mut path);
                colons = 0;
            }
        }
    }
    end(&mut path);
    for (stream, below) in groups {
        tokens(stream, &below, found);
    }
}

/// A path from the root of the crate: `super::db` in `catalog::place` is `crate::catalog::db`.
fn rooted(module: &[String], path: Vec<String>) -> Vec<String> {
    let climbs = path.iter().take_while(|part| *part == "super").count();
    let from = match path.first().map(String::as_str) {
        Some("super") => module.get(..module.len().saturating_sub(climbs)).unwrap_or_default(),
        Some("self") => module,
        _ => return path,
    };
    let rest = path.iter().filter(|part| !matches!(part.as_str(), "super" | "self"));
    std::iter::once("crate".to_owned()).chain(from.iter().cloned()).chain(rest.cloned()).collect()
}

// === the reading can fail ===

fn read(text: &str) -> BTreeSet<String> {
    paths(text, &["a".to_owned(), "b".to_owned()], Code::Shipped)
}

#[test]
fn a_path_is_found_however_it_is_written() {
    for text in [
        "use axum::Router;",
        "use axum::Router as Web;",
        "pub(crate) use ::axum::Router;",
        "use {std::fs, axum::{routing::get, Router}};",
        "fn f(router: axum::Router) {}",
        "fn f() { let at = \"http://127.0.0.1\"; axum::Router::new(at); }",
        "fn f() { use axum::{routing::get, Router}; }",
        "fn f() { macro_call!(inner, { axum::Router }); }",
        "mod inner { use axum::Router; }",
    ] {
        assert!(read(text).iter().any(|path| path.starts_with("axum::Router")), "{text}: {:?}", read(text));
    }
    for text in [
        "// axum::Router is not for here\nfn f() {}",
        "//! The only module that names axum::Router.\nfn f() {}",
        "use crate::axum::Router;",
        "fn f() { let axum = 1; let text = \"axum::Router\"; }",
    ] {
        assert!(!read(text).iter().any(|path| path.starts_with("axum")), "{text}: {:?}", read(text));
    }
}

#[test]
fn super_and_self_are_read_from_where_they_stand() {
    assert!(read("use super::super::db::Db;").contains("crate::db::Db"));
    assert!(read("use super::c::D;").contains("crate::a::c::D"));
    assert!(read("use self::c::D;").contains("crate::a::b::c::D"));
    assert!(read("mod inner { fn f() { super::super::super::db::open() } }").contains("crate::db::open"));
}

#[test]
fn a_name_that_was_imported_stands_for_what_it_was_imported_as() {
    assert!(read("use crate::http;\nfn f() { http::serve() }").contains("crate::http::serve"));
    assert!(
        read("use crate::http::{self as edge};\nfn f() { edge::serve() }").contains("crate::http::serve")
    );
    assert!(read("fn f() { http::serve() }").contains("http::serve"));
}

#[test]
fn what_only_tests_have_is_left_out_where_that_is_asked() {
    let text = "#[cfg(test)]\nmod tests { use crate::db::Db; }\n#[cfg(test)]\nuse crate::app::App;\nuse crate::clip;";
    assert_eq!(read(text).into_iter().collect::<Vec<_>>(), ["crate::clip"]);
    assert!(paths(text, &[], Code::Whole).contains("crate::app::App"));
}

#[test]
fn every_kind_of_type_is_found_also_in_modules_and_not_in_tests() {
    let text = "struct A; enum B {} trait C {} type D = u8; union E { a: u8 } mod m { struct F; }\n\
                #[cfg(test)] mod tests { struct G; } fn f() {}";
    assert_eq!(types(text), ["A", "B", "C", "D", "E", "F"]);
}

#[test]
fn a_file_is_a_module() {
    assert_eq!(module_of("host/src/catalog/place.rs", "host/src"), ["catalog", "place"]);
    assert_eq!(module_of("host/src/catalog.rs", "host/src"), ["catalog"]);
    assert!(module_of("host/src/lib.rs", "host/src").is_empty());
}
