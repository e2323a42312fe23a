//! An answer as events of a Messages stream: whole as a `response`, or in events that each say a little of one of its items
//! (<https://platform.openai.com/docs/api-reference/responses-streaming>). Items are taken as they come; what an item says at its end is
//! taken only where it was not said before.

use std::collections::BTreeSet;

use sallyport_guest_chat::{pass_on, refusal};
use sallyport_guest_codec::answers::{Answers, piece};
use sallyport_guest_codec::blocks::{Blocks, CallPiece};
use sallyport_guest_codec::carry;
use sallyport_guest_codec::error::{self, UpstreamError, garbage};
use sallyport_guest_codec::json::Str;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::surrogate::Half;
use sallyport_guest_codec::usage::{Count, UNKNOWN, uncached};
use sallyport_guest_sdk::provider::{Failure, Output, ResponseHead};
use sallyport_guest_sdk::{Attribute, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What is known of the reply so far.
#[derive(Debug)]
pub struct Reply {
    blocks: Blocks,
    /// Whose reasoning is carried.
    vendor: &'static str,
    /// Not a reply was asked for, but a count.
    counting: bool,
    usage: Usage,
    /// Items of which something was said before their end.
    heard: BTreeSet<u64>,
    refused: bool,
    /// How it ends, once that came.
    ending: Option<Ending>,
    /// Half a character that the last event ended with.
    half: Option<Half>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As the model wanted.
    Completed,
    /// At the limit of output tokens.
    Limit,
    /// Where a filter stepped in.
    Filtered,
}

/// One event of a stream: whichever fields its type has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    output_index: u64,
    summary_index: u64,
    #[serde(borrow)]
    delta: Option<Str<'a>>,
    #[serde(borrow)]
    item: Option<Item<'a>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// `response`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    status: Option<Str<'a>>,
    #[serde(borrow)]
    output: Option<Vec<Item<'a>>>,
    usage: Option<Reported>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<Incomplete<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Option<Str<'a>>,
}

/// An item of the output: whichever fields its type has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    call_id: Option<Str<'a>>,
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    arguments: Option<Str<'a>>,
    #[serde(borrow)]
    content: Option<Vec<Part<'a>>>,
    #[serde(borrow)]
    summary: Option<Vec<Part<'a>>>,
    #[serde(borrow)]
    encrypted_content: Option<Str<'a>>,
}

/// A part of a message, of a summary, or of reasoning that is told in full.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    refusal: Option<Str<'a>>,
}

/// `usage`: input tokens count those of a cache.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reported {
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
}

/// The answer of `POST /v1/responses/input_tokens`.
#[derive(Debug, Deserialize)]
struct Counted {
    input_tokens: u32,
}

/// Codes of a failed response that are no fault of the upstream: <https://platform.openai.com/docs/api-reference/responses/object>.
const CLIENTS: [&str; 5] = [
    "invalid_prompt",
    "bio_policy",
    "misalignment_policy_violation",
    "data_residency_mismatch",
    "empty_image_file",
];

// === impl Reply ===

impl Reply {
    pub(crate) fn new(context: ReplyContext, vendor: &'static str, counting: bool) -> Self {
        Self {
            blocks: Blocks::new(context),
            vendor,
            counting,
            usage: UNKNOWN,
            heard: BTreeSet::new(),
            refused: false,
            ending: None,
            half: None,
        }
    }

    fn told(&mut self, event: Event<'_>, data: &[u8]) -> Result<(), Failure> {
        let kind = event.kind.as_ref().map(|it| &*it.0).unwrap_or_default();
        let delta = || event.delta.as_ref().map(|it| it.0.to_string()).unwrap_or_default();
        let at = event.output_index;
        match kind {
            "response.output_text.delta" => {
                self.heard.insert(at);
                self.blocks.text(delta())
            }
            "response.refusal.delta" => {
                self.heard.insert(at);
                self.refused = true;
                self.blocks.text(delta())
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.heard.insert(at);
                self.blocks.thinking(delta())
            }
            "response.reasoning_summary_part.added" if event.summary_index > 0 => {
                self.blocks.thinking("\n\n".to_owned())
            }
            "response.function_call_arguments.delta" => {
                self.heard.insert(at);
                let input = delta();
                self.blocks.call(CallPiece { index: Some(at), input: &input, ..CallPiece::default() })
            }
            "response.output_item.added" => match event.item {
                Some(item) if item.is_call() => self.call(at, &item, ""),
                _ => Ok(()),
            },
            "response.output_item.done" => event.item.map_or(Ok(()), |item| self.item(at, item)),
            "response.completed" | "response.incomplete" | "response.failed" => {
                let response =
                    event.response.ok_or_else(|| garbage("the upstream's answer ends without a response"))?;
                self.ends(&response)
            }
            "error" => Err(error::of_object(&UpstreamError::read(data))),
            "" if event.error.is_some() => Err(error::of_object(&UpstreamError::read(data))),
            _ => {
                if let Some(response) = &event.response {
                    self.begins(response);
                }
                Ok(())
            }
        }
    }

    fn begins(&mut self, response: &Response<'_>) {
        let text = |it: &Option<Str<'_>>| it.as_ref().map(|it| it.0.to_string());
        let (id, model) = (text(&response.id), text(&response.model));
        self.blocks.begin(id.as_deref(), model.as_deref(), UNKNOWN);
    }

    /// An item that is complete.
    fn item(&mut self, at: u64, item: Item<'_>) -> Result<(), Failure> {
        let is_new = !self.heard.contains(&at);
        match item.kind.as_ref().map(|it| &*it.0).unwrap_or_default() {
            "message" => {
                for part in item.content.into_iter().flatten().filter(|_| is_new) {
                    if let Some(text) = part.text {
                        self.blocks.text(text.0.into_owned())?;
                    }
                    if let Some(text) = part.refusal.filter(|it| !it.0.is_empty()) {
                        self.refused = true;
                        self.blocks.text(text.0.into_owned())?;
                    }
                }
                Ok(())
            }
            "reasoning" => {
                let told = item.summary.filter(|it| !it.is_empty()).or(item.content).filter(|_| is_new);
                for (nth, part) in told.into_iter().flatten().enumerate() {
                    let text = part.text.map(|it| it.0).unwrap_or_default();
                    let between = if nth > 0 { "\n\n" } else { "" };
                    self.blocks.thinking(format!("{between}{text}"))?;
                }
                let id = item.id.map(|it| it.0).unwrap_or_default();
                match item
                    .encrypted_content
                    .filter(|it| !it.0.is_empty() && !id.is_empty() && !id.contains('.'))
                {
                    Some(it) => self.blocks.signature(carry::carried(self.vendor, &format!("{id}.{}", it.0))),
                    None => Ok(()),
                }
            }
            _ if item.is_call() => {
                let input = item.arguments.as_ref().map(|it| it.0.to_string()).filter(|_| is_new);
                self.call(at, &item, input.as_deref().unwrap_or_default())
            }
            // Items of tools that the upstream runs: none was offered.
            _ => Ok(()),
        }
    }

    fn call(&mut self, at: u64, item: &Item<'_>, input: &str) -> Result<(), Failure> {
        let text = |it: &Option<Str<'_>>| it.as_ref().map(|it| it.0.to_string()).unwrap_or_default();
        let (id, name) = (text(&item.call_id), text(&item.name));
        self.blocks.call(CallPiece { index: Some(at), id: &id, name: &name, input })
    }

    /// The response is over, however it went.
    fn ends(&mut self, response: &Response<'_>) -> Result<(), Failure> {
        if let Some(reported) = &response.usage {
            self.usage = reported.usage();
        }
        let reason = response.incomplete_details.as_ref().and_then(|it| it.reason.as_ref()).map(|it| &*it.0);
        self.ending = Some(match response.status.as_ref().map_or("completed", |it| &*it.0) {
            "completed" => Ending::Completed,
            "incomplete" => match reason {
                Some("max_output_tokens") => Ending::Limit,
                Some("content_filter") => Ending::Filtered,
                _ => Ending::Completed,
            },
            status => return Err(failed(status, response.error)),
        });
        self.begins(response);
        self.finish()
    }
}

impl Answers for Reply {
    fn event(&mut self, data: &[u8], is_last: bool) -> Result<(), Failure> {
        if data == b"[DONE]" {
            return Ok(());
        }
        let mut mended = Vec::new();
        let event: Event<'_> = piece(data, &mut mended, Some(&mut self.half), is_last)?;
        self.told(event, data)
    }

    fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut mended = Vec::new();
        let mut response: Response<'_> = piece(body, &mut mended, None, false)?;
        let Some(items) = response.output.take() else {
            let said = UpstreamError::read(body);
            return Err(match &response.status {
                Some(status) => failed(&status.0, response.error),
                None if said.is_empty() => garbage("the upstream's answer is no response"),
                None => error::of_object(&said),
            });
        };
        if matches!(response.status.as_ref().map(|it| &*it.0), Some("completed" | "incomplete") | None) {
            self.begins(&response);
            for (at, item) in (0..).zip(items) {
                self.item(at, item)?;
            }
        }
        self.ends(&response)
    }

    fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let called = self.blocks.has_calls();
        let reason = match self.ending {
            Some(Ending::Limit) => "max_tokens",
            Some(Ending::Filtered) => "refusal",
            _ if self.refused => "refusal",
            _ if called => "tool_use",
            _ => "end_turn",
        };
        self.blocks.finish(reason, None, self.usage)
    }

    fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    fn other(&mut self, body: &[u8]) -> Option<Result<Vec<Output>, Failure>> {
        self.counting.then(|| match serde_json::from_slice::<Counted>(body) {
            Ok(counted) => Ok(vec![Output::TokenCount(counted.input_tokens)]),
            Err(_) => Err(garbage("the upstream's answer is no count of tokens")),
        })
    }

    fn headers(head: &ResponseHead, now_ms: u64) -> Vec<Attribute> {
        pass_on(head, now_ms)
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        refusal(head, body)
    }
}

// === impl Item ===

impl Item<'_> {
    fn is_call(&self) -> bool {
        self.kind.as_ref().is_some_and(|it| it.0 == "function_call")
    }
}

// === impl Reported ===

impl Reported {
    fn usage(&self) -> Usage {
        let details = self.input_tokens_details.as_ref();
        let cached = details.and_then(|it| it.cached_tokens.0);
        let written = details.and_then(|it| it.cache_write_tokens.0).filter(|it| *it > 0);
        Usage {
            input: uncached(self.input_tokens.0, cached, written),
            output: self.output_tokens.0,
            cache_read: cached,
            cache_write: written,
            cache_write_1h: None,
        }
    }
}

// === private helpers ===

/// What a response stands for that did not come to be.
fn failed(status: &str, error: Option<&RawValue>) -> Failure {
    let said = error.map(|it| UpstreamError::read(it.get().as_bytes())).unwrap_or_default();
    if said.is_empty() {
        let status: String = status.chars().filter(|it| !it.is_control()).take(64).collect();
        return garbage(format!("the upstream gave no answer: its response is {status:?}"));
    }
    let code = said.code.as_deref().unwrap_or_default();
    let clients = CLIENTS.contains(&code) || code.starts_with("invalid_") || code.starts_with("image_");
    error::of_object(&UpstreamError { status: said.status.or_else(|| clients.then_some(400)), ..said })
}
