//! Server-sent events, from bytes that come in any pieces: <https://html.spec.whatwg.org/multipage/server-sent-events.html>, section
//! 9.2.6. `id` and `retry` mean nothing to a gateway, which never reconnects.

use memchr::memchr2;

/// Collects lines into events.
#[derive(Debug, Default)]
pub struct Sse {
    /// The line that the last chunk left unfinished.
    line: Vec<u8>,
    /// The type of the event under way.
    name: Vec<u8>,
    /// The data of the event under way.
    data: Vec<u8>,
    /// Whether the event under way has data, be it empty.
    has_data: bool,
    /// Whether the last byte was a carriage return, so that a line feed right after it ends nothing.
    after_return: bool,
    begun: bool,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// Its type, from the field `event`; empty where there is none.
    pub name: &'a [u8],
    /// Its data: the values of its `data` fields, a line feed between them.
    pub data: &'a [u8],
}

/// A line or an event above [`LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The longest line, and the most data of one event.
pub const LIMIT: usize = 1 << 20;

// === impl Sse ===

impl Sse {
    /// Takes in a chunk and hands out each event that it completes. An event without data is none.
    pub fn push<E: From<TooLong>>(
        &mut self,
        mut chunk: &[u8],
        mut event: impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((&first, rest)) = chunk.split_first() {
            if self.after_return {
                self.after_return = false;
                if first == b'\n' {
                    chunk = rest;
                    continue;
                }
            }
            let Some(end) = memchr2(b'\n', b'\r', chunk) else {
                if self.line.len().saturating_add(chunk.len()) > LIMIT {
                    return Err(TooLong.into());
                }
                self.line.extend_from_slice(chunk);
                return Ok(());
            };
            let (line, rest) = chunk.split_at(end);
            self.after_return = rest.first() == Some(&b'\r');
            chunk = rest.split_first().map_or(&[], |(_, rest)| rest);
            if self.line.len().saturating_add(line.len()) > LIMIT {
                return Err(TooLong.into());
            }
            if self.line.is_empty() {
                self.end_of_line(line, &mut event)?;
            } else {
                self.line.extend_from_slice(line);
                let mut whole = std::mem::take(&mut self.line);
                self.end_of_line(&whole, &mut event)?;
                whole.clear();
                self.line = whole;
            }
        }
        Ok(())
    }

    /// The body is complete: hands out an event that lacks its blank line.
    pub fn end<E: From<TooLong>>(
        &mut self,
        mut event: impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_of_line(&line, &mut event)?;
        }
        self.dispatch(&mut event)
    }

    fn end_of_line<E: From<TooLong>>(
        &mut self,
        mut line: &[u8],
        event: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(event);
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            None => (line, &[] as &[u8]),
            Some(at) => {
                let (field, value) = line.split_at(at);
                let value = value.strip_prefix(b":").unwrap_or(value);
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
        };
        if field == b"event" {
            self.name.clear();
            self.name.extend_from_slice(value);
        }
        if field != b"data" {
            return Ok(());
        }
        if self.data.len().saturating_add(value.len()) > LIMIT {
            return Err(TooLong.into());
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn dispatch<E: From<TooLong>>(
        &mut self,
        event: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let has_data = std::mem::take(&mut self.has_data);
        let result = if has_data { event(SseEvent { name: &self.name, data: &self.data }) } else { Ok(()) };
        self.name.clear();
        self.data.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Sse, SseEvent, TooLong};

    fn events(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, TooLong> {
        let mut sse = Sse::default();
        let mut found = Vec::new();
        let mut keep = |SseEvent { name, data }: SseEvent<'_>| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((text(name), text(data)));
            Ok(())
        };
        for chunk in chunks {
            sse.push(chunk, &mut keep)?;
        }
        sse.end(&mut keep)?;
        Ok(found)
    }

    #[test]
    fn every_line_ending_and_every_split_gives_the_same_events() {
        for ending in ["\n", "\r\n", "\r"] {
            let stream = "\u{feff}: hi\ndata: {\"a\":1}\nid: 7\n\ndata:{\nevent: x\ndata:}\n\nevent: y\nretry: 5\n\ndatum: no\n\ndata\n\ndata: [DONE]"
                .replace('\n', ending);
            let bytes = stream.as_bytes();
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                let got = events(&[a, b]).unwrap();
                let got: Vec<_> = got.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
                let expected = [("", "{\"a\":1}"), ("x", "{\n}"), ("", ""), ("", "[DONE]")];
                assert_eq!(got, expected, "{ending:?} at {at}");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let half = vec![b'x'; LIMIT / 2 + 1];
        assert_eq!(events(&[b"data: ", &half, &half]), Err(TooLong));
        let line = [b"data: ".as_slice(), &half, b"\n"].concat();
        assert_eq!(events(&[&line, &line]), Err(TooLong));
    }
}
