//! An estimate of a request's input tokens, by the formula of `guest-codec`: for servers that do not count, and for the beginning of
//! streams, which are counted at their end.

use sallyport_guest_codec::estimate::{FRAME, IMAGE, PER_MESSAGE, PER_TOOL, pdf, text};
use sallyport_guest_codec::parts::Media;

use crate::wire::{Body, Content, FunctionTool, InputItem, InputPart, SummaryText, TypedItem};

/// Input tokens of a request.
pub(crate) fn tokens(body: &Body<'_>) -> u32 {
    let system = body.instructions.as_ref().map_or(0, |it| PER_MESSAGE.saturating_add(text(it.get())));
    let items: u64 = body.input.iter().map(|it| PER_MESSAGE.saturating_add(item(it))).sum();
    let tools: u64 = body
        .tools
        .iter()
        .map(|FunctionTool::Function { name, description, parameters, .. }| {
            let description = description.map_or(0, |it| text(it.get()));
            let parameters = parameters.as_ref().map_or(0, |it| text(it.get()));
            PER_TOOL.saturating_add(text(name)).saturating_add(description).saturating_add(parameters)
        })
        .sum();
    let all = FRAME.saturating_add(system).saturating_add(items).saturating_add(tools);
    u32::try_from(all).unwrap_or(u32::MAX)
}

fn item(item: &InputItem<'_>) -> u64 {
    match item {
        InputItem::Message { content: it, .. }
        | InputItem::Typed(TypedItem::FunctionCallOutput { output: it, .. }) => content(it),
        InputItem::Typed(TypedItem::FunctionCall { name, arguments, .. }) => {
            PER_TOOL.saturating_add(text(name)).saturating_add(text(arguments))
        }
        // What is encrypted is about four characters a token, as text is.
        InputItem::Typed(TypedItem::Reasoning { summary, encrypted_content, .. }) => {
            let summary: u64 =
                summary.iter().map(|SummaryText::SummaryText { text: it }| text(it.get())).sum();
            let length = u64::try_from(encrypted_content.len()).unwrap_or(u64::MAX);
            summary.saturating_add(length / 4)
        }
    }
}

fn content(content: &Content<'_>) -> u64 {
    match content {
        Content::Text(it) => text(it.get()),
        Content::Parts(parts) => parts.iter().map(part).sum(),
    }
}

fn part(part: &InputPart<'_>) -> u64 {
    match part {
        InputPart::InputText { text: it } => text(it.get()),
        InputPart::InputImage { .. } => IMAGE,
        InputPart::InputFile { file_data, file_url, .. } => {
            let length = file_data.as_ref().or(file_url.as_ref()).map_or(0, |it| match &it.0 {
                Media::Link(link) => link.get().len(),
                Media::Data { data, .. } => data.len(),
            });
            pdf(length)
        }
    }
}
