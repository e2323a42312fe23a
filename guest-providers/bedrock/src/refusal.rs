//! Errors of Bedrock: a status and `{"message": ...}`, with the error's name in a header, or an exception in the middle of a stream
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html#API_runtime_InvokeModelWithResponseStream_Errors>).

use sallyport_guest_codec::error::{self, UpstreamError};
use sallyport_guest_sdk::provider::{Failure, ResponseHead};

/// Names of exceptions, and the status of the Messages API that each means; the service's own, but for a quota, which is none of the
/// client's making, and a model that failed, which may answer another time.
const EXCEPTIONS: [(&str, u16); 10] = [
    ("validationexception", 400),
    ("resourcenotfoundexception", 404),
    ("modeltimeoutexception", 408),
    ("throttlingexception", 429),
    ("servicequotaexceededexception", 429),
    ("modelnotreadyexception", 503),
    ("serviceunavailableexception", 503),
    ("modelerrorexception", 502),
    ("modelstreamerrorexception", 502),
    ("internalserverexception", 500),
];

/// What an answer stands for whose status is no success.
pub(crate) fn of_answer(head: &ResponseHead, body: &[u8]) -> Failure {
    let name = head.header("x-amzn-errortype").unwrap_or_default();
    let name = name.split([':', '#']).next().unwrap_or_default();
    let status = status(name).unwrap_or(head.status);
    let told = error::of_answer(&ResponseHead { status, headers: head.headers.clone() }, body);
    named(told, name)
}

/// An exception in the middle of a stream.
pub(crate) fn of_exception(name: &str, payload: &[u8]) -> Failure {
    let told = UpstreamError::read(payload);
    named(error::of_object(&UpstreamError { status: status(name), ..told }), name)
}

fn status(name: &str) -> Option<u16> {
    let name = name.to_ascii_lowercase();
    EXCEPTIONS.iter().find(|(known, _)| *known == name).map(|(_, status)| *status)
}

/// The upstream's own name of the error stands behind its words.
fn named(mut failure: Failure, name: &str) -> Failure {
    let plain = !name.is_empty() && name.len() <= 64 && name.bytes().all(|it| it.is_ascii_alphanumeric());
    if plain && !failure.message.contains(name) {
        failure.message.extend([" [", name, "]"]);
    }
    failure
}
