//! Signing in in the browser: what is sent with it, who may answer, and the session that is kept.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::double::{Double, Reply, answer, credential, error, status};
use crate::station::{PAT, Ran, Station};

/// Where the page of the sign-in is, as the browser was told.
#[derive(Debug, Clone)]
struct Opened {
    port: u16,
    state: String,
    challenge: String,
}

/// A machine whose browser is a program that notes where it was sent.
struct Machine {
    station: Station,
    opened: PathBuf,
}

impl Machine {
    fn new(gateway: &str) -> Self {
        let station = Station::new(gateway);
        let opened = station.home().join("opened");
        let browser = station.home().join("browser");
        fs::write(
            &browser,
            format!("#!/bin/sh\nprintf %s \"$1\" > {0}.new && mv {0}.new {0}\n", opened.display()),
        )
        .unwrap();
        fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
        let station = station.with("BROWSER", browser.to_str().unwrap());
        Self { station, opened }
    }

    /// Waits until the browser was sent somewhere.
    fn opened(&self) -> Opened {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.opened.exists() {
            assert!(Instant::now() < until, "no browser was opened");
            thread::sleep(Duration::from_millis(10));
        }
        let address = fs::read_to_string(&self.opened).unwrap();
        let (page, query) = address.split_once('?').unwrap();
        assert!(page.ends_with("/cowork/device-link"), "{address}");
        let field = |name: &str| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            value.unwrap_or_else(|| panic!("{name} in {address}")).to_owned()
        };
        assert_eq!(field("code_challenge_method"), "S256");
        let redirect = field("redirect").replace("%3A", ":").replace("%2F", "/");
        let port = redirect.strip_prefix("http://127.0.0.1:").unwrap().strip_suffix("/callback").unwrap();
        Opened { port: port.parse().unwrap(), state: field("state"), challenge: field("code_challenge") }
    }
}

impl Opened {
    /// What a browser gets for a target.
    fn visit(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
        let mut text = String::new();
        drop(stream.read_to_string(&mut text));
        text
    }
}

/// A gateway that gives a session for the code `good`, and credentials for the session.
fn gateway() -> (Double, Arc<Mutex<String>>) {
    let challenge = Arc::new(Mutex::new(String::new()));
    let expected = Arc::clone(&challenge);
    let gateway = Double::start(move |number, request| {
        assert!(request.starts_with("POST /v1/auth/cowork/session "), "{request}");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let token = credential(&format!("token-{number}"), 3600);
        let session = |value: &str| {
            let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
            let cookie =
                format!("set-cookie: __Host-session={value}; Path=/; Secure; HttpOnly; SameSite=Strict\r\n");
            bytes.extend_from_slice(cookie.as_bytes());
            let whole = answer("200 OK", "application/json", token.to_string().as_bytes());
            bytes.extend_from_slice(&whole[b"HTTP/1.1 200 OK\r\n".len()..]);
            Reply::Bytes(bytes)
        };
        if body["code"] == "good" {
            let verifier = body["code_verifier"].as_str().unwrap();
            assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)), *expected.lock().unwrap());
            return session("first");
        }
        let cookie =
            |value: &str| head.to_lowercase().contains(&format!("\r\ncookie: __host-session={value}\r\n"));
        if body.as_object().is_some_and(serde_json::Map::is_empty) {
            let origin = head.lines().find_map(|line| line.strip_prefix("origin: "));
            let host = head.lines().find_map(|line| line.strip_prefix("host: "));
            assert_eq!(origin, host.map(|host| format!("http://{host}")).as_deref(), "{head}");
        }
        match body {
            // The first is exchanged for a second when it is used.
            Value::Object(empty) if empty.is_empty() && cookie("first") => session("second"),
            Value::Object(empty) if empty.is_empty() && cookie("second") => status("200 OK", &token),
            _ => status("401 Unauthorized", &error("no such session")),
        }
    });
    (gateway, challenge)
}

fn ended(child: Child) -> Ran {
    Ran::from(child.wait_with_output().unwrap())
}

#[test]
fn a_sign_in_in_the_browser_keeps_a_session_that_gives_credentials() {
    let (gateway, challenge) = gateway();
    let machine = Machine::new(&gateway.url());
    let child = machine.station.command(&["login", "--browser"]).spawn().unwrap();
    let opened = machine.opened();
    challenge.lock().unwrap().clone_from(&opened.challenge);
    // Others knock first: a browser that wants an icon, a page that guesses, somebody who says nothing.
    let silent = TcpStream::connect(("127.0.0.1", opened.port)).unwrap();
    assert!(opened.visit("/favicon.ico").starts_with("HTTP/1.1 404 "));
    assert!(opened.visit("/callback?code=evil&state=guess").starts_with("HTTP/1.1 404 "));
    let state = &opened.state;
    let page = opened.visit(&format!("/callback?code=good&state={state}"));
    assert!(page.contains("You are signed in"), "{page}");
    drop(silent);
    let ran = ended(child);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.out, format!("signed in at {} as u_29f8a3 of acme\n", gateway.url()));
    assert!(fs::read_to_string(machine.station.config()).unwrap().contains("[session]"));
    assert!(!fs::read_to_string(machine.station.config()).unwrap().contains("first"));
    assert_eq!(machine.station.run(&[]).credential()["token"], "token-1", "the first one is cached");
    for token in ["token-2", "token-3"] {
        fs::remove_file(machine.station.cache()).unwrap();
        assert_eq!(machine.station.run(&[]).credential()["token"], token);
        assert_eq!(
            machine.station.run(&[]).credential()["token"],
            token,
            "it is cached beside the second session"
        );
    }
    // Signing out ends it here.
    assert!(machine.station.run(&["logout"]).out.contains("(session)"));
    machine.station.run(&[]).fails(5);
}

#[test]
fn a_person_who_says_no_is_not_signed_in() {
    let (gateway, _) = gateway();
    let machine = Machine::new(&gateway.url());
    let child = machine.station.command(&["login", "--browser"]).spawn().unwrap();
    let opened = machine.opened();
    opened.visit(&format!("/callback?error=access_denied&state={}", opened.state));
    let ran = ended(child);
    assert_eq!((ran.code, ran.out.as_str()), (5, ""), "{ran:?}");
    assert!(ran.err.lines().last().unwrap().contains("access_denied"), "{}", ran.err);
    assert!(!machine.station.secrets().exists());
    assert_eq!(gateway.requests(), Vec::<String>::new());
}

#[test]
fn a_session_that_ended_opens_a_browser_only_where_a_person_waits() {
    let (gateway, challenge) = gateway();
    for context in [None, Some("background"), Some("mid-session-refresh"), Some("scheduled-task")] {
        let mut machine = Machine::new(&gateway.url());
        machine
            .station
            .write_config(&format!("gateway_url = \"{}\"\nkeystore = \"file\"\n[session]\n", gateway.url()));
        if let Some(context) = context {
            machine.station = machine.station.with("CLAUDE_HELPER_CONTEXT", context);
        }
        machine.station.run(&[]).fails(5);
        keep(&machine, "revoked");
        let told = machine.station.run(&[]).fails(10).to_owned();
        assert!(told.contains("login --browser"), "{told}");
        assert!(!machine.opened.exists(), "{context:?}");
    }
    let mut machine = Machine::new(&gateway.url());
    machine.station = machine.station.with("CLAUDE_HELPER_CONTEXT", "interactive");
    machine
        .station
        .write_config(&format!("gateway_url = \"{}\"\nkeystore = \"file\"\n[session]\n", gateway.url()));
    keep(&machine, "revoked");
    let child = machine.station.command(&[]).spawn().unwrap();
    let opened = machine.opened();
    challenge.lock().unwrap().clone_from(&opened.challenge);
    opened.visit(&format!("/callback?code=good&state={}", opened.state));
    ended(child).credential();
}

#[test]
fn a_session_that_is_refused_is_not_replaced_by_a_token() {
    let (gateway, _) = gateway();
    let machine = Machine::new(&gateway.url());
    let text = format!("gateway_url = \"{}\"\nkeystore = \"file\"\n[session]\n[pat]\n", gateway.url());
    machine.station.write_config(&text);
    keep(&machine, "revoked");
    let station = machine.station.with("SP_COWORK_PAT", PAT);
    station.run(&[]).fails(10);
    assert_eq!(gateway.requests().len(), 1, "nobody is signed in by a weaker way instead");
}

/// Keeps a session that the gateway does not know.
fn keep(machine: &Machine, value: &str) {
    let gateway = fs::read_to_string(machine.station.config()).unwrap();
    let gateway = gateway.split('"').nth(1).unwrap().to_owned();
    let kept =
        serde_json::json!({ "systemprompt-cowork-session": { gateway: format!("__Host-session={value}") } });
    fs::write(machine.station.secrets(), kept.to_string()).unwrap();
    fs::set_permissions(machine.station.secrets(), fs::Permissions::from_mode(0o600)).unwrap();
}
