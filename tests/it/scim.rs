//! An identity provider that makes, changes and ends users, and says which groups they are in.

use bytes::Bytes;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::postgres::Server;
use sallyport_tests::upstream::Upstream;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::{another_second, hello, tell};

const MEDIA: &str = "application/scim+json";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

/// A gateway, and the credential of a provider.
struct Stage {
    app: TestApp,
    bearer: String,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let app = TestApp::on(Upstream::start(), change).await;
        app.cli(&["tenant", "create", "acme"]);
        app.cli(&["user", "create", "directory", "--tenant", "acme", "--role", "service"]);
        let bearer = pat(&app, "directory", "acme", "scim");
        Self { app, bearer }
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Reply {
        let headers = [("authorization", self.bearer.as_str()), ("content-type", MEDIA)];
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.app.client().send(method, &format!("/scim/v2/{path}"), &headers, body).await
    }

    /// The same, which has to be done.
    async fn does(&self, method: &str, path: &str, body: Value) -> Value {
        let reply = self.send(method, path, body).await;
        assert!(matches!(reply.status, 200 | 201), "{method} {path}: {reply}");
        assert_eq!(reply.header("content-type"), Some(MEDIA));
        reply.json()
    }

    /// The same, which has to be refused.
    async fn refused(&self, method: &str, path: &str, body: Value, status: u16, kind: &str) {
        let reply = self.send(method, path, body.clone()).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {reply}");
        let said = reply.json();
        assert_eq!(said["schemas"][0], "urn:ietf:params:scim:api:messages:2.0:Error", "{said}");
        assert_eq!(
            (said["status"].as_str(), said["scimType"].as_str().unwrap_or_default()),
            (Some(status.to_string().as_str()), kind),
            "{said}"
        );
    }

    async fn patch(&self, path: &str, operations: Value) -> Value {
        let schema = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
        self.does("PATCH", path, json!({"schemas": [schema], "Operations": operations})).await
    }

    async fn call(&self, bearer: &str) -> u16 {
        self.app.post("/v1/messages", &[("authorization", bearer)], hello().to_string()).await.status
    }
}

fn pat(app: &TestApp, user: &str, tenant: &str, scope: &str) -> String {
    let made = app.cli_json(&[
        "gateway", "pat", "create", "--user", user, "--tenant", tenant, "--name", "a story", "--scope", scope,
    ]);
    format!("Bearer {}", made["token"].as_str().unwrap())
}

fn ann() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", ENTERPRISE],
        "userName": "ann@acme.example", "externalId": "00u1", "displayName": "Ann", "active": true,
        "name": {"givenName": "Ann"}, "emails": [{"value": "ann@acme.example", "primary": true}],
        ENTERPRISE: {"department": "Finance"},
    })
}

async fn a_user_comes_changes_and_goes(stage: &Stage) {
    let made = stage.does("POST", "Users", ann()).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let user = format!("Users/{id}");
    assert_eq!((&made["active"], &made[ENTERPRISE]["department"]), (&json!(true), &json!("Finance")));
    assert!(made["meta"]["location"].as_str().unwrap().ends_with(&format!("/scim/v2/{user}")), "{made}");
    stage.refused("POST", "Users", ann(), 409, "uniqueness").await;
    let listed =
        stage.does("GET", "Users?filter=userName%20eq%20%22ann%40acme.example%22", Value::Null).await;
    assert_eq!((&listed["totalResults"], &listed["Resources"][0]["id"]), (&json!(1), &json!(id)), "{listed}");
    assert_eq!(stage.does("GET", &user, Value::Null).await["groups"], json!([]));

    // It works with what it was given, until its provider says no.
    let bearer = pat(&stage.app, "ann@acme.example", "acme", "inference");
    let exchange = [("authorization", bearer.as_str())];
    let issued = stage.app.client().send("POST", "/v1/auth/cowork/pat", &exchange, "").await;
    let token = format!("Bearer {}", issued.json()["token"].as_str().unwrap());
    assert_eq!((stage.call(&bearer).await, stage.call(&token).await), (200, 200));
    // As Entra says it.
    let off = stage.patch(&user, json!([{"op": "Replace", "path": "active", "value": "False"}])).await;
    assert_eq!(off["active"], false);
    assert_eq!((stage.call(&bearer).await, stage.call(&token).await), (401, 401), "at once, here");
    let on = stage.patch(&user, json!([{"op": "replace", "value": {"active": true}}])).await;
    assert_eq!(on["active"], true);
    assert_eq!(
        (stage.call(&bearer).await, stage.call(&token).await),
        (200, 401),
        "what was issued before stays over"
    );

    let put = json!({"userName": "anna@acme.example", "externalId": "00u1"});
    let replaced = stage.does("PUT", &user, put).await;
    assert_eq!(
        (&replaced["userName"], &replaced[ENTERPRISE]["department"]),
        (&json!("anna@acme.example"), &Value::Null)
    );
    assert_eq!(replaced["active"], true, "what is not said of it stays");
    assert_eq!(stage.send("DELETE", &user, Value::Null).await.status, 204);
    assert_eq!(stage.call(&bearer).await, 401);
    stage.refused("GET", &user, Value::Null, 404, "").await;
    stage.refused("DELETE", &user, Value::Null, 404, "").await;
    let again = stage.does("POST", "Users", ann()).await;
    assert_ne!(again["id"], json!(id), "another one, under the name that is free");

    let codes = until("each change is a row", SOON, || {
        let rows = stage.app.audit_rows();
        let rows = rows.iter().filter(|row| {
            row["payload"]["detail"]["scim"].is_boolean() || row["payload"]["detail"]["scim"] == "deleted"
        });
        let codes: Vec<_> = rows.map(|row| row["payload"]["code"].as_str().unwrap().to_owned()).collect();
        std::future::ready((codes.len() == 6).then_some(codes))
    })
    .await;
    assert_eq!(
        codes,
        ["user.create", "user.disable", "user.enable", "user.change", "user.disable", "user.create"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_makes_changes_and_ends_users() {
    a_user_comes_changes_and_goes(&Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_postgresql() {
    let Some(server) = Server::start().unwrap() else {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        tell("skipped: SCIM on PostgreSQL (no PostgreSQL server is installed)");
        return;
    };
    let url = server.url().to_owned();
    a_user_comes_changes_and_goes(&Stage::with(|config| config.set("/database", json!({"url": url}))).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_follow_from_groups_as_an_administrator_says() {
    let stage = Stage::new().await;
    stage.app.cli(&["role", "give-group", "author", "Authors", "--tenant", "acme"]);
    let ann = stage.does("POST", "Users", ann()).await["id"].as_str().unwrap().to_owned();
    let ben = stage.does("POST", "Users", json!({"userName": "ben@acme.example"})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let roles = async |id: &str| {
        let user = stage.does("GET", &format!("Users/{id}"), Value::Null).await;
        let roles =
            user["roles"].as_array().unwrap().iter().map(|role| role["value"].as_str().unwrap().to_owned());
        roles.collect::<Vec<_>>().join(" ")
    };
    let made =
        stage.does("POST", "Groups", json!({"displayName": "Authors", "members": [{"value": ann}]})).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let group = format!("Groups/{id}");
    assert_eq!((roles(&ann).await.as_str(), roles(&ben).await.as_str()), ("member author", "member"));
    let bearer = pat(&stage.app, "ann@acme.example", "acme", "inference");
    another_second().await;
    let issued = stage
        .app
        .client()
        .send("POST", "/v1/auth/cowork/pat", &[("authorization", bearer.as_str())], "")
        .await;
    let token = format!("Bearer {}", issued.json()["token"].as_str().unwrap());
    assert_eq!(stage.call(&token).await, 200);

    stage.patch(&group, json!([{"op": "Add", "path": "members", "value": [{"value": ben}]}])).await;
    assert_eq!(roles(&ben).await, "member author");
    let path = format!("members[value eq \"{ann}\"]");
    let left = stage.patch(&group, json!([{"op": "remove", "path": path}])).await;
    assert_eq!(left["members"].as_array().unwrap().len(), 1, "{left}");
    assert_eq!(roles(&ann).await, "member");
    assert_eq!(stage.call(&token).await, 401, "the token said what held before");
    let bare = stage.does("GET", &format!("{group}?excludedAttributes=members"), Value::Null).await;
    assert_eq!(bare.get("members"), None);
    stage.app.cli(&["role", "take-group", "author", "Authors", "--tenant", "acme"]);
    assert_eq!(roles(&ben).await, "member");
    stage.app.cli(&["role", "give-group", "author", "Authors", "--tenant", "acme"]);
    assert_eq!(roles(&ben).await, "member author");
    stage.does("PUT", &group, json!({"displayName": "Readers", "members": [{"value": ben}]})).await;
    assert_eq!(roles(&ben).await, "member", "another name, and nothing follows from it");
    assert_eq!(stage.send("DELETE", &group, Value::Null).await.status, 204);
    assert_eq!(stage.does("GET", "Groups", Value::Null).await["totalResults"], 0);
    let (_, said) = stage.app.cli_fails(&["role", "give-group", "admin", "Authors", "--tenant", "acme"]);
    assert!(said.contains("the platform's"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_reaches_its_tenant_and_what_it_made_and_nothing_else() {
    let stage = Stage::new().await;
    let own = stage.app.cli_json(&["user", "list", "--tenant", "acme"])[0]["id"].as_str().unwrap().to_owned();
    let admin = stage.app.cli_json(&["user", "list"])[0]["id"].as_str().unwrap().to_owned();
    for id in [own.as_str(), &admin, "u_nobody", "x'%20OR%201=1"] {
        stage.refused("GET", &format!("Users/{id}"), Value::Null, 404, "").await;
        stage.refused("DELETE", &format!("Users/{id}"), Value::Null, 404, "").await;
    }
    assert_eq!(stage.does("GET", "Users", Value::Null).await["totalResults"], 0);
    // Somebody who is there already is not taken over by a name.
    stage.refused("POST", "Users", json!({"userName": "directory"}), 409, "uniqueness").await;
    stage
        .refused(
            "POST",
            "Groups",
            json!({"displayName": "G", "members": [{"value": own}]}),
            400,
            "invalidValue",
        )
        .await;
    assert_eq!(stage.does("GET", "Groups", Value::Null).await["totalResults"], 0, "all of it, or nothing");

    let inference = pat(&stage.app, "directory", "acme", "inference");
    let administers = pat(&stage.app, "admin", "default", "admin");
    for (bearer, status) in
        [("", 401), ("Bearer nonsense", 401), (inference.as_str(), 403), (administers.as_str(), 403)]
    {
        for path in ["Users", "Groups", "ServiceProviderConfig", "ResourceTypes"] {
            let reply = stage
                .app
                .client()
                .send("GET", &format!("/scim/v2/{path}"), &[("authorization", bearer)], "")
                .await;
            assert_eq!(reply.status, status, "{path}: {reply}");
        }
    }
    assert_eq!(stage.call(&stage.bearer).await, 403, "and the credential is good for nothing else");
    let (_, said) =
        stage.app.cli_fails(&["gateway", "client", "create", "x", "--confidential", "--scope", "scim"]);
    assert!(said.contains("scope"), "{said}");
    let config = stage.does("GET", "ServiceProviderConfig", Value::Null).await;
    assert_eq!((&config["patch"]["supported"], &config["bulk"]["supported"]), (&json!(true), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_says_why_in_the_words_of_the_protocol() {
    let stage = Stage::new().await;
    let id = stage.does("POST", "Users", ann()).await["id"].as_str().unwrap().to_owned();
    let user = format!("Users/{id}");
    for (body, kind) in [
        (json!({}), "invalidValue"),
        (json!({"userName": 1}), "invalidValue"),
        (json!({"userName": "a\u{202e}b"}), "invalidValue"),
        (json!({"userName": "u_1"}), "invalidValue"),
        (json!({"userName": "b", "active": "perhaps"}), "invalidValue"),
        (json!([]), "invalidSyntax"),
    ] {
        stage.refused("POST", "Users", body, 400, kind).await;
    }
    for (operations, kind) in [
        (json!([]), "invalidSyntax"),
        (json!([{"op": "move", "path": "active"}]), "invalidSyntax"),
        (json!([{"op": "remove"}]), "noTarget"),
        (json!([{"op": "remove", "path": "userName"}]), "invalidValue"),
        (json!([{"op": "replace", "path": "favourite", "value": 1}]), "invalidPath"),
        (json!([{"op": "replace", "path": "active", "value": 7}]), "invalidValue"),
    ] {
        stage.refused("PATCH", &user, json!({"Operations": operations}), 400, kind).await;
    }
    for (path, kind) in [
        ("Users?filter=userName%20sw%20%22a%22", "invalidFilter"),
        ("Users?filter=password%20eq%20%22a%22", "invalidFilter"),
        ("Groups?filter=userName%20eq%20%22a%22", "invalidFilter"),
        ("Users?count=many", "invalidValue"),
        ("Users?count=1&count=2", "invalidSyntax"),
    ] {
        stage.refused("GET", path, Value::Null, 400, kind).await;
    }
    let page = stage.does("GET", "Users?startIndex=0&count=100000", Value::Null).await;
    assert_eq!((&page["startIndex"], &page["itemsPerPage"]), (&json!(1), &json!(1)), "{page}");
    let none = stage.does("GET", "Users?count=0", Value::Null).await;
    assert_eq!((&none["totalResults"], &none["Resources"]), (&json!(1), &json!([])), "{none}");
    let headers = [("authorization", stage.bearer.as_str()), ("content-type", "text/plain")];
    assert_eq!(stage.app.client().send("POST", "/scim/v2/Users", &headers, "{}").await.status, 415);
    let headers = [("authorization", stage.bearer.as_str()), ("content-type", MEDIA)];
    for (body, status) in [
        ("{", 400),
        (r#"{"userName": "a", "userName": "b"}"#, 400),
        (&format!(r#"{{"userName": "{}"}}"#, "x".repeat(300_000)), 413),
    ] {
        let reply = stage.app.client().send("POST", "/scim/v2/Users", &headers, body.to_owned()).await;
        assert_eq!(reply.status, status, "{reply}");
    }
    assert_eq!(
        stage.does("GET", &user, Value::Null).await["userName"],
        "ann@acme.example",
        "nothing of it changed anything"
    );
}
