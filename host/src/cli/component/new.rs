//! `sallyport component new`: a complete project from the templates inside the binary. What a language or a kind is made of
//! is a folder of `host/templates/component`; nothing here knows one from the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use sallyport_protocol::package::{Kind, Name};
use serde_json::json;

use super::{CommandContext, kit, project};
use crate::cli::{Ending, key};
use crate::clock::{Clock as _, SystemClock};
use crate::component::WORLD_VERSION;

/// What `component new` is asked.
#[derive(Debug, Args)]
pub struct New {
    /// The component's name: namespace/name, for example acme/no-shell
    #[arg(value_parser = name)]
    pub name: Name,
    /// What it is: policy, scanner, hook, predicate or provider
    #[arg(long, value_parser = key::kind, default_value = "hook")]
    pub kind: Kind,
    /// What it is written in
    #[arg(long, value_parser = languages())]
    pub lang: String,
    /// Where the project goes; a folder of the component's name, unless given
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Templates that projects in every language have.
const SHARED: &str = "all";
/// The namespace of the components that come inside the binary: nobody else signs for it.
const RESERVED: &str = "sallyport";

/// Runs `component new`.
pub(super) fn run(asked: &New, context: &mut CommandContext<'_>) -> anyhow::Result<Ending> {
    let New { name, kind, lang, .. } = asked;
    if name.namespace() == RESERVED {
        bail!(
            "the namespace {RESERVED} belongs to the components that come with the gateway: choose your own"
        );
    }
    let files = files(name, *kind, lang)?;
    let dir = asked.dir.clone().unwrap_or_else(|| PathBuf::from(name.name()));
    make(&dir)?;
    for (path, text) in &files {
        project::write(&dir.join(path), text.as_bytes())?;
    }
    if context.json {
        let paths: Vec<_> = files.keys().collect();
        writeln!(
            context.out,
            "{}",
            json!({ "dir": dir, "name": name, "kind": kind, "lang": lang, "files": paths })
        )?;
        return Ok(Ending::Done);
    }
    let shown = dir.display();
    writeln!(
        context.out,
        "Made {shown}: a {kind} in {lang}, with samples in tests/ and the contract in wit/."
    )?;
    writeln!(context.out, "\n  cd {shown}\n  sallyport component build\n  sallyport component test")?;
    writeln!(context.out, "\nREADME.md says how to go on from there.")?;
    Ok(Ending::Done)
}

/// Every file of a project, filled in.
fn files(name: &Name, kind: Kind, lang: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let folder = |lang: &str, kind: &str| format!("{lang}/{kind}/");
    let own = folder(lang, kind.as_str());
    if !kit::TEMPLATES.iter().any(|(path, _)| path.starts_with(&own)) {
        bail!("there is no template of a {kind} in {lang}: there is one of {}", kinds(lang).join(", "));
    }
    let today = SystemClock::default().now().date().to_string();
    let fill = |text: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{short}}", name.name())
            .replace("{{namespace}}", name.namespace())
            .replace("{{kind}}", kind.as_str())
            .replace("{{today}}", &today)
            .replace("{{host}}", env!("CARGO_PKG_VERSION"))
            .replace("{{world}}", WORLD_VERSION)
    };
    // Of two files of one name the one that knows more of the project stands.
    let mut files = BTreeMap::new();
    for folder in [folder(SHARED, SHARED), folder(SHARED, kind.as_str()), folder(lang, SHARED), own] {
        for (path, text) in kit::TEMPLATES {
            if let Some(path) = path.strip_prefix(&folder) {
                // A file that begins with a dot is not seen by everybody who looks at the templates.
                let path =
                    path.strip_prefix("dot-").map_or_else(|| path.to_owned(), |rest| format!(".{rest}"));
                files.insert(path, fill(text));
            }
        }
    }
    files.extend(kit::WIT.iter().map(|(path, text)| (format!("wit/{path}"), (*text).to_owned())));
    if files.contains_key(SDK_MANIFEST) {
        files.extend(kit::SDK.iter().map(|(path, text)| (format!("sdk/src/{path}"), (*text).to_owned())));
        // Cargo takes from it what the project needs and drops the rest at the first build.
        files.insert("Cargo.lock".to_owned(), kit::LOCK.to_owned());
    }
    Ok(files)
}

/// A language whose template brings this file builds on the SDK, which is no crate of a registry: it travels along.
const SDK_MANIFEST: &str = "sdk/Cargo.toml";

/// The folder of the project: new, or there and empty.
fn make(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    if entries.next().is_some() {
        bail!("{} is there already and not empty: nothing was changed", dir.display());
    }
    Ok(())
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| format!("{error}, each 1 to 64 characters: acme/no-shell"))
}

/// The languages that there are templates for.
fn languages() -> Vec<&'static str> {
    folders(None).into_iter().filter(|lang| *lang != SHARED).collect()
}

/// The kinds that there are templates for in one language.
fn kinds(lang: &str) -> Vec<&'static str> {
    folders(Some(lang)).into_iter().filter(|kind| *kind != SHARED).collect()
}

/// Names of the folders of templates, or of those below one of them.
fn folders(below: Option<&str>) -> Vec<&'static str> {
    let mut names: Vec<_> = kit::TEMPLATES
        .iter()
        .filter_map(|(path, _)| {
            let path = match below {
                Some(folder) => path.strip_prefix(folder)?.strip_prefix('/')?,
                None => path,
            };
            Some(path.split_once('/')?.0)
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
