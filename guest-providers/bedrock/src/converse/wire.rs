//! The shapes of a request, as they are sent
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_RequestSyntax>). Texts are the
//! client's own JSON strings wherever one piece of the conversation became one piece of the request.

use std::borrow::Cow;

use sallyport_guest_codec::estimate::{FRAME, IMAGE, PER_MESSAGE, PER_TOOL, pdf, text};
use sallyport_guest_codec::json::Json;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The body of `Converse` and `ConverseStream`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) system: Vec<SystemBlock<'a>>,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) inference_config: Inference<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) additional_model_request_fields: Option<Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum SystemBlock<'a> {
    Text(Json<'a>),
    CachePoint(CachePoint),
}

#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    pub(super) role: Role,
    pub(super) content: Vec<Block<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    User,
    Assistant,
}

/// A piece of a turn. In the answer of a tool stand texts, images and documents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Block<'a> {
    Text(Json<'a>),
    Image(Image<'a>),
    Document(Document<'a>),
    ToolUse(ToolUse<'a>),
    ToolResult(ToolResult<'a>),
    ReasoningContent(Reasoning<'a>),
    CachePoint(CachePoint),
}

#[derive(Debug, Serialize)]
pub(super) struct Image<'a> {
    pub(super) format: &'static str,
    pub(super) source: Source<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    pub(super) format: &'static str,
    pub(super) name: String,
    pub(super) source: Source<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct Source<'a> {
    /// In base64.
    pub(super) bytes: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
pub(super) struct ToolUse<'a> {
    #[serde(rename = "toolUseId")]
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    pub(super) input: Json<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolResult<'a> {
    pub(super) tool_use_id: Cow<'a, str>,
    pub(super) content: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reasoning<'a> {
    ReasoningText { text: Json<'a>, signature: String },
    RedactedContent(String),
}

#[derive(Debug, Serialize)]
pub(super) struct CachePoint {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inference<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stop_sequences: Vec<&'a RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig<'a> {
    pub(super) tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_choice: Option<ToolChoice<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Tool<'a> {
    ToolSpec(ToolSpec<'a>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolSpec<'a> {
    pub(super) name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<&'a RawValue>,
    pub(super) input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) strict: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct InputSchema<'a> {
    pub(super) json: Json<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ToolChoice<'a> {
    Auto {},
    Any {},
    Tool { name: Cow<'a, str> },
}

/// The one kind of cache point.
pub(super) const CACHE_POINT: CachePoint = CachePoint { kind: "default" };

// === impl Body ===

impl Body<'_> {
    /// About how many input tokens it has: Converse counts at the end.
    pub(super) fn estimate(&self) -> u32 {
        let system: u64 = self
            .system
            .iter()
            .map(|it| if let SystemBlock::Text(it) = it { text(it.get()) } else { 0 })
            .sum();
        let messages: u64 = self
            .messages
            .iter()
            .map(|it| it.content.iter().map(Block::estimate).sum::<u64>().saturating_add(PER_MESSAGE))
            .sum();
        let tools: u64 = self
            .tool_config
            .iter()
            .flat_map(|it| &it.tools)
            .map(|Tool::ToolSpec(it)| {
                let texts = [it.description.map(RawValue::get), Some(it.input_schema.json.get())];
                let texts: u64 = texts.into_iter().flatten().map(text).sum();
                PER_TOOL.saturating_add(text(&it.name)).saturating_add(texts)
            })
            .sum();
        let all = FRAME.saturating_add(system).saturating_add(messages).saturating_add(tools);
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

// === impl Block ===

impl Block<'_> {
    fn estimate(&self) -> u64 {
        match self {
            Self::Text(it) | Self::ReasoningContent(Reasoning::ReasoningText { text: it, .. }) => {
                text(it.get())
            }
            Self::Image(_) => IMAGE,
            Self::Document(it) => pdf(it.source.bytes.len()),
            Self::ToolUse(it) => PER_TOOL.saturating_add(text(&it.name)).saturating_add(text(it.input.get())),
            Self::ToolResult(it) => {
                it.content.iter().map(Block::estimate).sum::<u64>().saturating_add(PER_MESSAGE)
            }
            Self::ReasoningContent(Reasoning::RedactedContent(it)) => {
                u64::try_from(it.len()).unwrap_or(u64::MAX) / 4
            }
            Self::CachePoint(_) => 0,
        }
    }
}
