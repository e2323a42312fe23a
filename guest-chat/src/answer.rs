//! The shapes of what a Chat Completions server answers, whole or in chunks, read leniently: compatible servers leave
//! out and add much.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use sallyport_guest_sdk::Usage;
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use sallyport_guest_codec::json::{Str, string};
use sallyport_guest_codec::names::ReplyContext;

use crate::usage::Reported;

/// `chat.completion` or `chat.completion.chunk`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Completion<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) model: Option<Str<'a>>,
    #[serde(borrow)]
    object: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) choices: Option<Vec<Choice<'a>>>,
    usage: Option<Reported>,
    /// Groq's place for it.
    x_groq: Option<Groq>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Groq {
    usage: Option<Reported>,
}

/// One of the answers; only the first is ever asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Choice<'a> {
    pub(crate) index: Option<u64>,
    #[serde(borrow)]
    pub(crate) delta: Option<Said<'a>>,
    #[serde(borrow)]
    pub(crate) message: Option<Said<'a>>,
    #[serde(borrow)]
    pub(crate) finish_reason: Option<Str<'a>>,
    /// vLLM: the stop sequence or token it met.
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    /// sglang: the same.
    #[serde(borrow)]
    matched_stop: Option<&'a RawValue>,
    /// Moonshot's place for it.
    usage: Option<Reported>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A message or a piece of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said<'a> {
    #[serde(borrow)]
    pub(crate) content: Option<Content<'a>>,
    #[serde(borrow)]
    pub(crate) refusal: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) tool_calls: Option<Vec<AnsweredToolCall<'a>>>,
    #[serde(borrow)]
    pub(crate) function_call: Option<AnsweredFunction<'a>>,
}

/// What was said: text, or with some servers (Mistral's among them) a list of typed pieces.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Text(Cow<'a, str>),
    Pieces(Vec<Piece<'a>>),
}

/// A piece of text, or of thinking.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Piece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Content<'a>>,
}

/// A tool call or a piece of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AnsweredToolCall<'a> {
    pub(crate) index: Option<u64>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) function: Option<AnsweredFunction<'a>>,
}

/// What is called, with what.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AnsweredFunction<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// Why the model stopped, in words of the Messages API, with the stop sequence it met.
pub(crate) fn stop_reason(
    finish: Option<&str>,
    called: bool,
    refused: bool,
    met: Option<String>,
) -> (&'static str, Option<String>) {
    let reason = match finish.unwrap_or_default() {
        "content_filter" => "refusal",
        _ if refused => "refusal",
        "length" | "max_tokens" => "max_tokens",
        // Some servers say `stop` after a tool call, some say `tool_calls` after none.
        _ if called => "tool_use",
        _ if met.is_some() => return ("stop_sequence", met),
        _ => "end_turn",
    };
    (reason, None)
}

// === impl Completion ===

impl<'a> Completion<'a> {
    /// Its id, without what OpenAI's begin with.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_ref().map(|it| it.0.strip_prefix("chatcmpl-").unwrap_or(&it.0))
    }

    /// Whether this is an error in the place of an answer.
    pub(crate) fn is_error(&self) -> bool {
        self.error.is_some()
            || self.object.as_ref().is_some_and(|it| it.0 == "error")
            || self.choices.iter().flatten().any(|it| it.error.is_some())
    }

    /// The error's JSON, where it is not the whole of this.
    pub(crate) fn choice_error(&self) -> Option<&'a RawValue> {
        self.choices.iter().flatten().find_map(|it| it.error)
    }

    /// The tokens counted so far, where they are told.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let in_choice = || self.choices.iter().flatten().find_map(|it| it.usage.as_ref());
        let by_groq = || self.x_groq.as_ref().and_then(|it| it.usage.as_ref());
        self.usage.as_ref().or_else(by_groq).or_else(in_choice).map(Reported::usage)
    }
}

// === impl Choice ===

impl Choice<'_> {
    /// The stop sequence met, if the server tells and it is one of those asked for.
    pub(crate) fn met(&self, context: &ReplyContext) -> Option<String> {
        let met = self.stop_reason.or(self.matched_stop).and_then(string)?;
        context.stop(Some(&met))
    }
}

// === impl Said ===

impl<'a> Said<'a> {
    /// What the model thought; servers that send it under both names send the same.
    pub(crate) fn take_reasoning(&mut self) -> Option<Cow<'a, str>> {
        let first = self.reasoning_content.take().filter(|it| !it.0.is_empty());
        first.or_else(|| self.reasoning.take()).map(|it| it.0).filter(|it| !it.is_empty())
    }
}

// === impl Content ===

impl<'a> Content<'a> {
    /// Hands out each piece of text, and whether it is thinking.
    pub(crate) fn each<E>(
        self,
        is_thinking: bool,
        take: &mut impl FnMut(bool, Cow<'a, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Text(text) => take(is_thinking, text),
            Self::Pieces(pieces) => pieces.into_iter().try_for_each(|piece| {
                if let Some(thought) = piece.thinking {
                    thought.each(true, take)?;
                }
                piece.text.map_or(Ok(()), |it| take(is_thinking, it.0))
            }),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Either<'a> {
            type Value = Content<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of pieces")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Content::Pieces)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

// === impl ToolCall ===

impl<'a> AnsweredToolCall<'a> {
    /// The call that `function_call`, the older form, stands for.
    pub(crate) fn only(function: AnsweredFunction<'a>) -> Self {
        Self { index: Some(0), id: None, function: Some(function) }
    }

    pub(crate) fn id(&self) -> &str {
        self.id.as_ref().map_or("", |it| &it.0)
    }
}

// === impl Function ===

impl<'a> AnsweredFunction<'a> {
    pub(crate) fn name(&self) -> &str {
        self.name.as_ref().map_or("", |it| &it.0)
    }

    /// The arguments' JSON. Some servers send the object itself rather than its text.
    pub(crate) fn arguments(&self) -> Cow<'a, str> {
        match self.arguments {
            None => Cow::Borrowed(""),
            Some(raw) => string(raw).unwrap_or_else(|| Cow::Borrowed(raw.get())),
        }
    }
}
