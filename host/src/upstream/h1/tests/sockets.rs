//! Connections to upstreams that close, answer early, or say more than they should.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::super::tests::{clock, upstream};
use super::super::super::*;
use crate::component::contract::Attribute;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream whose connections are served one after the other, each as `serve` says, and how many requests it took.
struct Server {
    endpoint: Endpoint,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// One connection, seen from the upstream.
struct Peer {
    stream: TcpStream,
    requests: Arc<AtomicUsize>,
}

// === impl Server ===

impl Server {
    async fn start<F>(serve: impl Fn(Peer, usize) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, connections) = (Arc::default(), Arc::default());
        let server = Self {
            endpoint: Endpoint::parse(&url).unwrap(),
            requests: Arc::clone(&requests),
            connections: Arc::clone(&connections),
        };
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst);
                serve(Peer { stream, requests: Arc::clone(&requests) }, number).await;
            }
        });
        server
    }

    async fn ask(&self, upstream: &Upstream, method: &str, body: Bytes) -> Result<(u16, Bytes), String> {
        let to = Destination { endpoint: &self.endpoint, credential: None, timeouts: Timeouts::default() };
        let headers = vec![Attribute { name: "a".into(), value: "b".into() }];
        let wanted = UpstreamRequest {
            method: method.into(),
            path: "/v1/messages".into(),
            headers,
            body: RequestBody::Original,
            auth: Auth::None,
        };
        let mut answer = upstream.send(to, wanted, &body).await.map_err(|error| format!("{error:?}"))?;
        let mut all = Vec::new();
        while let Some(piece) = answer.body.chunk().await.map_err(|error| format!("{error:?}"))? {
            all.extend_from_slice(&piece);
        }
        Ok((answer.status.as_u16(), all.into()))
    }

    fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

// === impl Peer ===

impl Peer {
    /// The next request, head and body; `None` if the other side left.
    async fn request(&mut self) -> Option<String> {
        let mut all = Vec::new();
        loop {
            if let Some(end) = memchr::memmem::find(&all, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&all[..end]).into_owned();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if all.len() >= end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap()) {
                    self.requests.fetch_add(1, Ordering::SeqCst);
                    return Some(String::from_utf8_lossy(&all).into_owned());
                }
            }
            if self.stream.read_buf(&mut all).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Runs a story on one thread, so that the upstream does what it does while the call waits.
fn story(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, story);
}

fn question() -> Bytes {
    Bytes::from_static(b"{\"question\":1}")
}

#[test]
fn a_connection_serves_one_call_after_the_other() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            while let Some(request) = peer.request().await {
                let expected = "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1:";
                assert!(
                    request.starts_with(expected) && request.ends_with("\r\n\r\n{\"question\":1}"),
                    "{request}"
                );
                assert!(
                    request.contains("\r\na: b\r\n") && request.contains("\r\ncontent-length: 14\r\n"),
                    "{request}"
                );
                peer.say(OK).await;
            }
        })
        .await;
        let upstream = upstream(clock());
        for _ in 0..3 {
            let answer = server.ask(&upstream, "POST", question()).await.unwrap();
            assert_eq!(answer, (200, Bytes::from_static(b"ok")));
        }
        assert_eq!(server.seen(), (1, 3));
    });
}

#[test]
fn a_connection_that_the_upstream_closed_meanwhile_is_noticed_before_a_request_is_lost_on_it() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            if peer.request().await.is_some() {
                peer.say(OK).await;
            }
        })
        .await;
        let upstream = upstream(clock());
        for _ in 0..5 {
            server.ask(&upstream, "POST", question()).await.unwrap();
            // The upstream's side is closed once it waits for the next connection.
            tokio::task::yield_now().await;
        }
        assert_eq!(server.seen(), (5, 5));
    });
}

#[test]
fn a_request_that_began_to_leave_is_not_sent_again() {
    story(async {
        for method in ["POST", "GET"] {
            let server = Server::start(|mut peer, number| async move {
                peer.request().await;
                if number == 0 {
                    peer.say(OK).await;
                    // The second request on this connection is read, and nothing is said.
                    peer.request().await;
                }
            })
            .await;
            let upstream = upstream(clock());
            server.ask(&upstream, method, question()).await.unwrap();
            let lost = server.ask(&upstream, method, question()).await.unwrap_err();
            assert!(lost.contains("Closed") && lost.contains("Early"), "{lost}");
            assert_eq!(server.seen(), (1, 2), "{method}");
        }
    });
}

#[test]
fn an_upstream_that_refuses_before_it_read_everything_is_heard() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            let mut some = [0; 100];
            peer.stream.read_exact(&mut some).await.unwrap();
            peer.say("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!").await;
            // Nothing more is read, and the connection stays until the other side leaves it.
            std::future::pending::<()>().await;
        })
        .await;
        let upstream = upstream(clock());
        let large = Bytes::from(vec![b' '; 32 << 20]);
        let asked = server.ask(&upstream, "POST", large);
        let answer =
            tokio::time::timeout(Duration::from_secs(20), asked).await.expect("it is heard at once").unwrap();
        assert_eq!(answer, (413, Bytes::from_static(b"no!")));
    });
}

#[test]
fn a_good_answer_that_begins_early_does_not_cut_the_request() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            let mut some = [0; 100];
            peer.stream.read_exact(&mut some).await.unwrap();
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let mut rest = 100;
            while rest < (32 << 20) {
                rest += peer.stream.read_buf(&mut Vec::with_capacity(1 << 20)).await.unwrap();
            }
            peer.say("2\r\nok\r\n0\r\n\r\n").await;
        })
        .await;
        let upstream = upstream(clock());
        let answer = server.ask(&upstream, "POST", Bytes::from(vec![b' '; 32 << 20])).await.unwrap();
        assert_eq!(answer, (200, Bytes::from_static(b"ok")));
    });
}

#[test]
fn an_answer_with_more_than_it_said_is_given_and_its_connection_is_not_used_again() {
    story(async {
        for extra in ["x", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"] {
            let server = Server::start(move |mut peer, _| async move {
                if peer.request().await.is_some() {
                    peer.say(&format!("{OK}{extra}")).await;
                    peer.request().await;
                }
            })
            .await;
            let upstream = upstream(clock());
            for _ in 0..2 {
                let answer = server.ask(&upstream, "POST", question()).await.unwrap();
                assert_eq!(answer.1, "ok");
            }
            assert_eq!(server.seen(), (2, 2));
        }
    });
}

#[test]
fn an_answer_in_its_own_time_that_nobody_asked_for_spoils_the_connection() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            if peer.request().await.is_some() {
                peer.say(OK).await;
                tokio::task::yield_now().await;
                peer.say("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await;
                peer.request().await;
            }
        })
        .await;
        let upstream = upstream(clock());
        for _ in 0..3 {
            assert_eq!(server.ask(&upstream, "POST", question()).await.unwrap().0, 200);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(server.seen(), (3, 3));
    });
}

#[test]
fn an_upstream_that_asks_to_close_is_left() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            while peer.request().await.is_some() {
                peer.say("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let upstream = upstream(clock());
        for _ in 0..2 {
            server.ask(&upstream, "POST", question()).await.unwrap();
        }
        assert_eq!(server.seen(), (2, 2));
    });
}

#[test]
fn an_answer_that_is_not_read_to_its_end_closes_its_connection() {
    story(async {
        let (left, mut told) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, _| {
            let left = left.clone();
            async move {
                peer.request().await;
                peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
                left.send(peer.request().await.is_none()).unwrap();
            }
        })
        .await;
        let upstream = upstream(clock());
        let to = Destination { endpoint: &server.endpoint, credential: None, timeouts: Timeouts::default() };
        let wanted = UpstreamRequest {
            method: "GET".into(),
            path: "/".into(),
            headers: Vec::new(),
            body: RequestBody::Empty,
            auth: Auth::None,
        };
        let mut answer = upstream.send(to, wanted, &Bytes::new()).await.unwrap();
        assert_eq!(answer.body.chunk().await.unwrap().unwrap(), "ok");
        drop(answer);
        assert_eq!(told.recv().await, Some(true));
    });
}

#[test]
fn an_upstream_that_says_nothing_for_too_long_is_given_up_and_pieces_begin_the_wait_anew() {
    story(async {
        let server = Server::start(|mut peer, _| async move {
            peer.request().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(900)).await;
                peer.say("2\r\nok\r\n").await;
            }
            std::future::pending::<()>().await;
        })
        .await;
        let upstream = upstream(clock());
        let timeouts = Timeouts { idle: Duration::from_secs(2), ..Timeouts::default() };
        let to = Destination { endpoint: &server.endpoint, credential: None, timeouts };
        let wanted = UpstreamRequest {
            method: "GET".into(),
            path: "/".into(),
            headers: Vec::new(),
            body: RequestBody::Empty,
            auth: Auth::None,
        };
        let mut answer = upstream.send(to, wanted, &Bytes::new()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(answer.body.chunk().await.unwrap().unwrap(), "ok");
        }
        let began = tokio::time::Instant::now();
        let silent = answer.body.chunk().await.unwrap_err();
        assert!(matches!(silent, BodyError::Silent), "{silent:?}");
        assert!(began.elapsed() >= Duration::from_secs(2));
    });
}
