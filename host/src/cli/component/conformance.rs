//! `sallyport component test --conformance`: what the corpus shows of a provider component, level by level, printed.

use anyhow::{Context as _, bail};
use sallyport_protocol::level::{Carriage, Level};
use sallyport_protocol::package::{Kind, Verified};
use serde_json::json;

use super::CommandContext;
use super::test::{Test, admit};
use crate::cli::Ending;
use crate::cli::output::{clean, table};
use crate::cli::workbench::workbench;
use crate::component::conformance::{Conformance, TriedCase};

/// Runs the corpus against a provider component.
pub(super) async fn run(
    asked: &Test,
    verified: &Verified,
    context: &mut CommandContext<'_>,
) -> anyhow::Result<Ending> {
    if verified.statement().kind != Kind::Provider {
        bail!("conformance is asked of providers, and this is a {}", verified.statement().kind.as_str());
    }
    let config = match &asked.component_config {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?
        }
        None => json!({}),
    };
    let directory = tempfile::tempdir().context("cannot make a folder for compiled code")?;
    let components = workbench(&directory.path().join("code"))?;
    let component = match admit(&components, verified, &config).await? {
        Ok(component) => component,
        Err(refused) => bail!("the component does not take its configuration: {refused}"),
    };
    let shown = components.conformance(&component, &asked.model).await?;
    report(verified, &shown, context)
}

// === private helpers ===

fn report(
    verified: &Verified,
    shown: &Conformance,
    context: &mut CommandContext<'_>,
) -> anyhow::Result<Ending> {
    let statement = verified.statement();
    let Conformance { corpus, wire, cases } = shown;
    let levels = shown.levels();
    let failed = cases.iter().filter(|it| it.result == Carriage::Failed).count();
    if context.json {
        let answer = json!({
            "name": statement.name, "digest": statement.digest, "corpus": corpus, "wire": wire, "levels": levels,
            "failed": failed, "cases": cases,
        });
        writeln!(context.out, "{answer}")?;
    } else {
        let lines: Vec<[String; 3]> = Level::ALL
            .into_iter()
            .map(|level| {
                let named = cases.iter().filter(|it| it.level == level && it.result > Carriage::Carried);
                let named: Vec<String> = named.map(|it| it.name.clone()).collect();
                [level.as_str().to_owned(), levels.of(level).as_str().to_owned(), named.join(", ")]
            })
            .collect();
        table(&["LEVEL", "RESULT", "NOT CARRIED WHOLE"], &lines, &mut *context.out)?;
        for case in cases.iter().filter(|it| it.result > Carriage::Carried) {
            let TriedCase { level, name, result, detail } = case;
            writeln!(context.out, "\n{level}, {name}: {}\n  {}", result.as_str(), clean(detail))?;
        }
        let wire = wire.as_deref().unwrap_or("none that the corpus has");
        writeln!(
            context.out,
            "\n{}: {} cases, {failed} failed, wire: {wire}, corpus of {}",
            statement.name,
            cases.len(),
            corpus
        )?;
    }
    Ok(if failed > 0 { Ending::Failed } else { Ending::Done })
}
