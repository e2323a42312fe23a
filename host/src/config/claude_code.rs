//! The `claude_code:` block: what Claude Code and Claude Desktop are told after they signed in.

use sallyport_protocol::canonical;
use serde_json::{Value, json};

use super::key::{ConfigBlock, ConfigKey, Form};
use super::node::{Node, Section};

/// What switches telemetry on.
const TELEMETRY_SWITCH: &str = "CLAUDE_CODE_ENABLE_TELEMETRY";

const ROLES: ConfigKey = ConfigKey::list(
    "roles",
    &Form::Text,
    "Whom it is for: users with one of these roles; without the key, everybody",
);
const SETTINGS: ConfigKey = ConfigKey::of(
    "settings",
    Form::Free,
    "A mapping as in Claude Code's managed settings: `permissions`, `availableModels`, `env`, `hooks`",
)
.required();
const ENTRY: ConfigBlock = ConfigBlock {
    about: "Managed settings of Claude Code, by role: the first entry that is for a user counts.",
    keys: &[ROLES, SETTINGS],
    notes: "",
};
const MANAGED: ConfigKey = ConfigKey::list(
    "managed_settings",
    &Form::Mapping(&ENTRY),
    "What `GET /managed/settings` answers; the first entry that is for the caller counts",
);
const NOTICE: ConfigKey = ConfigKey::text(
    "login_notice",
    "What Claude Code shows before a sign-in, for example that use is recorded",
);
const DESKTOP: ConfigKey = ConfigKey::of(
    "desktop",
    Form::Free,
    "A mapping of keys of Claude Desktop, such as `disabledBuiltinTools`; with it, even an empty one, `GET /user/bootstrap` answers. Where and \
     with which models it infers, the gateway says itself",
);

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "claude_code",
    &ConfigBlock {
        about: "What Claude Code and Claude Desktop are told once they [signed in](../guide/sign-in.md#claude-code).",
        keys: &[MANAGED, NOTICE, DESKTOP],
        notes: "",
    },
    "What Claude Code and Claude Desktop are told once they signed in",
);

/// The `claude_code:` block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClaudeSettings {
    /// Managed settings; the first entry that is for a user counts.
    pub managed: Vec<ManagedSettings>,
    /// What is shown before a sign-in.
    pub notice: Option<String>,
    /// What Claude Desktop is told besides what the gateway knows; none: nothing.
    pub desktop: Option<Value>,
}

/// Managed settings for some roles.
#[derive(Debug, Clone, PartialEq)]
pub struct ManagedSettings {
    /// Whose; empty for everybody's.
    pub roles: Vec<String>,
    /// As they are handed out.
    pub settings: Value,
    /// `sha256:` and the hex of their compact JSON with sorted keys.
    pub checksum: String,
}

// === impl ClaudeSettings ===

impl ClaudeSettings {
    /// Reads the block.
    pub(super) fn read(top: &Section<'_>) -> Self {
        let section = top.block(&KEY);
        let managed = section.items(&MANAGED).iter().filter_map(ManagedSettings::read).collect();
        let desktop = section.get(&DESKTOP).and_then(|node| mapping(&node));
        Self { managed, notice: section.text(&NOTICE), desktop }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        let managed = self.managed.iter().map(|it| json!({ "roles": it.roles, "settings": it.settings }));
        json!({
            "managed_settings": managed.collect::<Vec<_>>(),
            "login_notice": self.notice,
            "desktop": self.desktop,
        })
    }

    /// Has clients export metrics and logs to the gateway, unless settings say themselves what they export.
    pub(super) fn point_telemetry_at(&mut self, gateway: &str) {
        if self.managed.iter().all(|it| !it.roles.is_empty()) {
            self.managed.push(ManagedSettings::new(Vec::new(), json!({})));
        }
        for managed in &mut self.managed {
            let mut settings = managed.settings.clone();
            let env = settings.as_object_mut().map(|it| it.entry("env").or_insert_with(|| json!({})));
            let Some(env) = env.and_then(Value::as_object_mut) else { continue };
            let says = |name: &String| name.starts_with("OTEL_") || name == TELEMETRY_SWITCH;
            if env.keys().any(says) {
                continue;
            }
            env.insert(TELEMETRY_SWITCH.to_owned(), "1".into());
            env.insert("OTEL_METRICS_EXPORTER".to_owned(), "otlp".into());
            env.insert("OTEL_LOGS_EXPORTER".to_owned(), "otlp".into());
            env.insert("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), "http/protobuf".into());
            env.insert("OTEL_EXPORTER_OTLP_COMPRESSION".to_owned(), "none".into());
            env.insert("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), gateway.into());
            *managed = ManagedSettings::new(std::mem::take(&mut managed.roles), settings);
        }
    }

    /// Those for a user with these roles.
    pub fn managed_for(&self, roles: &[String]) -> Option<&ManagedSettings> {
        self.managed.iter().find(|it| it.roles.is_empty() || it.roles.iter().any(|role| roles.contains(role)))
    }
}

// === impl ManagedSettings ===

impl ManagedSettings {
    fn read(item: &Node<'_>) -> Option<Self> {
        let section = item.section(&ENTRY);
        let roles = section.items(&ROLES).iter().filter_map(|role| Some(role.text()?.to_owned())).collect();
        Some(Self::new(roles, mapping(&section.required(&SETTINGS)?)?))
    }

    fn new(roles: Vec<String>, settings: Value) -> Self {
        // As Claude Code computes it.
        let checksum = canonical::digest(&settings);
        Self { roles, settings, checksum }
    }
}

fn mapping(node: &Node<'_>) -> Option<Value> {
    if !node.value().is_object() {
        node.error("must be a mapping");
        return None;
    }
    Some(node.value().clone())
}
