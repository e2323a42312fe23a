//! One client call at an upstream that is asked once: the state machine between the request that was sent and the end of its answer.
//! What the answer's bytes mean is the provider's, a [`Decode`].

use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::{
    Exchange, Failure, Input, Output, ResponseHead, StreamEvent, TransportFault,
};

use crate::error::{self, UpstreamError};
use crate::form::{Form, form_of};

/// The largest whole answer that is read.
pub const LIMIT: usize = 16 << 20;

/// Turns an answer's bytes into events of a Messages stream.
pub trait Decode: Sized + 'static {
    /// Bytes of a streamed answer.
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Failure>;
    /// The streamed answer is complete.
    fn end(&mut self) -> Result<(), Failure>;
    /// The connection broke within a streamed answer.
    fn failed(&mut self, fault: &TransportFault) -> Result<(), Failure>;
    /// A whole answer, where events were asked for: as the events that it would have been.
    fn whole(&mut self, body: &[u8]) -> Result<(), Failure>;
    /// A whole answer, where one was asked for. Without an own form the host folds the events of [`Decode::whole`].
    fn reply(mut self, body: &[u8]) -> (Vec<Output>, Result<(), Failure>) {
        let read = self.whole(body);
        (self.take().into_iter().map(Output::Event).collect(), read)
    }
    /// Headers of the answer that the client shall see. `now_ms` is the time of the call.
    fn headers(head: &ResponseHead, now_ms: u64) -> Vec<Attribute>;
    /// The failure that an answer with a status that is no success stands for.
    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        error::of_answer(head, body)
    }
    /// What was said since this was asked last.
    fn take(&mut self) -> Vec<StreamEvent>;
    /// Whether all was said.
    fn is_over(&self) -> bool;
}

/// One client call.
pub struct Asked<D> {
    state: State<D>,
    streaming: bool,
    now_ms: u64,
}

enum State<D> {
    /// The request is out.
    Asking(D),
    /// An answer begins; whether it is events or one text is what its first bytes say.
    Beginning(D, ResponseHead, Vec<u8>),
    /// A streamed answer comes in.
    Streaming(Box<D>),
    /// A whole answer comes in.
    Collecting(D, Vec<u8>),
    /// An answer comes in that is none; only its words matter.
    Failing(ResponseHead, Vec<u8>),
    Over,
}

// === impl Asked ===

impl<D: Decode> Asked<D> {
    /// A call whose request was sent. `time_ms` is the time of the call, as its facts have it.
    pub fn new(decoder: D, streaming: bool, time_ms: &str) -> Self {
        Self { state: State::Asking(decoder), streaming, now_ms: time_ms.parse().unwrap_or_default() }
    }

    fn head(&mut self, decoder: D, head: ResponseHead) -> Vec<Output> {
        let passed = D::headers(&head, self.now_ms);
        self.state = if (200..300).contains(&head.status) {
            State::Beginning(decoder, head, Vec::new())
        } else {
            State::Failing(head, Vec::new())
        };
        if passed.is_empty() { Vec::new() } else { vec![Output::ResponseHeaders(passed)] }
    }

    /// Goes on with an answer whose form is known.
    fn begun(
        &mut self,
        form: Form,
        decoder: D,
        head: ResponseHead,
        body: Vec<u8>,
    ) -> Result<Vec<Output>, Failure> {
        self.state = match form {
            Form::Events => State::Streaming(Box::new(decoder)),
            Form::Json => State::Collecting(decoder, Vec::new()),
            Form::Other => State::Failing(head, Vec::new()),
        };
        if body.is_empty() { Ok(Vec::new()) } else { self.next(Input::Chunk(body)) }
    }
}

impl<D: Decode> Exchange for Asked<D> {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        if matches!(input, Input::Other(_)) {
            return Ok(Vec::new());
        }
        match (std::mem::replace(&mut self.state, State::Over), input) {
            (State::Asking(decoder), Input::Head(head)) => Ok(self.head(decoder, head)),
            (State::Beginning(decoder, head, mut body), Input::Chunk(bytes)) => {
                body.extend_from_slice(&bytes);
                match form_of(&body, &head, false) {
                    None => {
                        self.state = State::Beginning(decoder, head, body);
                        Ok(Vec::new())
                    }
                    Some(form) => self.begun(form, decoder, head, body),
                }
            }
            (State::Beginning(decoder, head, body), Input::End) => {
                let form = form_of(&body, &head, true).unwrap_or(Form::Other);
                let mut outputs = self.begun(form, decoder, head, body)?;
                outputs.extend(self.next(Input::End)?);
                Ok(outputs)
            }
            (State::Streaming(mut decoder), Input::Chunk(bytes)) => {
                let read = decoder.chunk(&bytes);
                let goes_on = read.is_ok() && !decoder.is_over();
                let outputs = said(&mut *decoder, read);
                if goes_on {
                    self.state = State::Streaming(decoder);
                }
                Ok(outputs)
            }
            (State::Streaming(mut decoder), Input::End) => {
                let read = decoder.end();
                Ok(said(&mut *decoder, read))
            }
            (State::Streaming(mut decoder), Input::Failed(fault)) => {
                let read = decoder.failed(&fault);
                Ok(said(&mut *decoder, read))
            }
            (State::Collecting(decoder, mut body), Input::Chunk(bytes)) => {
                if body.len().saturating_add(bytes.len()) > LIMIT {
                    return Err(error::garbage("the upstream's answer is larger than 16 MiB"));
                }
                body.extend_from_slice(&bytes);
                self.state = State::Collecting(decoder, body);
                Ok(Vec::new())
            }
            (State::Collecting(mut decoder, body), Input::End) if self.streaming => {
                let read = decoder.whole(&body);
                Ok(said(&mut decoder, read))
            }
            (State::Collecting(decoder, body), Input::End) => {
                let (mut outputs, read) = decoder.reply(&body);
                outputs.push(read.map_or_else(Output::Fail, |()| Output::Done));
                Ok(outputs)
            }
            (State::Failing(head, mut body), Input::Chunk(bytes)) => {
                let room = error::LIMIT.saturating_sub(body.len());
                body.extend(bytes.into_iter().take(room));
                if body.len() >= error::LIMIT {
                    return Err(failed::<D>(&head, &body));
                }
                self.state = State::Failing(head, body);
                Ok(Vec::new())
            }
            // An error that broke off is an error still.
            (State::Failing(head, body), Input::End | Input::Failed(_)) => Err(failed::<D>(&head, &body)),
            (State::Asking(_) | State::Beginning(..) | State::Collecting(..), Input::Failed(fault)) => {
                Err(Failure::transport(&fault))
            }
            // What the upstream says after its answer is of no interest.
            (State::Over, Input::Chunk(_) | Input::End | Input::Failed(_)) => Ok(Vec::new()),
            _ => Err(Failure::out_of_order()),
        }
    }
}

// === private helpers ===

/// The failure that an answer stands for which is none: not a success, or not of the type asked for.
fn failed<D: Decode>(head: &ResponseHead, body: &[u8]) -> Failure {
    if !(200..300).contains(&head.status) {
        return D::refusal(head, body);
    }
    let said = UpstreamError::read(body);
    if said.is_empty() {
        let got = head.header("content-type").unwrap_or_default();
        let got: String = got.chars().filter(|it| !it.is_control()).take(64).collect();
        error::garbage(format!("the upstream answered with {got:?} where JSON or events were asked for"))
    } else {
        error::of_object(&said)
    }
}

/// What a decoder has to say after what it read. What came before a failure is still said.
fn said(decoder: &mut impl Decode, read: Result<(), Failure>) -> Vec<Output> {
    let mut outputs: Vec<Output> = decoder.take().into_iter().map(Output::Event).collect();
    match read {
        Err(failure) => outputs.push(Output::Fail(failure)),
        Ok(()) if decoder.is_over() => outputs.push(Output::Done),
        Ok(()) => {}
    }
    outputs
}
