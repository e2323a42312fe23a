//! SIGTERM: whoever is being answered is answered to the end, nobody new is, and the trail holds all of it when the process is gone.

use std::sync::Arc;

use futures_util::FutureExt as _;
use sallyport_tests::client::assert_legal;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process;
use sallyport_tests::upstream::{Script, Turn, anthropic_stream};
use sallyport_tests::wait::{SOON, until};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::hello;

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_the_gateway_is_told_to_end_ends_as_it_began_and_has_its_row() {
    let app = TestApp::start().await;
    let gate = Arc::new(Semaphore::new(1));
    let all = anthropic_stream("claude-sonnet-4-5", &[Turn::Text("to the end".into())]);
    let (first, rest) = all.split_at(all.find("event: content_block_delta").unwrap());
    app.upstream.next(Script::gated(&[first, rest], &gate));
    let mut stream = app.messages_stream(hello()).await;
    let trace = stream.headers["x-trace-id"].to_str().unwrap().to_owned();
    let mut events = vec![stream.next_named("message_start").await];
    let whole_gate = Arc::new(Semaphore::new(0));
    app.upstream.next(Script::default().behind(&whole_gate));
    let mut whole = std::pin::pin!(app.messages(hello()));
    until("both are upstream", SOON, || {
        let begun = (&mut whole).now_or_never().is_none() && app.upstream.busy_sockets() == 2;
        std::future::ready(begun.then_some(()))
    })
    .await;

    process::signal(app.pid(), "TERM").unwrap();
    until("nobody new is taken", SOON, || async { TcpStream::connect(app.address()).await.err() }).await;
    assert!(app.is_up(), "it waits for what runs");
    gate.add_permits(1);
    whole_gate.add_permits(1);
    while let Some(event) = stream.next().await.unwrap() {
        events.push(event);
    }
    assert_legal(&events);
    let text: String =
        events.iter().filter_map(|event| Some(event.json()["delta"]["text"].as_str()?.to_owned())).collect();
    assert_eq!(text, "to the end");
    let whole = whole.await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "Hello from upstream."), "{whole}");
    let status = app.ended().await;
    assert!(status.success(), "{status}");

    let rows = app.audit_rows();
    for trace in [trace.as_str(), whole.header("x-trace-id").unwrap()] {
        let rows: Vec<_> =
            rows.iter().filter(|row| row["trace_id"] == trace && row["kind"] == "inference").collect();
        assert!(rows.len() == 1 && rows[0]["outcome"] == "allowed", "{trace}: {rows:?}");
    }
}
