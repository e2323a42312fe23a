//! Attackers as programs: each does one harmful thing again and again, to any gateway that it is pointed at, and says where the
//! answer was not the documented one. They call from addresses of their own, so that what is bounded for each address is bounded
//! for them and not for honest callers.

pub mod connections;
pub mod replies;
pub mod requests;
pub mod tenants;
pub mod witness;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// How long an attacker waits for an answer.
const TIMEOUT: Duration = Duration::from_mins(2);
/// More findings than this say nothing new.
const MOST_FINDINGS: usize = 20;

/// What is attacked, and by whom.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where the gateway listens.
    pub address: SocketAddr,
    /// A token of a user of the gateway.
    pub token: String,
    /// The attacker's own address.
    pub from: Ipv4Addr,
}

/// Until when an attack goes on.
#[derive(Debug, Clone, Copy)]
pub struct Until(Instant);

/// What came of an attack.
#[derive(Debug, Clone)]
pub struct Findings {
    /// Which attack.
    pub attack: &'static str,
    /// How often it was carried out.
    pub rounds: usize,
    /// Answers that were not the documented ones.
    pub wrong: Vec<String>,
}

/// What the gateway answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// As much of the body as came.
    pub body: Bytes,
    /// Whether all of it came.
    pub complete: bool,
}

// === impl Until ===

impl Until {
    /// Once.
    pub fn once() -> Self {
        Self(Instant::now())
    }

    /// Again and again for so long.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Whether another round begins after so many.
    pub fn goes_on(self, rounds: usize) -> bool {
        rounds == 0 || Instant::now() < self.0
    }
}

// === impl Findings ===

impl Findings {
    /// Nothing yet.
    pub fn of(attack: &'static str) -> Self {
        Self { attack, rounds: 0, wrong: Vec::new() }
    }

    /// Notes what was not as it should be.
    pub fn expect(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right && self.wrong.len() < MOST_FINDINGS {
            self.wrong.push(clip(&what()));
        }
    }
}

// === impl Site ===

impl Site {
    /// The same gateway, seen from another address of the attacker.
    #[must_use]
    pub fn seen_from(&self, last: u8) -> Self {
        let [one, two, three, _] = self.from.octets();
        Self { from: Ipv4Addr::new(one, two, three, last), ..self.clone() }
    }

    /// A new connection.
    pub async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((self.from, 0)))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Writes bytes that no HTTP library would write, and reads until the other side closes.
    pub async fn raw(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = self.connect().await?;
        // A server may refuse and close before it has read everything: what it said counts.
        drop(stream.write_all(bytes).await);
        let mut out = Vec::new();
        match tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut out)).await {
            Ok(_) => Ok(out),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    /// A call of the Messages API on a connection of its own.
    pub async fn messages(&self, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        self.post("/v1/messages", &[], body).await
    }

    /// A request with headers besides the usual ones.
    pub async fn post(
        &self,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = http::Request::post(target)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("anthropic-version", "2023-06-01")
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        tokio::time::timeout(TIMEOUT, self.exchange(request)).await?
    }

    async fn exchange(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await?;
        let talk = async {
            let response = sender.send_request(request).await?;
            let (head, mut body) = response.into_parts();
            let mut all = BytesMut::new();
            let complete = loop {
                match body.frame().await {
                    None => break true,
                    Some(Err(_)) => break false,
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            all.extend_from_slice(&data);
                        }
                    }
                }
            };
            anyhow::Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: all.freeze(),
                complete,
            })
        };
        tokio::pin!(talk);
        tokio::select! {
            answer = &mut talk => answer,
            // Its end may come just before that of the answer's body.
            _ = connection => talk.await,
        }
    }
}

// === impl Answer ===

impl Answer {
    /// What names the refusal, where it is one.
    pub fn code(&self) -> &str {
        self.headers.get("x-sallyport-code").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.status, self.code(), clip(&self.text()))
    }
}

/// As much of a text as a finding needs.
fn clip(text: &str) -> String {
    text.chars().take(600).collect()
}
