//! The rig holds what the stories rely on: exact bytes, true counts, faults that are faults.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{Fault, Script, Turn, Upstream, WITHOUT_AN_ANSWER_OF_THEIR_OWN};
use crate::client::{Client, assert_legal};
use crate::load::{Body, Job};
use crate::wait::{SOON, until_true};
use crate::{process, proxy};

const ASK: &str = r#"{"model": "claude-x",  "max_tokens":1e1, "messages":[{"role":"user","content":"hi"}]}"#;
const ASK_STREAM: &str =
    r#"{"model":"claude-x","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

#[tokio::test]
async fn a_request_is_kept_byte_for_byte_with_its_headers_in_order() {
    let upstream = Upstream::start();
    let client = Client::new(upstream.address);
    let reply =
        client.send("POST", "/v1/messages?beta=true", &[("b", "1"), ("a", "2"), ("b", "3")], ASK).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello from upstream."));
    let seen = upstream.last();
    assert_eq!((seen.target.as_str(), &seen.body[..]), ("/v1/messages?beta=true", ASK.as_bytes()));
    let own: Vec<_> =
        seen.headers.iter().filter(|(n, _)| n.len() == 1).map(|(n, v)| format!("{n}{v}")).collect();
    assert_eq!(own, ["b1", "b3", "a2"], "hyper's client groups values of one name");
}

#[tokio::test]
async fn each_wire_answers_in_json_and_as_a_stream() {
    let upstream = Upstream::start();
    let client = Client::new(upstream.address);
    upstream.script(Script::Turn(vec![
        Turn::Thinking("hm".into(), "c2ln".into()),
        Turn::Text("one two".into()),
        Turn::Tool("toolu_1".into(), "Read".into(), json!({"path": "/x"})),
    ]));
    let reply = client.send("POST", "/v1/messages", &[], ASK_STREAM).await;
    assert_legal(&reply.events());
    assert_eq!(reply.text(), "one two");
    let reply = client.send("POST", "/v1/messages", &[], ASK).await;
    assert_eq!(reply.json()["stop_reason"], "tool_use");
    let reply = client.send("POST", "/v1/chat/completions", &[], ASK).await;
    assert_eq!(
        reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
        r#"{"path":"/x"}"#
    );
    let reply = client.send("POST", "/v1/chat/completions", &[], ASK_STREAM).await;
    assert_eq!(reply.events().last().map(|e| e.data.clone()).as_deref(), Some("[DONE]"));
}

#[tokio::test]
async fn a_tool_loop_ends_once_the_tool_has_answered() {
    let upstream = Upstream::start();
    upstream.script(Script::tool_loop("Read", json!({"path": "/x"}), "Done."));
    let client = Client::new(upstream.address);
    let first = client.send("POST", "/v1/messages", &[], ASK).await.json();
    assert_eq!(first["content"][1]["name"], "Read");
    let body = json!({"model": "claude-x", "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}]});
    assert_eq!(client.send("POST", "/v1/messages", &[], body.to_string()).await.text(), "Done.");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_once() {
    let upstream = Upstream::start();
    upstream.script(Script::Chunks(100_000, Duration::from_millis(20)));
    let client = Client::new(upstream.address);
    let mut stream = client.try_open("POST", "/v1/messages", &[], Bytes::from(ASK_STREAM)).await.unwrap();
    stream.next_named("content_block_delta").await;
    assert_eq!(upstream.busy_sockets(), 1);
    let left = Instant::now();
    drop(stream);
    until_true("the upstream notices", SOON, || !upstream.disconnects().is_empty()).await;
    assert!(upstream.disconnects()[0] - left < Duration::from_millis(500));
    until_true("the socket is closed", SOON, || upstream.open_sockets() == 0).await;
}

#[tokio::test]
async fn a_gate_holds_the_stream_until_it_is_opened() {
    let upstream = Upstream::start();
    let gate = Arc::new(Semaphore::new(1));
    upstream.script(Script::gated(
        &["event: ping\ndata: {\"type\":\"ping\"}\n\n", "event: x\ndata: {}\n\n"],
        &gate,
    ));
    let client = Client::new(upstream.address);
    let mut stream = client.try_open("POST", "/v1/messages", &[], Bytes::from(ASK_STREAM)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().name, "ping");
    let early = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(early.is_err(), "nothing may come through a closed gate");
    gate.add_permits(1);
    assert_eq!(stream.next().await.unwrap().unwrap().name, "x");
}

#[tokio::test]
async fn every_fault_ends_and_leaves_no_socket_busy() {
    let upstream = Upstream::start();
    for fault in WITHOUT_AN_ANSWER_OF_THEIR_OWN {
        for (target, body) in [
            ("/v1/messages", ASK),
            ("/v1/messages", ASK_STREAM),
            ("/v1/chat/completions", ASK),
            ("/v1/chat/completions", ASK_STREAM),
        ] {
            upstream.script(Script::Fault(*fault));
            // A client of its own each time: a spoiled connection must not be used again.
            let client = Client::new(upstream.address);
            let outcome = client.try_send("POST", target, &[], Bytes::from(body)).await;
            match fault {
                Fault::ResetBeforeHead => assert!(outcome.is_err(), "{fault:?}"),
                Fault::CutBeforeFirstByte
                | Fault::CutMidEvent
                | Fault::CutMidUtf8
                | Fault::CutMidToolJson
                | Fault::CutBeforeStop
                | Fault::LengthTooLong => assert!(!outcome.expect("a head came").complete, "{fault:?}"),
                Fault::Status(status) => assert_eq!(outcome.expect("a head came").status, *status),
                fault if fault.is_harmless() => assert!(outcome.expect("a head came").complete, "{fault:?}"),
                _ => drop(outcome),
            }
            until_true("the fault is over", SOON, || upstream.busy_sockets() == 0).await;
        }
    }
}

#[tokio::test]
async fn the_load_generator_counts_what_the_upstream_counts_also_through_the_bare_proxy() {
    let upstream = Upstream::start_forgetful();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(proxy::serve(listener, upstream.address));
    let before = process::Cpu::of(std::process::id()).unwrap();
    for address in [upstream.address, address] {
        let report = Job::messages(address, "t", Body::Same(Bytes::from(ASK)), 8, 200).run().await;
        assert_eq!((report.latencies.len(), report.failures), (200, 0));
        assert!(report.percentile(500) <= report.percentile(990));
    }
    assert_eq!(upstream.seen(), 400);
    upstream.script(Script::Chunks(200, Duration::ZERO));
    let body = Body::Conversation { model: "claude-x".into(), bytes: 4096, turn: 2 };
    let report = Job::messages(address, "t", body, 2, 10).run().await;
    assert_eq!((report.latencies.len(), report.failures), (10, 0));
    upstream.script(Script::error(529, "overloaded_error", "busy"));
    let report = Job::messages(address, "t", Body::Same(Bytes::from(ASK)), 1, 3).run().await;
    assert_eq!((report.latencies.len(), report.failures), (0, 3));
    let spent = process::Cpu::of(std::process::id()).unwrap().since(&before);
    assert!(spent > Duration::ZERO);
}
