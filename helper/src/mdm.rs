//! What device management distributes: the keys that Claude Desktop reads, as each system's files.
//!
//! Values are strings everywhere, booleans and numbers too, and lists are strings of JSON: so says Claude's documentation for
//! third-party inference. `--seed-types` writes numbers and booleans as such, for clients that were deployed that way.

mod admx;
mod environment;
mod intune;
mod profile;
mod registry;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::places::Os;

pub(crate) use self::environment::environment;

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// As the client knows it.
    pub(crate) key: &'static str,
    /// What it is set to.
    pub(crate) value: Setpoint,
    /// What it is for, in a sentence.
    pub(crate) about: &'static str,
}

/// A value, by its kind in the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setpoint {
    /// A text, or a list as JSON.
    Text(String),
    /// A number.
    Number(u32),
    /// A switch.
    Switch(bool),
}

/// What is distributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Where calls go.
    pub(crate) gateway: String,
    /// The program that prints the credential.
    pub(crate) helper: String,
    /// For how long the client keeps it.
    pub(crate) ttl_sec: u32,
    /// How long the program may take.
    pub(crate) timeout_sec: Option<u32>,
    /// The models that the client offers; empty leaves it to the gateway.
    pub(crate) models: Vec<String>,
    /// MCP servers, as JSON.
    pub(crate) mcp_servers: Option<Value>,
    /// Whether users may add MCP servers of their own.
    pub(crate) local_mcp: Option<bool>,
    /// Whether extensions have to be signed.
    pub(crate) signed_extensions: Option<bool>,
    /// Numbers and booleans as such.
    pub(crate) seed_types: bool,
    /// The user's part of the registry in place of the machine's.
    pub(crate) hkcu: bool,
}

/// A file, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artefact {
    /// Its name; a folder may stand before it.
    pub(crate) name: &'static str,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

// === impl Policy ===

impl Policy {
    /// The five keys, with what the client does without them for the rest.
    pub(crate) fn new(gateway: &Gateway, helper: &str) -> Self {
        Self {
            gateway: gateway.as_str().to_owned(),
            helper: helper.to_owned(),
            ttl_sec: 3600,
            timeout_sec: None,
            models: Vec::new(),
            mcp_servers: None,
            local_mcp: None,
            signed_extensions: None,
            seed_types: false,
            hkcu: false,
        }
    }

    /// The keys, in the order in which they are written.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let text = |value: &str| Setpoint::Text(value.to_owned());
        let set = |key, value, about| Setting { key, value, about };
        let mut settings = vec![
            set("inferenceProvider", text("gateway"), "Where prompts go: to a gateway of the organisation."),
            set("inferenceGatewayBaseUrl", text(&self.gateway), "The gateway's address, without /v1."),
            set(
                "inferenceCredentialHelper",
                text(&self.helper),
                "The program that prints the credential; an absolute path.",
            ),
            set(
                "inferenceCredentialHelperTtlSec",
                Setpoint::Number(self.ttl_sec),
                "For how many seconds the client keeps what it printed.",
            ),
            set("inferenceGatewayAuthScheme", text("bearer"), "How the credential is sent."),
        ];
        if let Some(seconds) = self.timeout_sec {
            settings.push(set(
                "inferenceCredentialHelperTimeoutSec",
                Setpoint::Number(seconds),
                "For how many seconds the client waits for the program.",
            ));
        }
        if let Some(servers) = &self.mcp_servers {
            settings.push(set(
                "managedMcpServers",
                Setpoint::Text(servers.to_string()),
                "The MCP servers that everybody has, as JSON.",
            ));
        }
        if let Some(allowed) = self.local_mcp {
            settings.push(set(
                "isLocalDevMcpEnabled",
                Setpoint::Switch(allowed),
                "Whether users may add MCP servers of their own.",
            ));
        }
        if let Some(required) = self.signed_extensions {
            settings.push(set(
                "isDesktopExtensionSignatureRequired",
                Setpoint::Switch(required),
                "Whether extensions have to be signed.",
            ));
        }
        if !self.models.is_empty() {
            let models: Vec<Value> = self.models.iter().map(|name| json!({ "name": name })).collect();
            settings.push(set(
                "inferenceModels",
                Setpoint::Text(Value::Array(models).to_string()),
                "The models that the client offers, as JSON.",
            ));
        }
        settings
    }

    /// The files for a system; the first is the one that `--print-mdm` prints.
    pub(crate) fn artefacts(&self, os: Os) -> Vec<Artefact> {
        let file = |name, text: String| Artefact { name, bytes: text.into_bytes() };
        match os {
            Os::Macos => vec![file("cowork.mobileconfig", profile::profile(self))],
            Os::Windows => vec![
                Artefact { name: "cowork.reg", bytes: registry::utf16(&registry::registry(self)) },
                file("Claude.admx", admx::admx(self)),
                file("en-US/Claude.adml", admx::adml(self)),
                file("intune-oma-uri.csv", intune::csv(self)),
            ],
            Os::Linux => vec![file("50-claude-cowork.conf", environment(self))],
        }
    }

    /// What `--print-mdm` shows a person: the first file as text.
    pub(crate) fn text(&self, os: Os) -> String {
        match os {
            Os::Macos => profile::profile(self),
            Os::Windows => registry::registry(self),
            Os::Linux => environment(self),
        }
    }
}

// === impl Setpoint ===

impl Setpoint {
    /// As the client's documentation wants it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Switch(switch) => switch.to_string(),
        }
    }
}

/// Text for XML, in an element or an attribute.
pub(crate) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // XML 1.0 has no other control characters.
            char if char.is_control() && !matches!(char, '\t' | '\n' | '\r') => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
