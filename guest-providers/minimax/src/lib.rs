//! `MiniMax` behind Anthropic Messages, which it speaks itself: a byte proxy
//! (<https://platform.minimax.io/docs/api-reference/text-anthropic-api>). The vendor wants every block of its replies back as it was,
//! thinking too, so nothing is left out.

use std::rc::Rc;

use sallyport_guest_codec::proxy::forward;
use sallyport_guest_sdk::NoConfig;
use sallyport_guest_sdk::provider::{Begun, Failure, Over, Provider, Request};

/// The vendor `MiniMax`.
#[derive(Debug)]
pub struct MiniMax;

sallyport_guest_sdk::export_provider!(MiniMax);

// === impl MiniMax ===

impl Provider for MiniMax {
    type Config = NoConfig;
    type Exchange = Over;

    fn configure(_: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Over>, Failure> {
        Ok(forward(request, Vec::new(), None))
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::provider::{Output, RequestBody};
    use sallyport_guest_sdk::testing::{attribute, converse, golden, request, transcript};

    use super::MiniMax;

    #[test]
    fn a_call_is_passed_on_as_the_golden_cases_say() {
        golden(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), |body| {
            let mut request = request(body);
            request.upstream_model = "MiniMax-M2.7".into();
            transcript(body, &converse::<MiniMax>("{}", request, []).unwrap())
        });
    }

    #[test]
    fn its_thinking_goes_back_as_it_was_whatever_its_signature() {
        let body = r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""}]}]}"#;
        let mut call = request(body);
        call.call.attributes.push(attribute("unsigned_thinking", "true"));
        let outputs = converse::<MiniMax>("{}", call, []).unwrap();
        let [Output::SendThenForward(sent)] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(sent.body, RequestBody::Original);
    }
}
