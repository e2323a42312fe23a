//! Calls: a fresh store for each, limits on everything in it, and what came of it. Nothing of a call outlives it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::bindings::provider as provider_world;
use super::capability::Body;
use super::contract::provider::{Input, Output, RequestKind};
use super::contract::{Attribute, BodyView, Call};
use super::engine::Fuel;
use super::fault::Fault;
use super::guest::{Guest, Runner};
use super::lane::SlowLane;
use super::limits::Limits;
use super::link::Linked;
use super::meter::Meter;
use super::question::{GuestReply, Question};
use super::ran::Ran;
use super::ready::Component;
use super::state::{Left, Scene, State};

type ProviderRequest = provider_world::exports::sallyport::gateway::provider_api::MessagesRequest;

/// What a guest came to, in wasmtime's words.
type Called<T> = wasmtime::Result<Result<T, Fault>>;

/// One client call, for a provider.
pub struct ExchangeRequest {
    /// Its facts.
    pub call: Call,
    /// Its bytes.
    pub body: Arc<dyn BodyView>,
    /// The model that the upstream is to be asked for.
    pub upstream_model: String,
    /// Where the `model` value stands in the body, quotes included: (offset, length).
    pub model_span: (u32, u32),
    /// Headers that travel, lower-case names.
    pub headers: Vec<Attribute>,
    /// What the client asked for.
    pub kind: RequestKind,
    /// Path and query of the client's request.
    pub target: String,
}

/// A provider at work on one client call. Dropped, it is gone, whatever it was doing.
pub struct Exchange {
    live: Option<Live>,
    /// Of the exchange so far: what it may take in all grows with each input.
    limits: Limits,
    lane: Arc<SlowLane>,
    guest: Arc<Guest>,
    component: Arc<Component>,
    micros: u32,
    memory: usize,
    spent: Option<u64>,
    fuel: Fuel,
    left: Left,
    /// How often the guest was called.
    calls: u32,
}

struct Live {
    store: Store<State>,
    provider: provider_world::Provider,
    _place: OwnedSemaphorePermit,
}

/// A store on its way through one call. It travels with the guest, which may go on in another thread, and comes back.
struct Run {
    store: Store<State>,
    guest: Arc<Guest>,
    place: OwnedSemaphorePermit,
}

/// Makes an instance, configures it where the code is no snapshot, and calls it: one future that is metered as a whole.
/// A macro, since every world has its own type of instance.
macro_rules! guest {
    ($run:ident, $world:ident, $instance:ident, $store:ident => $call:expr) => {
        async move {
            let Run { store, guest, .. } = &mut $run;
            let called = async {
                let Linked::$world(pre) = &guest.linked else { return Ok(Err(wrong_kind(guest))) };
                let $store = store;
                let $instance = pre.instantiate_async(&mut *$store).await?;
                if let Some(config) = guest.config.as_deref() {
                    let configured = $instance
                        .sallyport_gateway_configurable()
                        .call_configure(&mut *$store, config)
                        .await?;
                    if let Err(message) = configured {
                        return Ok(Err(Fault::Configure { message }));
                    }
                }
                Ok::<_, wasmtime::Error>(Ok($call))
            }
            .await;
            ($run, called)
        }
    };
}

// === impl Runner ===

impl Runner {
    /// Puts a question to a guest, in an instance of its own. `body` is what the question is about, if it is about one.
    pub(super) async fn ask(
        &self,
        guest: &Arc<Guest>,
        scene: Scene,
        question: Question<'_>,
        body: Option<Arc<dyn BodyView>>,
    ) -> Ran<GuestReply> {
        let handed = question.handed();
        match (question, body) {
            (Question::Check { call, .. }, Some(body)) => {
                self.one_call(guest, scene, handed, |mut run| {
                    guest!(run, Policy, instance, store => {
                        let body = store.data_mut().table.push(Body::new(body))?;
                        let rep = body.rep();
                        let api = instance.sallyport_gateway_policy_api();
                        let verdict = api.call_check(&mut *store, &call, body).await?;
                        store.data_mut().table.delete(Resource::<Body>::new_own(rep))?;
                        GuestReply::Verdict(verdict)
                    })
                })
                .await
            }
            (Question::Matches { call, .. }, Some(body)) => {
                self.one_call(guest, scene, handed, |mut run| {
                    guest!(run, Predicate, instance, store => {
                        let body = store.data_mut().table.push(Body::new(body))?;
                        let rep = body.rep();
                        let api = instance.sallyport_gateway_predicate_api();
                        let matches = api.call_matches(&mut *store, &call, body).await?;
                        store.data_mut().table.delete(Resource::<Body>::new_own(rep))?;
                        GuestReply::Matches(matches)
                    })
                })
                .await
            }
            (Question::Settle { call, spent }, _) => {
                self.one_call(guest, scene, handed, |mut run| {
                    guest!(run, Policy, instance, store => {
                        instance.sallyport_gateway_policy_api().call_settle(&mut *store, &call, &spent).await?;
                        GuestReply::Settled
                    })
                })
                .await
            }
            (Question::Scan { kind, text }, _) => {
                let text = text.into_owned();
                self.one_call(guest, scene, handed, |mut run| {
                    guest!(run, Scanner, instance, store => {
                        let api = instance.sallyport_gateway_scanner_api();
                        GuestReply::Findings(api.call_scan(&mut *store, kind, &text).await?)
                    })
                })
                .await
            }
            (Question::Event(what), _) => {
                let what = what.into_owned();
                self.one_call(guest, scene, handed, |mut run| {
                    guest!(run, Hook, instance, store => {
                        let api = instance.sallyport_gateway_hook_api();
                        GuestReply::Outcome(api.call_on_event(&mut *store, &what).await?)
                    })
                })
                .await
            }
            (Question::Check { .. } | Question::Matches { .. }, None) => {
                Ran::failed(Fault::Garbage { what: "a question about a body came without it".to_owned() })
            }
        }
    }

    /// Puts a provider to work on one client call: what it says first.
    pub(super) async fn exchange(
        &self,
        component: &Arc<Component>,
        guest: &Arc<Guest>,
        scene: Scene,
        request: ExchangeRequest,
    ) -> Result<(Exchange, Vec<Output>), Fault> {
        let limits = guest.limits.handed(request.body.len());
        let mut run = self.begin(guest, scene, limits)?;
        let meter = run.start();
        let calling = guest!(run, Provider, instance, store => {
            let ExchangeRequest { call, body, upstream_model, model_span, headers, kind, target } = request;
            let body = store.data_mut().table.push(Body::new(body))?;
            let request = ProviderRequest { call, body, upstream_model, model_span, headers, kind, target };
            let outputs = instance.sallyport_gateway_provider_api().call_begin(&mut *store, &request).await?;
            (instance, outputs)
        });
        let (run, called) = metered(guest, &limits, &self.lane, &meter, calling).await?;
        let (provider, outputs) = answer(called, &limits)?;
        let Run { store, place, .. } = run;
        let fuel = self.fuel;
        let exchange = Exchange {
            micros: micros(&meter),
            memory: store.data().memory(),
            spent: spent(&store, fuel),
            fuel,
            live: Some(Live { store, provider, _place: place }),
            limits: Limits { cpu: guest.limits.cpu, ..limits },
            lane: Arc::clone(&self.lane),
            guest: Arc::clone(guest),
            component: Arc::clone(component),
            left: Left::default(),
            calls: 1,
        };
        Ok((exchange, outputs))
    }

    /// Makes one instance and drops it.
    pub(super) async fn try_out(&self, guest: &Arc<Guest>, scene: Scene) -> Result<(), Fault> {
        macro_rules! tried {
            ($world:ident) => {
                self.one_call(guest, scene, 0, |mut run| {
                    guest!(run, $world, _instance, store => store.data().within_limits()?)
                })
                .await
            };
        }
        let tried = match &guest.linked {
            Linked::Policy(_) => tried!(Policy),
            Linked::Hook(_) => tried!(Hook),
            Linked::Provider(_) => tried!(Provider),
            Linked::Scanner(_) => tried!(Scanner),
            Linked::Predicate(_) => tried!(Predicate),
        };
        tried.result
    }

    /// Takes a place in the pool.
    fn begin(&self, guest: &Arc<Guest>, scene: Scene, limits: Limits) -> Result<Run, Fault> {
        let place =
            Arc::clone(&self.places).try_acquire_many_owned(guest.weight).map_err(|_| Fault::Exhausted)?;
        let store = State::store(&self.engine, self.fuel, limits, scene);
        Ok(Run { store, guest: Arc::clone(guest), place })
    }

    /// One call in a store of its own, which hands `handed` bytes over.
    async fn one_call<T, G>(
        &self,
        guest: &Arc<Guest>,
        scene: Scene,
        handed: usize,
        calling: impl FnOnce(Run) -> G + Send,
    ) -> Ran<T>
    where
        T: Send + 'static,
        G: Future<Output = (Run, Called<T>)> + Send + 'static,
    {
        let limits = guest.limits.handed(handed);
        let run = match self.begin(guest, scene, limits) {
            Ok(run) => run,
            Err(fault) => return Ran::failed(fault),
        };
        let meter = run.start();
        let ran = metered(guest, &limits, &self.lane, &meter, calling(run)).await;
        let micros = micros(&meter);
        match ran {
            Ok((mut run, called)) => {
                let Left { notes, log, egress_calls } = run.store.data_mut().leave();
                let now = run.store.data().scene.now;
                let (memory, fuel) = (run.store.data().memory(), spent(&run.store, self.fuel));
                let result = answer(called, &limits);
                Ran { result, micros, memory, fuel, notes, taken: Vec::new(), now, log, egress_calls }
            }
            Err(fault) => Ran { micros, ..Ran::failed(fault) },
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// What to do now that all of this happened: one call of the guest, however much it is. After a fault, and after a call that was
    /// dropped half-way, the exchange is over.
    pub async fn next(&mut self, inputs: Vec<Input>) -> Result<Vec<Output>, Fault> {
        let mut live = self.live.take().ok_or(Fault::Over)?;
        if let Some(fault) = self.component.barred() {
            return Err(fault.clone());
        }
        let meter = Arc::clone(&live.store.data().meter);
        let (this, more) = self.limits.inputs(inputs.iter().map(input_bytes));
        self.limits.cpu_total = self.limits.cpu_total.saturating_add(more);
        meter.grant(this, self.limits.cpu_total);
        self.calls = self.calls.saturating_add(1);
        let calling = async move {
            let Live { store, provider, .. } = &mut live;
            let called = provider.sallyport_gateway_provider_api().call_next(store, &inputs).await;
            (live, called.map(Ok))
        };
        let ran = metered(&self.guest, &self.limits, &self.lane, &meter, calling).await;
        self.micros = micros(&meter);
        // What it said while it was being revoked does not count.
        if let Some(fault) = self.component.barred() {
            return Err(fault.clone());
        }
        let (mut live, called) = ran?;
        self.memory = live.store.data().memory();
        self.spent = spent(&live.store, self.fuel);
        match answer(called, &self.limits) {
            Ok(outputs) => {
                self.live = Some(live);
                Ok(outputs)
            }
            Err(fault) => {
                self.left = live.store.data_mut().leave();
                Err(fault)
            }
        }
    }

    /// How often the guest was called so far.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Guest time so far, in microseconds.
    pub fn micros(&self) -> u32 {
        self.micros
    }

    /// Linear memory so far, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Fuel so far, where the engine counts it.
    pub fn fuel(&self) -> Option<u64> {
        self.spent
    }

    /// What the provider wrote to standard error.
    pub fn take_log(&mut self) -> Option<String> {
        match &mut self.live {
            Some(live) => live.store.data_mut().leave().log,
            None => self.left.log.take(),
        }
    }

    /// Which provider it is.
    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { component, micros, live, .. } = self;
        out.debug_struct("Exchange")
            .field("component", component)
            .field("micros", micros)
            .field("live", &live.is_some())
            .finish_non_exhaustive()
    }
}

// === impl Run ===

impl Run {
    /// Starts the deadline.
    fn start(&self) -> Arc<Meter> {
        let State { meter, limits, .. } = self.store.data();
        meter.grant(limits.cpu, limits.cpu_total);
        Arc::clone(meter)
    }
}

// === private helpers ===

/// Drives a guest to its end: metered, and with the safety net of the wall clock. What runs into that net leaves nothing.
async fn metered<T: Send + 'static>(
    guest: &Guest,
    limits: &Limits,
    lane: &SlowLane,
    meter: &Arc<Meter>,
    calling: impl Future<Output = T> + Send + 'static,
) -> Result<T, Fault> {
    let limit = limits.wall;
    let ran = tokio::time::timeout(limit, meter.run(lane, guest.is_slow(), calling)).await;
    guest.was_slow(meter.was_slow());
    match ran {
        Ok(Some(ran)) => Ok(ran),
        Ok(None) => Err(Fault::Exhausted),
        Err(_) => Err(Fault::Deadline { limit }),
    }
}

/// How many bytes an input hands over. The client's body was handed over when the exchange began.
fn input_bytes(input: &Input) -> usize {
    match input {
        Input::Chunk(bytes) => bytes.len(),
        _ => 0,
    }
}

fn answer<T>(called: Called<T>, limits: &Limits) -> Result<T, Fault> {
    called.unwrap_or_else(|error| Err(Fault::of(&error, limits)))
}

/// What was used of the fuel that never ends.
fn spent(store: &Store<State>, fuel: Fuel) -> Option<u64> {
    match fuel {
        Fuel::Off => None,
        Fuel::Counted => store.get_fuel().ok().map(|left| u64::MAX - left),
    }
}

fn micros(meter: &Meter) -> u32 {
    u32::try_from(meter.used().as_micros()).unwrap_or(u32::MAX)
}

fn wrong_kind(guest: &Guest) -> Fault {
    Fault::Garbage { what: format!("{} is a {}, which cannot be called this way", guest.name, guest.kind) }
}
