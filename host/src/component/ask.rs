//! Asking components: one method for each question that a kind answers. The calls are the same wherever the component runs, and
//! so is what may come of them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::Components;
use super::call::{Exchange, ExchangeRequest};
use super::contract::provider::Output;
use super::contract::{BodyView, Call, Counters, Grants, hook, policy, scanner};
use super::executor::Executor;
use super::fault::Fault;
use super::question::{GuestReply, Question};
use super::ran::Ran;
use super::reads::{BlankBody, BlankCounters};
use super::ready::Component;
use super::recorder::CallRecorder;
use super::state::Scene;

// === impl Component ===

impl Component {
    fn callable(&self) -> Result<&Executor, Fault> {
        self.barred().map_or(Ok(&self.executor), |fault| Err(fault.clone()))
    }

    /// What it said while it was being revoked does not count.
    fn heard<T>(&self, ran: Ran<T>) -> Ran<T> {
        match self.barred() {
            Some(fault) => Ran { result: Err(fault.clone()), ..ran },
            None => ran,
        }
    }
}

// === impl Components ===

impl Components {
    /// Asks a policy. One that says which facts it reads is told those alone: without a body, without counters, at no time.
    pub async fn check(
        &self,
        component: &Arc<Component>,
        call: &Arc<Call>,
        body: &Arc<dyn BodyView>,
    ) -> Ran<policy::Verdict> {
        if let Some(reads) = component.reads() {
            let now = component.frozen_time.unwrap_or_default();
            let counters: Option<Arc<dyn Counters>> = Some(Arc::new(BlankCounters));
            let scene = Scene { now, began: now, counters, ..self.scene_of(component, &Arc::default(), "") };
            let question = Question::Check { call: Arc::new(reads.seen(call)), body_bytes: 0 };
            return self
                .ask(component, scene, question, Some(Arc::new(BlankBody)))
                .await
                .read(GuestReply::verdict);
        }
        let scene = self.scene_of_call(component, call);
        let question = Question::Check { call: Arc::clone(call), body_bytes: body.len() };
        self.ask(component, scene, question, Some(Arc::clone(body))).await.read(GuestReply::verdict)
    }

    /// Tells a policy what a call came to.
    pub async fn settle(
        &self,
        component: &Arc<Component>,
        call: &Arc<Call>,
        spent: &policy::Settlement,
    ) -> Ran<()> {
        let scene = self.scene_of_call(component, call);
        let question = Question::Settle { call: Arc::clone(call), spent: spent.clone() };
        self.ask(component, scene, question, None).await.read(GuestReply::settled)
    }

    /// Has a scanner look at one text. Nothing but the text, its kind and the configuration decides what comes of it.
    pub async fn scan(
        &self,
        component: &Arc<Component>,
        kind: scanner::TextKind,
        text: &str,
    ) -> Ran<Vec<scanner::Finding>> {
        let scene = Scene { now: Duration::ZERO, ..self.scene_of(component, &Arc::default(), "") };
        let question = Question::Scan { kind, text: Cow::Borrowed(text) };
        self.ask(component, scene, question, None).await.read(GuestReply::findings)
    }

    /// Asks a predicate whether the route that `call` names takes it.
    pub async fn matches(
        &self,
        component: &Arc<Component>,
        call: &Arc<Call>,
        body: &Arc<dyn BodyView>,
    ) -> Ran<bool> {
        let scene = self.scene_of_call(component, call);
        let question = Question::Matches { call: Arc::clone(call), body_bytes: body.len() };
        self.ask(component, scene, question, Some(Arc::clone(body))).await.read(GuestReply::matches)
    }

    /// Tells a hook what happened.
    pub async fn on_event(&self, component: &Arc<Component>, what: &hook::Occurrence) -> Ran<hook::Outcome> {
        let scene = self.scene_of(component, &what.principal.tenant, &what.trace);
        self.ask(component, scene, Question::Event(Cow::Borrowed(what)), None).await.read(GuestReply::outcome)
    }

    /// Puts a question to a component, where it runs, and notes what it is told meanwhile.
    async fn ask(
        &self,
        component: &Component,
        mut scene: Scene,
        question: Question<'_>,
        body: Option<Arc<dyn BodyView>>,
    ) -> Ran<GuestReply> {
        let recorder = CallRecorder::of(&mut scene, component.counts());
        let ran = match component.callable() {
            // On the heap: it has room for every kind of question, and callers hold it in their own.
            Ok(Executor::Shared(guest)) => Box::pin(self.runner.ask(guest, scene, question, body)).await,
            Ok(Executor::Process(handle)) => Box::pin(handle.ask(&scene, question, body)).await,
            Ok(Executor::None) => Ran::failed(nothing_to_run()),
            Err(fault) => Ran::failed(fault),
        };
        component.heard(recorder.add_to(ran))
    }

    /// Puts a provider to work on one client call.
    pub async fn exchange(
        &self,
        component: &Arc<Component>,
        request: ExchangeRequest,
    ) -> Result<(Exchange, Vec<Output>), Fault> {
        let scene = self.scene_of(component, &request.call.principal.tenant, &request.call.trace);
        let exchange = match component.callable()? {
            Executor::Shared(guest) => self.runner.exchange(component, guest, scene, request).await,
            Executor::Process(_) => {
                Err(Fault::Worker { what: "a provider runs in the gateway's process".to_owned() })
            }
            Executor::None => Err(nothing_to_run()),
        };
        component.callable()?;
        exchange
    }

    fn scene_of(&self, component: &Component, tenant: &Arc<str>, trace: &str) -> Scene {
        let grants = Arc::clone(&component.grants);
        let scene = self.scene(component.shared_name(), component.digest(), tenant, trace, grants);
        let counters = component.counters.clone().or(scene.counters);
        let now = component.frozen_time.unwrap_or(scene.now);
        Scene { counters, now, began: now, ..scene }
    }

    /// The scene of a call whose time is known: its money belongs to the day on which it began.
    fn scene_of_call(&self, component: &Component, call: &Call) -> Scene {
        let scene = self.scene_of(component, &call.principal.tenant, &call.trace);
        let began = call.time_ms.parse().map_or(scene.now, Duration::from_millis);
        Scene { began, ..scene }
    }

    /// All that a guest can learn of its caller and of time.
    pub(super) fn scene(
        &self,
        component: Arc<str>,
        digest: &str,
        tenant: &Arc<str>,
        trace: &str,
        grants: Arc<Grants>,
    ) -> Scene {
        let now = self.clock.now().unix_timestamp_nanos().max(0) / 1_000_000;
        let now = Duration::from_millis(u64::try_from(now).unwrap_or(0));
        let mut seed = String::with_capacity(digest.len() + 1 + trace.len());
        for part in [digest, ":", trace] {
            seed.push_str(part);
        }
        Scene {
            component,
            tenant: Arc::clone(tenant),
            seed,
            now,
            began: now,
            grants,
            counters: Some(Arc::clone(&self.counters)),
        }
    }
}

// === private helpers ===

fn nothing_to_run() -> Fault {
    Fault::Absent { reason: "there is nothing to run".to_owned() }
}
