//! What a guest may ask of the host, where its world lists it: the client's body, counters, notes for the audit row, and for
//! hooks that were granted egress.

pub(crate) mod egress;
pub(crate) mod inert;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::policy::sallyport::gateway::{counters, evidence};
use super::bindings::types;
use super::contract::{Attribute, BodyView, Bucket, Budget, Counters, CountersUnreachable, Segment, Window};
use super::fault::Stop;
use super::state::{Scene, State};

pub use self::egress::EgressCall;

/// The client's request body, as a resource.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Body {
    view: Arc<dyn BodyView>,
}

// === impl Body ===

impl Body {
    pub(crate) fn new(view: Arc<dyn BodyView>) -> Self {
        Self { view }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Body").field("len", &self.view.len()).finish()
    }
}

// === impl State ===

impl types::Host for State {}

impl types::HostBody for State {
    fn len(&mut self, body: Resource<Body>) -> wasmtime::Result<u32> {
        self.host_call()?;
        let len = self.table.get(&body)?.view.len();
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }

    fn read(&mut self, body: Resource<Body>, offset: u32, len: u32) -> wasmtime::Result<Vec<u8>> {
        self.host_call()?;
        let bytes = self.table.get(&body)?.view.bytes();
        let rest = bytes.get(as_usize(offset)..).unwrap_or_default();
        Ok(rest.get(..as_usize(len)).unwrap_or(rest).to_vec())
    }

    fn texts(&mut self, body: Resource<Body>) -> wasmtime::Result<Vec<Segment>> {
        self.host_call()?;
        Ok(self.table.get(&body)?.view.texts())
    }

    fn drop(&mut self, body: Resource<Body>) -> wasmtime::Result<()> {
        self.host_call()?;
        self.table.delete(body)?;
        Ok(())
    }
}

impl evidence::Host for State {
    fn note(&mut self, what: Attribute) -> wasmtime::Result<()> {
        self.host_call()?;
        State::note(self, what);
        Ok(())
    }
}

/// A guest waits for its counters on its fiber: the thread has other work meanwhile, and its own time does not run.
impl counters::Host for State {
    async fn take(
        &mut self,
        key: String,
        cost: u32,
        limit: u32,
        window_ms: u32,
    ) -> wasmtime::Result<Result<u32, counters::Refused>> {
        self.host_call()?;
        let taken = self.counters()?.take(self.bucket(&key, limit, window_ms), cost).await;
        Ok(taken.map_err(unreachable)?.map_err(refused))
    }

    async fn correct(
        &mut self,
        key: String,
        taken: u32,
        used: u32,
        limit: u32,
        window_ms: u32,
    ) -> wasmtime::Result<()> {
        self.host_call()?;
        let corrected = self.counters()?.correct(self.bucket(&key, limit, window_ms), taken, used).await;
        Ok(corrected.map_err(unreachable)?)
    }

    async fn reserve(
        &mut self,
        key: String,
        micro: String,
        cap: String,
        window: counters::Window,
    ) -> wasmtime::Result<Result<String, counters::Refused>> {
        self.host_call()?;
        let (micro, cap, window) = (amount(&micro)?, amount(&cap)?, known(&window)?);
        let reserved = self.counters()?.reserve(self.budget(&key, window), micro, cap).await;
        Ok(reserved.map_err(unreachable)?.map(|left| left.to_string()).map_err(refused))
    }

    async fn release(
        &mut self,
        key: String,
        reserved: String,
        spent: String,
        window: counters::Window,
    ) -> wasmtime::Result<()> {
        self.host_call()?;
        let (reserved, spent, window) = (amount(&reserved)?, amount(&spent)?, known(&window)?);
        let released = self.counters()?.release(self.budget(&key, window), reserved, spent).await;
        Ok(released.map_err(unreachable)?)
    }
}

impl State {
    fn counters(&self) -> Result<&dyn Counters, Stop> {
        self.scene.counters.as_deref().ok_or(Stop::Configuring)
    }

    fn bucket<'a>(&'a self, key: &'a str, limit: u32, window_ms: u32) -> Bucket<'a> {
        let Scene { tenant, component, seed, .. } = &self.scene;
        let window = Duration::from_millis(u64::from(window_ms));
        Bucket { tenant, component, key, limit, window, call: seed }
    }

    fn budget<'a>(&'a self, key: &'a str, window: Window) -> Budget<'a> {
        let Scene { tenant, component, began, .. } = &self.scene;
        Budget { tenant, component, key, window, at: *began }
    }
}

// === private helpers ===

fn amount(text: &str) -> Result<u64, Stop> {
    // `parse` would take a sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| Stop::Amount)
    } else {
        Err(Stop::Amount)
    }
}

/// A window that this host does not know is no shorter one that it does.
fn known(window: &counters::Window) -> Result<Window, Stop> {
    match window {
        counters::Window::Day => Ok(Window::Day),
        counters::Window::Month => Ok(Window::Month),
        counters::Window::Other(_) => Err(Stop::Window),
    }
}

fn unreachable(_: CountersUnreachable) -> Stop {
    Stop::Counters
}

fn refused(wait: Duration) -> counters::Refused {
    counters::Refused { retry_after_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX) }
}

fn as_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
