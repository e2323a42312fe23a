//! A publisher of the stories: a key, a namespace, and packages made of components that ship with the gateway or mean harm.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use sallyport::component::inspect;
use sallyport::shipped::first_party;
use sallyport_protocol::package::{HookEvent, Kind, Manifest, Name, Package, Statement};
use sallyport_protocol::signature::{KeyId, public_key_text};
use serde_json::{Value, json};

use crate::client::Reply;
use crate::gateway::TestApp;
use crate::hostile;

/// Core modules that a component may have.
const MOST_MODULES: u32 = 48;

/// Whoever signs components of one namespace.
#[derive(Debug)]
pub struct Vendor {
    namespace: String,
    key: SigningKey,
}

/// An administrator of a gateway, by its token.
#[derive(Debug)]
pub struct Admin<'a> {
    app: &'a TestApp,
    /// Its personal access token.
    pub token: String,
}

// === impl Vendor ===

impl Vendor {
    /// A publisher with a key that `seed` stands for.
    pub fn new(namespace: &str, seed: u8) -> Self {
        Self { namespace: namespace.to_owned(), key: SigningKey::from_bytes(&[seed; 32]) }
    }

    /// What an administrator is given to trust it.
    pub fn trust(&self, kinds: &[&str]) -> Value {
        json!({
            "public_key": public_key_text(&self.key.verifying_key()),
            "namespace": self.namespace,
            "kinds": kinds,
            "label": "a vendor of the stories",
        })
    }

    /// The id of its key.
    pub fn key_id(&self) -> String {
        KeyId::of(&self.key.verifying_key()).as_str().to_owned()
    }

    /// A component that ships with the gateway under this vendor's name: other bytes for each version, the same behaviour.
    pub fn copy_of(&self, shipped: &str, version: &str, serial: u64) -> Bytes {
        self.release(shipped, version, serial, |statement| statement)
    }

    /// The same, with another statement.
    pub fn release(
        &self,
        shipped: &str,
        version: &str,
        serial: u64,
        change: impl FnOnce(Statement) -> Statement,
    ) -> Bytes {
        let name = format!("sallyport/{shipped}");
        let embedded =
            first_party().into_iter().find(|it| it.name == name).expect("it ships with the gateway");
        let package = Package::parse(embedded.bytes).expect("what ships is a package");
        let statement = Statement {
            name: Name::parse(&format!("{}/{shipped}", self.namespace)).expect("a name"),
            version: version.parse().expect("a version"),
            serial,
            ..package.statement().clone()
        };
        self.sign(change(statement), &marked(package.component(), version))
    }

    /// A component of this vendor's, by the manifest that stands beside its sources: another namespace, and the rest as it says.
    pub fn pack(&self, manifest: &str, component: &[u8]) -> Bytes {
        let statement = Manifest::parse(manifest).expect("a manifest").statement(component);
        let name = statement.name.as_str().split_once('/').map_or("", |(_, name)| name);
        let name = Name::parse(&format!("{}/{name}", self.namespace)).expect("a name");
        self.sign(Statement { name, ..statement }, component)
    }

    /// The same in so many pieces that one instance of it takes sixteen places of the pool.
    pub fn heavy(&self, shipped: &str, name: &str) -> Bytes {
        let embedded =
            first_party().into_iter().find(|it| it.name.split_once('/') == Some(("sallyport", shipped)));
        let package = Package::parse(embedded.expect("it ships with the gateway").bytes);
        let package = package.expect("what ships is a package");
        let mut component = package.component().to_vec();
        let own = inspect(&component, usize::MAX).expect("what ships is a component").modules;
        for _ in own..MOST_MODULES {
            // A section of core modules, with one that is empty.
            component.extend_from_slice(&[1, 8, 0, b'a', b's', b'm', 1, 0, 0, 0]);
        }
        let name = Name::parse(&format!("{}/{name}", self.namespace)).expect("a name");
        self.sign(Statement { name, ..package.statement().clone() }, &component)
    }

    /// A publisher's entry in the configuration.
    pub fn publisher(&self, kinds: &[&str]) -> Value {
        json!({"key": public_key_text(&self.key.verifying_key()), "namespace": self.namespace, "kinds": kinds})
    }

    /// A guest that means harm, under this vendor's name. A hook is told of prompts and of tool calls.
    pub fn hostile(&self, guest: &str, name: &str, version: &str, serial: u64) -> Bytes {
        let (kind, component) = hostile::component(guest);
        let kind = kind.unwrap_or(Kind::Policy);
        let events = [HookEvent::UserPromptSubmit, HookEvent::PreToolUse];
        let statement = Statement {
            name: Name::parse(&format!("{}/{name}", self.namespace)).expect("a name"),
            version: version.parse().expect("a version"),
            serial,
            events: if kind == Kind::Hook { events.to_vec() } else { Vec::new() },
            ..hostile::statement("x", kind)
        };
        self.sign(statement, &marked(&component, version))
    }

    /// Any policy under this vendor's name, version 1.0.0, with what `change` makes of its statement.
    pub fn package(
        &self,
        name: &str,
        component: &[u8],
        change: impl FnOnce(Statement) -> Statement,
    ) -> Bytes {
        let name = Name::parse(&format!("{}/{name}", self.namespace)).expect("a name");
        self.sign(change(Statement { name, ..hostile::statement("x", Kind::Policy) }), component)
    }

    fn sign(&self, statement: Statement, component: &[u8]) -> Bytes {
        Package::build(statement, &self.key, component).expect("the package can be built").into()
    }
}

// === impl Admin ===

impl<'a> Admin<'a> {
    /// The administrator of the platform.
    pub fn of(app: &'a TestApp) -> Self {
        Self::named(app, "admin", "default")
    }

    /// A user of a tenant, with a token for administration.
    pub fn named(app: &'a TestApp, user: &str, tenant: &str) -> Self {
        let scopes = ["--scope", "admin", "--scope", "inference"];
        let command = ["gateway", "pat", "create", "--user", user, "--name", "admin", "--tenant", tenant];
        let minted = app.cli_json(&[command.as_slice(), &scopes].concat());
        Self { app, token: minted["token"].as_str().expect("a token is shown once").to_owned() }
    }

    /// A new tenant and a user of it with this role.
    pub fn new_tenant(app: &'a TestApp, tenant: &str, role: &str) -> Self {
        app.cli(&["tenant", "create", tenant, "--name", tenant]);
        app.cli(&["user", "create", role, "--tenant", tenant, "--role", role]);
        Self::named(app, role, tenant)
    }

    /// One request.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Reply {
        let bearer = format!("Bearer {}", self.token);
        let target = format!("/v1/admin/{path}");
        self.app.client().patient().send(method, &target, &[("authorization", &bearer)], body.into()).await
    }

    /// Looks.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, Bytes::new()).await
    }

    /// Does something that has to work.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.send("POST", path, body.to_string()).await;
        assert_eq!(reply.status, 200, "{path} {body}: {reply}");
        reply.json()
    }

    /// Uploads something that has to be taken.
    pub async fn push(&self, package: Bytes) -> Value {
        let reply = self.send("POST", "components", package).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    /// A call of a model with the same token.
    pub async fn call(&self, body: &Value) -> Reply {
        let bearer = format!("Bearer {}", self.token);
        self.app.post("/v1/messages", &[("authorization", &bearer)], body.to_string()).await
    }
}

// === private helpers ===

/// The same component with other bytes: a custom section at its end, which nothing reads.
fn marked(component: &[u8], mark: &str) -> Vec<u8> {
    let name = b"mark";
    let size = 1 + name.len() + mark.len();
    let mut bytes = component.to_vec();
    bytes.push(0);
    bytes.push(u8::try_from(size).expect("a short mark"));
    bytes.push(u8::try_from(name.len()).expect("a short name"));
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(mark.as_bytes());
    bytes
}
