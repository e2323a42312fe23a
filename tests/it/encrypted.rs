//! TLS where the gateway listens: both versions of HTTP behind it, certificates that change while calls come, and clients that begin
//! anything but a handshake.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sallyport_tests::client::{Client, Protocol, assert_legal};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::process::{self, sockets};
use sallyport_tests::tls::{self, Authority, Pair, Validity, authority, replace};
use sallyport_tests::upstream::{Script, anthropic_stream};
use sallyport_tests::wait::{SOON, until, until_true, within};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::hello;

/// A directory with a pair for a gateway.
pub(crate) struct Files {
    pub(crate) directory: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        authority().server(Validity::Days(90)).write(files.directory.path());
        files
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The `tls` block that names them.
    pub(crate) fn block(&self) -> Value {
        json!({"certificate": self.path("certificate.pem"), "key": self.path("key.pem")})
    }

    pub(crate) fn on(&self, config: Config) -> Config {
        config.set("/tls", self.block())
    }
}

/// A client of its own, without a certificate.
pub(crate) fn client(app: &TestApp, protocol: Protocol) -> Client {
    Client::secure(app.address(), tls::believing(&authority().pem(), None), protocol)
}

/// The certificate that the gateway shows now.
async fn shown(app: &TestApp) -> CertificateDer<'static> {
    let connector = TlsConnector::from(Arc::new(tls::believing(&authority().pem(), None)));
    let stream = TcpStream::connect(app.address()).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn ready(app: &TestApp) -> Value {
    app.client().send("GET", "/ready", &[], Bytes::new()).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_streams_pass_over_tls_in_both_versions_of_http() {
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    assert!(app.url().starts_with("https://"));
    let bearer = format!("Bearer {}", app.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for (protocol, version) in
        [(Protocol::Http1, http::Version::HTTP_11), (Protocol::Http2, http::Version::HTTP_2)]
    {
        let client = client(&app, protocol);
        let reply =
            client.try_open("POST", "/v1/messages", &headers, hello().to_string().into()).await.unwrap();
        assert_eq!((reply.status, reply.version), (200, version));
        assert!(reply.whole().await.text().contains("Hello"));

        let gate = Arc::new(Semaphore::new(0));
        let text = anthropic_stream("claude-sonnet-4-5", &[]);
        let (first, rest) = text.split_at(text.find("\n\n").unwrap() + 2);
        app.upstream.script(Script::gated(&[first, rest], &gate));
        let mut body = hello();
        body["stream"] = json!(true);
        gate.add_permits(1);
        let mut stream =
            client.try_open("POST", "/v1/messages", &headers, body.to_string().into()).await.unwrap();
        let event = within("the first event comes alone", SOON, stream.next_named("message_start")).await;
        gate.add_permits(1);
        let mut events = vec![event];
        while let Some(event) = stream.next().await.unwrap() {
            events.push(event);
        }
        assert_legal(&events);
        app.upstream.script(Script::default());
    }
    let tls = &ready(&app).await["tls"];
    assert_eq!(tls["state"], "ok", "{tls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_changes_under_load_is_shown_to_who_comes_and_no_call_fails() {
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    let gate = Arc::new(Semaphore::new(0));
    let text = anthropic_stream("claude-sonnet-4-5", &[]);
    let (first, rest) = text.split_at(text.find("\n\n").unwrap() + 2);
    app.upstream.next(Script::gated(&[first, rest], &gate));
    gate.add_permits(1);
    let mut stream = app.messages_stream(hello()).await;
    stream.next_named("message_start").await;

    let bearer = format!("Bearer {}", app.token);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http1] {
        let (address, bearer, stop) = (app.address(), bearer.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let mut calls = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Each call shakes hands anew.
                let client = Client::secure(address, tls::believing(&authority().pem(), None), protocol);
                let headers = [("authorization", bearer.as_str())];
                let reply = client.send("POST", "/v1/messages", &headers, hello().to_string()).await;
                assert_eq!(reply.status, 200, "{reply}");
                calls += 1;
            }
            calls
        });
    }
    for days in [60, 70, 80] {
        let pair = authority().server(Validity::Days(days));
        pair.write(files.directory.path());
        until("it is shown", SOON, || async { (shown(&app).await == pair.der()).then_some(()) }).await;
    }
    // At once by a signal, from other files.
    let other = Files::new();
    app.reload(|config| other.on(config));
    let wanted = fs::read(other.path("certificate.pem")).unwrap();
    until("it is shown", SOON, || async {
        (shown(&app).await == CertificateDer::from_pem_slice(&wanted).unwrap()).then_some(())
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let calls: Vec<i32> = callers.join_all().await;
    assert!(calls.iter().all(|calls| *calls > 3), "{calls:?}");
    gate.add_permits(1);
    within("the stream that began under the first certificate ends", SOON, stream.next_named("message_stop"))
        .await;
    assert!(!app.log().contains("cannot be used"), "{}", app.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_that_cannot_be_used_leave_the_old_ones_in_use_and_ready_says_so() {
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    let before = shown(&app).await;
    let good = fs::read_to_string(files.path("key.pem")).unwrap();
    let foreign = authority().server(Validity::Days(90)).key;
    let path = files.directory.path().join("key.pem");
    let loose = |text: &str| {
        replace(&path, text);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    };
    let breaks: [(&dyn Fn(), &str); 3] = [
        (&|| replace(&path, &foreign), "is not the key of the first certificate"),
        (&|| fs::remove_file(&path).unwrap(), "cannot read"),
        (&|| loose(&good), "can be read or changed by others (mode 0644)"),
    ];
    for (break_it, said) in breaks {
        break_it();
        until("it is noticed", SOON, || async {
            let found = ready(&app).await;
            let state = found["tls"]["state"].as_str().unwrap_or_default().to_owned();
            (found["status"] == "degraded" && state.contains(said) && state.contains("tls.key: "))
                .then_some(())
        })
        .await;
        assert_eq!(shown(&app).await, before, "the old one is shown");
        assert_eq!(app.messages(hello()).await.status, 200);
        process::signal(app.pid(), "HUP").unwrap();
        until_true("the reload is refused", SOON, || {
            app.log()
                .lines()
                .any(|line| line.contains("the old configuration stays in force") && line.contains(said))
        })
        .await;
        replace(&path, &good);
        until("it is well again", SOON, || async { (ready(&app).await["status"] == "ready").then_some(()) })
            .await;
    }
    assert!(app.log().contains("cannot be used, so the old ones stay"), "{}", app.log());
    app.reload(|config| config.set("/tls", json!(null)));
    until_true("TLS is not switched off", SOON, || app.log().contains("restart the gateway")).await;
    assert_eq!(shown(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_soon_is_warned_of_and_one_that_ended_degrades() {
    let files = Files::new();
    authority().server(Validity::Days(10)).write(files.directory.path());
    let app = TestApp::with(|config| files.on(config)).await;
    assert!(app.log().contains("the gateway's certificate ends on "), "{}", app.log());
    assert_eq!(ready(&app).await["status"], "ready");
    authority().server(Validity::Over).write(files.directory.path());
    until_true("it is told", SOON, || app.log().contains("the gateway's certificate ended on ")).await;
    // Only a client that does not look talks to it now; an open connection is one.
    let found = ready(&app).await;
    assert_eq!(found["status"], "degraded", "{found}");
    assert!(found["tls"]["state"].as_str().unwrap().contains("the certificate ended on "), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_hold_nothing_and_keep_nobody_out() {
    let files = Files::new();
    let app = TestApp::with(|config| {
        files.on(config).set("/server/head_timeout_ms", json!(1500)).set("/server/max_connections", json!(64))
    })
    .await;
    let before = sockets(app.pid()).unwrap();
    let hello_of_a_client = client_hello(0x0303);
    let says: [&[u8]; 4] = [b"", b"\x16", &hello_of_a_client[..20], b"\x16\x03\x01\x40\x00"];
    let mut silent = Vec::new();
    for number in 0..300_usize {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        // The gateway may have closed the place again: it is one of too many.
        drop(stream.write_all(says[number % says.len()]).await);
        silent.push(stream);
    }
    let began = Instant::now();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let bearer = format!("Bearer {}", app.token);
        let headers = [("authorization", bearer.as_str())];
        let reply = client(&app, protocol).send("POST", "/v1/messages", &headers, hello().to_string()).await;
        assert_eq!(reply.status, 200, "a caller has a place: {reply}");
    }
    let mut ended = JoinSet::new();
    for mut stream in silent {
        ended.spawn(async move { drop(stream.read_to_end(&mut Vec::new()).await) });
    }
    within("all of them are let go", SOON, ended.join_all()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    until_true("their sockets are given back", SOON, || sockets(app.pid()).unwrap() <= before + 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_without_a_handshake_is_closed_at_once_and_http_is_told_why() {
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    let began = Instant::now();
    let body = hello().to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        app.token,
        body.len()
    );
    for clear in
        [request.as_bytes(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let answer = String::from_utf8(app.client().raw_and_done(clear).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("the client's base URL has to begin with https://"), "{answer}");
    }
    for garbage in
        [b"\x00\x01\x02".as_slice(), b"\xff\xff\xff\xff", b"\x80\x2e\x01\x00\x02", b"\x15\x03\x01\x00\x02"]
    {
        assert_eq!(app.client().raw(garbage).await, b"", "{garbage:?}");
    }
    // What begins like a handshake and is none gets an alert at most.
    for garbage in [b"\x16\x03\x01\x00\x05hello".as_slice(), b"\x16GET / HTTP/1.1\r\n\r\n"] {
        let answer = app.client().raw_and_done(garbage).await;
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(9), "nobody waited for a limit: {:?}", began.elapsed());
    assert_eq!(app.upstream.seen(), 0);
    assert_eq!(app.messages(hello()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_1_is_refused_with_an_alert_and_1_2_and_1_3_are_spoken() {
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    for version in [0x0301, 0x0302] {
        let answer = app.client().raw_and_done(&client_hello(version)).await;
        // An alert, fatal: protocol_version.
        assert_eq!((answer.first(), answer.get(5..7)), (Some(&0x15), Some([2, 70].as_slice())), "{answer:?}");
    }
    let answer = app.client().raw_for(&client_hello(0x0303), 6).await;
    assert_eq!((answer[0], answer[5]), (0x16, 2), "the same with 1.2 is answered: {answer:?}");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority().pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::secure(app.address(), config, Protocol::Http1);
        assert_eq!(client.send("GET", "/health", &[], Bytes::new()).await.status, 200, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_keep_the_gateway_from_starting_and_are_all_named() {
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    app.stop();
    let (certificate, key) = (files.path("certificate.pem"), files.path("key.pem"));
    let good = authority().server(Validity::Days(90));
    let check = |said: &[String]| {
        let output = app.cli_refused(&["check"]);
        for said in said {
            assert!(output.contains(said), "{said:?} is not in {output}");
        }
        let log = app.launch_fails();
        assert!(said.iter().all(|said| log.contains(said)), "{log}");
    };
    let path = files.directory.path();
    let write = |name: &str, text: &str| replace(&path.join(name), text);

    fs::remove_file(path.join("certificate.pem")).unwrap();
    fs::remove_file(path.join("key.pem")).unwrap();
    check(&[
        format!("tls.certificate: cannot read {certificate}: No such file or directory"),
        format!("tls.key: cannot read {key}: No such file or directory"),
    ]);
    good.write(path);
    write("certificate.pem", "");
    check(&[format!("tls.certificate: {certificate} holds no certificate in PEM")]);
    write("certificate.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check(&[format!("tls.certificate: the first certificate in {certificate} cannot be read")]);
    write("certificate.pem", &[authority().pem(), good.certificate.clone()].concat());
    check(&[format!("tls.key: {key} is not the key of the first certificate in {certificate}")]);
    good.write(path);
    write("key.pem", &good.certificate);
    check(&[format!("tls.key: {key} holds no private key in PEM")]);
    write("key.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    check(&[format!("tls.key: the key in {key} is encrypted")]);
    good.write(path);
    fs::set_permissions(path.join("key.pem"), Permissions::from_mode(0o644)).unwrap();
    check(&[format!("tls.key: {key} can be read or changed by others (mode 0644): chmod 600 {key}")]);
    fs::set_permissions(path.join("key.pem"), Permissions::from_mode(0o640)).unwrap();
    app.launch().await;
    assert_eq!(app.messages(hello()).await.status, 200, "a group may read it, as orchestrators mount keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_gateway_of_their_home_behind_tls_and_believe_nobody_else() {
    let files = Files::new();
    let app =
        TestApp::with(|config| files.on(config).set("/server/admin_listen", json!("127.0.0.1:0"))).await;
    sallyport_tests::vendor::Admin::of(&app);
    let token = app.home().join("components.token").display().to_string();
    fs::write(&token, &sallyport_tests::vendor::Admin::of(&app).token).unwrap();
    let list = ["component", "list", "--token-file", &token];
    app.cli(&list);

    let address = fs::read_to_string(app.home().join("admin-address")).unwrap();
    assert!(address.starts_with("https://127.0.0.1:"), "{address}");
    let (ours, theirs) = (files.path("ours.pem"), files.path("theirs.pem"));
    fs::write(&ours, authority().pem()).unwrap();
    fs::write(&theirs, Authority::new("another one").pem()).unwrap();
    app.cli(&[&list[..], &["--gateway", &address, "--ca", &ours]].concat());
    for wrong in
        [vec!["--gateway", &address], vec!["--gateway", &address, "--ca", &theirs], vec!["--ca", &theirs]]
    {
        let (_, said) = app.cli_fails(&[&list[..], &wrong].concat());
        assert!(said.contains("does not answer"), "{wrong:?}: {said}");
    }
    // Somebody else on its address is not believed, whatever authority signed for them.
    let other = authority().server(Validity::Days(90));
    replace(&files.directory.path().join("certificate.pem"), &other.certificate);
    let (_, said) = app.cli_fails(&list);
    assert!(said.contains("does not answer"), "{said}");
    let pair: &Pair = &other;
    pair.write(files.directory.path());
    until("the gateway has it too", SOON, || async { (shown(&app).await == pair.der()).then_some(()) }).await;
    app.cli(&list);
}

/// The first message of a client that speaks nothing newer than this.
fn client_hello(version: u16) -> Vec<u8> {
    let mut hello = Vec::new();
    hello.extend(version.to_be_bytes());
    hello.extend([7; 32]);
    // No session; three suites, one of which 1.2 has and rustls knows; no compression.
    hello.extend([0, 0, 6, 0xc0, 0x2f, 0xc0, 0x2b, 0x00, 0x2f, 1, 0]);
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(), // groups: P-256
        &[0, 11, 0, 2, 1, 0],                  // points: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],      // signatures: ECDSA and RSA-PSS with SHA-256
        &[0, 23, 0, 0],                        // extended master secret
    ]
    .concat();
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    message.extend(hello);
    let mut record = vec![0x16, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}
