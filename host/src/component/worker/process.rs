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
use super::frame::{self, Answer, Facts, MOST_SAID, Order, Question, Report, Said, Told, Went, Wish};
use super::{Kept, VERB, Worker, locked};
use crate::component::call::told;
use crate::component::capability::{Errand, egress};
use crate::component::compile::describe;
use crate::component::contract::{BodyView, Bucket, Budget, Counters, Fetched, Grants, Window};
use crate::component::fault::Fault;
use crate::component::guest::{Load, Unfit};
use crate::component::limits::{LOG_BYTES, Limits, NOTE_BYTES};
use crate::component::program;
use crate::component::state::Scene;

/// How much longer than a guest's own deadline a call may take before its worker is taken for hung.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a dismissed worker may take to go.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes of an answer besides what its guest may hand over: notes, log and the frame around them.
const AROUND: usize = 128 * 1024;
/// Bytes of its last words that are kept.
const MAX_LAST_WORDS: u64 = 4 * 1024;

/// A running worker.
pub(super) struct Process {
    pid: Option<u32>,
    orders: mpsc::UnboundedSender<Vec<u8>>,
    ready: watch::Receiver<Option<Confinement>>,
    desk: Arc<Desk>,
}

/// What was asked and not yet answered.
#[derive(Default)]
struct Desk {
    next: AtomicU64,
    /// None when the process is over, so that nobody waits for it any more.
    open: Mutex<Option<Open>>,
    end: Mutex<Option<String>>,
}

#[derive(Default)]
struct Open {
    calls: HashMap<u64, Asked>,
    loads: HashMap<u32, oneshot::Sender<Result<(), Unfit>>>,
}

/// One call, and all that its guest may have of the host.
pub(super) struct Asked {
    reply: Option<oneshot::Sender<(Answer, Vec<Errand>)>>,
    since: Instant,
    limits: Limits,
    kind: Kind,
    component: Arc<str>,
    tenant: String,
    trace: String,
    began: Duration,
    counters: Option<Arc<dyn Counters>>,
    body: Option<Arc<dyn BodyView>>,
    grants: Arc<Grants>,
    /// What went out, and what came of it.
    errands: Vec<Errand>,
    wishes: u32,
    fetches: usize,
    _place: OwnedSemaphorePermit,
}

/// Which answer fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Verdict,
    Settled,
    Findings,
    Matches,
    Outcome,
}

/// How the work with a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
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
        let desk = Arc::new(Desk { open: Mutex::new(Some(Open::default())), ..Desk::default() });
        let process = Arc::new(Self { pid: child.id(), orders, ready, desk: Arc::clone(&desk) });
        let clerk = Clerk { desk, orders: process.orders.downgrade(), tasks: tasks.clone(), announce };
        let pipes = (stdin, stdout, stderr);
        let name = name.to_owned();
        tasks.spawn(async move {
            let since = Instant::now();
            if clerk.attend(child, pipes, queue, &name).await != End::Dismissed
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
        locked(&self.desk.open).is_some()
    }

    pub(super) fn confinement(&self) -> Option<Confinement> {
        *self.ready.borrow()
    }

    /// Waits until it listens.
    pub(super) async fn ready(&self) -> Result<Confinement, Fault> {
        let mut ready = self.ready.clone();
        let confinement = ready.wait_for(Option::is_some).await.ok().and_then(|confinement| *confinement);
        confinement.ok_or_else(|| self.desk.fault())
    }

    /// Makes code callable.
    pub(super) async fn load(&self, guest: u32, kept: &Kept) -> Result<(), Unfit> {
        let Kept { load, code, scene } = kept;
        let scene = scene.clone();
        let order = frame::encode(&Order::Load { guest, load: Cow::Borrowed(load), scene }, code)
            .ok_or_else(|| Unfit::Link("the code is too large for a worker".to_owned()))?;
        let (reply, loaded) = oneshot::channel();
        match &mut *locked(&self.desk.open) {
            Some(open) => drop(open.loads.insert(guest, reply)),
            None => return Err(Unfit::Trial(self.desk.fault())),
        }
        drop(self.orders.send(order));
        loaded.await.map_err(|_| Unfit::Trial(self.desk.fault()))?
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
        scene: Facts,
        question: Question<'_>,
        mut asked: Asked,
    ) -> Result<(Answer, Vec<Errand>), Fault> {
        let call = self.desk.next.fetch_add(1, Ordering::Relaxed);
        let limit = asked.limits.copied;
        let order = frame::encode(&Order::Call { call, guest, scene, question: Box::new(question) }, &[])
            .ok_or(Fault::TooMuchData { limit })?;
        let (reply, answer) = oneshot::channel();
        asked.reply = Some(reply);
        match &mut *locked(&self.desk.open) {
            Some(open) => drop(open.calls.insert(call, asked)),
            None => return Err(self.desk.fault()),
        }
        drop(self.orders.send(order));
        answer.await.map_err(|_| self.desk.fault())
    }

    /// Has it end because of `fault`.
    pub(super) fn stop(&self, fault: Fault) -> Fault {
        self.desk.close();
        fault
    }
}

// === impl Desk ===

impl Desk {
    /// Whoever waits learns that there will be no answer.
    fn close(&self) {
        drop(locked(&self.open).take());
    }

    /// Remembers for the row of a call what went out.
    fn went(&self, call: u64, errand: Errand) {
        if let Some(open) = &mut *locked(&self.open)
            && let Some(asked) = open.calls.get_mut(&call)
        {
            asked.errands.push(errand);
        }
    }

    fn fault(&self) -> Fault {
        let end = locked(&self.end).clone();
        Fault::Worker { what: end.unwrap_or_else(|| "it ended".to_owned()) }
    }
}

// === impl Asked ===

impl Asked {
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
            limits: load.limits.handed(handed(question)),
            kind: match question {
                Question::Check { .. } => Kind::Verdict,
                Question::Settle { .. } => Kind::Settled,
                Question::Scan { .. } => Kind::Findings,
                Question::Matches { .. } => Kind::Matches,
                Question::Event(_) => Kind::Outcome,
            },
            component: Arc::clone(&scene.component),
            tenant: scene.tenant.clone(),
            trace: scene.seed.clone(),
            began: scene.began,
            counters: scene.counters.clone(),
            body,
            grants: Arc::clone(&scene.grants),
            errands: Vec::new(),
            wishes: 0,
            fetches: 0,
            _place: place,
        }
    }

    /// The answer, if it is one that this guest could have given: of the right kind and within its limits.
    fn weigh(&mut self, answer: Answer, bytes: usize) -> Result<(Answer, Vec<Errand>), &'static str> {
        let Answer { result, micros, memory, notes, log, errands } = answer;
        let fits = match &result {
            Ok(Said::Verdict(_)) => self.kind == Kind::Verdict,
            Ok(Said::Settled) => self.kind == Kind::Settled,
            Ok(Said::Findings(_)) => self.kind == Kind::Findings,
            Ok(Said::Matches(_)) => self.kind == Kind::Matches,
            Ok(Said::Outcome(_)) => self.kind == Kind::Outcome,
            Err(_) => true,
        };
        if !fits {
            return Err("it answered another question");
        }
        let noted: usize = notes.iter().map(|note| note.name.len().saturating_add(note.value.len())).sum();
        // The host's own note on dropped notes comes on top, and a log may grow while it is made text.
        let most_noted = NOTE_BYTES.saturating_add(64);
        let logged = log.as_ref().map_or(0, String::len);
        let most = self.limits.copied.saturating_add(AROUND);
        if bytes > most || noted > most_noted || logged > LOG_BYTES.saturating_mul(3) {
            return Err("it answered more than a guest may");
        }
        if errands.len() > egress::MOST {
            return Err("it went out more often than a guest may");
        }
        // The gateway's own account of what went out, with what was refused where the guest asked for it.
        let mut out = std::mem::take(&mut self.errands).into_iter();
        let mut told = Vec::new();
        for errand in errands {
            told.extend(match errand {
                Went::Out => out.next(),
                Went::Nowhere(grant) => Some(Errand::new(&grant, &Fetched::not_granted())),
            });
        }
        told.extend(out);
        let longest = u32::try_from(self.since.elapsed().as_micros()).unwrap_or(u32::MAX);
        let memory = memory.min(self.limits.memory);
        let (result, micros) = (result.map_err(Fault::told), micros.min(longest));
        Ok((Answer { result, micros, memory, notes, log, errands: Vec::new() }, told))
    }

    /// Counts what the guest wants to know.
    fn count(&mut self, wish: &Wish) -> Result<(), &'static str> {
        self.wishes = self.wishes.saturating_add(1);
        self.fetches += usize::from(matches!(wish, Wish::Fetch { .. }));
        if self.wishes > self.limits.host_calls.saturating_add(1) || self.fetches > egress::MOST {
            return Err("it asked more than a guest may");
        }
        Ok(())
    }

    /// What the guest wants to know, where the gateway knows it at once.
    fn grant(&self, wish: Wish) -> Result<(Told, Arc<dyn BodyView>), &'static str> {
        let body = self.body.clone().unwrap_or_else(|| Arc::new(Nothing));
        let told = match wish {
            Wish::Body | Wish::Texts if self.body.is_none() => {
                return Err("it asked for a body where none is");
            }
            Wish::Body => Told::Body,
            Wish::Texts => Told::Texts(body.texts()),
            Wish::Take { key, cost, limit, window } => {
                Told::Taken(self.counters()?.take(&self.bucket(&key, limit, window), cost))
            }
            Wish::Correct { key, taken, used, limit, window } => {
                self.counters()?.correct(&self.bucket(&key, limit, window), taken, used);
                Told::Corrected
            }
            Wish::Reserve { key, window, micro, cap } => {
                Told::Reserved(self.counters()?.reserve(&self.budget(&key, window), micro, cap))
            }
            Wish::Release { key, window, reserved, spent } => {
                self.counters()?.release(&self.budget(&key, window), reserved, spent);
                Told::Released
            }
            Wish::Fetch { .. } => return Err("it asked to go out where nobody goes"),
        };
        Ok((told, body))
    }

    fn counters(&self) -> Result<&Arc<dyn Counters>, &'static str> {
        self.counters.as_ref().ok_or("it asked for counters where none are")
    }

    fn bucket<'a>(&'a self, key: &'a str, limit: u32, window: Duration) -> Bucket<'a> {
        Bucket { tenant: &self.tenant, component: &self.component, key, limit, window, call: &self.trace }
    }

    fn budget<'a>(&'a self, key: &'a str, window: Window) -> Budget<'a> {
        Budget { tenant: &self.tenant, component: &self.component, key, window, at: self.began }
    }
}

/// No body.
struct Nothing;

impl BodyView for Nothing {
    fn bytes(&self) -> &[u8] {
        &[]
    }

    fn texts(&self) -> Vec<crate::component::contract::Segment> {
        Vec::new()
    }
}

// === impl Clerk ===

/// Who carries the frames.
struct Clerk {
    desk: Arc<Desk>,
    orders: mpsc::WeakUnboundedSender<Vec<u8>>,
    tasks: TaskTracker,
    announce: watch::Sender<Option<Confinement>>,
}

impl Clerk {
    /// Carries frames until there is an end, and sees the process off.
    async fn attend(
        self,
        mut child: Child,
        (stdin, stdout, stderr): (ChildStdin, ChildStdout, ChildStderr),
        queue: mpsc::UnboundedReceiver<Vec<u8>>,
        name: &str,
    ) -> End {
        let mut words = Vec::new();
        let end = tokio::select! {
            end = self.read(stdout) => end,
            end = write(stdin, queue) => end,
            end = self.look() => end,
            () = listen(stderr, &mut words) => End::Gone,
        };
        // What is dismissed has read the end of its pipe; what is gone has closed its own: both are about to end.
        if matches!(end, End::Broke(_) | End::Hung) {
            drop(child.start_kill());
        }
        let status = if let Ok(Ok(status)) = tokio::time::timeout(FAREWELL, child.wait()).await {
            describe(status)
        } else {
            drop(child.kill().await);
            "a kill".to_owned()
        };
        if end != End::Dismissed {
            let why = match end {
                End::Broke(what) => what.to_owned(),
                End::Hung => "it hung".to_owned(),
                End::Gone | End::Dismissed => format!("it ended with {status}"),
            };
            let words = String::from_utf8_lossy(&words);
            let words: String = words.trim().chars().filter(|c| !c.is_control()).collect();
            tracing::warn!(worker = name, why, last_words = words, "worker process ended");
            *locked(&self.desk.end) = Some(why);
        }
        self.desk.close();
        end
    }

    async fn read(&self, stdout: ChildStdout) -> End {
        let mut stdout = BufReader::with_capacity(64 * 1024, stdout);
        let mut frame = Vec::new();
        loop {
            match next(&mut stdout, &mut frame).await {
                Ok(true) => {}
                Ok(false) => return End::Broke("it said too much at once"),
                Err(_) => return End::Gone,
            }
            let Some(report) = frame::decode_whole::<Report>(&frame) else {
                return End::Broke("it said what cannot be read");
            };
            if let Err(what) = self.hear(report, frame.len()) {
                return End::Broke(what);
            }
        }
    }

    fn hear(&self, report: Report, bytes: usize) -> Result<(), &'static str> {
        let mut open = locked(&self.desk.open);
        // Stopped, and about to be killed.
        let Some(open) = open.as_mut() else { return Err("it was stopped") };
        match report {
            Report::Ready(confinement) => {
                if self.announce.send_replace(Some(confinement)).is_some() {
                    return Err("it was ready twice");
                }
            }
            Report::Loaded { guest, fit } => {
                let reply = open.loads.remove(&guest).ok_or("it loaded what nobody gave it")?;
                // Whoever gave it may be gone.
                drop(reply.send(fit));
            }
            Report::Answered { call, answer } => {
                let mut asked = open.calls.remove(&call).ok_or("it answered what nobody asked")?;
                let answer = asked.weigh(answer, bytes)?;
                if let Some(reply) = asked.reply.take() {
                    // Whoever asked may be gone.
                    drop(reply.send(answer));
                }
            }
            Report::Wishes { call, wish } => {
                let asked = open.calls.get_mut(&call).ok_or("it asked for a call that there is not")?;
                asked.count(&wish)?;
                if let Wish::Fetch { grant, request } = wish {
                    let way = asked.grants.get(&grant).ok_or("it asked for a way that it does not have")?;
                    let (way, desk) = (Arc::clone(way), Arc::clone(&self.desk));
                    let orders = self.orders.clone();
                    self.tasks.spawn(async move {
                        let fetched = way.fetch(request).await;
                        desk.went(call, Errand::new(&grant, &fetched));
                        let Fetched { result, took } = fetched;
                        let order =
                            frame::encode(&Order::Told { call, told: Told::Fetched(result, took) }, &[]);
                        if let (Some(orders), Some(order)) = (orders.upgrade(), order) {
                            drop(orders.send(order));
                        }
                    });
                    return Ok(());
                }
                let (told, body) = asked.grant(wish)?;
                let bytes = if matches!(told, Told::Body) { body.bytes() } else { &[] };
                let order = frame::encode(&Order::Told { call, told }, bytes);
                let order = order.ok_or("it asked for a body that is too large")?;
                if let Some(orders) = self.orders.upgrade() {
                    drop(orders.send(order));
                }
            }
        }
        Ok(())
    }

    /// Returns when a call is overdue, or when nobody is served any more.
    async fn look(&self) -> End {
        loop {
            tokio::time::sleep(LOOK).await;
            match &*locked(&self.desk.open) {
                None => return End::Broke("it was stopped"),
                Some(open) => {
                    let overdue = |asked: &Asked| asked.since.elapsed() > asked.limits.wall + PATIENCE;
                    if open.calls.values().any(overdue) {
                        return End::Hung;
                    }
                }
            }
        }
    }
}

// === private helpers ===

/// How many bytes a question hands over, as the worker counts them too.
fn handed(question: &Question<'_>) -> usize {
    match question {
        Question::Check { body_bytes, .. } | Question::Matches { body_bytes, .. } => *body_bytes,
        Question::Settle { call, .. } => call.tools.iter().map(String::len).sum(),
        Question::Scan { text, .. } => text.len(),
        Question::Event(what) => told(what),
    }
}

/// Reads one frame; `false` if it is too long.
async fn next(input: &mut (impl AsyncRead + Unpin), frame: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut head = [0; 4];
    input.read_exact(&mut head).await?;
    let Some(length) = frame::length(head, MOST_SAID) else { return Ok(false) };
    frame.clear();
    frame.resize(length, 0);
    input.read_exact(frame).await?;
    Ok(true)
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) -> End {
    while let Some(order) = queue.recv().await {
        if stdin.write_all(&order).await.is_err() {
            return End::Gone;
        }
    }
    End::Dismissed
}

/// Keeps the first words, swallows the rest, and never ends.
async fn listen(stderr: ChildStderr, words: &mut Vec<u8>) {
    let mut first = stderr.take(MAX_LAST_WORDS);
    drop(first.read_to_end(words).await);
    drop(tokio::io::copy(&mut first.into_inner(), &mut tokio::io::sink()).await);
    std::future::pending::<()>().await;
}
