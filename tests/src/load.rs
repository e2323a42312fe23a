//! A load generator: so many connections, each with one request at a time, and what it took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// What to send.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where to.
    pub address: SocketAddr,
    /// Path and query.
    pub target: String,
    /// Headers of each request.
    pub headers: Vec<(String, String)>,
    /// The body of each request, by its number.
    pub body: Body,
    /// How many connections at once.
    pub connections: usize,
    /// How many requests in all, at most.
    pub requests: usize,
    /// No request begins later than this after the first.
    pub lasts: Duration,
    /// The number of the first request, so that a job does not send again what another one sent.
    pub first: usize,
}

/// Bodies of requests.
#[derive(Debug, Clone)]
pub enum Body {
    /// The same for all.
    Same(Bytes),
    /// A conversation of about so many bytes that is another for each request, in its first or second turn.
    Conversation {
        /// Model to ask for.
        model: String,
        /// Size in bytes.
        bytes: usize,
        /// 1 or 2.
        turn: usize,
    },
    /// A conversation of messages of 16 KiB that brings one message more with each request, from 48 on and for 32 requests; then it
    /// forgets them and goes on otherwise.
    Grows(String),
    /// 64 messages of 16 KiB that no request had before.
    Unseen(String),
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Time to the end of each good answer, sorted.
    pub latencies: Vec<Duration>,
    /// Time to the first byte of each good answer's body, sorted.
    pub first_bytes: Vec<Duration>,
    /// Answers with another status than 200, and none at all.
    pub failures: usize,
    /// What one of the failures was.
    pub failure: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

// === impl Report ===

impl Report {
    /// The latency that so many of a thousand answers kept.
    pub fn percentile(&self, per_mille: usize) -> Duration {
        percentile(&self.latencies, per_mille)
    }

    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        count(self.latencies.len()) / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// As JSON, so that it can cross from the load's process to the benchmark's. Times are in nanoseconds.
    pub fn to_json(&self) -> Value {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = |list: &[Duration], per_mille| nanos(percentile(list, per_mille));
        json!({
            "answers": self.latencies.len(), "failures": self.failures, "failure": self.failure, "elapsed": nanos(self.elapsed),
            "rate": self.rate(), "p50": at(&self.latencies, 500), "p90": at(&self.latencies, 900),
            "p99": at(&self.latencies, 990), "max": at(&self.latencies, 1000),
            "first_byte_p50": at(&self.first_bytes, 500), "first_byte_p99": at(&self.first_bytes, 990),
        })
    }
}

// === impl Job ===

impl Job {
    /// A call of the Messages API with a token.
    pub fn messages(
        address: SocketAddr,
        token: &str,
        body: Body,
        connections: usize,
        requests: usize,
    ) -> Self {
        let headers = [
            ("content-type", "application/json"),
            ("anthropic-version", "2023-06-01"),
            ("authorization", &format!("Bearer {token}")),
        ];
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let target = "/v1/messages".to_owned();
        Self { address, target, headers, body, connections, requests, lasts: Duration::MAX, first: 0 }
    }

    /// Sends them all, or as many as there is time for.
    pub async fn run(self) -> Report {
        let job = Arc::new(self);
        let next = Arc::new(AtomicUsize::new(job.first));
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..job.connections {
            tasks.spawn(worker(Arc::clone(&job), Arc::clone(&next), began));
        }
        let mut report = Report::default();
        while let Some(done) = tasks.join_next().await {
            let part = done.expect("a worker does not panic");
            report.latencies.extend(part.latencies);
            report.first_bytes.extend(part.first_bytes);
            report.failures += part.failures;
            report.failure = report.failure.or(part.failure);
        }
        report.elapsed = began.elapsed();
        report.latencies.sort_unstable();
        report.first_bytes.sort_unstable();
        report
    }

    fn request(&self, number: usize) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::post(&self.target).header("host", self.address.to_string());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.bytes(number))).expect("the job's headers are valid")
    }
}

// === impl Body ===

impl Body {
    /// The body of request number `number`.
    pub fn bytes(&self, number: usize) -> Bytes {
        match self {
            Self::Same(bytes) => bytes.clone(),
            Self::Conversation { model, bytes, turn } => conversation(model, *bytes, *turn, number),
            Self::Grows(model) => {
                let (round, more) = (number / 32, number % 32);
                blocks(model, (0..48).map(|at| (0, at)).chain((0..=more).map(|at| (1 + round, at))))
            }
            Self::Unseen(model) => blocks(model, (0..64).map(|at| (1_000_000 + number, at))),
        }
    }
}

/// A conversation of messages of 16 KiB, each with numbers of its own.
fn blocks(model: &str, numbers: impl Iterator<Item = (usize, usize)>) -> Bytes {
    let line = "The quarterly report says \"revenue grew by 12%\", yet the table on page 3 shows 11.4%.\n";
    let mut messages: Vec<Value> = numbers
        .enumerate()
        .map(|(place, (round, at))| {
            let role = if place % 2 == 0 { "user" } else { "assistant" };
            json!({"role": role, "content": [{"type": "text", "text": format!("[{round}.{at}] {}", line.repeat(180))}]})
        })
        .collect();
    if messages.len().is_multiple_of(2) {
        messages.push(json!({"role": "user", "content": "What changed?"}));
    }
    let metadata = json!({"user_id": "user_9f8e7d6c5b4a"});
    Bytes::from(
        json!({"model": model, "max_tokens": 64, "metadata": metadata, "messages": messages}).to_string(),
    )
}

/// A conversation of 1 KiB messages; the second turn is the first one with an answer and a question more.
fn conversation(model: &str, bytes: usize, turn: usize, number: usize) -> Bytes {
    let line = "The quick brown fox reads line after line of the source and finds nothing worth a remark. ";
    let mut messages: Vec<Value> = (0..(bytes / 1024).max(1))
        .map(|at| {
            let role = if at % 2 == 0 { "user" } else { "assistant" };
            json!({"role": role, "content": format!("[{number}.{at}] {}", line.repeat(11))})
        })
        .collect();
    if messages.len().is_multiple_of(2) {
        messages.pop();
    }
    if turn > 1 {
        messages.push(json!({"role": "assistant", "content": "I have read it."}));
        messages.push(json!({"role": "user", "content": format!("[{number}] And what do you make of it?")}));
    }
    Bytes::from(json!({"model": model, "max_tokens": 64, "messages": messages}).to_string())
}

async fn worker(job: Arc<Job>, next: Arc<AtomicUsize>, since: Instant) -> Report {
    let mut report = Report::default();
    let mut sender: Option<http1::SendRequest<Full<Bytes>>> = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number - job.first >= job.requests || since.elapsed() >= job.lasts {
            return report;
        }
        let request = job.request(number);
        let began = Instant::now();
        match exchange(&mut sender, &job, request, began).await {
            Ok(first) => {
                report.first_bytes.push(first);
                report.latencies.push(began.elapsed());
            }
            Err(error) => {
                report.failures += 1;
                report.failure = Some(format!("request {number}: {error:#}"));
                sender = None;
            }
        }
    }
}

/// One request over the worker's connection; the time to the first byte of the body.
async fn exchange(
    sender: &mut Option<http1::SendRequest<Full<Bytes>>>,
    job: &Job,
    request: http::Request<Full<Bytes>>,
    began: Instant,
) -> anyhow::Result<Duration> {
    let mut live = sender.take();
    if let Some(kept) = &mut live
        && kept.ready().await.is_err()
    {
        live = None;
    }
    let live = match live {
        Some(live) => sender.insert(live),
        None => sender.insert(connect(job.address).await?),
    };
    let response = live.send_request(request).await?;
    let good = response.status() == 200;
    let mut body = response.into_body();
    let mut first = None;
    let mut last = Bytes::new();
    while let Some(frame) = body.frame().await {
        first.get_or_insert_with(|| began.elapsed());
        if let Ok(data) = frame?.into_data() {
            last = data;
        }
    }
    anyhow::ensure!(good, "refused: {}", String::from_utf8_lossy(&last));
    Ok(first.unwrap_or_else(|| began.elapsed()))
}

async fn connect(address: SocketAddr) -> anyhow::Result<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    background(async move {
        // Its failure shows as a failure of the request that is under way.
        drop(connection.await);
    });
    Ok(sender)
}

/// Runs a connection's own work beside the requests on it.
#[expect(
    clippy::disallowed_methods,
    reason = "the load generator has no task tracker: its process ends with it"
)]
fn background(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work));
}

fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let at = sorted.len().saturating_sub(1) * per_mille / 1000;
    sorted.get(at).copied().unwrap_or_default()
}

/// A count as a number to divide: exact up to four thousand million.
fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}
