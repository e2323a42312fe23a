//! The linkers, one per kind of component, made once: the host links what a world lists and nothing else.

use sallyport_protocol::package::Kind;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::{hook, policy, predicate, provider, scanner, types};
use super::capability::inert;
use super::state::State;
use super::world::Needs;

/// Linkers for every kind, with and without the inert system interfaces.
pub(crate) struct Linkers {
    policy: Pair,
    hook: Pair,
    /// For hooks that were granted egress.
    calling_hook: Pair,
    provider: Pair,
    scanner: Pair,
    predicate: Pair,
}

struct Pair {
    plain: Linker<State>,
    inert: Linker<State>,
}

/// A component, linked: what is left to do is to make an instance.
#[derive(Clone)]
pub(crate) enum Linked {
    Policy(policy::PolicyPre<State>),
    Hook(hook::HookPre<State>),
    Provider(provider::ProviderPre<State>),
    Scanner(scanner::ScannerPre<State>),
    Predicate(predicate::PredicatePre<State>),
}

// === impl Linkers ===

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let tells = |linker: &mut Linker<State>| {
            use policy::sallyport::gateway::evidence;
            types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            evidence::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
        };
        let reads =
            |linker: &mut Linker<State>| types::add_to_linker::<_, HasSelf<State>>(linker, |state| state);
        Ok(Self {
            policy: Pair::new(engine, |linker| {
                policy::Policy::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
            })?,
            hook: Pair::new(engine, tells)?,
            calling_hook: Pair::new(engine, |linker| {
                tells(linker)?;
                hook::sallyport::gateway::egress::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
            })?,
            provider: Pair::new(engine, reads)?,
            scanner: Pair::new(engine, |_| Ok(()))?,
            predicate: Pair::new(engine, reads)?,
        })
    }

    /// Links without looking at types: enough to run `configure`.
    pub(crate) fn link_any(
        &self,
        kind: Kind,
        needs: Needs,
        component: &Component,
    ) -> wasmtime::Result<InstancePre<State>> {
        let pair = match kind {
            Kind::Policy => &self.policy,
            Kind::Hook if needs.egress => &self.calling_hook,
            Kind::Hook => &self.hook,
            Kind::Provider => &self.provider,
            Kind::Scanner => &self.scanner,
            Kind::Predicate => &self.predicate,
        };
        if needs.inert { &pair.inert } else { &pair.plain }.instantiate_pre(component)
    }

    /// Links, and checks that what the component exports has the types of its world.
    pub(crate) fn link(&self, kind: Kind, needs: Needs, component: &Component) -> wasmtime::Result<Linked> {
        let pre = self.link_any(kind, needs, component)?;
        Ok(match kind {
            Kind::Policy => Linked::Policy(policy::PolicyPre::new(pre)?),
            Kind::Hook => Linked::Hook(hook::HookPre::new(pre)?),
            Kind::Provider => Linked::Provider(provider::ProviderPre::new(pre)?),
            Kind::Scanner => Linked::Scanner(scanner::ScannerPre::new(pre)?),
            Kind::Predicate => Linked::Predicate(predicate::PredicatePre::new(pre)?),
        })
    }
}

// === impl Pair ===

impl Pair {
    fn new(
        engine: &Engine,
        world: impl Fn(&mut Linker<State>) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<Self> {
        let mut plain = Linker::new(engine);
        world(&mut plain)?;
        let mut inert = Linker::new(engine);
        world(&mut inert)?;
        inert::link(&mut inert)?;
        Ok(Self { plain, inert })
    }
}
