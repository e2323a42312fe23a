//! A scripted upstream on loopback that speaks the Messages API and chat completions over raw sockets: every byte and every
//! way to fail is the script's choice, every request is kept as it came, and a client that goes away is noticed at once.

mod connection;
mod fault;
mod script;
mod secure;
mod wire;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use fault::{Fault, WITHOUT_AN_ANSWER_OF_THEIR_OWN};
pub use script::{Script, Step, Turn};
pub use secure::{Certificate, Manner, SecureUpstream, authority};
pub use wire::{anthropic_message, anthropic_stream, openai_message, openai_stream, sse};

/// A running upstream. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `POST`
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In the order of the wire, names spelled as they came.
    pub headers: Vec<(String, String)>,
    /// The exact bytes.
    pub body: Bytes,
    /// When the last byte of it arrived.
    pub at: Instant,
}

/// Shared between the test and the connections.
pub(crate) struct State {
    script: Mutex<Chooser>,
    queue: Mutex<VecDeque<Script>>,
    requests: Mutex<Vec<Seen>>,
    gone: Mutex<Vec<Instant>>,
    count: AtomicUsize,
    open: AtomicUsize,
    busy: AtomicUsize,
    record: bool,
}

type Chooser = Arc<dyn Fn(&Seen) -> Script + Send + Sync>;

// === impl Upstream ===

impl Upstream {
    /// Starts one that answers every request with a short text and keeps what it saw.
    pub fn start() -> Self {
        Self::serve("127.0.0.1:0", true)
    }

    /// Starts one for load: it keeps nothing but counts.
    pub fn start_forgetful() -> Self {
        Self::serve("127.0.0.1:0", false)
    }

    fn serve(address: &str, record: bool) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("a loopback port is free");
        listener.set_nonblocking(true).expect("the listener can be made non-blocking");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(|_| Script::default())),
            queue: Mutex::default(),
            requests: Mutex::default(),
            gone: Mutex::default(),
            count: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            record,
        });
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || run(listener, shared, stopped))
            .expect("a thread can be started");
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers from now on.
    pub fn script(&self, script: Script) {
        self.choose(move |_| script.clone());
    }

    /// Lets a function look at each request and choose the answer.
    pub fn choose(&self, chooser: impl Fn(&Seen) -> Script + Send + Sync + 'static) {
        *lock(&self.state.script) = Arc::new(chooser);
    }

    /// The answer to the next request only; several are used up in order.
    pub fn next(&self, script: Script) {
        lock(&self.state.queue).push_back(script);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.state.requests).clone()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        lock(&self.state.requests).last().cloned().expect("the upstream has seen a request")
    }

    /// How many requests it has seen.
    pub fn seen(&self) -> usize {
        self.state.count.load(Ordering::SeqCst)
    }

    /// Forgets the requests and disconnects so far.
    pub fn forget(&self) {
        lock(&self.state.requests).clear();
        lock(&self.state.gone).clear();
        self.state.count.store(0, Ordering::SeqCst);
    }

    /// Connections that are open, idle ones included.
    pub fn open_sockets(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Connections in the middle of an exchange.
    pub fn busy_sockets(&self) -> usize {
        self.state.busy.load(Ordering::SeqCst)
    }

    /// When clients went away in the middle of an answer.
    pub fn disconnects(&self) -> Vec<Instant> {
        lock(&self.state.gone).clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already: then there is nothing to stop.
            let _already_gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

// === impl Seen ===

impl Seen {
    /// The value of a header, whatever its case; `None` if it did not come.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the upstream was sent JSON")
    }
}

// === impl State ===

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("count", &self.count).field("open", &self.open).finish_non_exhaustive()
    }
}

impl State {
    fn answer_for(&self, seen: &Seen) -> Script {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.record {
            lock(&self.requests).push(seen.clone());
        }
        if let Some(next) = lock(&self.queue).pop_front() {
            return next;
        }
        let chooser = Arc::clone(&lock(&self.script));
        chooser(seen)
    }

    fn client_gone(&self) {
        lock(&self.gone).push(Instant::now());
    }
}

/// A lock that a panicking test cannot poison for the others.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The upstream's thread: accepts until told to stop; connections die with the runtime.
fn run(listener: std::net::TcpListener, state: Arc<State>, stopped: oneshot::Receiver<()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener).expect("the listener fits the runtime");
        let mut connections = tokio::task::JoinSet::new();
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(connection::serve(stream, Arc::clone(&state)));
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
