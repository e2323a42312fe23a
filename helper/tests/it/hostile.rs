//! Gateways that are none: whatever answers, the client reads nothing, a person reads one line, and no file is left.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::double::{Double, Reply, answer, credential, error, status};
use crate::station::{PAT, Station};

/// A machine whose token comes from the environment, so that nothing was asked before.
fn station(gateway: &str) -> Station {
    Station::new(gateway).with("SP_COWORK_PAT", PAT).with("SP_COWORK_TIMEOUT_SEC", "2")
}

#[track_caller]
fn refused(what: &str, code: i32, reply: impl Fn() -> Reply + Send + Sync + 'static) -> String {
    let gateway = Double::start(move |_, _| reply());
    let station = station(&gateway.url());
    let began = Instant::now();
    let line = station.run(&[]).fails(code).to_owned();
    assert!(began.elapsed() < Duration::from_secs(20), "{what} took {:?}", began.elapsed());
    assert_eq!(
        station.files(),
        [".cache/systemprompt/systemprompt-cowork.lock", ".config/systemprompt/systemprompt-cowork.toml"],
        "{what}"
    );
    assert_eq!(gateway.requests().len(), 1, "{what}: nothing is sent twice, and no redirect is followed");
    line
}

#[test]
fn what_is_no_answer_of_a_gateway_is_refused() {
    let whole = || answer("200 OK", "application/json", credential("t", 60).to_string().as_bytes());
    refused("HTML", 3, || Reply::Bytes(answer("200 OK", "text/html", b"<html>Sign in to the Wi-Fi</html>")));
    refused("an empty body", 3, || Reply::Bytes(answer("200 OK", "application/json", b"")));
    refused("no body at all", 3, || Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    refused("no HTTP", 3, || Reply::Bytes(b"220 mail.example.com ESMTP\r\n".to_vec()));
    refused("nothing", 3, || Reply::Bytes(Vec::new()));
    refused("a truncated head", 3, || Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()));
    refused("a truncated body", 3, move || {
        let mut bytes = whole();
        bytes.truncate(bytes.len() - 1);
        Reply::Bytes(bytes)
    });
    refused("other JSON", 3, || status("200 OK", &json!({ "ok": true })));
    refused("a token of two lines", 3, || status("200 OK", &credential("a\nb", 60)));
    refused("a token that has ended", 3, || status("200 OK", &credential("a", 0)));
    refused("a header that is not ours", 3, || {
        let mut body = credential("a", 60);
        body["headers"]["host"] = json!("evil.example.com");
        status("200 OK", &body)
    });
    refused("an error of a proxy", 3, || {
        Reply::Bytes(answer("502 Bad Gateway", "text/html", b"<h1>502</h1>"))
    });
    refused("too many calls", 3, || status("429 Too Many Requests", &error("slow down")));
    refused("no such path", 3, || Reply::Bytes(answer("404 Not Found", "text/plain", b"404")));
    let line = refused("control characters", 5, || status("401 Unauthorized", &error("a\n\u{1b}[2Jb")));
    assert!(line.contains("a  [2Jb"), "{line}");
}

#[test]
fn a_redirect_is_not_followed_with_a_credential() {
    for code in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let elsewhere = Double::kind(3600);
        let to = elsewhere.url();
        let line = refused(code, 3, move || {
            let location = format!("{to}/v1/auth/cowork/pat");
            Reply::Bytes(
                format!("HTTP/1.1 {code}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into(),
            )
        });
        assert!(line.contains("redirect"), "{line}");
        assert_eq!(elsewhere.requests(), Vec::<String>::new());
    }
}

#[test]
fn an_answer_without_end_is_cut() {
    let chunk = || vec![b'a'; 1 << 16];
    let line = refused("a body of a gigabyte", 3, move || {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n";
        Reply::Endless(head.into(), chunk())
    });
    assert!(line.contains("longer than that of a gateway"), "its length ends it: {line}");
    let line = refused("a body without a length", 3, move || {
        Reply::Endless(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"token\":\"".to_vec(), chunk())
    });
    assert!(line.contains("longer than that of a gateway"), "its length ends it: {line}");
    refused("a head without end", 3, move || {
        Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".to_vec())
    });
    refused("one long header", 3, move || Reply::Endless(b"HTTP/1.1 200 OK\r\nx-long: ".to_vec(), chunk()));
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let long = Duration::from_mins(1);
    let line = refused("silence", 3, move || Reply::Stall(Vec::new(), long));
    assert!(line.contains("took too long"), "{line}");
    refused("silence after the head", 3, move || {
        Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec(), long)
    });
    refused("a byte now and then", 3, || {
        Reply::Drip(answer("200 OK", "application/json", credential("t", 60).to_string().as_bytes()), 100)
    });
}

#[test]
fn a_gateway_that_is_not_there_is_a_failure_of_the_network() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = station(&format!("http://{free}")).run(&[]).fails(3).to_owned();
    assert!(line.contains("cannot reach"), "{line}");
    // RFC 6761: no name ends like this.
    station("https://gateway.invalid").run(&[]).fails(3);
    // What listens there speaks no TLS.
    let gateway = Double::start(|_, _| Reply::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    station(&gateway.url().replace("http://", "https://")).run(&[]).fails(3);
}
