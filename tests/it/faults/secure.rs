//! What goes wrong below HTTP: certificates, a handshake that never begins, and a connection that HTTP/2 takes away.

use std::time::{Duration, Instant};

use sallyport_tests::client::{Reply, assert_legal};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::{Certificate, Manner, SecureUpstream};
use sallyport_tests::wait::{SOON, until_true, within};
use serde_json::{Value, json};

use super::assert_told;
use crate::ask;

const MODELS: [&str; 2] = ["claude-sonnet-4-5", "gpt-5"];

/// A gateway whose usual routes lead to `upstream`.
async fn in_front_of(upstream: &SecureUpstream) -> TestApp {
    let url = upstream.url();
    TestApp::with(|config: Config| config.upstream(&url)).await
}

/// One call, its answer and its row.
async fn call(app: &TestApp, what: &str, model: &str, stream: bool) -> (Reply, Value) {
    let mut body = ask(model, "Hello");
    body["stream"] = json!(stream);
    let reply = within(what, Duration::from_secs(25), app.messages(body)).await;
    assert_told(what, &reply);
    let row = app.row_of(&reply).await;
    (reply, row)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_proves_nothing_gets_no_request() {
    for certificate in [Certificate::WrongName, Certificate::Expired, Certificate::SelfSigned] {
        let upstream = SecureUpstream::start(certificate, Manner::Answers).await;
        let app = in_front_of(&upstream).await;
        for model in MODELS {
            let what = format!("{model} {certificate:?}");
            let (reply, row) = call(&app, &what, model, true).await;
            assert!(matches!(reply.status, 502..=504), "{what}: {reply}");
            assert!(!reply.to_string().contains("127.0.0.1"), "{what}: {reply}");
            assert_eq!(row["outcome"], "error", "{what}: {row}");
            assert!(row["payload"]["code"].is_string() && row["payload"]["reason"].is_string(), "{row}");
        }
        assert_eq!((upstream.seen(), upstream.taken() > 0), (0, true), "{certificate:?}");
        until_true("the sockets are closed", SOON, || upstream.open_sockets() == 0).await;
        assert!(app.is_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_behind_a_good_certificate_is_asked_over_http_2_on_one_connection() {
    let upstream = SecureUpstream::start(Certificate::Good, Manner::Answers).await;
    let app = in_front_of(&upstream).await;
    for model in MODELS {
        for stream in [false, true] {
            let (reply, row) = call(&app, model, model, stream).await;
            assert_eq!((reply.status, &row["outcome"]), (200, &json!("allowed")), "{reply}");
            assert_eq!(reply.text(), "A text from behind TLS.");
        }
    }
    assert_eq!((upstream.seen(), upstream.taken()), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_a_connection_and_says_nothing_is_given_up_after_ten_seconds() {
    let upstream = SecureUpstream::start(Certificate::Good, Manner::Silent).await;
    let app = in_front_of(&upstream).await;
    let began = Instant::now();
    let (claude, gpt) =
        tokio::join!(call(&app, "hang", MODELS[0], false), call(&app, "hang", MODELS[1], true));
    assert!(began.elapsed() > Duration::from_secs(9), "it was given its time: {:?}", began.elapsed());
    for (reply, row) in [claude, gpt] {
        assert!(matches!(reply.status, 502..=504), "{reply}");
        assert_eq!(row["outcome"], "error", "{row}");
    }
    until_true("the sockets are closed", SOON, || upstream.open_sockets() == 0).await;
    assert!(app.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_http_2_takes_away_is_an_error_and_the_next_call_has_another() {
    for manner in [Manner::LeavesBeforeHead, Manner::LeavesMidway] {
        let upstream = SecureUpstream::start(Certificate::Good, manner).await;
        let app = in_front_of(&upstream).await;
        for model in MODELS {
            for stream in [false, true] {
                let what = format!("{model} {manner:?} stream={stream}");
                let before = upstream.taken();
                let (reply, row) = call(&app, &what, model, stream).await;
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(reply.status >= 500 || text.contains("event: error"), "{what}: {reply}");
                assert_eq!(row["outcome"], "error", "{what}: {row}");
                assert!(row["payload"]["code"].is_string(), "{what}: {row}");
                assert!(upstream.taken() > before, "{what}: a connection that was left is not used again");
                until_true(&what, SOON, || upstream.open_sockets() == 0).await;
            }
        }
        assert!(app.is_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_announces_its_leave_may_finish_what_it_began() {
    let upstream = SecureUpstream::start(Certificate::Good, Manner::LeavesPolitely).await;
    let app = in_front_of(&upstream).await;
    for model in MODELS {
        for stream in [false, true] {
            let (reply, row) = call(&app, model, model, stream).await;
            assert_eq!((reply.status, &row["outcome"]), (200, &json!("allowed")), "{reply}");
            assert_eq!(reply.text(), "A text from behind TLS.");
            if stream {
                assert_legal(&reply.events());
            }
        }
    }
    assert_eq!(upstream.seen(), 4);
}
