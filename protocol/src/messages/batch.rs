//! Batches of Messages requests: what a batch holds and where each request stands in its bytes, and what a line of its results says
//! was used. The shapes: <https://platform.claude.com/docs/en/api/creating-message-batches>.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::event::Usage;
use super::index::Span;

/// Most requests of a batch: each is judged as a call of its own.
pub const MOST_REQUESTS: usize = 10_000;
/// Longest `custom_id`.
const LONGEST_ID: usize = 64;

/// One request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchEntry {
    /// The client's name for it.
    pub custom_id: String,
    /// Where its `params`, a Messages request, stand in the body.
    pub params: Span,
}

/// Why a body is no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not JSON of the right shape: what the gateway does not know in it, nobody would have looked at.
    #[error("the body is no batch of requests: {0}")]
    Shape(String),
    /// No request at all.
    #[error("a batch holds at least one request")]
    Empty,
    /// A name that the API does not take.
    #[error(
        "the custom_id of request {index} is not 1 to {LONGEST_ID} letters, digits, hyphens and underscores"
    )]
    Id {
        /// Which request, from 0.
        index: usize,
    },
    /// A name that stands twice, so that nobody knows whose result is whose.
    #[error("request {index} has the custom_id {custom_id}, which an earlier one has")]
    Twice {
        /// Which request, from 0.
        index: usize,
        /// Its name.
        custom_id: String,
    },
}

/// What a request of a batch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchUsage {
    /// The model that answered.
    pub model: String,
    /// What was used.
    pub usage: Usage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchOutline<'a> {
    #[serde(borrow)]
    requests: BatchRequests<'a>,
}

struct BatchRequests<'a>(Vec<BatchRequest<'a>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRequest<'a> {
    custom_id: String,
    #[serde(borrow)]
    params: &'a RawValue,
}

/// Reads a batch. What stands beside `requests`, `custom_id` and `params` is refused: nobody would have judged it. Errors: see
/// [`BatchError`].
pub fn entries(body: &[u8]) -> Result<Vec<BatchEntry>, BatchError> {
    let read: BatchOutline<'_> =
        serde_json::from_slice(body).map_err(|error| BatchError::Shape(error.to_string()))?;
    if read.requests.0.is_empty() {
        return Err(BatchError::Empty);
    }
    let mut names = HashSet::new();
    let mut entries = Vec::with_capacity(read.requests.0.len());
    for (index, BatchRequest { custom_id, params }) in read.requests.0.into_iter().enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if custom_id.is_empty() || custom_id.len() > LONGEST_ID || !custom_id.bytes().all(plain) {
            return Err(BatchError::Id { index });
        }
        if !names.insert(custom_id.clone()) {
            return Err(BatchError::Twice { index, custom_id });
        }
        let params = Span::of_part(body, params.get().as_bytes())
            .ok_or_else(|| BatchError::Shape("a request lies outside of the body".to_owned()))?;
        entries.push(BatchEntry { custom_id, params });
    }
    Ok(entries)
}

/// What the request of this line of results used; `None` where it brought no message, or the line is none.
pub fn usage_of(line: &[u8]) -> Option<BatchUsage> {
    #[derive(Deserialize)]
    struct ResultLine {
        result: ResultOutline,
    }
    #[derive(Deserialize)]
    struct ResultOutline {
        message: Option<MessageOutline>,
    }
    #[derive(Deserialize)]
    struct MessageOutline {
        model: String,
        usage: Usage,
    }
    let ResultLine { result } = serde_json::from_slice(line).ok()?;
    let MessageOutline { model, usage } = result.message?;
    Some(BatchUsage { model, usage })
}

impl<'de: 'a, 'a> Deserialize<'de> for BatchRequests<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = BatchRequests<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of requests")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut requests = Vec::new();
                while let Some(request) = items.next_element()? {
                    if requests.len() == MOST_REQUESTS {
                        return Err(A::Error::custom(format_args!("more than {MOST_REQUESTS} requests")));
                    }
                    requests.push(request);
                }
                Ok(BatchRequests(requests))
            }
        }
        from.deserialize_seq(Bounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_found_where_it_stands_in_the_bytes() {
        let body = br#" {"requests" : [ {"custom_id":"a-1", "params": {"model":"m" } },{"params":{"model":"n"},"custom_id":"b"}]}"#;
        let read = entries(body).unwrap();
        let read: Vec<_> =
            read.iter().map(|entry| (entry.custom_id.as_str(), entry.params.of(body))).collect();
        assert_eq!(read, [("a-1", &br#"{"model":"m" }"#[..]), ("b", &br#"{"model":"n"}"#[..])]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_judged_by_nobody_is_no_batch() {
        let one = |request: &str| format!(r#"{{"requests":[{request}]}}"#);
        for body in [
            "[]".to_owned(),
            r#"{"requests":{}}"#.to_owned(),
            r#"{"requests":[],"requests":[]}"#.to_owned(),
            r#"{"requests":[{"custom_id":"a","params":{}}],"system":"beside it"}"#.to_owned(),
            one(r#"{"custom_id":"a"}"#),
            one(r#"{"custom_id":"a","params":{},"params":{}}"#),
            one(r#"{"custom_id":"a","params":{},"Params":{}}"#),
            one(r#"{"custom_id":"a","params":{}}"#) + "x",
        ] {
            assert!(matches!(entries(body.as_bytes()), Err(BatchError::Shape(_))), "{body}");
        }
        assert_eq!(entries(br#"{"requests":[]}"#), Err(BatchError::Empty));
        for id in ["", "a b", "\u{e9}", &"x".repeat(65)] {
            let body = one(&format!(r#"{{"custom_id":"{id}","params":{{}}}}"#));
            assert_eq!(entries(body.as_bytes()), Err(BatchError::Id { index: 0 }), "{id}");
        }
        let twice = one(r#"{"custom_id":"a","params":{}},{"custom_id":"a","params":{}}"#);
        let named = BatchError::Twice { index: 1, custom_id: "a".to_owned() };
        assert_eq!(entries(twice.as_bytes()), Err(named));
    }

    #[test]
    fn a_batch_of_too_many_requests_is_not_read_to_its_end() {
        let request = |number: usize| format!(r#"{{"custom_id":"r{number}","params":{{}}}}"#);
        let batch = |count: usize| {
            let all: Vec<_> = (0..count).map(request).collect();
            format!(r#"{{"requests":[{}]}}"#, all.join(","))
        };
        assert_eq!(entries(batch(MOST_REQUESTS).as_bytes()).unwrap().len(), MOST_REQUESTS);
        assert!(matches!(entries(batch(MOST_REQUESTS + 1).as_bytes()), Err(BatchError::Shape(_))));
    }

    #[test]
    fn a_line_of_results_says_what_was_used_where_there_is_an_answer() {
        let line = br#"{"custom_id":"a","result":{"type":"succeeded","message":{"id":"msg_1","model":"claude-opus-4-5","usage":
            {"input_tokens":10,"output_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":3},"cache_creation_input_tokens":4}}}}"#;
        let BatchUsage { model, usage } = usage_of(line).unwrap();
        assert_eq!(
            (model.as_str(), usage.input, usage.cache_write_1h),
            ("claude-opus-4-5", Some(10), Some(3))
        );
        let errored =
            br#"{"custom_id":"a","result":{"type":"errored","error":{"type":"invalid_request_error"}}}"#;
        for line in [&errored[..], b"", b"{", br#"{"custom_id":"a","result":{"type":"expired"}}"#] {
            assert_eq!(usage_of(line), None);
        }
    }
}
