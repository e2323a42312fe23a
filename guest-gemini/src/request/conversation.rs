//! The conversation, turn by turn. Gemini has two roles; turns of one role that follow each other are one, and the answers to function
//! calls stand first in theirs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sallyport_guest_codec::carry;
use sallyport_guest_codec::json::{Json, inside, string};
use sallyport_guest_codec::losses::Losses;
use sallyport_guest_codec::messages::{Block, Invalid, Path, ToolResult, ToolUse};
use sallyport_guest_codec::parts::{self, Attachments, Media, Parts, UNTITLED};
use sallyport_guest_codec::turns::{Turns, text_and_rest};

use super::NAMES;
use crate::Service;
use crate::config::{Model, ThinkingForm};
use crate::wire::{self, Answered, Blob, Data, File, FunctionCall, FunctionResponse, Part};

/// A conversation under translation.
pub(super) struct Conversation<'a> {
    turns: Vec<Turn<'a>>,
    /// Names of the functions that were called, by the client's id of the call.
    called: BTreeMap<String, Cow<'a, str>>,
    /// Whether the model refuses calls that lack its signature.
    wants_signatures: bool,
    service: Service,
    /// The signature of the call that comes next.
    signature: Option<String>,
    /// What answers of tools cannot hold.
    following: Parts<'a>,
}

struct Turn<'a> {
    role: wire::Role,
    answers: Vec<Part<'a>>,
    parts: Vec<Part<'a>>,
}

/// What Gemini takes; it fetches what it gets the address of.
const TAKES: Attachments =
    Attachments { pdfs: true, fetched_pdfs: true, fetched_images: true, cache_points: false };
/// What the API takes in place of the signature of a call that another model made
/// (<https://ai.google.dev/gemini-api/docs/thought-signatures#faqs>). Without one, Gemini 3 answers 400.
const NOT_ITS_OWN: &str = "skip_thought_signature_validator";

// === impl Conversation ===

impl<'a> Conversation<'a> {
    pub(super) fn new(model: &Model, service: Service) -> Self {
        Self {
            turns: Vec::new(),
            called: BTreeMap::new(),
            wants_signatures: model.form == ThinkingForm::Level,
            service,
            signature: None,
            following: Parts::new(TAKES),
        }
    }

    pub(super) fn finish(self) -> Vec<wire::Content<'a>> {
        let turns = self.turns.into_iter().map(|Turn { role, mut answers, mut parts }| {
            answers.append(&mut parts);
            wire::Content { role, parts: answers }
        });
        // No turn without parts is taken, and it says nothing.
        turns.filter(|it| !it.parts.is_empty()).collect()
    }

    /// Writes a part: nothing of an empty text, which is refused, and before a document its title, for which there is no place.
    fn part(&self, part: parts::Part<'a>, path: Path<'_>, sent: &mut Vec<Part<'a>>, losses: &mut Losses) {
        let attached = |media, mime_type| match media {
            Media::Link(file_uri) => Data::FileData(File { mime_type, file_uri }),
            Media::Data { media_type, data } => Data::InlineData(Blob { mime_type: media_type, data }),
        };
        match part {
            parts::Part::Text(text) => {
                if inside(&text).is_some_and(|it| !it.is_empty()) {
                    sent.push(Data::Text(text).into());
                }
            }
            parts::Part::Image(media) => {
                // Where the type need not be said, it is seen when the image is fetched.
                let told = match &media {
                    Media::Link(address) if self.service.typed_files => inside(address).and_then(image_type),
                    _ => None,
                };
                if told.is_none() && self.service.typed_files && matches!(media, Media::Link(_)) {
                    losses.add(path, "image dropped: its address does not say of which type it is");
                } else {
                    sent.push(attached(media, told).into());
                }
            }
            parts::Part::Pdf { name, media } => {
                if inside(&name) != Some(UNTITLED) {
                    sent.push(Data::Text(name).into());
                }
                sent.push(attached(media, Some("application/pdf")).into());
            }
            parts::Part::CachePoint => {}
        }
    }

    /// The turn that this role has now.
    fn turn(&mut self, role: wire::Role) -> &mut Turn<'a> {
        if self.turns.last().is_none_or(|it| it.role != role) {
            self.turns.push(Turn { role, answers: Vec::new(), parts: Vec::new() });
        }
        let last = self.turns.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "there is one")]
        &mut self.turns[last]
    }
}

impl<'a> Turns<'a> for Conversation<'a> {
    fn takes(&self) -> Attachments {
        TAKES
    }

    fn answer(
        &mut self,
        result: &ToolResult<'a>,
        content: Parts<'a>,
        path: Path<'_>,
        losses: &mut Losses,
    ) -> Result<(), Invalid> {
        let id = &result.tool_use_id;
        let Some(name) = self.called.get(&**id).cloned() else {
            let path = path.field("tool_use_id");
            return Err(Invalid(format!("{path}: no tool_use block before it has this id")));
        };
        let how = "attachments of a tool's answer moved behind it";
        let (text, following) = text_and_rest(id, content, "The answer is attached.", how, path, losses);
        self.following.append(following);
        let response = if result.is_error { Answered::Error(text) } else { Answered::Output(text) };
        let answer = FunctionResponse { id: NAMES.call_id(id.clone()), name, response };
        self.turn(wire::Role::User).answers.push(Data::FunctionResponse(answer).into());
        Ok(())
    }

    fn said(&mut self, said: Parts<'a>, path: Path<'_>, losses: &mut Losses) {
        let mut all = std::mem::replace(&mut self.following, Parts::new(TAKES));
        all.append(said);
        let mut sent = Vec::new();
        for part in all {
            self.part(part, path, &mut sent, losses);
        }
        self.turn(wire::Role::User).parts.extend(sent);
    }

    fn text(&mut self, text: Json<'a>) {
        if inside(&text).is_some_and(|it| !it.is_empty()) {
            self.turn(wire::Role::Model).parts.push(Data::Text(text).into());
        }
    }

    fn call(&mut self, call: ToolUse<'a>, path: Path<'_>, losses: &mut Losses) {
        let ToolUse { id, name, input } = call;
        let name = NAMES.tool_name(name);
        self.called.insert(id.clone().into_owned(), name.clone());
        let (signature, wants) = (self.signature.take(), self.wants_signatures);
        let turn = self.turn(wire::Role::Model);
        // Of calls that were made at once the first has the signature.
        let is_first = !turn.parts.iter().any(|it| matches!(it.data, Data::FunctionCall(_)));
        let stands_in = (signature.is_none() && is_first && wants).then_some(Cow::Borrowed(NOT_ITS_OWN));
        let is_foreign = stands_in.is_some();
        turn.parts.push(Part {
            data: Data::FunctionCall(FunctionCall { id: NAMES.call_id(id), name, args: input }),
            thought_signature: signature.map(Cow::Owned).or(stands_in),
        });
        if is_foreign {
            losses.add(path, "call sent without the signature that its model gives");
        }
    }

    /// What was thought is summed up in its signature; the text is for people.
    fn thinking(&mut self, thinking: &Block<'a>) -> bool {
        let own = own_signature(thinking, self.service.vendor);
        let carried = own.is_some();
        self.signature = own.or_else(|| self.signature.take());
        carried
    }

    fn ended(&mut self) {
        self.signature = None;
    }

    fn system(&mut self, text: Json<'a>, path: Path<'_>, losses: &mut Losses) {
        losses.add(path, "system message sent as a user message");
        self.turn(wire::Role::User).parts.push(Data::Text(text).into());
    }
}

// === private helpers ===

/// The signature of a thinking block, if this service gave it.
fn own_signature(block: &Block<'_>, vendor: &str) -> Option<String> {
    let signature = block.signature.and_then(string)?;
    carry::own(vendor, &signature).map(str::to_owned)
}

/// The media type of an image, as the end of its address says it: a JSON string.
fn image_type(address: &str) -> Option<&'static str> {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "heif" => "image/heif",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::image_type;

    #[test]
    fn an_address_says_the_type_of_its_image_or_nothing() {
        for (address, told) in [
            ("https://a.example/b.PNG", Some("image/png")),
            ("https://a.example/b.c/d.jpg?size=1.gif#x", Some("image/jpeg")),
            ("https://a.example/image", None),
            ("https://a.example/b.svg", None),
            ("", None),
        ] {
            assert_eq!(image_type(address), told, "{address}");
        }
    }
}
