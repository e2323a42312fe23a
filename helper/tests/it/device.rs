//! The tier of the device's certificate: asked for, shown, refused.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};

use crate::double::{answer, credential};
use crate::station::{PAT, Station};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What an authority makes of a request: `openssl` reads it, and signs it.
fn sign(authority: &Authority, request: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
    };
    file("ca.pem", &authority.pem());
    file("ca.key", &authority.key().serialize_pem());
    file("request.pem", request);
    file("extensions", "extendedKeyUsage = clientAuth\n");
    let output = Command::new("openssl")
        .args(["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "30"])
        .args(["-copy_extensions", "copy", "-extfile", "extensions"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The key that a request is for, as `openssl` prints it.
fn key_of(request: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["req", "-noout", "-pubkey", "-verify"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the request is signed with its key");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether there is an authority of others to ask.
fn openssl() -> bool {
    let works = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok();
    if !works {
        crate::tell("skipped: certificates of devices (openssl is not installed)");
    }
    works
}

/// A gateway that takes certificates of an authority and nothing else. Its address.
fn gateway(trusted: &Authority, devices: &Authority) -> String {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, trusted).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(devices.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let mut connection = ServerConnection::new(config).unwrap();
                let mut stream = Stream::new(&mut connection, &mut socket);
                let mut buffer = [0; 8192];
                let Ok(read) = stream.read(&mut buffer) else { return };
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                assert!(request.starts_with("POST /v1/auth/cowork/mtls "), "{request}");
                let body = credential("bound", 3600).to_string();
                drop(stream.write_all(&answer("200 OK", "application/json", body.as_bytes())));
                stream.conn.send_close_notify();
                drop(stream.flush());
            });
        }
    });
    format!("https://localhost:{port}")
}

fn station(trusted: &Authority, gateway: &str) -> Station {
    let station = Station::bare();
    let authorities = station.home().join("ca.pem");
    fs::write(&authorities, trusted.pem()).unwrap();
    station.write_config(&format!(
        "gateway_url = \"{gateway}\"\nkeystore = \"file\"\nca_bundle = \"{}\"\n",
        authorities.display()
    ));
    station
}

#[test]
fn a_machine_asks_for_a_certificate_and_signs_in_with_it() {
    if !openssl() {
        return;
    }
    let (trusted, devices) = (authority("trusted"), authority("devices"));
    let station = station(&trusted, &gateway(&trusted, &devices));
    let ran = station.run(&["enrol", "--dns", "laptop-7.example.com"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let again = station.run(&["enrol", "--dns", "laptop-7.example.com"]);
    assert_eq!(key_of(&ran.out), key_of(&again.out), "the key is made once");
    let secret = fs::read_to_string(station.config().with_file_name("device.key")).unwrap();
    assert!(secret.contains("PRIVATE KEY") && !ran.out.contains("PRIVATE KEY"));
    let certificate = station.home().join("signed.pem");
    fs::write(&certificate, sign(&devices, &ran.out)).unwrap();
    let ran = station.run(&["enrol", "--certificate", certificate.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(station.run(&[]).credential()["token"], "bound");
    assert_eq!(station.run(&["status"]).code, 0);
}

#[test]
fn a_certificate_that_cannot_be_used_is_an_error_and_no_token_is_tried_instead() {
    if !openssl() {
        return;
    }
    let (trusted, devices, others) = (authority("trusted"), authority("devices"), authority("others"));
    let url = gateway(&trusted, &devices);
    let station = station(&trusted, &url).with("SP_COWORK_PAT", PAT);
    let request = station.run(&["enrol", "--email", "ann@example.com"]).out;
    let certificate = station.home().join("signed.pem");
    let take = |text: &str| {
        fs::write(&certificate, text).unwrap();
        station.run(&["enrol", "--certificate", certificate.to_str().unwrap()])
    };
    // Of another key, and none at all.
    let other = KeyPair::generate().unwrap();
    let foreign = CertificateParams::default().signed_by(&other, &devices).unwrap().pem();
    assert!(take(&foreign).fails(10).contains("another key"));
    take("nothing").fails(10);
    assert!(!fs::read_to_string(station.config()).unwrap().contains("mtls"));
    // Of an authority that the gateway does not take.
    assert_eq!(take(&sign(&others, &request)).code, 0);
    let told = station.run(&[]).fails(10).to_owned();
    assert!(told.contains("refuses this machine's certificate"), "{told}");
    // It is gone.
    fs::remove_file(station.config().with_file_name("device.pem")).unwrap();
    station.run(&[]).fails(10);
    // Nobody shows a certificate in clear.
    station.write_config("gateway_url = \"http://127.0.0.1:9\"\n[mtls]\ncert_keystore_ref = \"/x.pem\"\n");
    assert!(station.run(&[]).fails(10).contains("https://"));
    // In the keystore there is none of that name.
    station.write_config(&format!(
        "gateway_url = \"{url}\"\nkeystore = \"file\"\n[mtls]\ncert_keystore_ref = \"device\"\n"
    ));
    assert!(station.run(&[]).fails(10).contains("has no certificate device"));
}

#[test]
fn a_gateway_whose_certificate_nobody_vouches_for_gets_no_credential() {
    let (trusted, devices) = (authority("trusted"), authority("devices"));
    let url = gateway(&trusted, &devices);
    let station = Station::new(&url).with("SP_COWORK_PAT", PAT);
    let told = station.run(&[]).fails(3).to_owned();
    assert!(told.contains("cannot reach"), "{told}");
}
