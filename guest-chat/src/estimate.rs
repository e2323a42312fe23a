//! An estimate of a request's input tokens. The formula is in the README.

use sallyport_guest_codec::estimate::{FRAME, IMAGE, PER_MESSAGE, PER_TOOL, pdf, text};

use crate::chat::{Message, Part, Request, Url, UserContent};

/// Input tokens of a request.
pub(crate) fn tokens(request: &Request<'_>) -> u32 {
    let messages: u64 = request.messages.iter().map(|it| PER_MESSAGE.saturating_add(message(it))).sum();
    let tools: u64 = request
        .tools
        .iter()
        .map(|tool| {
            let description = tool.function.description.map_or(0, |it| text(it.get()));
            let parameters = tool.function.parameters.as_ref().map_or(0, |it| text(it.get()));
            let texts = description.saturating_add(parameters);
            PER_TOOL.saturating_add(text(&tool.function.name)).saturating_add(texts)
        })
        .sum();
    u32::try_from(FRAME.saturating_add(messages).saturating_add(tools)).unwrap_or(u32::MAX)
}

fn message(message: &Message<'_>) -> u64 {
    match message {
        Message::System { content }
        | Message::Developer { content }
        | Message::User { content: UserContent::Text(content) } => text(content.get()),
        Message::User { content: UserContent::Parts(parts) } => parts.iter().map(part).sum(),
        Message::Assistant { content, reasoning_content, tool_calls } => {
            let calls: u64 = tool_calls
                .iter()
                .map(|it| {
                    PER_TOOL
                        .saturating_add(text(&it.function.name))
                        .saturating_add(text(it.function.arguments))
                })
                .sum();
            let texts = [content, reasoning_content].into_iter().flatten();
            texts.map(|it| text(it.get())).sum::<u64>().saturating_add(calls)
        }
        Message::Tool { content, .. } => PER_MESSAGE.saturating_add(text(content.get())),
    }
}

fn part(part: &Part<'_>) -> u64 {
    match part {
        Part::Text { text: it } => text(it.get()),
        Part::ImageUrl { .. } => IMAGE,
        Part::File { file } => pdf(match &file.file_data {
            Url::Link(link) => link.get().len(),
            Url::Data { data, .. } => data.len(),
        }),
    }
}
