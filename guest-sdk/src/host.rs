//! What a policy or a hook may ask of the gateway, as traits: the component calls the real one, a native test a double.

use std::time::Duration;

use crate::Attribute;
use crate::bindings::hook::sallyport::gateway::egress;
pub use crate::bindings::hook::sallyport::gateway::egress::{EgressFault, Request, Response};
use crate::bindings::policy::sallyport::gateway::{counters, evidence};

/// The time over which a cap holds, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// Notes for the audit row.
pub trait Evidence {
    /// Adds a note to the row. At most 16 KiB per call of a component; the host drops more and says so.
    fn note(&self, name: &str, value: &str);
}

/// What a policy may ask of the gateway.
pub trait Host: Evidence {
    /// Takes `cost` from a bucket that refills `limit` per `window` (GCRA, the generic cell rate algorithm).
    /// Answers what is left, or how long to wait until the same request would fit. The gateway keeps the keys of
    /// different components and tenants apart. Calls that run at the same time never take more together than there is; where
    /// several gateways share the load, each may keep counters of its own.
    fn take(&self, key: &str, cost: u32, limit: u32, window: Duration) -> Result<u32, Duration>;

    /// Books `used` instead of the `taken` that this call took from the bucket before. Less is given back as far as it has not
    /// refilled meanwhile; more leaves the bucket in debt, by at most one window. Once for each `take`.
    fn correct(&self, key: &str, taken: u32, used: u32, limit: u32, window: Duration);

    /// Reserves `micro` microdollars under a cap of `cap` in the window in which the call began: what was spent and what is
    /// reserved never exceed it together. Answers what is left under the cap, or how long until the window ends.
    fn reserve(&self, key: &str, micro: u64, cap: u64, window: Window) -> Result<u64, Duration>;

    /// Gives `reserved` back and books `spent` instead, which may be more: from `settle`, once for each `reserve`.
    fn release(&self, key: &str, reserved: u64, spent: u64, window: Window);
}

/// What a hook may ask of the gateway that was granted requests to other servers.
pub trait Outside: Evidence {
    /// Makes one request and waits for the whole answer, at most 32 times an event. `grant` is a name that the package
    /// declares as the capability `egress:<name>`; authority and credential are the gateway's. Redirects are not followed.
    fn fetch(&self, grant: &str, request: &Request) -> Result<Response, EgressFault>;
}

/// The gateway itself, behind the imports of the world.
#[derive(Debug, Clone, Copy)]
pub struct Gateway;

// === impl Gateway ===

impl Evidence for Gateway {
    fn note(&self, name: &str, value: &str) {
        evidence::note(&Attribute { name: name.to_owned(), value: value.to_owned() });
    }
}

impl Host for Gateway {
    fn take(&self, key: &str, cost: u32, limit: u32, window: Duration) -> Result<u32, Duration> {
        let window = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        counters::take(key, cost, limit, window)
            .map_err(|refused| Duration::from_millis(refused.retry_after_ms.into()))
    }

    fn correct(&self, key: &str, taken: u32, used: u32, limit: u32, window: Duration) {
        let millis = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        counters::correct(key, taken, used, limit, millis);
    }

    fn reserve(&self, key: &str, micro: u64, cap: u64, window: Window) -> Result<u64, Duration> {
        match counters::reserve(key, &micro.to_string(), &cap.to_string(), &window.into()) {
            Ok(left) => Ok(left.parse().unwrap_or(0)),
            Err(refused) => Err(Duration::from_millis(refused.retry_after_ms.into())),
        }
    }

    fn release(&self, key: &str, reserved: u64, spent: u64, window: Window) {
        counters::release(key, &reserved.to_string(), &spent.to_string(), &window.into());
    }
}

impl Outside for Gateway {
    fn fetch(&self, grant: &str, request: &Request) -> Result<Response, EgressFault> {
        egress::fetch(grant, request)
    }
}

// === impl Window ===

impl From<Window> for counters::Window {
    fn from(window: Window) -> Self {
        match window {
            Window::Day => Self::Day,
            Window::Month => Self::Month,
        }
    }
}

// === impl Request ===

impl Request {
    /// A request without headers and body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A `POST` of JSON.
    pub fn post_json(path: &str, json: impl Into<Vec<u8>>) -> Self {
        Self { body: json.into(), ..Self::new("POST", path) }.header("content-type", "application/json")
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(Attribute { name: name.to_owned(), value: value.to_owned() });
        self
    }
}

// === impl Response ===

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value.as_str())
    }
}
