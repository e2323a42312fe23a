//! What form an answer has. Servers and the proxies before them send events where one text was asked for, one text where events
//! were, and events as plain text; the first bytes say what it is, and only where they do not the announced type does.

use sallyport_guest_sdk::provider::ResponseHead;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events.
    Events,
    /// One JSON text.
    Json,
    /// Neither.
    Other,
}

/// Fields that a stream of events begins with.
const FIELDS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b"retry:"];
const MARK: &[u8] = b"\xef\xbb\xbf";
/// White space before an answer that is put up with.
const MOST_SPACE: usize = 4096;

/// The form of an answer that begins with `body`; nothing where more has to come to tell. `is_all`: no more comes.
pub fn form_of(body: &[u8], head: &ResponseHead, is_all: bool) -> Option<Form> {
    if !is_all && MARK.starts_with(body) {
        return None;
    }
    let text = body.strip_prefix(MARK).unwrap_or(body).trim_ascii_start();
    let announced = || match media_type(head).as_deref() {
        Some("text/event-stream" | "application/vnd.amazon.eventstream") => Form::Events,
        Some("application/json" | "text/json") | None => Form::Json,
        Some(_) => Form::Other,
    };
    if text.starts_with(b"{") {
        return Some(Form::Json);
    }
    if text.starts_with(b":") || FIELDS.iter().any(|it| text.starts_with(it)) {
        return Some(Form::Events);
    }
    let may_become = FIELDS.iter().any(|it| it.starts_with(text));
    if may_become && !is_all && body.len() < MOST_SPACE {
        return None;
    }
    Some(announced())
}

fn media_type(head: &ResponseHead) -> Option<String> {
    let value = head.header("content-type")?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{Form, form_of};
    use sallyport_guest_sdk::provider::ResponseHead;
    use sallyport_guest_sdk::testing::attribute;

    fn told(media_type: &str, body: &str) -> Option<Form> {
        let head = ResponseHead { status: 200, headers: vec![attribute("content-type", media_type)] };
        form_of(body.as_bytes(), &head, false)
    }

    #[test]
    fn the_first_bytes_say_what_an_answer_is() {
        for media_type in ["text/event-stream", "application/json", "text/plain; charset=utf-8", "text/html"]
        {
            assert_eq!(told(media_type, "\n {\"id\":1"), Some(Form::Json));
            assert_eq!(told(media_type, "data: {"), Some(Form::Events));
            assert_eq!(told(media_type, "\u{feff}: keep-alive"), Some(Form::Events));
            assert_eq!(told(media_type, "dat"), None);
            assert_eq!(told(media_type, "  "), None);
        }
        assert_eq!(told("text/html", "<html>"), Some(Form::Other));
        assert_eq!(told("text/plain", "error: no"), Some(Form::Other));
        assert_eq!(told("text/event-stream", "x"), Some(Form::Events));
        assert_eq!(told("application/json", "x"), Some(Form::Json));
    }
}
