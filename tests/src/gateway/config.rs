//! The configuration that a story gives its gateway. JSON is YAML, so no writer of YAML is needed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Map, Value, json};

/// `sallyport.yaml` and `secrets.yaml` of one gateway.
#[derive(Debug, Clone)]
pub struct Config {
    file: Value,
    secrets: Map<String, Value>,
}

/// The credential that the gateway keeps for the upstream.
pub const UPSTREAM_KEY: &str = "sk-upstream-credential-of-the-organisation";

/// What a model of a story costs, in microdollars per million tokens.
fn price(model: &str) -> Value {
    json!({"provider": "*", "model": model, "input": 3_000_000, "output": 15_000_000, "cache_read": 300_000,
        "cache_write": 3_750_000})
}

// === impl Config ===

impl Config {
    /// Routes to an upstream for each wire, the echo provider, and no policies.
    pub fn usual(upstream: &str, home: &Path) -> Self {
        let prices = [
            "claude-renamed",
            "claude-refused",
            "claude-nowhere",
            "claude-tls",
            "gpt-refused",
            "spin",
            "claude-tools-400",
            "claude-tools-3000",
        ]
        .map(price);
        let file = json!({
            "server": {"listen": "127.0.0.1:0"},
            "gateway": {"enabled": true, "routes": [
                {"model_pattern": "claude-*", "provider": "anthropic", "endpoint": upstream, "api_key_secret": "upstream",
                    "forward_user_id": true, "models": [
                        {"id": "claude-sonnet-4-5", "display_name": "Claude Sonnet 4.5"},
                        {"id": "claude-opus-4-5", "display_name": "Claude Opus 4.5"},
                        {"id": "claude-haiku-4-5", "display_name": "Claude Haiku 4.5"}]},
                {"model_pattern": "renamed-*", "provider": "anthropic", "endpoint": format!("{upstream}/v1/messages"),
                    "api_key_secret": "upstream", "upstream_model": "claude-renamed", "forward_user_id": true},
                {"model_pattern": "gpt-*", "provider": "openai", "endpoint": format!("{upstream}/v1/chat/completions"),
                    "api_key_secret": "upstream"},
                {"model_pattern": "echo*", "provider": "echo"},
            ]},
            "bundle": [],
            "prices": {"models": prices},
            "audit": {"siem": [{"file": home.join("siem.jsonl")}]},
        });
        let mut secrets = Map::new();
        secrets.insert("upstream".to_owned(), json!(UPSTREAM_KEY));
        Self { file, secrets }
    }

    /// Sends the usual routes to another upstream.
    #[must_use]
    pub fn upstream(self, upstream: &str) -> Self {
        let routes = [
            ("renamed-*", "anthropic", ""),
            ("gpt-*", "openai", "/v1/chat/completions"),
            ("claude-*", "anthropic", ""),
        ];
        routes.into_iter().fold(self, |config, (pattern, provider, path)| {
            config.route(json!({"model_pattern": pattern, "provider": provider, "endpoint": format!("{upstream}{path}"),
                "api_key_secret": "upstream"}))
        })
    }

    /// Adds a route before the others.
    #[must_use]
    pub fn route(mut self, route: Value) -> Self {
        if let Some(routes) = self.file["gateway"]["routes"].as_array_mut() {
            routes.insert(0, route);
        }
        self
    }

    /// Adds an entry that is enforced to the end of the bundle.
    #[must_use]
    pub fn component(mut self, name: &str, config: Value) -> Self {
        if let Some(bundle) = self.file["bundle"].as_array_mut() {
            let mut entry = json!({"component": name, "mode": "enforce"});
            entry["config"] = config;
            bundle.push(entry);
        }
        self
    }

    /// Takes every entry out of the bundle.
    #[must_use]
    pub fn no_components(mut self) -> Self {
        self.file["bundle"] = json!([]);
        self
    }

    /// Adds a secret, or where it comes from.
    #[must_use]
    pub fn secret(mut self, name: &str, value: Value) -> Self {
        self.secrets.insert(name.to_owned(), value);
        self
    }

    /// Sets any other key by its JSON pointer; its parents are made where they are missing.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.file;
        for key in pointer.split('/').skip(1) {
            at = match key.parse::<usize>() {
                Ok(place) if at.is_array() => &mut at[place],
                _ => &mut at[key],
            };
        }
        *at = value;
        self
    }

    /// Writes both files.
    pub(crate) fn write(&self, home: &Path) {
        // The gateway may read at any moment: a file is replaced whole.
        for (name, text) in [
            ("secrets.yaml", Value::Object(self.secrets.clone()).to_string()),
            ("sallyport.yaml", self.file.to_string()),
        ] {
            let new = home.join(format!("{name}.new"));
            std::fs::write(&new, text).expect("the home can be written");
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))
                .expect("a mode can be set");
            std::fs::rename(&new, home.join(name)).expect("a file can be replaced");
        }
    }
}
