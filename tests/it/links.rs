//! Links of the documents lead to files and headings that are there.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// A link of a document: where it stands, the file and the heading that it names.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    file: String,
    heading: String,
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut documents = Vec::new();
    collect(root, &mut documents);
    assert!(documents.len() > 20, "only {} documents were found", documents.len());
    let mut count = 0;
    let mut dead = Vec::new();
    for document in &documents {
        for link in links(&fs::read_to_string(document).unwrap()) {
            count += 1;
            let target = match link.file.as_str() {
                "" => document.clone(),
                file => plain(&document.parent().unwrap().join(file)),
            };
            let is_page = target.extension().is_some_and(|end| end == "md");
            let leads = target.exists()
                && (link.heading.is_empty()
                    || !is_page
                    || headings(&fs::read_to_string(&target).unwrap()).contains(&link.heading));
            if !leads {
                dead.push(format!("{}: {link:?}", document.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn links_and_headings_are_found_as_a_reader_of_markdown_finds_them() {
    let text = "# One `two.three[]`\nSee [a](b.md#c-d), [e](#f) and [g](https://h).\n```\n[no](link)\n# no heading\n```\n## Is it?\n";
    let link = |file: &str, heading: &str| Link { file: file.to_owned(), heading: heading.to_owned() };
    assert_eq!(links(text), [link("b.md", "c-d"), link("", "f")]);
    assert_eq!(headings(text), ["one-twothree", "is-it"]);
}

/// The documents below a folder, but those of others.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "node_modules" || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

/// The lines of a document that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The links of a document to other files and to its own headings.
fn links(text: &str) -> Vec<Link> {
    let targets =
        prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            Link { file: file.to_owned(), heading: heading.to_owned() }
        })
        .collect()
}

/// The headings of a document as links name them.
fn headings(text: &str) -> Vec<String> {
    let heading = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).filter(|line| line.starts_with('#')).map(heading).collect()
}

/// A path without `..`, as far as it can be without looking.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
