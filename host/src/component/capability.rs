//! What a guest may ask of the host, where its world lists it: the client's body, counters, notes for the audit row.

pub(crate) mod inert;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::policy::sallyport::gateway::{counters, evidence, types};
use super::contract::{Attribute, BodyView, Segment};
use super::fault::Stop;
use super::state::State;

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
        out.debug_struct("Body").field("len", &self.view.bytes().len()).finish()
    }
}

// === impl State ===

impl types::Host for State {}

impl types::HostBody for State {
    fn len(&mut self, body: Resource<Body>) -> wasmtime::Result<u32> {
        self.host_call()?;
        let len = self.table.get(&body)?.view.bytes().len();
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

impl counters::Host for State {
    fn take(
        &mut self,
        key: String,
        cost: u32,
        limit: u32,
        window_ms: u32,
    ) -> wasmtime::Result<Result<u32, counters::Refused>> {
        self.host_call()?;
        let Some(counters) = &self.scene.counters else { return Err(Stop::Configuring.into()) };
        let window = Duration::from_millis(u64::from(window_ms));
        let taken = counters.take(&self.scene.tenant, &self.scene.component, &key, cost, limit, window);
        Ok(taken.map_err(|wait| counters::Refused {
            retry_after_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        }))
    }
}

// === private helpers ===

fn as_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
