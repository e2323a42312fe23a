//! Heads of requests that are too long or never end: the client is told or let go, and nobody else waits for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process::sockets;
use sallyport_tests::upstream::{Script, Step};
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
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "told or let go: {answer}");
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

#[tokio::test(flavor = "multi_thread")]
async fn guest_16_trailers_of_an_upstream_end_at_the_gateway() {
    let app = TestApp::start().await;
    let body = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\nx-late: smuggled\r\nset-cookie: smuggled=1\r\n\r\n",
        body.len()
    );
    app.upstream.script(Script::Steps(vec![Step::Write(answer.into())]));
    let asked = hello().to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nte: trailers\r\nconnection: close\r\n\r\n{asked}",
        app.token,
        asked.len()
    );
    let said = String::from_utf8(app.client().raw(request.as_bytes()).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains(body), "{said}");
    assert!(!said.contains("smuggled") && !said.to_lowercase().contains("x-late"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_end_and_keep_nobody_out() {
    let app = TestApp::with(|config| {
        config.set("/server/head_timeout_ms", json!(1500)).set("/server/max_connections", json!(64))
    })
    .await;
    let before = sockets(app.pid()).unwrap();
    let mut silent = Vec::new();
    // Nothing at all, half a preface of HTTP/2, and a whole one that asks for nothing.
    let says: [&[u8]; 3] = [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"];
    for number in 0..300_usize {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        // The gateway may have closed the place again: it is one of too many.
        drop(stream.write_all(says[number % 3]).await);
        silent.push(stream);
    }
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 200, "a caller who is known has a place: {reply}");
    assert_eq!(app.client().send("GET", "/health", &[], Bytes::new()).await.status, 200);
    let mut ended = tokio::task::JoinSet::new();
    for mut stream in silent {
        ended.spawn(async move { drop(stream.read_to_end(&mut Vec::new()).await) });
    }
    within("all of them are let go", SOON, ended.join_all()).await;
    until("their sockets are given back", SOON, || {
        std::future::ready((sockets(app.pid()).unwrap() <= before + 8).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_hardly_comes_is_not_waited_for() {
    let app = TestApp::with(|config| config.set("/server/head_timeout_ms", json!(700))).await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 30000000\r\n\r\n{{",
        app.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("it is told", SOON, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_too_slow"), "{answer}");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_while_it_sends_can_send_all_of_it_and_reads_why() {
    let app = TestApp::start().await;
    let length = 40_usize << 20;
    let send = async |credential: &str| {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {credential}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Many clients look for the answer once they have sent everything.
        let piece = vec![b' '; 1 << 20];
        for sent in 0..length / piece.len() {
            let written = stream.write_all(&piece).await;
            assert!(written.is_ok(), "the connection broke after {sent} MiB: {written:?}");
        }
        let mut answer = Vec::new();
        within("the answer comes", SOON, stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let refused = send(&app.token).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("request_too_large"), "{refused}");
    assert!(refused.contains("connection: close\r\n"), "{refused}");
    let refused = send("nonsense").await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("authentication_error"), "{refused}");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_one_user_hold_an_eighth_of_the_memory_and_give_it_back() {
    let app = TestApp::with(|config| {
        config
            .set("/server/body_memory_bytes", json!(8_388_608))
            .set("/server/body_limit_bytes", json!(1_048_576))
    })
    .await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1000000\r\n\r\n",
        app.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; 999_000]).await.unwrap();
    let other = serde_json::to_string(&crate::ask("claude-sonnet-4-5", &"x".repeat(400_000))).unwrap();
    let full = until("the share is used up", SOON, || async {
        let reply = app.post("/v1/messages", &[], other.clone()).await;
        (reply.status == 429).then_some(reply)
    })
    .await;
    assert_eq!(full.header("x-sallyport-code"), Some("bodies_full"), "{full}");
    assert!(full.header("retry-after").is_some(), "{full}");
    drop(stream);
    until("it is given back", SOON, || async {
        (app.post("/v1/messages", &[], other.clone()).await.status == 200).then_some(())
    })
    .await;
}
