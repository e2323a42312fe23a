//! `sallyport component test --conformance`: what a provider component carries of the Messages API, level by level. Requests of the corpus
//! hold marks; each has to be found in what the component sends, or named as lost, or the request refused. Answers of the corpus are
//! written in every wire that is known: the one whose plain answer the component understands is taken for its own.

mod under_test;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use sallyport_protocol::package::{Kind, Verified};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::under_test::{ProviderUnderTest, Transcript, asking};
use super::CommandContext;
use super::test::{Test, admit};
use crate::cli::Ending;
use crate::cli::output::{clean, table};
use crate::cli::workbench::workbench;
use crate::component::contract::provider::RequestKind;

/// The corpus that ships.
const CORPUS: &str = include_str!("conformance/corpus.json");
/// The levels, in the order in which they are told.
const LEVELS: [&str; 8] = ["text", "tools", "images", "documents", "thinking", "cache", "count", "errors"];
/// The words of the corpus's answers.
const TEXT: &str = "conformance-text";
const PATH: &str = "conformance-path";
const THOUGHT: &str = "conformance-thought";
const WORDS: &str = "conformance-words";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    version: String,
    requests: Vec<CorpusRequest>,
    wires: BTreeMap<String, CorpusWire>,
}

/// A request, and what has to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CorpusRequest {
    name: String,
    level: String,
    body: Value,
    /// Marks that have to be in what is sent.
    carries: Vec<String>,
    /// A request without what is asked about: what is sent for it has to be another.
    differs_from: Option<Value>,
    /// A refusal that names this is as good: what the upstream does not have is not to be sent.
    refusal: Option<String>,
}

/// Answers in one wire.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CorpusWire {
    media: String,
    /// The answers are bytes, in hexadecimal.
    #[serde(default)]
    hex: bool,
    answers: BTreeMap<String, String>,
    errors: BTreeMap<String, String>,
    /// The upstream's own codes of these errors, which clients are told.
    #[serde(default)]
    codes: BTreeMap<String, String>,
}

/// What became of a case, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Carriage {
    /// All of it arrived.
    Carried,
    /// Something stands in for it, and is named: an estimate.
    Approximated,
    /// It did not arrive, and the component says so in the call's losses.
    Lost,
    /// The request was refused, by name.
    Refused,
    /// It could not be tried.
    Untested,
    /// It did not arrive and nobody was told, or something else did.
    Failed,
}

/// A case that was tried.
#[derive(Debug, Serialize)]
struct TriedCase {
    level: String,
    name: String,
    result: Carriage,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// Runs the corpus against a provider component.
pub(super) async fn run(
    asked: &Test,
    verified: &Verified,
    desk: &mut CommandContext<'_>,
) -> anyhow::Result<Ending> {
    if verified.statement().kind != Kind::Provider {
        bail!("conformance is asked of providers, and this is a {}", verified.statement().kind.as_str());
    }
    let corpus: Corpus = serde_json::from_str(CORPUS).context("the corpus cannot be read")?;
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
    let trial = ProviderUnderTest { components: &components, component, model: asked.model.clone() };
    let mut cases = Vec::new();
    for request in &corpus.requests {
        cases.push(trial.request(request).await?);
    }
    let wire = trial.wire(&corpus).await?;
    trial.answers(wire.map(|(_, wire)| wire), &mut cases).await?;
    cases.push(trial.count().await?);
    report(verified, &corpus, wire.map(|(name, _)| name), &cases, desk)
}

// === impl ProviderUnderTest ===

impl ProviderUnderTest<'_> {
    /// One request of the corpus: whether what it holds is in what is sent.
    async fn request(&self, case: &CorpusRequest) -> anyhow::Result<TriedCase> {
        let talk = self.talk(&case.body, RequestKind::Message, None).await?;
        let without = match &case.differs_from {
            Some(body) => Some(self.talk(body, RequestKind::Message, None).await?),
            None => None,
        };
        let (result, detail) = match (&talk.failure, &talk.sent) {
            (Some(failure), _)
                if case
                    .refusal
                    .as_ref()
                    .is_some_and(|it| failure.status == 400 && failure.message.contains(it)) =>
            {
                (Carriage::Carried, String::new())
            }
            (Some(failure), _) if failure.status == 400 => (Carriage::Refused, failure.message.clone()),
            (Some(failure), _) => (Carriage::Failed, failure.message.clone()),
            (None, None) => (Carriage::Failed, "nothing was sent".to_owned()),
            (None, Some(sent)) => {
                let missing: Vec<&str> =
                    case.carries.iter().map(String::as_str).filter(|mark| !sent.contains(mark)).collect();
                let same = without.as_ref().is_some_and(|it| it.sent.as_ref() == Some(sent));
                let new: Vec<&str> = talk
                    .losses
                    .iter()
                    .filter(|loss| without.as_ref().is_none_or(|it| !it.losses.contains(loss)))
                    .map(String::as_str)
                    .collect();
                match (missing.is_empty() && !same, new.first()) {
                    (true, None) => (Carriage::Carried, String::new()),
                    (true, Some(loss)) => (Carriage::Approximated, (*loss).to_owned()),
                    (false, Some(loss)) => (Carriage::Lost, (*loss).to_owned()),
                    (false, None) if same => (Carriage::Failed, "it changes nothing that is sent".to_owned()),
                    (false, None) => {
                        (Carriage::Failed, format!("not sent, and not named as lost: {}", missing.join(", ")))
                    }
                }
            }
        };
        Ok(TriedCase { level: case.level.clone(), name: case.name.clone(), result, detail })
    }

    /// The wire whose plain answer the component understands; none where it hands answers on unread.
    async fn wire<'c>(&self, corpus: &'c Corpus) -> anyhow::Result<Option<(&'c str, &'c CorpusWire)>> {
        for (name, wire) in &corpus.wires {
            let talk = self.answered(wire, "text").await?;
            if talk.forwards {
                return Ok(corpus.wires.get_key_value("messages").map(|(name, wire)| (name.as_str(), wire)));
            }
            if talk.text == TEXT {
                return Ok(Some((name.as_str(), wire)));
            }
        }
        Ok(None)
    }

    /// Answers and errors in the component's own wire.
    async fn answers(&self, wire: Option<&CorpusWire>, cases: &mut Vec<TriedCase>) -> anyhow::Result<()> {
        let mut tried = |level: &str, name: &str, (result, detail): (Carriage, String)| {
            cases.push(TriedCase { level: level.to_owned(), name: name.to_owned(), result, detail });
        };
        let Some(wire) = wire else {
            let why = || (Carriage::Untested, "no wire of the corpus is the component's".to_owned());
            for (level, name) in
                [("text", "answer"), ("tools", "called"), ("thinking", "shown"), ("errors", "answers")]
            {
                tried(level, name, why());
            }
            return Ok(());
        };
        let told = |talk: &Transcript, good: bool| match (&talk.failure, good || talk.forwards) {
            (_, true) => (Carriage::Carried, String::new()),
            (Some(failure), false) => (Carriage::Failed, failure.message.clone()),
            (None, false) => {
                (Carriage::Failed, format!("something else arrived: {talk:?}").chars().take(300).collect())
            }
        };
        let talk = self.answered(wire, "text").await?;
        let good = talk.text == TEXT && talk.stop_reason.as_deref() == Some("end_turn");
        tried("text", "answer", told(&talk, good));
        let talk = self.answered(wire, "tools").await?;
        let called = matches!(talk.tools.as_slice(), [(name, input)] if name == "Canary_tool"
            && serde_json::from_str::<Value>(input).is_ok_and(|it| it == json!({"path": PATH})));
        tried("tools", "called", told(&talk, called && talk.stop_reason.as_deref() == Some("tool_use")));
        let talk = self.answered(wire, "thinking").await?;
        tried("thinking", "shown", told(&talk, talk.thought == THOUGHT && talk.text == TEXT));
        for (status, words) in &wire.errors {
            let code = wire.codes.get(status).map_or("", String::as_str);
            let status: u16 = status.parse().context("a status of the corpus")?;
            let talk = self
                .talk(
                    &asking(&self.model),
                    RequestKind::Message,
                    Some((status, "application/json", words.clone().into_bytes())),
                )
                .await?;
            let kind = match status {
                400 => "invalid_request_error",
                429 => "rate_limit_error",
                _ => "api_error",
            };
            let good = talk.failure.as_ref().is_some_and(|it| {
                it.status == status
                    && it.error_type == kind
                    && it.message.contains(WORDS)
                    && it.message.contains(code)
                    && it.retryable == (status != 400)
            });
            let told = match &talk.failure {
                Some(failure) if !good => (
                    Carriage::Failed,
                    format!("told as {} {}: {}", failure.status, failure.error_type, failure.message),
                ),
                _ => told(&talk, good),
            };
            tried("errors", &status.to_string(), told);
        }
        Ok(())
    }

    /// Whether tokens are counted.
    async fn count(&self) -> anyhow::Result<TriedCase> {
        let talk = self.talk(&asking(&self.model), RequestKind::CountTokens, None).await?;
        let (result, detail) = match talk {
            Transcript { count: Some(_), .. } | Transcript { forwards: true, .. } => {
                (Carriage::Carried, String::new())
            }
            Transcript { estimate: Some(_), .. } => (Carriage::Approximated, "an estimate".to_owned()),
            Transcript { failure: Some(failure), .. } if failure.status == 400 => {
                (Carriage::Refused, failure.message)
            }
            Transcript { sent: Some(_), failure: None, .. } => {
                (Carriage::Carried, "counted by the upstream".to_owned())
            }
            _ => (Carriage::Failed, "neither a count nor an estimate".to_owned()),
        };
        Ok(TriedCase { level: "count".to_owned(), name: "count_tokens".to_owned(), result, detail })
    }
}

// === private helpers ===

fn report(
    verified: &Verified,
    corpus: &Corpus,
    wire: Option<&str>,
    cases: &[TriedCase],
    desk: &mut CommandContext<'_>,
) -> anyhow::Result<Ending> {
    let statement = verified.statement();
    // A level is as good as the worst of its cases.
    let levels: Vec<(&str, Carriage)> = LEVELS
        .iter()
        .map(|level| {
            let of_level = cases.iter().filter(|it| it.level == *level).map(|it| it.result);
            (*level, of_level.max().unwrap_or(Carriage::Untested))
        })
        .collect();
    let failed = cases.iter().filter(|it| it.result == Carriage::Failed).count();
    if desk.json {
        let levels: BTreeMap<&str, Carriage> = levels.into_iter().collect();
        let answer = json!({
            "name": statement.name, "digest": statement.digest, "corpus": corpus.version, "wire": wire, "levels": levels,
            "failed": failed, "cases": cases,
        });
        writeln!(desk.out, "{answer}")?;
    } else {
        let lines: Vec<[String; 3]> = levels
            .iter()
            .map(|(level, result)| {
                let named = cases.iter().filter(|it| it.level == *level && it.result > Carriage::Carried);
                let named: Vec<String> = named.map(|it| it.name.clone()).collect();
                [(*level).to_owned(), word(*result).to_owned(), named.join(", ")]
            })
            .collect();
        table(&["LEVEL", "RESULT", "NOT CARRIED WHOLE"], &lines, &mut *desk.out)?;
        for case in cases.iter().filter(|it| it.result > Carriage::Carried) {
            let TriedCase { level, name, result, detail } = case;
            writeln!(desk.out, "\n{level}, {name}: {}\n  {}", word(*result), clean(detail))?;
        }
        let wire = wire.unwrap_or("none that the corpus has");
        writeln!(
            desk.out,
            "\n{}: {} cases, {failed} failed, wire: {wire}, corpus of {}",
            statement.name,
            cases.len(),
            corpus.version
        )?;
    }
    Ok(if failed > 0 { Ending::Failed } else { Ending::Done })
}

fn word(result: Carriage) -> &'static str {
    match result {
        Carriage::Carried => "carried",
        Carriage::Approximated => "approximated",
        Carriage::Lost => "lost",
        Carriage::Refused => "refused",
        Carriage::Untested => "untested",
        Carriage::Failed => "failed",
    }
}
