//! Heads of requests that are too long or never end: the client is told or let go, and nobody else waits for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process::sockets;
use sallyport_tests::wait::{SOON, until, within};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hello;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_megabyte_is_a_431_and_leaves_no_trace_upstream() {
    let app = TestApp::start().await;
    let part = "a".repeat(349_525);
    for name in ["authorization", "x-api-key"] {
        let token = format!("Bearer {part}.{part}.{part}");
        let text = hello().to_string();
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\n{name}: {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        let answer = app.client().raw(request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{name}: {answer}");
        assert!(!answer.contains("aaaa"), "{name}: the token does not come back");
    }
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(app.messages(hello()).await.status, 200, "the next client is served");
    assert!(!app.log().contains("aaaa"), "the token is not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_its_head_is_let_go_and_nobody_waits_for_it() {
    let app = TestApp::with(|config| config.set("/server/head_timeout_ms", json!(700))).await;
    let before = sockets(app.pid()).unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..40_u32 {
        let address = app.address();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let began = Instant::now();
            stream.write_all(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
            let mut answer = Vec::new();
            // A byte now and then buys no time.
            if number % 2 == 0 {
                drip(&mut stream, &mut answer).await;
            }
            drop(stream.read_to_end(&mut answer).await);
            (began.elapsed(), answer)
        });
    }
    for _ in 0..20 {
        assert_eq!(app.messages(hello()).await.status, 200, "others are served meanwhile");
    }
    let ended = within("all of them are let go", SOON, clients.join_all()).await;
    for (after, answer) in ended {
        assert!(after >= Duration::from_millis(650), "it was given its time: {after:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    // One connection of the story's own client may have come in between.
    until("their sockets are closed", SOON, || async {
        (sockets(app.pid()).unwrap() <= before + 4).then_some(())
    })
    .await;
    assert_eq!(app.client().send("GET", "/health", &[], Bytes::new()).await.status, 200);
}

/// Keeps sending, a byte at a time, until the other side has had enough.
async fn drip(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    let mut bytes = [0; 1024];
    loop {
        match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => answer.extend_from_slice(&bytes[..count]),
            Err(_) if stream.write_all(b"a").await.is_err() => return,
            Err(_) => {}
        }
    }
}
