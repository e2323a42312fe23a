//! Stories about projects and keys, as far as they go without a built component; the rest is told against the binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Parser as _;
use sallyport_protocol::package::{Kind, Manifest};
use serde_json::Value;

use super::{kit, project};
use crate::cli::{Cli, Ending};

/// Runs a command line; how it ended, and what it printed.
async fn sallyport(words: &[&str]) -> (anyhow::Result<Ending>, String) {
    let cli = Cli::try_parse_from(std::iter::once("sallyport").chain(words.iter().copied()));
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => return (Err(error.into()), String::new()),
    };
    let mut out = Vec::new();
    let ending = crate::cli::run(cli, &mut out).await;
    (ending, String::from_utf8(out).unwrap())
}

async fn refused(words: &[&str]) -> String {
    let (ending, said) = sallyport(words).await;
    assert_eq!(said, "", "a refusal is no answer");
    format!("{:#}", ending.unwrap_err())
}

/// Every template that there is.
fn templates() -> Vec<(&'static str, Kind)> {
    let mut all: Vec<_> = kit::TEMPLATES
        .iter()
        .filter_map(|(path, _)| {
            let mut parts = path.split('/');
            Some((parts.next()?, Kind::parse(parts.next()?)?))
        })
        .filter(|(lang, _)| *lang != "all")
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[tokio::test]
async fn every_template_is_a_project_with_nothing_left_to_fill_in() {
    let folder = tempfile::tempdir().unwrap();
    let all = templates();
    assert!(all.contains(&("js", Kind::Hook)) && all.contains(&("python", Kind::Hook)), "{all:?}");
    assert!(Kind::ALL.iter().all(|kind| all.contains(&("rust", *kind))), "{all:?}");
    for (lang, kind) in all {
        let dir = folder.path().join(format!("{lang}-{kind}"));
        let shown = dir.display().to_string();
        let words = [
            "component",
            "new",
            "acme/my-part",
            "--kind",
            kind.as_str(),
            "--lang",
            lang,
            "--dir",
            &shown,
            "--json",
        ];
        let (ending, said) = sallyport(&words).await;
        assert_eq!(ending.unwrap(), Ending::Done);
        let answer: Value = serde_json::from_str(&said).unwrap();
        let files: Vec<_> =
            answer["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        for wanted in ["README.md", ".gitignore", "component.toml", "wit/types.wit"] {
            assert!(files.contains(&wanted), "{lang} {kind}: {wanted}");
        }
        for file in files {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            assert!(!text.contains("{{"), "{lang} {kind}: {file}");
        }
        let manifest = fs::read_to_string(dir.join("component.toml")).unwrap();
        let manifest = Manifest::parse(&manifest).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.kind), ("acme/my-part", kind));
        let samples = project::samples(&dir.join("tests")).unwrap();
        assert!(samples.read(kind).unwrap().len() >= 2, "{kind}");
    }
}

#[tokio::test]
async fn a_folder_that_holds_something_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("mine");
    fs::create_dir(&dir).unwrap();
    let shown = dir.display().to_string();
    fs::write(dir.join("README.md"), "mine").unwrap();
    let words = ["component", "new", "acme/mine", "--lang", "js", "--dir", &shown];
    assert!(refused(&words).await.contains("is there already and not empty"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    fs::remove_file(dir.join("README.md")).unwrap();
    assert_eq!(sallyport(&words).await.0.unwrap(), Ending::Done, "an empty folder is as good as none");
}

#[tokio::test]
async fn a_name_that_no_gateway_would_take_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("none");
    let shown = dir.display().to_string();
    let long = format!("acme/{}", "x".repeat(65));
    for (name, why) in [
        (long.as_str(), "namespace/name"),
        ("acme", "namespace/name"),
        ("Acme/x", "lower-case"),
        ("acme/../x", "namespace/name"),
        ("sallyport/mine", "belongs to the components that come with the gateway"),
    ] {
        let error = refused(&["component", "new", name, "--lang", "js", "--dir", &shown]).await;
        assert!(error.contains(why), "{name}: {error}");
    }
    let error = refused(&["component", "new", "acme/x", "--lang", "cobol", "--dir", &shown]).await;
    assert!(error.contains("rust") && error.contains("python"), "{error}");
    let error =
        refused(&["component", "new", "acme/x", "--lang", "ts", "--kind", "provider", "--dir", &shown]).await;
    assert!(error.contains("no template of a provider in ts: there is one of hook"), "{error}");
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_key_is_for_its_owner_alone_and_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("publisher.key");
    let shown = file.display().to_string();
    let words = ["key", "generate", "--out", &shown, "--name", "acme", "--kind", "hook", "--kind", "policy"];
    let (ending, said) = sallyport(&words).await;
    assert_eq!(ending.unwrap(), Ending::Done);
    assert!(said.contains("publishers:") && said.contains("kinds: [hook, policy]"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).unwrap();
    assert!(!said.contains(secret.trim()), "the key itself is not shown");
    assert!(refused(&words).await.contains("the key was not written"));
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
    let other = folder.path().join("other.key").display().to_string();
    assert!(
        refused(&["key", "generate", "--out", &other, "--name", "No Name"]).await.contains("no namespace")
    );
    assert!(!Path::new(&other).exists());
}

#[tokio::test]
async fn a_manifest_with_a_mistake_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().display().to_string();
    let error = refused(&["component", "build", "--dir", &shown]).await;
    assert!(error.contains("`sallyport component new` makes a project"), "{error}");
    for (manifest, why) in [
        ("name = \"acme/x\"\nnmae = \"y\"", "unknown field `nmae`"),
        ("name = ", "component.toml has a mistake"),
    ] {
        fs::write(folder.path().join("component.toml"), manifest).unwrap();
        let error = refused(&["component", "build", "--dir", &shown]).await;
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_project_that_is_not_built_or_of_no_language_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("p");
    let shown = dir.display().to_string();
    sallyport(&["component", "new", "acme/p", "--lang", "js", "--dir", &shown]).await.0.unwrap();
    let error = refused(&["component", "test", &shown]).await;
    assert!(error.contains("run `sallyport component build` first"), "{error}");
    fs::remove_file(dir.join("package.json")).unwrap();
    let error = refused(&["component", "build", "--dir", &shown]).await;
    assert!(error.contains("none of Cargo.toml, package.json, requirements.txt"), "{error}");
}

#[tokio::test]
async fn the_contract_is_one_text_and_one_binary_package() {
    let folder = tempfile::tempdir().unwrap();
    let (ending, text) = sallyport(&["component", "wit"]).await;
    assert_eq!(ending.unwrap(), Ending::Done);
    assert_eq!(text.matches("package sallyport:gateway@").count(), 1);
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("whole.wit", &text).unwrap();
    let file = folder.path().join("gateway.wasm");
    let shown = file.display().to_string();
    sallyport(&["component", "wit", "--binary", "--out", &shown]).await.0.unwrap();
    let decoded = wit_parser::decoding::decode(&fs::read(&file).unwrap()).unwrap();
    let worlds = |resolve: &wit_parser::Resolve, package| {
        let worlds: Vec<String> = resolve.packages[package].worlds.keys().cloned().collect();
        worlds
    };
    let found = worlds(decoded.resolve(), decoded.package());
    assert_eq!(found, worlds(&resolve, package));
    assert!(Kind::ALL.iter().all(|kind| found.iter().any(|world| world == kind.as_str())), "{found:?}");
}

#[test]
fn the_sdk_of_a_project_is_built_with_the_versions_of_the_workspace() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dependencies = |text: &str, table: &str| {
        let start = text.find(table).unwrap() + table.len();
        let table = text.get(start..).unwrap().split("\n[").next().unwrap().to_owned();
        table.lines().filter(|line| line.contains('=')).map(str::to_owned).collect::<Vec<_>>()
    };
    let workspace = fs::read_to_string(here.join("../Cargo.toml")).unwrap();
    let workspace = dependencies(&workspace, "[workspace.dependencies]");
    let sdk = fs::read_to_string(here.join("../guest-sdk/Cargo.toml")).unwrap();
    let expected: Vec<_> = dependencies(&sdk, "[dependencies]")
        .iter()
        .map(|line| {
            let name = line.split('.').next().unwrap();
            let line = workspace.iter().find(|line| line.starts_with(&format!("{name} = ")));
            line.unwrap().to_owned()
        })
        .collect();
    let (_, template) = kit::TEMPLATES.iter().find(|(path, _)| *path == "rust/all/sdk/Cargo.toml").unwrap();
    assert_eq!(dependencies(template, "[dependencies]"), expected);
}
