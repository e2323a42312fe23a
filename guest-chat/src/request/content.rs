//! What stands beside tool calls in a turn, as Chat Completions has it: a string where there is text only, else parts.

use sallyport_guest_codec::parts::{self, Media, Parts};

use crate::chat::{File, ImageUrl, Part, Url, UserContent};

/// Parts as a user message's content.
pub(super) fn of_user(parts: Parts<'_>) -> UserContent<'_> {
    if parts.is_text() {
        return UserContent::Text(parts.split().0);
    }
    let part = |part| {
        Some(match part {
            parts::Part::Text(text) => Part::Text { text },
            parts::Part::Image(media) => Part::ImageUrl { image_url: ImageUrl { url: url(media) } },
            parts::Part::Pdf { name, media } => {
                Part::File { file: File { filename: name, file_data: url(media) } }
            }
            parts::Part::CachePoint => return None,
        })
    };
    UserContent::Parts(parts.into_iter().filter_map(part).collect())
}

fn url(media: Media<'_>) -> Url<'_> {
    match media {
        Media::Link(link) => Url::Link(link),
        Media::Data { media_type, data } => Url::Data { media_type, data },
    }
}
