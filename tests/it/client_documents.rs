//! OAuth clients that are known by a document at their id: the honest one, and every one that lies.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::claims;
use crate::oauth::Stage;
use crate::sign_in::text;

/// A server of documents behind TLS: what it answers to whom, and who came.
struct DocumentServer {
    address: std::net::SocketAddr,
    answers: Arc<Mutex<Vec<(String, String)>>>,
    came: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl DocumentServer {
    async fn start() -> Self {
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name);
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(fixture("good.pem")).unwrap().collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(fixture("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, came) =
            (Arc::<Mutex<Vec<(String, String)>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (shared, seen) = (Arc::clone(&answers), Arc::clone(&came));
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.lock().unwrap().push("a connection".to_owned());
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = shared.lock().unwrap().iter().find(|(it, _)| *it == path).map(|it| it.1.clone());
                seen.lock().unwrap().push(path);
                let answer = answer
                    .unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned());
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        });
        Self { address, answers, came, _task: task }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Answers so to whoever asks for a path, from now on.
    fn says(&self, path: &str, status: &str, headers: &str, body: &str) {
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(it, _)| it != path);
        answers.push((path.to_owned(), answer));
    }

    fn documents(&self, path: &str, document: &Value) {
        self.says(path, "200 OK", "content-type: application/json\r\n", &document.to_string());
    }

    fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }
}

fn honest(id: &str) -> Value {
    json!({ "client_id": id, "client_name": "Notes", "redirect_uris": ["http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"], "token_endpoint_auth_method": "none" })
}

/// A gateway that takes documents of this server, and a browser whose user is signed in.
async fn stage(hosts: Value, allow_private: bool) -> Stage {
    let rules = json!({ "hosts": hosts, "allow_private": allow_private });
    Stage::with(|config| config.set("/auth/client_documents", rules)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_what_its_document_says_and_may_do_the_least() {
    let server = DocumentServer::start().await;
    let mut stage = stage(json!([server.address.to_string()]), true).await;
    let metadata = stage
        .app
        .client()
        .send("GET", "/.well-known/oauth-authorization-server", &[], Bytes::new())
        .await
        .json();
    assert_eq!(metadata["client_id_metadata_document_supported"], true, "{metadata}");
    let id = server.url("/client.json");
    server.documents("/client.json", &honest(&id));
    stage.client = id.clone();

    // A stranger has nothing fetched: he signs in first.
    let target = stage.but("x", None);
    let reply = stage.app.client().send("GET", &target, &[], Bytes::new()).await;
    assert_eq!(reply.status, 303, "{reply}");
    assert!(reply.header("location").unwrap().starts_with("/sign-in?next="), "{reply}");
    assert!(server.came().is_empty(), "nothing was asked for a stranger");

    let page = stage.browser.get(&target).await;
    assert!(text(&page).contains("describes itself at") && text(&page).contains(&id), "{page}");
    let tokens = stage.tokens().await;
    assert_eq!(server.came().iter().filter(|it| *it == "/client.json").count(), 1, "it is kept for a while");
    assert_eq!(stage.call(tokens["access_token"].as_str().unwrap()).await, 200);
    assert_eq!(
        claims(tokens["id_token"].as_str().unwrap())["aud"],
        id,
        "the client knows itself by its address"
    );
    let cid = claims(tokens["access_token"].as_str().unwrap())["cid"].as_str().unwrap().to_owned();
    assert!(cid.starts_with("sp_"), "{cid}");
    let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
    let fields = |client: &str| {
        [
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", client.to_owned()),
            ("refresh_token", refresh.clone()),
        ]
    };
    let post = async |client: &str| {
        let fields = fields(client);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        stage.post("/oauth/token", &fields).await
    };
    assert_eq!(post(&cid).await.json()["error"], "invalid_client", "the id of rows is none for clients");
    assert_eq!(post(&server.url("/other.json")).await.json()["error"], "invalid_client");
    assert_eq!(post(&id).await.status, 200);
    let listed = stage.app.cli_json(&["gateway", "client", "list"]);
    let kept = listed.as_array().unwrap().iter().find(|it| it["id"] == json!(cid)).unwrap();
    assert_eq!((&kept["document"], &kept["scope"]), (&json!(id), &json!("inference openid")), "{listed}");

    // Beyond the least, and an address that the document does not list.
    let beyond = stage.browser.get(&stage.but("scope", Some("admin"))).await;
    assert!(beyond.header("location").is_some_and(|it| it.contains("error=invalid_scope")), "{beyond}");
    for elsewhere in [
        "http://127.0.0.1:49152/other",
        "https://evil.example/callback",
        "http://127.0.0.1:49152/callback?x=1",
    ] {
        let reply = stage.browser.get(&stage.but("redirect_uri", Some(elsewhere))).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{elsewhere}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_lies_lets_nobody_in_and_leaves_its_reason() {
    let server = DocumentServer::start().await;
    let mut stage = stage(json!([server.address.to_string()]), true).await;
    let json = "content-type: application/json\r\n";
    let id = |path: &str| server.url(path);
    let with = |path: &str, name: &str, value: Value| {
        let mut document = honest(&server.url(path));
        document[name] = value;
        server.documents(path, &document);
    };
    with("/other-id", "client_id", json!(id("/somebody-else")));
    with("/secret", "client_secret", json!("s"));
    with("/method", "token_endpoint_auth_method", json!("client_secret_basic"));
    with("/keys", "jwks_uri", json!("http://169.254.169.254/"));
    with("/script", "redirect_uris", json!(["javascript:alert(1)"]));
    with("/long", "client_name", json!("a".repeat(6_000)));
    with("/moved-here", "client_id", json!(id("/moved")));
    server.says("/moved", "302 Found", &format!("location: {}\r\n", id("/moved-here")), "");
    server.says("/html", "200 OK", "content-type: text/html\r\n", &honest(&id("/html")).to_string());
    server.says("/text", "200 OK", json, "no JSON");
    server.says("/error", "500 Oops", json, &honest(&id("/error")).to_string());
    let cases = [
        (id("/other-id"), "client_document_other_id"),
        (id("/secret"), "client_document_metadata"),
        (id("/method"), "client_document_metadata"),
        (id("/keys"), "client_document_metadata"),
        (id("/script"), "client_document_metadata"),
        (id("/long"), "client_document_answer"),
        (id("/moved"), "client_document_answer"),
        (id("/html"), "client_document_answer"),
        (id("/text"), "client_document_answer"),
        (id("/error"), "client_document_answer"),
        (id("/nobody"), "client_document_answer"),
        (id("/a/../b"), "client_document_id"),
        (id("/?x=1"), "client_document_id"),
        (id(""), "client_document_id"),
        ("https://elsewhere.example/client".to_owned(), "client_document_host"),
    ];
    for (client, reason) in &cases {
        stage.client.clone_from(client);
        let target = stage.but("x", None);
        let reply = stage.browser.get(&target).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{reason} {client}: {reply}");
        assert!(text(&reply).contains("invalid_client"), "{client}: {reply}");
    }
    assert!(!server.came().iter().any(|it| it == "/moved-here"), "a redirect is not followed");
    assert_eq!(
        stage.app.cli_json(&["gateway", "client", "list"]).as_array().unwrap().len(),
        1,
        "no liar is kept"
    );
    let reasons: Vec<String> = until("each leaves a row", SOON, || {
        let rows = stage.app.audit_rows();
        let reasons: Vec<String> = rows
            .iter()
            .filter_map(|row| Some(row["payload"]["reason"].as_str()?.to_owned()))
            .filter(|reason| reason.starts_with("client_document"))
            .collect();
        std::future::ready((reasons.len() == cases.len()).then_some(reasons))
    })
    .await;
    assert_eq!(reasons, cases.map(|(_, reason)| reason.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_leads_the_gateway_into_its_own_network_and_none_is_taken_where_nobody_asked_for_it() {
    let server = DocumentServer::start().await;
    let id = server.url("/client.json");
    server.documents("/client.json", &honest(&id));
    let mut inside = stage(json!(["*"]), false).await;
    for client in [&id, &format!("https://localhost:{}/client.json", server.address.port())] {
        inside.client.clone_from(client);
        let target = inside.but("x", None);
        let reply = inside.browser.get(&target).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{client}: {reply}");
    }
    let mut off = Stage::with(|config| config).await;
    off.client.clone_from(&id);
    let target = off.but("x", None);
    assert_eq!(off.browser.get(&target).await.status, 400);
    let fields = [("grant_type", "refresh_token"), ("client_id", id.as_str()), ("refresh_token", "x")];
    assert_eq!(off.post("/oauth/token", &fields).await.status, 401);
    let metadata = off
        .app
        .client()
        .send("GET", "/.well-known/oauth-authorization-server", &[], Bytes::new())
        .await
        .json();
    assert!(metadata.get("client_id_metadata_document_supported").is_none(), "{metadata}");
    assert!(server.came().is_empty(), "the server was left alone: {:?}", server.came());
}
