//! An answer as events of a Messages stream. A streamed answer is a row of whole ones that each hold what is new; it has no mark at its
//! end but a reason to stop.

use sallyport_guest_codec::answers::{Answers, Reader, piece};
use sallyport_guest_codec::blocks::{Blocks, CallPiece};
use sallyport_guest_codec::carry;
use sallyport_guest_codec::error::{self, UpstreamError, garbage};
use sallyport_guest_codec::json::Str;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::usage::{UNKNOWN, merge};
use sallyport_guest_sdk::Usage;
use sallyport_guest_sdk::provider::{Failure, Output, ResponseHead};
use serde_json::value::RawValue;

use crate::answer::{Candidate, CandidateCall, CandidatePart, Counted, Response, Stop, stop};
use crate::refusal;

/// Turns bytes into events.
pub type Decoder = Reader<Reply>;

/// What is known of the reply so far.
#[derive(Debug)]
pub struct Reply {
    /// Whose signatures are carried.
    vendor: &'static str,
    blocks: Blocks,
    usage: Usage,
    calls: u64,
    said: bool,
    /// `finishReason`, once it came, with what was said of it.
    finish: Option<(String, Option<String>)>,
    /// Not a reply was asked for, but a count.
    counting: bool,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn new(context: ReplyContext, vendor: &'static str, counting: bool) -> Self {
        Self {
            vendor,
            blocks: Blocks::new(context),
            usage: UNKNOWN,
            calls: 0,
            said: false,
            finish: None,
            counting,
        }
    }

    fn response(&mut self, mut response: Response<'_>) -> Result<(), Failure> {
        if let Some(counted) = &response.usage_metadata {
            merge(&mut self.usage, counted.usage());
        }
        let candidates = response.candidates.take().unwrap_or_default();
        let blocked = response.prompt_feedback.take().and_then(|it| it.block_reason);
        if candidates.is_empty() && blocked.is_none() {
            return Ok(());
        }
        let text = |it: &Option<Str<'_>>| it.as_ref().map(|it| it.0.to_string());
        let (id, model) = (text(&response.response_id), text(&response.model_version));
        self.blocks.begin(id.as_deref(), model.as_deref(), Usage { output: None, ..self.usage });
        if let Some(reason) = blocked {
            // The prompt itself was refused: there is no candidate, and nothing follows.
            self.finish.get_or_insert_with(|| ("SAFETY".to_owned(), Some(reason.0.into_owned())));
        }
        for candidate in candidates {
            if candidate.index.unwrap_or_default() == 0 {
                self.candidate(candidate)?;
            }
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: Candidate<'_>) -> Result<(), Failure> {
        for part in candidate.content.and_then(|it| it.parts).unwrap_or_default() {
            self.part(part)?;
        }
        if let Some(reason) = candidate.finish_reason.filter(|it| !it.0.is_empty()) {
            let message = candidate.finish_message.map(|it| it.0.into_owned());
            self.finish.get_or_insert_with(|| (reason.0.into_owned(), message));
        }
        Ok(())
    }

    fn part(&mut self, part: CandidatePart<'_>) -> Result<(), Failure> {
        if let Some(text) = part.text {
            if part.thought == Some(true) {
                self.blocks.thinking(text.0.into_owned())?;
            } else {
                self.said = self.said || !text.0.is_empty();
                self.blocks.text(text.0.into_owned())?;
            }
        }
        if let Some(call) = part.function_call {
            // Signatures of texts are not asked for again, those of calls are: they stand in front of them.
            if let Some(signature) = part.thought_signature.filter(|it| !it.0.is_empty()) {
                self.blocks.signature(carry::carried(self.vendor, &signature.0))?;
            }
            self.call(call)?;
        }
        if let Some(blob) = part.inline_data {
            let kind = blob.mime_type.map(|it| it.0.into_owned()).unwrap_or_default();
            let kind: String = kind.chars().filter(|it| !it.is_control()).take(64).collect();
            self.said = true;
            self.blocks.text(format!(
                "[the model answered with data of the type {kind:?}, which Messages cannot carry]"
            ))?;
        }
        Ok(())
    }

    fn call(&mut self, call: CandidateCall<'_>) -> Result<(), Failure> {
        let index = Some(self.calls);
        self.calls = self.calls.saturating_add(1);
        let id = call.id.map(|it| it.0).unwrap_or_default();
        let name = call.name.map(|it| it.0).unwrap_or_default();
        let input = call.args.map_or("{}", RawValue::get);
        self.blocks.call(CallPiece { index, id: &id, name: &name, input })
    }
}

impl Answers for Reply {
    /// One `GenerateContentResponse`.
    fn event(&mut self, data: &[u8], is_last: bool) -> Result<(), Failure> {
        let mut mended = Vec::new();
        let response: Response<'_> = piece(data, &mut mended, None, is_last)?;
        if response.error.is_some() {
            return Err(error::of_object(&UpstreamError::read(data)));
        }
        self.response(response)
    }

    fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let body = body.trim_ascii();
        if !body.is_empty() {
            self.event(body, false)?;
        }
        if self.is_ending() {
            self.finish()
        } else {
            Err(garbage("the upstream's answer holds no candidate that is complete"))
        }
    }

    fn is_ending(&self) -> bool {
        self.finish.is_some()
    }

    fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    fn other(&mut self, body: &[u8]) -> Option<Result<Vec<Output>, Failure>> {
        self.counting.then(|| match serde_json::from_slice::<Counted>(body) {
            Ok(counted) => Ok(vec![Output::TokenCount(counted.total_tokens)]),
            Err(_) => Err(garbage("the upstream's answer is no count of tokens")),
        })
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        refusal::of_answer(head, body)
    }

    /// Ends the reply.
    fn finish(&mut self) -> Result<(), Failure> {
        let (reason, message) = self.finish.clone().unwrap_or_default();
        match stop(&reason, self.blocks.has_calls(), self.said) {
            Stop::Whole(stop_reason) => self.blocks.finish(stop_reason, None, self.usage),
            Stop::Withheld => self.blocks.finish("refusal", None, self.usage),
            Stop::Broken => {
                let told = message.filter(|it| !it.is_empty() && it.len() <= 512);
                let told = told.map(|it| format!(": {it}")).unwrap_or_default();
                Err(garbage(format!("the upstream's model gave no answer{told} [{reason}]")))
            }
        }
    }
}
