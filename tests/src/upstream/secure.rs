//! An upstream behind TLS, with a certificate that is good or bad, that keeps silent or speaks HTTP/2 and takes its leave in
//! the middle: what can go wrong below HTTP. The gateways of the stories trust the authority that signed the good one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::script::{Script, Turn};
use super::wire;

/// What a server shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Signed by the authority that the gateways trust, for this address, valid.
    Good,
    /// For another name.
    WrongName,
    /// Was valid in 2020.
    Expired,
    /// Signed by nobody.
    SelfSigned,
}

/// What it does with those who come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes the connection and never begins a handshake.
    Silent,
    /// Answers.
    Answers,
    /// GOAWAY instead of an answer.
    LeavesBeforeHead,
    /// GOAWAY in the middle of an answer, which ends there.
    LeavesMidway,
    /// GOAWAY in the middle of an answer, which comes to its end all the same.
    LeavesPolitely,
}

/// A running upstream. Dropped, it is gone with its connections.
#[derive(Debug)]
pub struct SecureUpstream {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    said: Said,
    _tasks: JoinSet<()>,
}

/// What every answer is: media type and body. Nothing: what is usual on the wire that is asked.
type Said = Arc<Mutex<Option<(String, Bytes)>>>;

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    taken: AtomicUsize,
    requests: AtomicUsize,
}

/// A connection that is counted as open.
struct Open(Arc<Counts>);

/// Frames may be lost on the way when a connection ends behind them: a pause lets them arrive.
const ARRIVE: Duration = Duration::from_millis(50);

// === impl Certificate ===

impl Certificate {
    fn file(self) -> &'static str {
        match self {
            Self::Good => "good.pem",
            Self::WrongName => "wrong-name.pem",
            Self::Expired => "expired.pem",
            Self::SelfSigned => "self-signed.pem",
        }
    }
}

// === impl SecureUpstream ===

impl SecureUpstream {
    /// Starts one.
    pub async fn start(certificate: Certificate, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let counts = Arc::new(Counts::default());
        let acceptor = acceptor(certificate);
        let said = Said::default();
        let words = Arc::clone(&said);
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&counts);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(
                    stream,
                    acceptor.clone(),
                    manner,
                    Arc::clone(&shared),
                    Arc::clone(&words),
                ));
            }
        });
        Self { address, counts, said, _tasks: tasks }
    }

    /// `https://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Answers this from now on: a script that is a whole answer with the status 200.
    pub fn says(&self, script: &Script) {
        let Script::Status(200, headers, body) = script else { panic!("no whole answer: {script:?}") };
        let media = headers.iter().find(|(name, _)| name == "content-type").map(|(_, media)| media.clone());
        let answer = (media.expect("the answer has a media type"), body.clone());
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Connections that are open.
    pub fn open_sockets(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn taken(&self) -> usize {
        self.counts.taken.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub fn seen(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The authority that the gateways of the stories trust, and no other.
pub fn authority() -> PathBuf {
    fixture("authority.pem")
}

// === private helpers ===

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name)
}

fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(fixture(certificate.file()))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .expect("the fixture holds a certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("key.pem")).expect("the fixture holds a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key is the certificate's");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// One connection; how it ends is seen by the gateway.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, manner: Manner, counts: Arc<Counts>, said: Said) {
    counts.open.fetch_add(1, Ordering::SeqCst);
    counts.taken.fetch_add(1, Ordering::SeqCst);
    let _open = Open(Arc::clone(&counts));
    if manner == Manner::Silent {
        let mut bytes = [0; 1024];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut bytes) {
                Ok(0) => return,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
        return;
    }
    if let Ok(stream) = acceptor.accept(stream).await {
        drop(converse(stream, manner, &counts, &said).await);
    }
}

async fn converse(
    stream: TlsStream<TcpStream>,
    manner: Manner,
    counts: &Counts,
    said: &Said,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let (leave, mut leaving) = mpsc::channel(1);
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, respond) = accepted?;
                counts.requests.fetch_add(1, Ordering::SeqCst);
                let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                answers.spawn(answer(request, respond, manner, leave.clone(), said));
            }
            Some(reason) = leaving.recv() => match reason {
                Reason::NO_ERROR => connection.graceful_shutdown(),
                reason => connection.abrupt_shutdown(reason),
            },
            Some(_) = answers.join_next() => {}
        }
    }
}

/// One answer, as far as the manner lets it come.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    manner: Manner,
    leave: mpsc::Sender<Reason>,
    said: Option<(String, Bytes)>,
) -> anyhow::Result<()> {
    let openai = request.uri().path().ends_with("/chat/completions");
    let mut body = request.into_body();
    let mut asked = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        asked.extend_from_slice(&chunk);
    }
    if manner == Manner::LeavesBeforeHead {
        return Ok(leave.send(Reason::ENHANCE_YOUR_CALM).await?);
    }
    let (media, text) = match said {
        Some(said) => said,
        None => good(&serde_json::from_slice(&asked)?, openai),
    };
    let head = Response::builder().header("content-type", media).body(())?;
    let mut out = respond.send_response(head, false)?;
    let (first, rest) = (text.slice(..text.len() / 2), text.slice(text.len() / 2..));
    out.send_data(first, false)?;
    match manner {
        Manner::LeavesMidway => {
            tokio::time::sleep(ARRIVE).await;
            leave.send(Reason::ENHANCE_YOUR_CALM).await?;
            // The stream stays as it is: the connection ends under it.
            std::future::pending::<()>().await;
        }
        Manner::LeavesPolitely => {
            leave.send(Reason::NO_ERROR).await?;
            tokio::time::sleep(ARRIVE).await;
        }
        Manner::Silent | Manner::Answers | Manner::LeavesBeforeHead => {}
    }
    Ok(out.send_data(rest, true)?)
}

/// A good answer on either wire.
fn good(asked: &Value, openai: bool) -> (String, Bytes) {
    let model = asked["model"].as_str().unwrap_or("unknown");
    let parts = [Turn::Text("A text from behind TLS.".to_owned())];
    let (media, text) = match (asked["stream"] == Value::Bool(true), openai) {
        (false, false) => ("application/json", wire::anthropic_message(model, &parts).to_string()),
        (false, true) => ("application/json", wire::openai_message(model, &parts).to_string()),
        (true, false) => ("text/event-stream", wire::anthropic_stream(model, &parts)),
        (true, true) => ("text/event-stream", wire::openai_stream(model, &parts)),
    };
    (media.to_owned(), text.into())
}
