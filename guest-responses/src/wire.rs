//! The shapes of a request, as they are sent (<https://platform.openai.com/docs/api-reference/responses/create>). Texts are the client's
//! own JSON strings wherever one piece of the conversation became one piece of the request.

use std::borrow::Cow;

use sallyport_guest_codec::json::Json;
use sallyport_guest_codec::parts::Media;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The body of `POST /v1/responses`.
#[derive(Debug, Serialize)]
pub(crate) struct Made<'a, 'b> {
    #[serde(flatten)]
    pub(crate) body: &'b Body<'a>,
    pub(crate) store: bool,
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) include: &'static [&'static str],
    #[serde(flatten)]
    pub(crate) sampling: Sampling,
}

/// What shapes an answer and says nothing to a count.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Sampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f64>,
}

/// What is read by the model: also the body of `POST /v1/responses/input_tokens`.
#[derive(Debug, Serialize)]
pub(crate) struct Body<'a> {
    pub(crate) model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instructions: Option<Json<'a>>,
    pub(crate) input: Vec<InputItem<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tools: Vec<FunctionTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_choice: Option<Choosing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<ReasoningOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<TextOptions<'a>>,
}

/// An item of the conversation.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum InputItem<'a> {
    Message { role: &'static str, content: Content<'a> },
    Typed(TypedItem<'a>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TypedItem<'a> {
    FunctionCall {
        call_id: Cow<'a, str>,
        name: Cow<'a, str>,
        /// The input's JSON, as text.
        arguments: &'a str,
    },
    FunctionCallOutput {
        call_id: Cow<'a, str>,
        output: Content<'a>,
    },
    Reasoning {
        id: String,
        summary: Vec<SummaryText<'a>>,
        encrypted_content: String,
    },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum SummaryText<'a> {
    SummaryText { text: Json<'a> },
}

/// A string where there is text only; else parts.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Content<'a> {
    Text(Json<'a>),
    Parts(Vec<InputPart<'a>>),
}

#[expect(clippy::enum_variant_names, reason = "the wire's names")]
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum InputPart<'a> {
    InputText {
        text: Json<'a>,
    },
    InputImage {
        /// Required: how closely the image is looked at.
        detail: &'static str,
        image_url: Address<'a>,
    },
    InputFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<Json<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<Address<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<Address<'a>>,
    },
}

/// Where an attachment is, or all of it as a `data:` address, written straight from the client's body.
#[derive(Debug)]
pub(crate) struct Address<'a>(pub(crate) Media<'a>);

/// A tool on offer. What is not said of `strict` is true there.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum FunctionTool<'a> {
    Function {
        name: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a RawValue>,
        parameters: Option<Json<'a>>,
        strict: bool,
    },
}

/// Which tool the model is to call.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Choosing<'a> {
    Mode(&'static str),
    Named {
        #[serde(rename = "type")]
        kind: &'static str,
        name: Cow<'a, str>,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct ReasoningOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TextOptions<'a> {
    pub(crate) format: TextFormat<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextFormat<'a> {
    JsonSchema { name: &'static str, schema: &'a RawValue, strict: bool },
}

// === impl Address ===

impl Serialize for Address<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Media::Link(link) => link.serialize(serializer),
            Media::Data { media_type, data } => {
                serializer.collect_str(&format_args!("data:{media_type};base64,{data}"))
            }
        }
    }
}
