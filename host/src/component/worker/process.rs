//! One process of a worker, from the gateway's side: what was asked and not yet answered, and the task that carries frames
//! both ways until the process ends, hangs, or breaks the protocol.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::confine::Confinement;
use super::frame::{
    self, CallReport, EgressUse, HostCall, HostReply, MAX_REPORT_BYTES, Order, SceneFacts, WorkerReport,
};
use super::{GuestImage, VERB, Worker, locked};
use crate::component::capability::{EgressCall, egress};
use crate::component::compile::describe;
use crate::component::contract::egress as egress_contract;
use crate::component::contract::{
    BodyView, Bucket, Budget, Counters, CountersUnreachable, Egress, Fetched, Grants,
};
use crate::component::fault::Fault;
use crate::component::guest::{Load, Unfit};
use crate::component::limits::{LOG_BYTES, Limits, NOTE_BYTES};
use crate::component::program;
use crate::component::question::{Question, QuestionKind};
use crate::component::state::Scene;

/// How much longer than a guest's own deadline a call may take before its worker is taken for hung.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);
/// How often that is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long a dismissed worker may take to go.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Bytes of an answer besides what its guest may hand over: notes, log and the frame around them.
const FRAME_OVERHEAD: usize = 128 * 1024;
/// Bytes of its last words that are kept.
const MAX_LAST_WORDS: u64 = 4 * 1024;

/// A running worker.
pub(super) struct Process {
    pid: Option<u32>,
    orders: mpsc::UnboundedSender<Vec<u8>>,
    ready: watch::Receiver<Option<Confinement>>,
    pending: Arc<Pending>,
}

/// What was asked and not yet answered.
#[derive(Default)]
struct Pending {
    next: AtomicU64,
    /// None when the process is over, so that nobody waits for it any more.
    open: Mutex<Option<OpenRequests>>,
    end: Mutex<Option<String>>,
}

#[derive(Default)]
struct OpenRequests {
    calls: HashMap<u64, PendingCall>,
    loads: HashMap<u32, oneshot::Sender<Result<(), Unfit>>>,
}

/// One call, and all that its guest may have of the host.
pub(super) struct PendingCall {
    reply: Option<oneshot::Sender<(CallReport, Vec<EgressCall>)>>,
    since: Instant,
    limits: Limits,
    question: QuestionKind,
    component: Arc<str>,
    tenant: Arc<str>,
    trace: String,
    began: Duration,
    counters: Option<Arc<dyn Counters>>,
    body: Option<Arc<dyn BodyView>>,
    grants: Arc<Grants>,
    /// What went out, and what came of it.
    egress_calls: Vec<EgressCall>,
    host_calls: u32,
    fetches: usize,
    /// Its guest waits for an answer that takes its time.
    waits: bool,
    _place: OwnedSemaphorePermit,
}

/// How the work with a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessEnd {
    /// Nobody needs it any more.
    Dismissed,
    /// It closed its pipe.
    Gone,
    /// It said what no worker says.
    Broke(&'static str),
    /// It did not answer.
    Hung,
}

// === impl Process ===

impl Process {
    /// Starts a process. `worker` hears of its end, unless it was dropped before.
    pub(super) fn launch(
        program: &Path,
        name: &str,
        tasks: &TaskTracker,
        worker: Weak<Worker>,
    ) -> Result<Arc<Self>, Fault> {
        let start =
            |error: std::io::Error| Fault::Worker { what: format!("it could not be started: {error}") };
        let mut child = program::start(program, VERB).map_err(start)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Fault::Worker { what: "it has no pipes".to_owned() });
        };
        let (orders, queue) = mpsc::unbounded_channel();
        let (announce, ready) = watch::channel(None);
        let pending =
            Arc::new(Pending { open: Mutex::new(Some(OpenRequests::default())), ..Pending::default() });
        let process = Arc::new(Self { pid: child.id(), orders, ready, pending: Arc::clone(&pending) });
        let io_task = IoTask { pending, orders: process.orders.downgrade(), tasks: tasks.clone(), announce };
        let pipes = (stdin, stdout, stderr);
        let name = name.to_owned();
        tasks.spawn(async move {
            let since = Instant::now();
            if io_task.run(child, pipes, queue, &name).await != ProcessEnd::Dismissed
                && let Some(worker) = worker.upgrade()
            {
                worker.ended(since.elapsed()).await;
            }
        });
        Ok(process)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    pub(super) fn is_open(&self) -> bool {
        locked(&self.pending.open).is_some()
    }

    pub(super) fn confinement(&self) -> Option<Confinement> {
        *self.ready.borrow()
    }

    /// Waits until it listens.
    pub(super) async fn ready(&self) -> Result<Confinement, Fault> {
        let mut ready = self.ready.clone();
        let confinement = ready.wait_for(Option::is_some).await.ok().and_then(|confinement| *confinement);
        confinement.ok_or_else(|| self.pending.fault())
    }

    /// Makes code callable.
    pub(super) async fn load(&self, guest: u32, image: &GuestImage) -> Result<(), Unfit> {
        let GuestImage { load, code, scene } = image;
        let scene = scene.clone();
        let order = frame::encode(&Order::Load { guest, load: Cow::Borrowed(load), scene }, code)
            .ok_or_else(|| Unfit::Link("the code is too large for a worker".to_owned()))?;
        let (reply, loaded) = oneshot::channel();
        match &mut *locked(&self.pending.open) {
            Some(open) => drop(open.loads.insert(guest, reply)),
            None => return Err(Unfit::Trial(self.pending.fault())),
        }
        drop(self.orders.send(order));
        loaded.await.map_err(|_| Unfit::Trial(self.pending.fault()))?
    }

    /// Forgets a guest.
    pub(super) fn unload(&self, guest: u32) {
        if let Some(order) = frame::encode(&Order::Unload { guest }, &[]) {
            drop(self.orders.send(order));
        }
    }

    /// Asks, and waits for what comes of it. Given up half-way, the guest goes on to its deadline, and nobody hears of it.
    pub(super) async fn call(
        &self,
        guest: u32,
        scene: SceneFacts,
        question: Question<'_>,
        mut pending_call: PendingCall,
    ) -> Result<(CallReport, Vec<EgressCall>), Fault> {
        let call = self.pending.next.fetch_add(1, Ordering::Relaxed);
        let limit = pending_call.limits.copied;
        let order = frame::encode(&Order::Call { call, guest, scene, question: Box::new(question) }, &[])
            .ok_or(Fault::TooMuchData { limit })?;
        let (reply, answer) = oneshot::channel();
        pending_call.reply = Some(reply);
        match &mut *locked(&self.pending.open) {
            Some(open) => drop(open.calls.insert(call, pending_call)),
            None => return Err(self.pending.fault()),
        }
        drop(self.orders.send(order));
        answer.await.map_err(|_| self.pending.fault())
    }

    /// Has it end because of `fault`.
    pub(super) fn stop(&self, fault: Fault) -> Fault {
        self.pending.close();
        fault
    }
}

// === impl Pending ===

impl Pending {
    /// Whoever waits learns that there will be no answer.
    fn close(&self) {
        drop(locked(&self.open).take());
    }

    /// The guest of a call is about to be answered; its row is told what went out for it.
    fn answered(&self, call: u64, egress_call: Option<EgressCall>) {
        if let Some(open) = &mut *locked(&self.open)
            && let Some(pending_call) = open.calls.get_mut(&call)
        {
            pending_call.waits = false;
            pending_call.egress_calls.extend(egress_call);
        }
    }

    fn fault(&self) -> Fault {
        let end = locked(&self.end).clone();
        Fault::Worker { what: end.unwrap_or_else(|| "it ended".to_owned()) }
    }
}

// === impl PendingCall ===

impl PendingCall {
    pub(super) fn new(
        load: &Load,
        scene: &Scene,
        question: &Question<'_>,
        body: Option<Arc<dyn BodyView>>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            reply: None,
            since: Instant::now(),
            limits: load.limits.handed(question.handed()),
            question: question.kind(),
            component: Arc::clone(&scene.component),
            tenant: Arc::clone(&scene.tenant),
            trace: scene.seed.clone(),
            began: scene.began,
            counters: scene.counters.clone(),
            body,
            grants: Arc::clone(&scene.grants),
            egress_calls: Vec::new(),
            host_calls: 0,
            fetches: 0,
            waits: false,
            _place: place,
        }
    }

    /// The answer, if it is one that this guest could have given: of the right kind and within its limits.
    fn check(
        &mut self,
        answer: CallReport,
        bytes: usize,
    ) -> Result<(CallReport, Vec<EgressCall>), &'static str> {
        let CallReport { result, micros, memory, notes, log, egress_calls } = answer;
        let fits = result.as_ref().map_or(true, |reply| reply.answers() == self.question);
        if !fits {
            return Err("it answered another question");
        }
        let noted: usize = notes.iter().map(|note| note.name.len().saturating_add(note.value.len())).sum();
        // The host's own note on dropped notes comes on top, and a log may grow while it is made text.
        let most_noted = NOTE_BYTES.saturating_add(64);
        let logged = log.as_ref().map_or(0, String::len);
        let most = self.limits.copied.saturating_add(FRAME_OVERHEAD);
        if bytes > most || noted > most_noted || logged > LOG_BYTES.saturating_mul(3) {
            return Err("it answered more than a guest may");
        }
        if egress_calls.len() > egress::MAX_REQUESTS {
            return Err("it went out more often than a guest may");
        }
        // The gateway's own account of what went out, with what was refused where the guest asked for it.
        let mut out = std::mem::take(&mut self.egress_calls).into_iter();
        let mut told = Vec::new();
        for egress_call in egress_calls {
            told.extend(match egress_call {
                EgressUse::Granted => out.next(),
                EgressUse::NoSuchGrant(grant) => Some(EgressCall::new(&grant, &Fetched::not_granted())),
            });
        }
        told.extend(out);
        let longest = u32::try_from(self.since.elapsed().as_micros()).unwrap_or(u32::MAX);
        let memory = memory.min(self.limits.memory);
        let (result, micros) = (result.map_err(Fault::told), micros.min(longest));
        Ok((CallReport { result, micros, memory, notes, log, egress_calls: Vec::new() }, told))
    }

    /// Counts what the guest wants to know. A guest asks for one thing at a time.
    fn count(&mut self, host_call: &HostCall) -> Result<(), &'static str> {
        if self.waits {
            return Err("it asked before it was answered");
        }
        self.host_calls = self.host_calls.saturating_add(1);
        self.fetches += usize::from(matches!(host_call, HostCall::Fetch { .. }));
        if self.host_calls > self.limits.host_calls.saturating_add(1) || self.fetches > egress::MAX_REQUESTS {
            return Err("it asked more than a guest may");
        }
        Ok(())
    }

    /// What the guest wants to know, where the gateway knows it at once; nothing where it has to be asked for elsewhere.
    fn at_once(&self, host_call: &HostCall) -> Result<Option<ReadyReply>, &'static str> {
        let body = || self.body.clone().ok_or("it asked for a body where none is");
        Ok(match host_call {
            HostCall::Body => Some((HostReply::Body, body()?)),
            HostCall::Texts => {
                let body = body()?;
                Some((HostReply::Texts(body.texts()), body))
            }
            _ => None,
        })
    }

    /// Who answers a host call that takes its time.
    fn elsewhere(&self, host_call: HostCall) -> Result<Deferred, &'static str> {
        if let HostCall::Fetch { grant, request } = host_call {
            let egress = self.grants.get(&grant).ok_or("it asked for a grant that it does not have")?;
            return Ok(Deferred::Fetch { egress: Arc::clone(egress), grant, request });
        }
        let counters = self.counters.clone().ok_or("it asked for counters where none are")?;
        Ok(Deferred::Count {
            counters,
            tenant: Arc::clone(&self.tenant),
            component: Arc::clone(&self.component),
            trace: self.trace.clone(),
            began: self.began,
            host_call,
        })
    }
}

/// What the gateway knows at once, and the body where that is it.
type ReadyReply = (HostReply, Arc<dyn BodyView>);

/// Who answers a host call that takes its time, with all that is needed for it: nothing of a call is held meanwhile.
enum Deferred {
    Fetch {
        egress: Arc<dyn Egress>,
        grant: String,
        request: egress_contract::Request,
    },
    Count {
        counters: Arc<dyn Counters>,
        tenant: Arc<str>,
        component: Arc<str>,
        trace: String,
        began: Duration,
        host_call: HostCall,
    },
}

// === impl Deferred ===

impl Deferred {
    /// The answer, and what went out for it.
    async fn answer(self) -> (HostReply, Option<EgressCall>) {
        match self {
            Self::Fetch { egress, grant, request } => {
                let fetched = egress.fetch(request).await;
                let egress_call = EgressCall::new(&grant, &fetched);
                let Fetched { result, took } = fetched;
                (HostReply::Fetched(result, took), Some(egress_call))
            }
            Self::Count { counters, tenant, component, trace, began, host_call } => {
                let bucket = |key, limit, window| Bucket {
                    tenant: &tenant,
                    component: &component,
                    key,
                    limit,
                    window,
                    call: &trace,
                };
                let budget =
                    |key, window| Budget { tenant: &tenant, component: &component, key, window, at: began };
                let told = match &host_call {
                    HostCall::Take { key, cost, limit, window } => {
                        counters.take(bucket(key, *limit, *window), *cost).await.map(HostReply::Taken)
                    }
                    HostCall::Correct { key, taken, used, limit, window } => {
                        let corrected = counters.correct(bucket(key, *limit, *window), *taken, *used).await;
                        corrected.map(|()| HostReply::Corrected)
                    }
                    HostCall::Reserve { key, window, micro, cap } => {
                        counters.reserve(budget(key, *window), *micro, *cap).await.map(HostReply::Reserved)
                    }
                    HostCall::Release { key, window, reserved, spent } => {
                        let released = counters.release(budget(key, *window), *reserved, *spent).await;
                        released.map(|()| HostReply::Released)
                    }
                    HostCall::Body | HostCall::Texts | HostCall::Fetch { .. } => Err(CountersUnreachable),
                };
                (told.unwrap_or(HostReply::Unreachable), None)
            }
        }
    }
}

// === impl IoTask ===

/// Who carries the frames.
struct IoTask {
    pending: Arc<Pending>,
    orders: mpsc::WeakUnboundedSender<Vec<u8>>,
    tasks: TaskTracker,
    announce: watch::Sender<Option<Confinement>>,
}

impl IoTask {
    /// Carries frames until there is an end, and sees the process off.
    async fn run(
        self,
        mut child: Child,
        (stdin, stdout, stderr): (ChildStdin, ChildStdout, ChildStderr),
        queue: mpsc::UnboundedReceiver<Vec<u8>>,
        name: &str,
    ) -> ProcessEnd {
        let mut words = Vec::new();
        let end = tokio::select! {
            end = self.read(stdout) => end,
            end = write(stdin, queue) => end,
            end = self.look() => end,
            () = listen(stderr, &mut words) => ProcessEnd::Gone,
        };
        // What is dismissed has read the end of its pipe; what is gone has closed its own: both are about to end.
        if matches!(end, ProcessEnd::Broke(_) | ProcessEnd::Hung) {
            drop(child.start_kill());
        }
        let status = if let Ok(Ok(status)) = tokio::time::timeout(SHUTDOWN_GRACE, child.wait()).await {
            describe(status)
        } else {
            drop(child.kill().await);
            "a kill".to_owned()
        };
        if end != ProcessEnd::Dismissed {
            let why = match end {
                ProcessEnd::Broke(what) => what.to_owned(),
                ProcessEnd::Hung => "it hung".to_owned(),
                ProcessEnd::Gone | ProcessEnd::Dismissed => format!("it ended with {status}"),
            };
            let words = String::from_utf8_lossy(&words);
            let words: String = words.trim().chars().filter(|c| !c.is_control()).collect();
            tracing::warn!(worker = name, why, last_words = words, "worker process ended");
            *locked(&self.pending.end) = Some(why);
        }
        self.pending.close();
        end
    }

    async fn read(&self, stdout: ChildStdout) -> ProcessEnd {
        let mut stdout = BufReader::with_capacity(64 * 1024, stdout);
        let mut frame = Vec::new();
        loop {
            match next(&mut stdout, &mut frame).await {
                Ok(true) => {}
                Ok(false) => return ProcessEnd::Broke("it said too much at once"),
                Err(_) => return ProcessEnd::Gone,
            }
            let Some(report) = frame::decode_whole::<WorkerReport>(&frame) else {
                return ProcessEnd::Broke("it said what cannot be read");
            };
            if let Err(what) = self.hear(report, frame.len()) {
                return ProcessEnd::Broke(what);
            }
        }
    }

    fn hear(&self, report: WorkerReport, bytes: usize) -> Result<(), &'static str> {
        let mut open = locked(&self.pending.open);
        // Stopped, and about to be killed.
        let Some(open) = open.as_mut() else { return Err("it was stopped") };
        match report {
            WorkerReport::Ready(confinement) => {
                if self.announce.send_replace(Some(confinement)).is_some() {
                    return Err("it was ready twice");
                }
            }
            WorkerReport::Loaded { guest, fit } => {
                let reply = open.loads.remove(&guest).ok_or("it loaded what nobody gave it")?;
                // Whoever gave it may be gone.
                drop(reply.send(fit));
            }
            WorkerReport::Answered { call, answer } => {
                let mut pending_call = open.calls.remove(&call).ok_or("it answered what nobody asked")?;
                let answer = pending_call.check(answer, bytes)?;
                if let Some(reply) = pending_call.reply.take() {
                    // Whoever asked may be gone.
                    drop(reply.send(answer));
                }
            }
            WorkerReport::HostCalls { call, host_call } => {
                let pending_call =
                    open.calls.get_mut(&call).ok_or("it asked for a call that there is not")?;
                pending_call.count(&host_call)?;
                if let Some((told, body)) = pending_call.at_once(&host_call)? {
                    let bytes = if matches!(told, HostReply::Body) { body.bytes() } else { &[] };
                    let order = frame::encode(&Order::HostReply { call, told }, bytes);
                    let order = order.ok_or("it asked for a body that is too large")?;
                    if let Some(orders) = self.orders.upgrade() {
                        drop(orders.send(order));
                    }
                    return Ok(());
                }
                let elsewhere = pending_call.elsewhere(host_call)?;
                pending_call.waits = true;
                let (pending, orders) = (Arc::clone(&self.pending), self.orders.clone());
                // In a task of its own: whatever it waits for, this worker's other calls are answered meanwhile.
                self.tasks.spawn(async move {
                    let (told, egress_call) = elsewhere.answer().await;
                    pending.answered(call, egress_call);
                    let order = frame::encode(&Order::HostReply { call, told }, &[]);
                    if let (Some(orders), Some(order)) = (orders.upgrade(), order) {
                        drop(orders.send(order));
                    }
                });
            }
        }
        Ok(())
    }

    /// Returns when a call is overdue, or when nobody is served any more.
    async fn look(&self) -> ProcessEnd {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            match &*locked(&self.pending.open) {
                None => return ProcessEnd::Broke("it was stopped"),
                Some(open) => {
                    let overdue = |pending_call: &PendingCall| {
                        pending_call.since.elapsed() > pending_call.limits.wall + OVERDUE_AFTER
                    };
                    if open.calls.values().any(overdue) {
                        return ProcessEnd::Hung;
                    }
                }
            }
        }
    }
}

// === private helpers ===

/// Reads one frame; `false` if it is too long.
async fn next(input: &mut (impl AsyncRead + Unpin), frame: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut head = [0; 4];
    input.read_exact(&mut head).await?;
    let Some(length) = frame::length(head, MAX_REPORT_BYTES) else { return Ok(false) };
    frame.clear();
    frame.resize(length, 0);
    input.read_exact(frame).await?;
    Ok(true)
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) -> ProcessEnd {
    while let Some(order) = queue.recv().await {
        if stdin.write_all(&order).await.is_err() {
            return ProcessEnd::Gone;
        }
    }
    ProcessEnd::Dismissed
}

/// Keeps the first words, swallows the rest, and never ends.
async fn listen(stderr: ChildStderr, words: &mut Vec<u8>) {
    let mut first = stderr.take(MAX_LAST_WORDS);
    drop(first.read_to_end(words).await);
    drop(tokio::io::copy(&mut first.into_inner(), &mut tokio::io::sink()).await);
    std::future::pending::<()>().await;
}
