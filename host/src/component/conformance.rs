//! What a provider component carries of the Messages API, level by level. Requests of the corpus
//! hold marks; each has to be found in what the component sends, or named as lost, or the request refused. Answers of the corpus are
//! written in every wire that is known: the one whose plain answer the component understands is taken for its own.

mod under_test;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::level::{Carriage, Level, Levels};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::under_test::{ProviderUnderTest, Transcript, asking};
use super::contract::provider::RequestKind;
use super::{Component, Components};

/// The corpus that ships.
const CORPUS: &str = include_str!("conformance/corpus.json");
/// The model that a component is asked for unless somebody names one.
pub const USUAL_MODEL: &str = "claude-conformance";
/// Longest that the whole corpus may take.
const LONGEST: Duration = Duration::from_secs(20);
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
    level: Level,
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

/// A case that was tried.
#[derive(Debug, Serialize)]
pub struct TriedCase {
    /// The part of the API that it is about.
    pub level: Level,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub result: Carriage,
    /// Why it is not better.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What the corpus showed of a component.
#[derive(Debug)]
pub struct Conformance {
    /// Which edition of the corpus.
    pub corpus: String,
    /// The wire of the corpus that is the component's own, if one is.
    pub wire: Option<String>,
    /// Every case.
    pub cases: Vec<TriedCase>,
}

/// Why the corpus shows nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The file in the source tree is broken.
    #[error("the corpus cannot be read")]
    Corpus(#[source] serde_json::Error),
    /// The file in the source tree lacks something.
    #[error("the corpus has no {0}")]
    Missing(String),
    /// It takes longer than it may.
    #[error("the component takes longer for the corpus than {LONGEST:?}")]
    Slow,
}

/// Which edition of the corpus this gateway has; `None` where the file in the source tree is broken.
pub fn corpus_version() -> Option<String> {
    #[derive(Deserialize)]
    struct CorpusEdition {
        version: String,
    }
    serde_json::from_str::<CorpusEdition>(CORPUS).ok().map(|corpus| corpus.version)
}

// === impl Components ===

impl Components {
    /// Runs the corpus against a provider, for a model of its upstream.
    pub async fn conformance(
        &self,
        component: &Arc<Component>,
        model: &str,
    ) -> Result<Conformance, ConformanceError> {
        let trial =
            ProviderUnderTest { components: self, component: Arc::clone(component), model: model.to_owned() };
        let ran = tokio::time::timeout(LONGEST, Box::pin(trial.run())).await;
        ran.unwrap_or(Err(ConformanceError::Slow))
    }
}

// === impl Conformance ===

impl Conformance {
    /// The levels: each is as good as the worst of its cases.
    pub fn levels(&self) -> Levels {
        let worst = |level: Level| {
            let of_level = self.cases.iter().filter(|it| it.level == level).map(|it| it.result);
            (level, of_level.max().unwrap_or(Carriage::Untested))
        };
        Level::ALL.into_iter().map(worst).collect()
    }
}

// === impl ProviderUnderTest ===

impl ProviderUnderTest<'_> {
    async fn run(&self) -> Result<Conformance, ConformanceError> {
        let corpus: Corpus = serde_json::from_str(CORPUS).map_err(ConformanceError::Corpus)?;
        let mut cases = Vec::new();
        for request in &corpus.requests {
            cases.push(self.request(request).await);
        }
        let wire = self.wire(&corpus).await?;
        self.answers(wire.map(|(_, wire)| wire), &mut cases).await?;
        cases.push(self.count().await);
        let wire = wire.map(|(name, _)| name.to_owned());
        Ok(Conformance { corpus: corpus.version, wire, cases })
    }

    /// One request of the corpus: whether what it holds is in what is sent.
    async fn request(&self, case: &CorpusRequest) -> TriedCase {
        let talk = self.talk(&case.body, RequestKind::Message, None).await;
        let without = match &case.differs_from {
            Some(body) => Some(self.talk(body, RequestKind::Message, None).await),
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
        TriedCase { level: case.level, name: case.name.clone(), result, detail }
    }

    /// The wire whose plain answer the component understands; none where it hands answers on unread.
    async fn wire<'c>(
        &self,
        corpus: &'c Corpus,
    ) -> Result<Option<(&'c str, &'c CorpusWire)>, ConformanceError> {
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
    async fn answers(
        &self,
        wire: Option<&CorpusWire>,
        cases: &mut Vec<TriedCase>,
    ) -> Result<(), ConformanceError> {
        let mut tried = |level: Level, name: &str, (result, detail): (Carriage, String)| {
            cases.push(TriedCase { level, name: name.to_owned(), result, detail });
        };
        let Some(wire) = wire else {
            let why = || (Carriage::Untested, "no wire of the corpus is the component's".to_owned());
            for (level, name) in [
                (Level::Text, "answer"),
                (Level::Tools, "called"),
                (Level::Thinking, "shown"),
                (Level::Errors, "answers"),
            ] {
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
        tried(Level::Text, "answer", told(&talk, good));
        let talk = self.answered(wire, "tools").await?;
        let called = matches!(talk.tools.as_slice(), [(name, input)] if name == "Canary_tool"
            && serde_json::from_str::<Value>(input).is_ok_and(|it| it == json!({"path": PATH})));
        tried(Level::Tools, "called", told(&talk, called && talk.stop_reason.as_deref() == Some("tool_use")));
        let talk = self.answered(wire, "thinking").await?;
        tried(Level::Thinking, "shown", told(&talk, talk.thought == THOUGHT && talk.text == TEXT));
        for (status, words) in &wire.errors {
            let code = wire.codes.get(status).map_or("", String::as_str);
            let status: u16 =
                status.parse().map_err(|_| ConformanceError::Missing(format!("status {status}")))?;
            let talk = self
                .talk(
                    &asking(&self.model),
                    RequestKind::Message,
                    Some((status, "application/json", words.clone().into_bytes())),
                )
                .await;
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
            tried(Level::Errors, &status.to_string(), told);
        }
        Ok(())
    }

    /// Whether tokens are counted.
    async fn count(&self) -> TriedCase {
        let talk = self.talk(&asking(&self.model), RequestKind::CountTokens, None).await;
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
        TriedCase { level: Level::Count, name: "count_tokens".to_owned(), result, detail }
    }
}
