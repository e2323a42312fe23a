//! Certificates of clients: who has to show one, whose are taken, and what becomes of one that is revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use sallyport_tests::client::{Client, Protocol};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::tls::{self, Authority, Pair, Validity, authority, replace};
use sallyport_tests::vendor::Admin;
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::json;

use crate::catalog::admin_rows;
use crate::encrypted::Files;
use crate::hello;

/// Files of a gateway that takes certificates of the stories' authority, with an empty list of what was revoked.
fn files() -> Files {
    let files = Files::new();
    replace(&files.directory.path().join("clients.pem"), &authority().pem());
    replace(&files.directory.path().join("clients.crl"), &authority().revokes(&[], Validity::Days(5)));
    files
}

/// A gateway that asks for certificates on its listener of clients.
async fn asking(files: &Files, mode: &str) -> TestApp {
    TestApp::with(|config| {
        files
            .on(config)
            .set("/tls/client_ca", json!(files.path("clients.pem")))
            .set("/tls/client_crls", json!([files.path("clients.crl")]))
            .set("/tls/client_certificates", json!({ "public": mode }))
    })
    .await
}

/// The status of a call on a new connection; none if there is no connection.
async fn call(app: &TestApp, own: Option<&Pair>, protocol: Protocol) -> Option<u16> {
    let client = Client::secure(app.address(), tls::believing(&authority().pem(), own), protocol);
    call_on(app, &client).await
}

async fn call_on(app: &TestApp, client: &Client) -> Option<u16> {
    let bearer = format!("Bearer {}", app.token);
    let headers = [("authorization", bearer.as_str())];
    let sent = client.try_send("POST", "/v1/messages", &headers, hello().to_string().into()).await;
    sent.ok().map(|reply| reply.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_taken_only_if_it_leads_to_the_authority_is_valid_and_was_not_revoked() {
    let files = files();
    let good = authority().client("laptop");
    let revoked = authority().client("lost-laptop");
    let ended = authority().client_for("old-laptop", Validity::Over);
    let foreign = Authority::new("another one").client("laptop");
    let for_servers = authority().server(Validity::Days(30));
    replace(
        &files.directory.path().join("clients.crl"),
        &authority().revokes(&[&revoked], Validity::Days(5)),
    );
    for mode in ["require", "request"] {
        let app = asking(&files, mode).await;
        for protocol in [Protocol::Http1, Protocol::Http2] {
            assert_eq!(call(&app, Some(&good), protocol).await, Some(200), "{mode} {protocol:?}");
            for (what, pair) in [
                ("revoked", &revoked),
                ("ended", &ended),
                ("foreign", &foreign),
                ("for servers", &for_servers),
            ] {
                assert_eq!(call(&app, Some(pair), protocol).await, None, "{mode} {protocol:?}: {what}");
            }
            let without = (mode == "request").then_some(200);
            assert_eq!(call(&app, None, protocol).await, without, "{mode} {protocol:?}: none");
        }
        // A certificate says nothing of who calls.
        let client =
            Client::secure(app.address(), tls::believing(&authority().pem(), Some(&good)), Protocol::Http1);
        assert_eq!(client.send("GET", "/v1/models", &[], Bytes::new()).await.status, 401, "{mode}");
        let seen = app.upstream.seen();
        assert_eq!(seen, if mode == "request" { 4 } else { 2 }, "what was refused asked nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ended_or_does_not_speak_of_the_authority_lets_nobody_in() {
    let files = files();
    let app = asking(&files, "request").await;
    let good = authority().client("laptop");
    let list = files.directory.path().join("clients.crl");
    assert_eq!(call(&app, Some(&good), Protocol::Http1).await, Some(200));
    for unfit in [
        authority().revokes(&[], Validity::Over),
        Authority::new("another one").revokes(&[], Validity::Days(5)),
    ] {
        replace(&list, &unfit);
        until("nobody is taken", SOON, || async {
            call(&app, Some(&good), Protocol::Http1).await.is_none().then_some(())
        })
        .await;
        assert_eq!(call(&app, None, Protocol::Http1).await, Some(200), "who shows none is not concerned");
        replace(&list, &authority().revokes(&[], Validity::Days(5)));
        until("they are taken again", SOON, || async { call(&app, Some(&good), Protocol::Http1).await })
            .await;
    }
    assert!(app.log().contains("a list of revoked certificates ended on "), "{}", app.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_revoked_ends_its_connections_and_takes_up_no_session() {
    let files = files();
    let app = asking(&files, "require").await;
    let [lost, kept] = ["lost-laptop", "laptop"].map(|name| authority().client(name));
    let config = tls::believing(&authority().pem(), Some(&lost));
    let clients =
        [Protocol::Http1, Protocol::Http2].map(|it| Client::secure(app.address(), config.clone(), it));
    let other =
        Client::secure(app.address(), tls::believing(&authority().pem(), Some(&kept)), Protocol::Http2);
    for client in clients.iter().chain([&other]) {
        assert_eq!(call_on(&app, client).await, Some(200));
    }
    replace(&files.directory.path().join("clients.crl"), &authority().revokes(&[&lost], Validity::Days(5)));
    // The clients keep their connections and remember their sessions; neither helps.
    for client in &clients {
        until("it has no connection any more", SOON, || async {
            call_on(&app, client).await.is_none().then_some(())
        })
        .await;
        assert_eq!(call_on(&app, client).await, None);
    }
    assert_eq!(call_on(&app, &other).await, Some(200), "others are not concerned");
    let told = || app.log().matches("the certificate of its client is taken no more").count();
    until_true("each connection is told of", SOON, || told() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administration_may_ask_for_what_clients_need_not_show_and_its_rows_name_it() {
    let files = files();
    let app = TestApp::with(|config| {
        files
            .on(config)
            .set("/server/admin_listen", json!("127.0.0.1:0"))
            .set("/tls/client_ca", json!(files.path("clients.pem")))
            .set("/tls/client_certificates", json!({ "admin": "require" }))
    })
    .await;
    assert_eq!(call(&app, None, Protocol::Http1).await, Some(200));
    let address = fs::read_to_string(app.home().join("admin-address")).unwrap();
    let address = address.strip_prefix("https://").unwrap().parse().unwrap();
    let bearer = format!("Bearer {}", Admin::of(&app).token);
    let headers = [("authorization", bearer.as_str())];
    let without = Client::secure(address, tls::believing(&authority().pem(), None), Protocol::Http1);
    assert!(without.try_send("GET", "/v1/admin/components", &headers, Bytes::new()).await.is_err());
    let pair = authority().client("console.example");
    let with = Client::secure(address, tls::believing(&authority().pem(), Some(&pair)), Protocol::Http1);
    assert_eq!(with.send("GET", "/v1/admin/components", &headers, "").await.status, 200);
    let target = "/v1/admin/components/acme/none/activate";
    assert_eq!(with.send("POST", target, &headers, r#"{"version":"1.0.0"}"#).await.status, 404);
    app.stop();
    let rows = admin_rows(&app, "admin_not_found");
    let shown = &rows[0]["payload"]["peer_certificate"];
    assert_eq!(shown["names"], json!(["dns:console.example"]), "{shown}");
    let digits = shown["sha256"].as_str().unwrap().replace(':', "");
    assert_eq!(digits, tls::sha256(&pair.der()), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_client_authorities_that_cannot_be_used_are_refused_by_name() {
    let files = files();
    let app = asking(&files, "require").await;
    app.stop();
    let (ca, crl) = (files.path("clients.pem"), files.path("clients.crl"));
    let write = |name: &str, text: &str| replace(&files.directory.path().join(name), text);
    let refused = |said: &str| {
        let output = app.cli_refused(&["check"]);
        assert!(output.contains(said), "{said:?} is not in {output}");
        assert!(app.launch_fails().contains(said), "{said:?}");
    };
    write("clients.pem", "");
    refused(&format!("tls.client_ca: {ca} holds no certificate in PEM"));
    write("clients.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    refused(&format!("tls.client_ca: certificate 1 in {ca} cannot be that of an authority"));
    write("clients.pem", &authority().pem());
    write("clients.crl", &authority().pem());
    refused(&format!("tls.client_crls[0]: {crl} holds no list of revoked certificates in PEM"));
    write("clients.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    refused(&format!("tls.client_crls[0]: {crl} holds a list of revoked certificates that cannot be used"));
    write("clients.crl", &authority().revokes(&[], Validity::Days(5)));
    for (key, file) in [("client_ca", &ca), ("client_crls[0]", &crl)] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        refused(&format!("tls.{key}: {file} can be changed by others (mode 0666): chmod go-w {file}"));
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::remove_file(&crl).unwrap();
    refused(&format!("tls.client_crls[0]: cannot read {crl}: No such file or directory"));
    app.change(|config| config.set("/tls/client_ca", json!(null)).set("/tls/client_crls", json!([])));
    refused("tls.client_certificates.public: needs tls.client_ca");
}
