//! The exchange as the host drives it: golden cases, every byte split of every recorded stream, real clients'
//! requests, and input that makes no sense.

mod cases;
mod exchange;
mod fixtures;
mod fuzz;

use sallyport_guest_codec::golden::{self, Outcome, Suite};
use sallyport_guest_sdk::provider::{Input, Request};
use sallyport_guest_sdk::testing::{self, attribute};

use crate::OpenAi;

/// A Messages request for `model`.
fn request(body: &str, model: &str) -> Request {
    let mut request = testing::request(body);
    model.clone_into(&mut request.upstream_model);
    with_facts(&mut request);
    request
}

/// Adds what the gateway knows of the model, as it does.
pub(crate) fn with_facts(request: &mut Request) {
    let table = sallyport_protocol::facts::FactTable::shipped().expect("the table is good");
    let facts = table.of("openai", &request.upstream_model);
    request.call.attributes.extend(facts.json().map(|it| attribute("model_facts", &it)));
}

/// Runs an exchange to its end.
fn run(config: &str, request: Request, inputs: impl IntoIterator<Item = Input>) -> Outcome {
    golden::run::<OpenAi>(config, request, inputs)
}

fn suite() -> Suite<OpenAi> {
    Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).prepared(with_facts)
}

#[test]
fn each_case_comes_out_as_recorded() {
    assert!(suite().cases().len() > 50, "all cases are there");
    suite().check_outcomes();
}

#[test]
fn a_stream_comes_out_the_same_at_every_byte_split() {
    suite().check_splits();
}

#[test]
fn a_stream_cut_at_any_byte_is_whole_or_a_failure() {
    suite().check_cuts();
}
