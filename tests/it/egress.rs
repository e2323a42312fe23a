//! Egress: a hook asks a service that the operator chose, and what it hears decides.

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Capability, Kind, Package, Statement};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use sallyport_tests::upstream::{Script, Turn, Upstream};
use serde_json::json;

use crate::ask;

const NAME: &str = "00-honest-calling-hook";

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_asks_as_the_operator_and_its_row_says_so() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (_, component) = hostile::component(NAME);
    let statement = Statement {
        capabilities: vec![Capability::Egress("way0".to_owned())],
        ..hostile::statement(NAME, Kind::Hook)
    };
    let package = Package::build(statement, &key, &component).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ask.sallyport");
    std::fs::write(&file, package).unwrap();
    let public: String =
        key.verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let moderation = Upstream::start();
    let url = moderation.url();
    let app = TestApp::with(|config| {
        config
            .component(file.to_str().unwrap(), json!({}))
            .set("/components", json!({"publishers": [{"key": public, "namespace": "hostile", "kinds": ["hook"]}]}))
            .set("/egress", json!([{"name": "way0", "url": url, "methods": ["GET"], "path_prefix": "/v1", "auth": {"header": "x-moderation-key"},
                "secret": "upstream", "allow_private": true, "components": [format!("hostile/{NAME}")]}]))
    })
    .await;
    for (status, outcome) in [(200, "allowed"), (403, "denied")] {
        moderation.script(Script::Status(status, Vec::new(), "ok".into()));
        app.upstream.script(Script::Turn(vec![Turn::Tool(
            "toolu_1".into(),
            "Bash".into(),
            json!({"command": "ls"}),
        )]));
        let reply = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
        assert_eq!(reply.status, 200, "{reply}");
        let asked = moderation.last();
        assert_eq!(asked.target, "/v1/check?secret=query");
        let credential = asked.header("x-moderation-key").unwrap().to_owned();
        let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
        let hook = rows.iter().find(|row| row["kind"] == "hook").unwrap();
        assert_eq!(hook["outcome"], outcome, "{hook}");
        let sent = &hook["payload"]["egress"][0];
        assert_eq!(
            (&sent["grant"], &sent["status"], &sent["bytes"]),
            (&json!("way0"), &json!(status), &json!(2))
        );
        assert!(sent["ms"].is_u64());
        let told = format!("{rows:?} {}", app.log());
        assert!(!told.contains(&credential) && !told.contains("secret=query"), "{told}");
    }
}
