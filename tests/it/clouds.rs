//! Credentials of clouds: whoever the gateway is to Amazon, Google or Microsoft, the upstream is shown it, and nobody else is.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{KeyPair, PublicKeyData as _};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Fault, Script, Seen, Turn, Upstream, anthropic_message};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::ask;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEUCIQ==";
const ARN: &str = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

/// A route to Bedrock that signs.
fn bedrock(upstream: &str, model: &str) -> Value {
    json!({"model_pattern": "claude-*", "provider": "bedrock", "endpoint": upstream, "region": "eu-central-1",
        "api_key_secret": "cloud", "upstream_model": model})
}

fn aws(keys: &Value) -> Value {
    let mut aws = json!({"access_key_id": ID, "secret_access_key": SECRET});
    aws.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    json!({ "aws": aws })
}

/// What every upstream here answers a call with.
fn reply() -> Script {
    let body = anthropic_message("claude-sonnet-4-5", &[Turn::Text("Hello.".into())]);
    Script::Status(
        200,
        vec![("content-type".to_owned(), "application/json".to_owned())],
        body.to_string().into(),
    )
}

/// As botocore signs what arrived; none where this machine has no botocore.
fn by_botocore(seen: &Seen, token: Option<&str>) -> Option<String> {
    let has = Command::new("python3").args(["-c", "import botocore"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        crate::tell(
            "skipped: a signature beside botocore's (pip install botocore for the python3 of this machine)",
        );
        return None;
    }
    let asked = json!({"method": seen.method, "target": seen.target, "headers": seen.headers,
        "body": String::from_utf8_lossy(&seen.body), "id": ID, "secret": SECRET, "token": token});
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clouds/verify_sigv4.py");
    let mut child =
        Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "botocore signs what arrived");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_at_bedrock_is_signed_as_botocore_signs_it() {
    for (model, token) in [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", None),
        (ARN, None),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", Some(TOKEN)),
    ] {
        let keys = token.map_or_else(|| json!({}), |token| json!({"session_token": token}));
        let app = TestApp::with(|config| config.secret("cloud", aws(&keys))).await;
        app.upstream.script(reply());
        let upstream = app.upstream.url();
        app.reload(|config| config.route(bedrock(&upstream, model)));
        until("the route signs", SOON, || async {
            let reply = app.messages(ask("claude-sonnet-4-5", "H\u{fc}bsch?")).await;
            (reply.status == 200 && app.upstream.last().target.starts_with("/model/")).then_some(())
        })
        .await;
        let seen = app.upstream.last();
        let authorization = seen.header("authorization").unwrap();
        assert!(authorization.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ID}/")), "{authorization}");
        assert!(
            authorization
                .contains("/eu-central-1/bedrock/aws4_request, SignedHeaders=content-type;host;x-amz-date")
        );
        assert_eq!(seen.header("x-amz-security-token"), token);
        assert!(!format!("{seen:?}").contains(SECRET), "the key itself stays here");
        if model == ARN {
            assert!(seen.target.contains("%3Ainference-profile%2Feu.anthropic."), "{}", seen.target);
        }
        if let Some(expected) = by_botocore(&seen, token) {
            assert_eq!(authorization, expected, "{model}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_repeats_of_a_signature_reaches_nobody() {
    let app = TestApp::with(|config| config.secret("cloud", aws(&json!({"session_token": TOKEN})))).await;
    app.upstream.choose(|seen| {
        let shown =
            ["authorization", "x-amz-security-token"].map(|name| seen.header(name).unwrap_or_default());
        Script::Status(
            400,
            vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("request-id".to_owned(), shown[1].to_owned()),
            ],
            json!({"message": format!("the request was: {}", shown.join(" "))}).to_string().into(),
        )
    });
    let upstream = app.upstream.url();
    app.reload(|config| config.route(bedrock(&upstream, "anthropic.claude-sonnet-4-5-20250929-v1:0")));
    let reply = until("the route signs", SOON, || async {
        let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
        app.upstream.last().target.starts_with("/model/").then_some(reply)
    })
    .await;
    assert_eq!(reply.status, 400, "{reply}");
    let seen = app.upstream.last();
    let signature = seen.header("authorization").unwrap().rsplit('=').next().unwrap().to_owned();
    assert_eq!(signature.len(), 64);
    let row = app.row_of(&reply).await;
    let told = format!("{reply} {:?} {row}", reply.headers);
    assert!(told.contains("[credential]"), "{told}");
    for secret in [SECRET, TOKEN, &signature] {
        assert!(!told.contains(secret), "{told}");
        assert!(!app.log().contains(secret));
    }
}

/// An identity server beside the upstream: what it is asked, and what it gives out.
fn gives(token: &str) -> Script {
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3_600});
    Script::Status(
        200,
        vec![("content-type".to_owned(), "application/json".to_owned())],
        body.to_string().into(),
    )
}

/// The fields of a form, decoded by the rules of RFC 3986 alone.
fn form(seen: &Seen) -> BTreeMap<String, String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            } else {
                byte
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    let body = String::from_utf8(seen.body.to_vec()).unwrap();
    let pairs = body.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// A route whose upstream takes a token.
fn bearer(upstream: &str) -> Value {
    json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": upstream, "api_key_secret": "cloud"})
}

/// A gateway whose route shows what `cloud` of the secrets file says.
async fn showing(cloud: Value) -> TestApp {
    let upstream = Upstream::start();
    let url = upstream.url();
    TestApp::on(upstream, |config| config.secret("cloud", cloud).route(bearer(&url))).await
}

fn shown(app: &TestApp) -> String {
    let seen = app.upstream.last();
    assert_eq!(seen.header("x-api-key"), None, "the provider's own form is not that of a token");
    seen.header("authorization").unwrap().to_owned()
}

/// An RSA key as its owners keep it, a certificate of it, and what verifies its signatures.
fn rsa() -> (String, rcgen::Certificate, DecodingKey) {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let verifies = DecodingKey::from_rsa_der(key.der_bytes());
    (key.serialize_pem(), certificate, verifies)
}

fn claims(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
    audience: &str,
) -> (jsonwebtoken::Header, Value) {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    let token = jsonwebtoken::decode::<Value>(token, key, &validation).unwrap();
    (token.header, token.claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_of_google_signs_for_its_token_once_for_all_calls() {
    let google = Upstream::start();
    google.script(gives("ya29.first"));
    let (private, _, public) = rsa();
    let token_uri = format!("{}/token", google.url());
    let file = json!({"type": "service_account", "project_id": "p", "client_email": "gw@p.iam.gserviceaccount.com",
        "private_key_id": "key-1", "private_key": private, "token_uri": token_uri});
    let app = showing(json!({"gcp": {"service_account_key": file.to_string()}})).await;
    let calls = (0..20).map(|_| app.messages(ask("claude-sonnet-4-5", "Hello")));
    assert!(futures_util::future::join_all(calls).await.iter().all(|reply| reply.status == 200));
    assert_eq!((google.seen(), app.upstream.seen()), (1, 20));
    assert_eq!(shown(&app), "Bearer ya29.first");

    let asked = google.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    let form = form(&asked);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (header, claims) = claims(&form["assertion"], &public, Algorithm::RS256, &token_uri);
    assert_eq!(header.kid.as_deref(), Some("key-1"));
    assert_eq!(claims["iss"], "gw@p.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_exchanges_the_token_of_its_platform_and_acts_as_a_service_account() {
    let google = Upstream::start();
    google.choose(|seen| {
        if seen.target == "/v1/token" {
            return gives("federated");
        }
        assert_eq!(seen.header("authorization"), Some("Bearer federated"));
        let body = json!({"accessToken": "ya29.impersonated", "expireTime": "2100-01-01T00:00:00Z"});
        Script::Status(200, Vec::new(), body.to_string().into())
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token.json"), r#"{"id_token": "of the platform"}"#).unwrap();
    let file = json!({"type": "external_account", "audience": "//iam.googleapis.com/p", "token_url": format!("{}/v1/token", google.url()),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "service_account_impersonation_url": format!("{}/v1/projects/-/serviceAccounts/gw:generateAccessToken", google.url()),
        "credential_source": {"file": "token.json", "format": {"type": "json", "subject_token_field_name": "id_token"}}});
    let path = directory.path().join("workload.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let app = showing(json!({"gcp": {"workload_identity_file": path}})).await;
    assert_eq!(app.messages(ask("claude-sonnet-4-5", "Hello")).await.status, 200);
    assert_eq!(shown(&app), "Bearer ya29.impersonated");
    let requests = google.requests();
    assert_eq!(requests.len(), 2);
    let form = form(&requests[0]);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(
        (form["subject_token"].as_str(), form["audience"].as_str()),
        ("of the platform", "//iam.googleapis.com/p")
    );
    assert_eq!(requests[1].target, "/v1/projects/-/serviceAccounts/gw:generateAccessToken");
    assert_eq!(requests[1].json()["scope"], json!(["https://www.googleapis.com/auth/cloud-platform"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_google_is_asked_for_its_token_where_that_is_granted() {
    let machine = Upstream::start();
    machine.script(gives("ya29.machine"));
    let app = showing(json!({"gcp": {"metadata_server": true, "metadata_endpoint": machine.url()}})).await;
    assert_eq!(app.messages(ask("claude-sonnet-4-5", "Hello")).await.status, 200);
    assert_eq!(shown(&app), "Bearer ya29.machine");
    let asked = machine.last();
    assert_eq!(asked.target, "/computeMetadata/v1/instance/service-accounts/default/token");
    assert_eq!((asked.method.as_str(), asked.header("metadata-flavor")), ("GET", Some("Google")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_of_entra_proves_itself_by_secret_certificate_or_the_token_of_its_platform() {
    let (private, certificate, public) = rsa();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "of the platform\n").unwrap();
    let proofs = [
        json!({"client_secret": "s3cret & more"}),
        json!({"client_certificate": format!("{}{private}", certificate.pem())}),
        json!({"federated_token_file": file}),
    ];
    for (number, proof) in proofs.into_iter().enumerate() {
        let entra = Upstream::start();
        entra.script(gives("eyJ.entra"));
        let mut azure = json!({"tenant_id": "11111111-2222-3333-4444-555555555555", "client_id": "app-1", "authority": entra.url()});
        azure.as_object_mut().unwrap().extend(proof.as_object().unwrap().clone());
        let app = showing(json!({ "azure": azure })).await;
        assert_eq!(app.messages(ask("claude-sonnet-4-5", "Hello")).await.status, 200);
        assert_eq!(shown(&app), "Bearer eyJ.entra");
        let asked = entra.last();
        assert_eq!(asked.target, "/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token");
        let form = form(&asked);
        assert_eq!(
            (form["grant_type"].as_str(), form["client_id"].as_str()),
            ("client_credentials", "app-1")
        );
        assert_eq!(form["scope"], "https://cognitiveservices.azure.com/.default");
        match number {
            0 => assert_eq!(form["client_secret"], "s3cret & more"),
            1 => {
                let audience = format!("{}{}", entra.url(), asked.target);
                let (header, claims) =
                    claims(&form["client_assertion"], &public, Algorithm::PS256, &audience);
                let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
                assert_eq!(header.x5t_s256.as_deref(), Some(thumbprint.as_str()));
                assert_eq!((&claims["iss"], &claims["sub"]), (&json!("app-1"), &json!("app-1")));
                assert!(claims["jti"].as_str().unwrap().len() >= 16);
            }
            _ => assert_eq!(form["client_assertion"], "of the platform"),
        }
        if number > 0 {
            assert_eq!(
                form["client_assertion_type"],
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            );
            assert!(!form.contains_key("client_secret"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_aws_gives_out_keys_for_the_token_of_a_platform_and_on_a_machine_of_its_own() {
    let amazon = Upstream::start();
    amazon.choose(|seen| {
        let answer = |body: String| Script::Status(200, Vec::new(), body.into());
        match seen.target.as_str() {
            "/" => answer(format!("<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
                <Credentials><AccessKeyId>{ID}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
                <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>")),
            "/latest/api/token" => {
                assert_eq!((seen.method.as_str(), seen.header("x-aws-ec2-metadata-token-ttl-seconds")), ("PUT", Some("300")));
                answer("imds-session".to_owned())
            }
            path => {
                assert_eq!((seen.method.as_str(), seen.header("x-aws-ec2-metadata-token")), ("GET", Some("imds-session")));
                match path {
                    "/latest/meta-data/iam/security-credentials/" => answer("gateway-role".to_owned()),
                    "/latest/meta-data/iam/security-credentials/gateway-role" => answer(json!({"Code": "Success", "Type": "AWS-HMAC",
                        "AccessKeyId": ID, "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": "2100-01-01T00:00:00Z"}).to_string()),
                    other => panic!("{other}"),
                }
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "of the platform").unwrap();
    let by_token = json!({"role_arn": "arn:aws:iam::123456789012:role/gw", "web_identity_token_file": file, "sts_endpoint": amazon.url()});
    let by_machine = json!({"instance_metadata": true, "metadata_endpoint": amazon.url()});
    for (aws, requests) in [(by_token, 1), (by_machine, 3)] {
        amazon.forget();
        let upstream = Upstream::start();
        upstream.script(reply());
        let url = upstream.url();
        let app = TestApp::on(upstream, |config| {
            config
                .secret("cloud", json!({ "aws": aws }))
                .route(bedrock(&url, "anthropic.claude-sonnet-4-5-20250929-v1:0"))
        })
        .await;
        for _ in 0..3 {
            assert_eq!(app.messages(ask("claude-sonnet-4-5", "Hello")).await.status, 200);
        }
        assert_eq!(amazon.seen(), requests, "fetched once");
        let seen = app.upstream.last();
        assert_eq!(seen.header("x-amz-security-token"), Some(TOKEN));
        let authorization = seen.header("authorization").unwrap();
        assert!(authorization.contains(&format!("Credential={ID}/")), "{authorization}");
        if let Some(expected) = by_botocore(&seen, Some(TOKEN)) {
            assert_eq!(authorization, expected);
        }
        if requests == 1 {
            let form = form(&amazon.last());
            assert_eq!(
                (form["Action"].as_str(), form["Version"].as_str()),
                ("AssumeRoleWithWebIdentity", "2011-06-15")
            );
            assert_eq!(form["RoleArn"], "arn:aws:iam::123456789012:role/gw");
            assert_eq!(
                (form["WebIdentityToken"].as_str(), form["RoleSessionName"].as_str()),
                ("of the platform", "sallyport")
            );
        }
    }
}

fn entra(authority: &str, secret: &str) -> Value {
    json!({"azure": {"tenant_id": "t", "client_id": "c", "client_secret": secret, "authority": authority}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_server_that_fails_is_the_operators_affair_and_its_words_are_nobodys() {
    let canary = "kestrel-7f3a";
    for (script, status, code, said) in [
        (Script::error(503, "api_error", canary), 503, "credential_unavailable", "fails with status 503"),
        (Script::Fault(Fault::ResetBeforeHead), 503, "credential_unavailable", "cannot be reached"),
        (
            Script::error(400, "invalid_request_error", canary),
            502,
            "upstream_credential",
            "refuses with status 400",
        ),
        (Script::Status(200, Vec::new(), canary.into()), 502, "upstream_credential", "cannot be used"),
    ] {
        let server = Upstream::start();
        server.script(script);
        let app = showing(entra(&server.url(), canary)).await;
        let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
        assert_eq!((reply.status, reply.header("x-sallyport-code")), (status, Some(code)), "{said}: {reply}");
        assert_eq!(reply.header("x-should-retry"), (status == 502).then_some("false"), "{said}: {reply}");
        assert_eq!(reply.error_type(), "api_error");
        assert_eq!(app.upstream.seen(), 0, "nothing goes up without a credential");
        let ready = app.get("/ready").await.json();
        assert_eq!(
            (&ready["status"], &ready["refused_credentials"]),
            (&json!("degraded"), &json!(["anthropic (cloud)"]))
        );
        let row = app.row_of(&reply).await;
        assert_eq!((&row["outcome"], &row["payload"]["code"]), (&json!("error"), &json!(code)), "{row}");
        assert!(app.log().contains(said), "{said}: {}", app.log());
        for told in
            [reply.to_string(), format!("{:?}", reply.headers), row.to_string(), ready.to_string(), app.log()]
        {
            assert!(!told.contains(canary), "{said}: {told}");
        }
        // It is well again, and so is the gateway once it asks again.
        server.script(gives("good"));
        until("the next token is fetched", SOON, || async {
            (app.messages(ask("claude-sonnet-4-5", "Hello")).await.status == 200).then_some(())
        })
        .await;
        assert_eq!(app.get("/ready").await.json()["status"], "ready");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_exchanged_under_load_and_no_call_notices() {
    let server = Upstream::start();
    server.choose(|seen| gives(&format!("token-of-{}", form(seen)["client_secret"])));
    let app = showing(entra(&server.url(), "one")).await;
    let calls = async |app: &TestApp| {
        let calls = (0..8).map(|_| app.messages(ask("claude-sonnet-4-5", "Hello")));
        for reply in futures_util::future::join_all(calls).await {
            assert_eq!(reply.status, 200, "{reply}");
        }
    };
    calls(&app).await;
    assert_eq!(shown(&app), "Bearer token-of-one");
    for secret in ["two", "three"] {
        let next = entra(&server.url(), secret);
        app.reload(|config| config.secret("cloud", next));
        until("the new secret is in force", SOON, || async {
            calls(&app).await;
            (shown(&app) == format!("Bearer token-of-{secret}")).then_some(())
        })
        .await;
    }
    assert_eq!(server.seen(), 3, "one token for each secret");
    // A reload that changes nothing of it keeps the token.
    let before = app.log().matches("read again and is in force").count();
    app.reload(|config| config);
    until("the reload is done", SOON, || async {
        (app.log().matches("read again and is in force").count() > before).then_some(())
    })
    .await;
    calls(&app).await;
    assert_eq!(server.seen(), 3);
}
