//! Egress against real sockets on this machine.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock::SystemClock;
use crate::config::{Endpoint, SecretString};
use crate::upstream::TrustedServers;
use crate::upstream::address::Lookup;

/// A server that says one thing to everybody, and remembers what it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: tokio::task::JoinSet<()>,
}

impl Server {
    async fn saying(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let serve = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 65_536];
                let read = stream.read(&mut bytes).await.unwrap();
                seen.lock().unwrap().push(String::from_utf8_lossy(&bytes[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() {
                    // Silence, for as long as the other side has patience.
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                }
            }
        };
        // Dropped, it stops.
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(serve);
        Self { address, asked, _serving: serving }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A name that had a public address when somebody looked, and has one of this machine when it is dialled.
struct Rebinding {
    asked: AtomicUsize,
    now: SocketAddr,
}

impl Lookup for Rebinding {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let earlier = self.asked.fetch_add(1, Ordering::SeqCst);
        let public = SocketAddr::from(([93, 184, 216, 34], 80));
        Box::pin(std::future::ready(Ok(vec![if earlier == 0 { public } else { self.now }])))
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-kind: fine\r\nset-cookie: a=b\r\nconnection: close\r\n\r\ndone";

fn granted(url: &str) -> EgressSettings {
    EgressSettings {
        name: "moderation".to_owned(),
        endpoint: Endpoint::parse(url).unwrap(),
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        path_prefix: "/v1".to_owned(),
        auth: EgressAuth::Bearer(SecretString::from("the-credential")),
        max_request: 16,
        max_response: 64,
        timeout: Duration::from_millis(500),
        allow_private: true,
        components: vec!["acme/ask".to_owned()],
    }
}

fn client() -> EgressClient {
    let outbound = Outbound::new(&TrustedServers::System).unwrap();
    EgressClient::new(&outbound, Arc::new(SystemClock::default()))
}

fn get(path: &str) -> Wanted {
    Wanted { method: "GET".to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
}

async fn fetch(settings: &EgressSettings, request: Wanted) -> Result<Response, EgressFault> {
    client().grant(settings).fetch(request).await.result
}

/// The fault that it came to.
async fn fault(settings: &EgressSettings, request: Wanted) -> String {
    format!("{:?}", fetch(settings, request).await.unwrap_err())
}

#[tokio::test]
async fn a_request_within_the_grant_is_made_as_the_grant_says() {
    let server = Server::saying(OK).await;
    let header = Attribute { name: "Content-Type".to_owned(), value: "text/plain".to_owned() };
    let wanted = Wanted {
        method: "POST".to_owned(),
        path: "/v1/check?q=1".to_owned(),
        headers: vec![header],
        body: b"hello".to_vec(),
    };
    let answer = fetch(&granted(&server.url()), wanted).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"done".as_slice()));
    let names: Vec<_> = answer.headers.iter().map(|header| header.name.as_str()).collect();
    assert!(names.contains(&"x-kind") && !names.contains(&"set-cookie"), "{names:?}");
    let asked = server.asked().remove(0);
    assert!(asked.starts_with("POST /v1/check?q=1 HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("authorization: Bearer the-credential\r\n") && asked.ends_with("\r\n\r\nhello"),
        "{asked}"
    );
}

#[tokio::test]
async fn what_the_grant_does_not_cover_is_never_sent() {
    let server = Server::saying(OK).await;
    let settings = granted(&server.url());
    for path in [
        "/",
        "/v2",
        "/v1x",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "//v1",
        "http://evil.example/v1",
        "/v1\\x",
        "/v1/a\r\nHost: x",
        "v1",
        "/v1#f",
        "/v1?a b",
    ] {
        assert_eq!(fault(&settings, get(path)).await, r#"EgressFault::NotAllowed("path")"#, "{path:?}");
    }
    for method in ["DELETE", "get", "GET /", "CONNECT"] {
        let wanted = Wanted { method: method.to_owned(), ..get("/v1") };
        assert_eq!(fault(&settings, wanted).await, r#"EgressFault::NotAllowed("method")"#, "{method}");
    }
    for (name, value) in [
        ("Host", "evil"),
        ("authorization", "Bearer x"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "x"),
        ("x-api-key", "k"),
        ("a", "b\r\nc: d"),
        ("a b", "c"),
        ("te", "trailers"),
    ] {
        let header = Attribute { name: name.to_owned(), value: value.to_owned() };
        let refused = fetch(&settings, Wanted { headers: vec![header], ..get("/v1") }).await;
        assert!(matches!(refused, Err(EgressFault::NotAllowed(_))), "{name}: {refused:?}");
    }
    let large = Wanted { body: vec![0; 17], ..get("/v1") };
    assert_eq!(fault(&settings, large).await, "EgressFault::TooLarge");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_answer_is_bounded_in_size_and_in_time() {
    let large = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123456789").await;
    assert_eq!(fault(&granted(&large.url()), get("/v1")).await, "EgressFault::TooLarge");
    let silent = Server::saying("").await;
    assert_eq!(fault(&granted(&silent.url()), get("/v1")).await, "EgressFault::TimedOut");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(fault(&granted(&format!("http://{gone}")), get("/v1")).await, "EgressFault::Unreachable");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nobody_follows_it() {
    let canary = Server::saying(OK).await;
    let location: &'static str =
        format!("HTTP/1.1 302 Found\r\nlocation: {}/v1\r\ncontent-length: 0\r\n\r\n", canary.url()).leak();
    let server = Server::saying(location).await;
    assert_eq!(fetch(&granted(&server.url()), get("/v1")).await.unwrap().status, 302);
    assert!(canary.asked().is_empty());
}

#[tokio::test]
async fn an_answer_that_repeats_the_credential_does_not_reach_the_guest() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\nyou are the-credential").await;
    let answer = fetch(&granted(&server.url()), get("/v1")).await;
    assert!(matches!(answer, Err(EgressFault::Other(_))), "{answer:?}");
}

#[tokio::test]
async fn no_spelling_of_a_private_address_is_dialled() {
    let canary = Server::saying(OK).await;
    let port = canary.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "[::1]",
        "0.0.0.0",
    ] {
        let settings = EgressSettings { allow_private: false, ..granted(&format!("http://{host}:{port}")) };
        assert_eq!(fault(&settings, get("/v1")).await, "EgressFault::Unreachable", "{host}");
    }
    assert!(canary.asked().is_empty());
}

#[tokio::test]
async fn a_name_that_has_another_address_a_moment_later_gains_nothing() {
    let canary = Server::saying(OK).await;
    let lookup = Arc::new(Rebinding { asked: AtomicUsize::new(0), now: canary.address });
    let looked = lookup.lookup("rebinding.example".to_owned()).await.unwrap();
    assert!(looked.iter().all(|address| crate::config::is_public(address.ip())));
    let outbound = Outbound::with(&TrustedServers::System, lookup).unwrap();
    let client = EgressClient::new(&outbound, Arc::new(SystemClock::default()));
    let settings = EgressSettings { allow_private: false, ..granted("http://rebinding.example") };
    assert!(matches!(client.grant(&settings).fetch(get("/v1")).await.result, Err(EgressFault::Unreachable)));
    assert!(canary.asked().is_empty());
}
