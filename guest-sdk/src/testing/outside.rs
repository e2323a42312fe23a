//! Servers for hooks that send requests: answers that a test put there, and what was asked.

use std::{cell::RefCell, collections::VecDeque};

use super::FakeHost;
use crate::{
    Evidence,
    hook::{EgressFault, Outside, Request, Response},
};

/// Requests that the gateway makes for one event.
const MOST: usize = 32;

/// The answers of one grant, in order; every other grant is not granted. Empty, it cannot be reached.
#[derive(Debug)]
pub struct FakeOutside {
    grant: &'static str,
    answers: RefCell<VecDeque<Result<Response, EgressFault>>>,
    asked: RefCell<Vec<Request>>,
    host: FakeHost,
}

// === impl FakeOutside ===

impl FakeOutside {
    /// A hook that has `grant`, and nobody there yet.
    pub fn new(grant: &'static str) -> Self {
        Self { grant, answers: RefCell::default(), asked: RefCell::default(), host: FakeHost::default() }
    }

    /// The next answer: a status and a body.
    #[must_use]
    pub fn answer(self, status: u16, body: &str) -> Self {
        let answer = Response { status, headers: Vec::new(), body: body.as_bytes().to_vec() };
        self.answers.borrow_mut().push_back(Ok(answer));
        self
    }

    /// No answer next time.
    #[must_use]
    pub fn fault(self, fault: EgressFault) -> Self {
        self.answers.borrow_mut().push_back(Err(fault));
        self
    }

    /// What was asked so far, in order.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.borrow().clone()
    }

    /// What was noted so far, in order.
    pub fn notes(&self) -> Vec<(String, String)> {
        self.host.notes()
    }
}

impl Evidence for FakeOutside {
    fn note(&self, name: &str, value: &str) {
        self.host.note(name, value);
    }
}

impl Outside for FakeOutside {
    fn fetch(&self, grant: &str, request: &Request) -> Result<Response, EgressFault> {
        if grant != self.grant {
            return Err(EgressFault::NotGranted);
        }
        if self.asked.borrow().len() >= MOST {
            return Err(EgressFault::TooMany);
        }
        self.asked.borrow_mut().push(request.clone());
        self.answers.borrow_mut().pop_front().unwrap_or(Err(EgressFault::Unreachable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_other_grants_do_not_exist() {
        let outside = FakeOutside::new("mod").answer(200, "ok").fault(EgressFault::TimedOut);
        let ask = |grant: &str| outside.fetch(grant, &Request::post_json("/v1/check", "{}"));
        assert_eq!(ask("mod").unwrap().body, b"ok");
        assert_eq!(ask("mod"), Err(EgressFault::TimedOut));
        assert_eq!(ask("mod"), Err(EgressFault::Unreachable));
        assert_eq!(ask("other"), Err(EgressFault::NotGranted));
        assert_eq!(outside.asked().len(), 3);
        assert_eq!(outside.asked()[0].headers[0].name, "content-type");
    }

    #[test]
    fn an_event_has_thirty_two_requests() {
        let outside = FakeOutside::new("mod");
        for _ in 0..MOST {
            assert_eq!(outside.fetch("mod", &Request::new("GET", "/")), Err(EgressFault::Unreachable));
        }
        assert_eq!(outside.fetch("mod", &Request::new("GET", "/")), Err(EgressFault::TooMany));
    }
}
