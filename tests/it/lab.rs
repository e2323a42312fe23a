//! A lab with a certificate that signed itself: one command makes it, and clients that are told of it believe it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sallyport_tests::client::{Client, Protocol};
use sallyport_tests::gateway::{TestApp, binary};
use sallyport_tests::tls;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::encrypted::Files;

/// What a program printed, and how it ended; nothing if it is not installed.
fn run(program: &Path, arguments: &[&str]) -> Option<(String, Option<i32>)> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let printed = [output.stdout, output.stderr].concat();
    Some((String::from_utf8_lossy(&printed).into_owned(), output.status.code()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_a_certificate_that_clients_believe_when_they_are_told_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    let at = home.display().to_string();
    let init =
        ["--home", &at, "init", "--tls", "self-signed", "--host", "gateway.example", "--host", "10.0.0.9"];
    let (said, code) = run(binary(), &init).unwrap();
    assert_eq!(code, Some(0), "{said}");
    let (certificate, key) = (home.join("tls/certificate.pem"), home.join("tls/key.pem"));
    assert_eq!((mode(&home.join("tls")), mode(&key), mode(&certificate)), (0o700, 0o600, 0o644));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let pem = fs::read_to_string(&certificate).unwrap();
    let digits = tls::sha256(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    assert!(said.replace(':', "").contains(&digits), "the fingerprint is printed: {said}");
    for part in [
        "localhost",
        "gateway.example",
        "10.0.0.9",
        "certificate: tls/certificate.pem",
        &format!("NODE_EXTRA_CA_CERTS={certificate}"),
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(run(binary(), &init).unwrap().1, Some(1), "what is there stays");
    let (checked, _) = run(binary(), &["--home", &at, "check", "--json"]).unwrap();
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked, json!({ "ok": true, "problems": [], "warnings": [] }));
    let (shown, _) = run(binary(), &["--home", &at, "config", "show", "--json"]).unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["server"]["public_url"], "https://127.0.0.1:8080");

    // A gateway with these files.
    let files = Files::new();
    let app = TestApp::with(|config| files.on(config)).await;
    app.reload(|config| config.set("/tls", json!({ "certificate": certificate, "key": key })));
    let client = Client::secure(app.address(), tls::believing(&pem, None), Protocol::Http2);
    until("it is believed", SOON, || async {
        client.try_send("GET", "/health", &[], Bytes::new()).await.ok()
    })
    .await;
    for (version, number) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let url = format!("{}/health", app.url());
        let arguments = [
            "--silent",
            "--max-time",
            "10",
            version,
            "--write-out",
            "%{http_version}",
            "--cacert",
            &certificate,
        ];
        // curl is another library than ours, where it is installed.
        if let Some((answer, code)) = run(Path::new("curl"), &[&arguments[..], &[&url]].concat()) {
            assert_eq!(code, Some(0), "{version}: {answer}");
            assert!(answer.contains(r#""status":"ok""#) && answer.ends_with(number), "{answer}");
        }
    }
    let findings = app.cli_json(&["doctor"])["findings"].clone();
    let found = |what: &str| {
        let mut all = findings.as_array().unwrap().iter();
        all.find(|finding| finding["what"] == what)
            .unwrap_or_else(|| panic!("no {what} in {findings}"))
            .clone()
    };
    assert_eq!((&found("gateway")["state"], &found("gateway")["detail"]), (&json!("ok"), &json!("ready")));
    let detail = found("certificate")["detail"].as_str().unwrap().replace(':', "");
    assert!(detail.contains(&digits), "{detail}");
}
