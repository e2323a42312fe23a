//! The shapes of a Chat Completions request, as they are sent. Texts are the client's own JSON strings wherever one
//! piece of the conversation became one piece of the request.

use std::borrow::Cow;

use sallyport_guest_codec::json::Json;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The body of `POST /v1/chat/completions`.
#[derive(Debug, Serialize)]
pub(crate) struct Request<'a> {
    pub(crate) model: &'a str,
    pub(crate) messages: Vec<Message<'a>>,
    #[serde(flatten)]
    pub(crate) options: Options<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream_options: Option<StreamOptions>,
}

/// What shapes the answer.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_k: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_format: Option<&'static str>,
    /// Moonshot's switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thinking: Option<Toggle>,
    /// Qwen's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enable_thinking: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thinking_budget: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_format: Option<ResponseFormat<'a>>,
}

/// Whether a model thinks.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Toggle {
    Enabled,
    Disabled,
}

/// Asks for the token counts at the end of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: bool,
}

/// One message.
#[derive(Debug, Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub(crate) enum Message<'a> {
    System {
        content: Json<'a>,
    },
    Developer {
        content: Json<'a>,
    },
    User {
        content: UserContent<'a>,
    },
    Assistant {
        content: Option<Json<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reasoning_content: Option<Json<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall<'a>>,
    },
    Tool {
        tool_call_id: Cow<'a, str>,
        content: Json<'a>,
    },
}

/// A string where there is text only, which every compatible server reads; else parts.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum UserContent<'a> {
    Text(Json<'a>),
    Parts(Vec<Part<'a>>),
}

/// A piece of what the user sent.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part<'a> {
    Text { text: Json<'a> },
    ImageUrl { image_url: ImageUrl<'a> },
    File { file: File<'a> },
}

#[derive(Debug, Serialize)]
pub(crate) struct ImageUrl<'a> {
    pub(crate) url: Url<'a>,
}

#[derive(Debug, Serialize)]
pub(crate) struct File<'a> {
    pub(crate) filename: Json<'a>,
    pub(crate) file_data: Url<'a>,
}

/// Where an attachment is, or all of it. The data is written straight from the client's body: attachments are most of
/// what makes a request large.
#[derive(Debug)]
pub(crate) enum Url<'a> {
    Link(Json<'a>),
    Data { media_type: Cow<'a, str>, data: Cow<'a, str> },
}

/// A tool call of an earlier turn.
#[derive(Debug, Serialize)]
pub(crate) struct ToolCall<'a> {
    pub(crate) id: Cow<'a, str>,
    #[serde(rename = "type")]
    pub(crate) kind: Function,
    pub(crate) function: CalledFunction<'a>,
}

/// `function`, the one kind of tool there is.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Function {
    #[default]
    Function,
}

#[derive(Debug, Serialize)]
pub(crate) struct CalledFunction<'a> {
    pub(crate) name: Cow<'a, str>,
    /// The input's JSON, as text.
    pub(crate) arguments: &'a str,
}

/// A tool on offer.
#[derive(Debug, Serialize)]
pub(crate) struct Tool<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: Function,
    pub(crate) function: OfferedFunction<'a>,
}

#[derive(Debug, Serialize)]
pub(crate) struct OfferedFunction<'a> {
    pub(crate) name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strict: Option<bool>,
}

/// Which tool the model is to call.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ToolChoice<'a> {
    Mode(&'static str),
    Named {
        #[serde(rename = "type")]
        kind: Function,
        function: NamedFunction<'a>,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct NamedFunction<'a> {
    pub(crate) name: Cow<'a, str>,
}

/// What form the answer has.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat<'a> {
    JsonSchema { json_schema: JsonSchema<'a> },
}

#[derive(Debug, Serialize)]
pub(crate) struct JsonSchema<'a> {
    pub(crate) name: &'static str,
    pub(crate) schema: &'a RawValue,
    pub(crate) strict: bool,
}

// === impl Url ===

impl Serialize for Url<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Link(link) => link.serialize(serializer),
            Self::Data { media_type, data } => {
                serializer.collect_str(&format_args!("data:{media_type};base64,{data}"))
            }
        }
    }
}
