//! A plain HTTP client for the stories: sends exact bytes, keeps the order of events and the time each arrived.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tls;
use crate::wait::within;

/// No answer of the gateway may take longer than this in a story.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The same for answers that wait for a compiler: a component may compute for ten seconds while it is configured, on a machine
/// that does other things too.
pub const PATIENT: Duration = Duration::from_mins(3);

/// Keeps connections open between calls.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    scheme: &'static str,
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limit: Duration,
}

/// An answer, complete.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers in the order they came.
    pub headers: http::HeaderMap,
    /// The exact bytes.
    pub body: Bytes,
    /// False: the connection broke before the body's end.
    pub complete: bool,
}

/// An answer whose body is still coming. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    /// HTTP status.
    pub status: u16,
    /// Over what it came.
    pub version: http::Version,
    /// Headers.
    pub headers: http::HeaderMap,
    body: Incoming,
    buffer: BytesMut,
}

/// What is spoken behind the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message_start`
    pub name: String,
    /// The data, as it came.
    pub data: String,
    /// When its last byte was read.
    pub at: Instant,
}

// === impl Client ===

impl Client {
    /// Talks to this address, in clear.
    pub fn new(address: SocketAddr) -> Self {
        Self::over(address, "http", tls::believing_nobody(), Protocol::Http1)
    }

    /// Talks to this address over TLS, as `config` says whom it believes and what it shows.
    pub fn secure(address: SocketAddr, config: rustls::ClientConfig, protocol: Protocol) -> Self {
        Self::over(address, "https", config, protocol)
    }

    fn over(
        address: SocketAddr,
        scheme: &'static str,
        config: rustls::ClientConfig,
        protocol: Protocol,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let connector = match protocol {
            Protocol::Http1 => builder.enable_http1().wrap_connector(tcp),
            Protocol::Http2 => builder.enable_http2().wrap_connector(tcp),
        };
        let mut pool = Pool::builder(TokioExecutor::new());
        pool.http2_only(protocol == Protocol::Http2);
        Self { address, scheme, pool: pool.build(connector), limit: LIMIT }
    }

    /// Whom it talks to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, or `https`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The same client, which waits for a compiler.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.limit = PATIENT;
        self
    }

    /// Sends a request and reads the whole answer; fails only if no head came.
    pub async fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let stream = self.try_open(method, target, headers, body).await?;
        Ok(within("reading a reply", self.limit, stream.whole()).await)
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.try_send(method, target, headers, body.into()).await.expect("the gateway answers")
    }

    /// Sends a request and reads the answer's head only.
    pub async fn try_open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Stream> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}://{}{target}", self.scheme, self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let response = tokio::time::timeout(self.limit, self.pool.request(request)).await??;
        let (head, body) = response.into_parts();
        Ok(Stream {
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body,
            buffer: BytesMut::new(),
        })
    }

    /// Writes bytes that no HTTP library would write, and reads until the other side closes or `LIMIT` passes.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("the gateway accepts");
        // A server may refuse and close before it has read everything: what it said counts, not whether it listened.
        let written = stream.write_all(bytes).await;
        let mut out = Vec::new();
        let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut out)).await;
        assert!(read.is_ok(), "the gateway neither answered nor closed ({written:?})");
        out
    }

    /// The same, and says that nothing comes after.
    pub async fn raw_and_done(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("the gateway accepts");
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        let mut out = Vec::new();
        let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut out)).await;
        assert!(read.is_ok(), "the gateway neither answered nor closed");
        out
    }

    /// The first bytes of what comes back.
    pub async fn raw_for(&self, bytes: &[u8], count: usize) -> Vec<u8> {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("the gateway accepts");
        stream.write_all(bytes).await.expect("the gateway reads");
        let mut out = vec![0; count];
        within("the gateway answers", LIMIT, stream.read_exact(&mut out)).await.expect("so many bytes come");
        out
    }
}

// === impl Reply ===

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// The body's events.
    pub fn events(&self) -> Vec<Event> {
        events(&self.body)
    }

    /// `error.type` of an error in Anthropic's shape; stops the test if the body is none.
    pub fn error_type(&self) -> String {
        let json = self.json();
        assert_eq!(json["type"], "error", "{self}");
        assert!(json["error"]["message"].is_string(), "{self}");
        json["error"]["type"].as_str().unwrap_or_else(|| panic!("an error without a type: {self}")).to_owned()
    }

    /// All text of the reply, JSON or stream.
    pub fn text(&self) -> String {
        if self.body.starts_with(b"{") {
            let json = self.json();
            return json["content"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|b| b["text"].as_str())
                .collect();
        }
        self.events().iter().filter_map(|e| Some(e.json()["delta"]["text"].as_str()?.to_owned())).collect()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

// === impl Stream ===

impl Stream {
    /// The next event; `None` at the end of the stream, an error where it broke.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\n\n") {
                let bytes = self.buffer.split_to(end + 2);
                if let Some(event) = parse(&String::from_utf8_lossy(&bytes)) {
                    return Ok(Some(event));
                }
                continue;
            }
            match tokio::time::timeout(LIMIT, self.body.frame()).await? {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// The next event with this name; stops the test if the stream ends before.
    pub async fn next_named(&mut self, name: &str) -> Event {
        loop {
            match self.next().await {
                Ok(Some(event)) if event.name == name => return event,
                Ok(Some(_)) => {}
                other => panic!("the stream ended before {name}: {other:?}"),
            }
        }
    }

    /// The next bytes as they come; `None` at the end or where it broke.
    pub async fn bytes(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// Reads to the end.
    pub async fn whole(mut self) -> Reply {
        let mut all = self.buffer.split();
        let complete = loop {
            match self.body.frame().await {
                None => break true,
                Some(Err(_)) => break false,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        all.extend_from_slice(&data);
                    }
                }
            }
        };
        Reply { status: self.status, headers: self.headers, body: all.freeze(), complete }
    }
}

// === impl Event ===

impl Event {
    /// The data as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// The events of a complete stream.
pub fn events(body: &[u8]) -> Vec<Event> {
    String::from_utf8_lossy(body).split("\n\n").filter_map(parse).collect()
}

/// Stops the test if these events are no legal Messages stream: `message_start`, blocks in order, `message_delta`,
/// `message_stop`; pings and events that nobody knows anywhere.
pub fn assert_legal(events: &[Event]) {
    let shown: Vec<_> = events.iter().map(|e| e.name.as_str()).collect();
    let mut open = None;
    let mut next = 0;
    let mut state = "start";
    for event in events {
        let data = event.json();
        assert!(
            data.is_object() && data["type"] == event.name.as_str(),
            "an event names itself twice alike: {event:?}"
        );
        let index = data["index"].as_u64();
        state = match (state, event.name.as_str()) {
            ("start", "message_start") => "body",
            ("body", "content_block_start") if open.is_none() && index == Some(next) => {
                open = index;
                next += 1;
                "body"
            }
            ("body", "content_block_delta") if open.is_some() && index == open => "body",
            ("body", "content_block_stop") if open.is_some() && index == open => {
                open = None;
                "body"
            }
            ("body" | "delta", "message_delta") if open.is_none() => "delta",
            ("delta", "message_stop") => "stop",
            (
                _,
                "message_start"
                | "content_block_start"
                | "content_block_delta"
                | "content_block_stop"
                | "message_delta"
                | "message_stop"
                | "error",
            ) => panic!("{} is illegal here: {shown:?}", event.name),
            (state, _) => state,
        };
    }
    assert_eq!(state, "stop", "the stream has no end: {shown:?}");
}

fn parse(text: &str) -> Option<Event> {
    let mut name = String::new();
    let mut data = String::new();
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("event:") {
            value.trim().clone_into(&mut name);
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push_str(value.strip_prefix(' ').unwrap_or(value));
        }
    }
    (!name.is_empty() || !data.is_empty()).then(|| Event { name, data, at: Instant::now() })
}

fn find(buffer: &[u8], needle: &[u8]) -> Option<usize> {
    buffer.windows(needle.len()).position(|window| window == needle)
}
