//! Which models roles may call: what is not listed is not there.

use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::{ask, hello};

async fn listed(app: &TestApp) -> Vec<String> {
    let models = app.get("/v1/models").await;
    assert_eq!(models.status, 200, "{models}");
    models.json()["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many models are listed: what is said takes effect within two seconds.
async fn until_listed(app: &TestApp, models: &[&str]) {
    until("the models are listed", SOON, || async { (listed(app).await == models).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_calls_what_is_listed_for_it_and_for_it_nothing_else_is_there() {
    let app = TestApp::start().await;
    let all = ["claude-sonnet-4-5", "claude-opus-4-5", "claude-haiku-4-5"];
    until_listed(&app, &all).await;

    // What is listed counts once the tenant says so.
    app.cli(&["role", "allow-models", "admin", "claude-haiku-*"]);
    app.cli(&["role", "allow-models", "author", "*"]);
    assert_eq!(app.messages(hello()).await.status, 200);
    app.cli(&["tenant", "set-models", "default", "listed"]);
    until_listed(&app, &["claude-haiku-4-5"]).await;
    assert_eq!(app.messages(ask("claude-haiku-4-5", "Hello")).await.status, 200);

    // A model that may not be called, and one that nobody ever heard of.
    let seen = app.upstream.seen();
    let refused = app.messages(hello()).await;
    let unknown = app.messages(ask("nothing-4-5", "Hello")).await;
    let said = |reply: &sallyport_tests::client::Reply, model: &str| {
        let code = reply.header("x-sallyport-code").unwrap_or_default().to_owned();
        (reply.status, code, reply.json()["error"].to_string().replace(model, "MODEL"))
    };
    assert_eq!(refused.status, 404, "{refused}");
    assert_eq!(
        said(&refused, "claude-sonnet-4-5"),
        said(&unknown, "nothing-4-5"),
        "one tells nothing that the other does not"
    );
    let counted = app.post("/v1/messages/count_tokens", &[], hello().to_string()).await;
    assert_eq!(counted.status, 404, "{counted}");
    assert_eq!(app.get("/v1/models/claude-sonnet-4-5").await.status, 404);
    assert_eq!(app.get("/v1/models/claude-haiku-4-5").await.status, 200);
    assert_eq!(app.upstream.seen(), seen, "nothing of it went upstream");
    let row = app.row_of(&refused).await;
    assert_eq!((&row["outcome"], &row["payload"]["entitled"]), (&json!("denied"), &json!(false)), "{row}");
    assert_eq!(
        app.row_of(&unknown).await["payload"]["entitled"],
        json!(false),
        "for whom is listed what nobody serves?"
    );

    // Whoever asks why is told.
    let explain = ["route", "explain", "--user", "admin", "--model"];
    let (said, _) = app.cli_fails(&[&explain[..], &["claude-sonnet-4-5"]].concat());
    assert!(said.contains("none of the user's roles may call this model"), "{said}");
    assert!(app.cli(&[&explain[..], &["claude-haiku-4-5"]].concat()).contains("yes"));

    // Somebody with another role, at the same time.
    app.cli(&["user", "create", "ann", "--role", "author"]);
    let made = app.cli_json(&["gateway", "pat", "create", "--user", "ann", "--name", "a story"]);
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let reply = app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await;
    assert_eq!(reply.status, 200, "{reply}");

    let rules: Value = app.cli_json(&["role", "models"]);
    assert_eq!(
        rules,
        json!([{"role": "admin", "pattern": "claude-haiku-*"}, {"role": "author", "pattern": "*"}])
    );
    app.cli(&["role", "disallow-models", "admin", "claude-haiku-*"]);
    until_listed(&app, &[]).await;
    let (_, said) = app.cli_fails(&["role", "disallow-models", "admin", "claude-haiku-*"]);
    assert!(said.contains("is not listed for admin"), "{said}");
    let (_, said) = app.cli_fails(&["role", "allow-models", "Admin", "*"]);
    assert!(said.contains("role Admin is refused"), "{said}");
    let (_, said) = app.cli_fails(&["role", "allow-models", "admin", "a b"]);
    assert!(said.contains("a pattern is the name of a model"), "{said}");
    app.cli(&["tenant", "set-models", "default", "all"]);
    until_listed(&app, &all).await;

    let codes = until("each change is a row", SOON, || {
        let rows = app.audit_rows();
        let codes = rows.iter().filter_map(|row| row["payload"]["code"].as_str().map(str::to_owned));
        let codes: Vec<_> =
            codes.filter(|code| code.starts_with("role.") || code == "tenant.models").collect();
        std::future::ready((codes.len() == 5).then_some(codes))
    })
    .await;
    assert_eq!(codes, ["role.allow", "role.allow", "tenant.models", "role.disallow", "tenant.models"]);
}
