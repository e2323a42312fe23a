//! The `bundle:` list: what decides on every call, in order.

use std::path::Path;
use std::time::Duration;

use sallyport_protocol::hooks::{Attachment, Matcher, OnFault};
use serde_json::{Value, json};

use super::LONGEST_TIMEOUT;
use super::file::millis;
use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
use super::known::{Known, read_package};
use super::node::{self, Node, Section};

/// Longest file that `config_file` names: what a component is handed at most.
const MAX_CONFIG_FILE: u64 = 1024 * 1024;
/// How the path of a package ends.
const PACKAGE_SUFFIX: &str = ".sallyport";

const COMPONENT: ConfigKey = ConfigKey::text(
    "component",
    "`namespace/name` of a component that ships or of one from `components.packages`, or the path of a `.sallyport` package",
)
.required();
const MODE: ConfigKey = ConfigKey::choice::<ModeSetting>(
    "mode",
    "`enforce`: its verdict counts; `shadow`: it runs and is recorded, and decides nothing; `off`: it does not run",
)
.or_default::<ModeSetting>();
const REWRITE: ConfigKey = ConfigKey::flag(
    "rewrite",
    "Permits a scanner whose package declares `rewrite` to cut out what it finds. Without it, it refuses instead",
);
const CONFIG: ConfigKey = ConfigKey::of(
    "config",
    Form::Free,
    "What the component is configured with; see [policies](../guide/policies.md)",
);
const CONFIG_FILE: ConfigKey = ConfigKey::text(
    "config_file",
    "A file (YAML or JSON, a mapping) whose keys are added to `config`, read again at each reload; at most 1 MiB",
);
const MATCHER: ConfigKey = ConfigKey::text(
    "matcher",
    "Hooks only: which tools, sources or kinds they are told of: `Edit|Write`, `mcp__github__.*`; see [hooks](../guide/hooks.md)",
)
.or(Absent::Derived("all"));
const ON_FAULT: ConfigKey = ConfigKey::choice::<OnFault>(
    "on_fault",
    "Hooks only: what becomes of an event that the hook does not answer",
)
.or(Absent::Derived("`block` for `PreToolUse` and `UserPromptSubmit`, else `continue`"));
const TIMEOUT: ConfigKey = ConfigKey::number(
    "timeout_ms",
    &(1..=LONGEST_TIMEOUT),
    LONGEST_TIMEOUT,
    "Hooks only: how long an answer may take, waiting included",
);

/// An entry of the list.
const ENTRY: ConfigBlock = ConfigBlock {
    about: "What decides on every call, in order. The hash of the bundle is the policy version on each audit row.",
    keys: &[COMPONENT, MODE, REWRITE, CONFIG, CONFIG_FILE, MATCHER, ON_FAULT, TIMEOUT],
    notes: "",
};

/// The list in the file.
pub(super) const KEY: ConfigKey =
    ConfigKey::list("bundle", &Form::Mapping(&ENTRY), "What decides on every call, in order");

/// One entry of `bundle:`.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleEntry {
    /// `namespace/name` of a component that ships with the gateway or is listed in `components.packages`, or the path of a
    /// package.
    pub component: String,
    /// What its verdict does.
    pub mode: ModeSetting,
    /// Whether it may change the request, where its package asks for that.
    pub rewrite: bool,
    /// What the component is configured with.
    pub config: Value,
    /// For hooks: `matcher`, `on_fault`, `timeout_ms`.
    pub attachment: Attachment,
}

/// What the verdict of a bundle entry does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ModeSetting {
    /// It counts.
    #[default]
    Enforce,
    /// It is recorded.
    Shadow,
    /// The component does not run.
    Off,
}

/// Reads the list.
pub(super) fn read(top: &Section<'_>, home: &Path, known: &Known) -> Vec<BundleEntry> {
    top.items(&KEY).iter().filter_map(|item| BundleEntry::read(item, home, known)).collect()
}

// === impl BundleEntry ===

impl BundleEntry {
    fn read(item: &Node<'_>, home: &Path, known: &Known) -> Option<Self> {
        let section = item.section(&ENTRY);
        let node = section.required(&COMPONENT)?;
        let name = node.text()?;
        let is_path = name.ends_with(PACKAGE_SUFFIX);
        if is_path {
            read_package(&node, &home.join(name));
        } else {
            known.check_component(&node, name);
        }
        let component = if is_path { home.join(name).display().to_string() } else { name.to_owned() };
        let mode = section.get(&MODE).map_or_else(|| Some(ModeSetting::default()), |node| node.choice())?;
        let config = section.get(&CONFIG).map_or_else(|| json!({}), |node| node.value().clone());
        let config = match section.get(&CONFIG_FILE) {
            Some(node) => with_file(&node, home, config)?,
            None => config,
        };
        let rewrite = section.flag(&REWRITE);
        Some(Self { component, mode, rewrite, config, attachment: attachment(&section)? })
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        let mut shown = json!({
            "component": self.component,
            "mode": self.mode.as_str(),
            "rewrite": self.rewrite,
            "config": self.config,
        });
        let Attachment { matcher, on_fault, timeout } = &self.attachment;
        let said = [
            ("matcher", (!matcher.as_str().is_empty()).then(|| json!(matcher.as_str()))),
            ("on_fault", on_fault.map(|on_fault| json!(on_fault.as_str()))),
            ("timeout_ms", timeout.map(|limit| json!(millis(limit)))),
        ];
        if let Some(fields) = shown.as_object_mut() {
            fields.extend(said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        }
        shown
    }
}

// === impl ModeSetting ===

impl ModeSetting {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

impl Word for ModeSetting {
    const ALL: &'static [Self] = &[Self::Enforce, Self::Shadow, Self::Off];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Word for OnFault {
    const ALL: &'static [Self] = &[Self::Block, Self::Continue];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

// === private helpers ===

/// What `config` says, and what the file that `config_file` names says besides.
fn with_file(named: &Node<'_>, home: &Path, config: Value) -> Option<Value> {
    let path = home.join(named.text()?);
    let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if size > MAX_CONFIG_FILE {
        named.error(format!("{} has more than {MAX_CONFIG_FILE} bytes", path.display()));
        return None;
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|error| named.error(format!("{} cannot be read: {error}", path.display())))
        .ok()?;
    let read =
        node::parse(&text).map_err(|error| named.error(format!("{}: {error}", path.display()))).ok()?;
    let (Value::Object(mut all), Value::Object(said)) = (read, config) else {
        named.error(format!("{} and config have to be mappings", path.display()));
        return None;
    };
    for (key, value) in said {
        if all.insert(key.clone(), value).is_some() {
            named.error(format!("{key} stands in {} and in config", path.display()));
        }
    }
    Some(Value::Object(all))
}

/// What an entry says for a hook. Whether it is one is known when its package is loaded.
fn attachment(section: &Section<'_>) -> Option<Attachment> {
    // All of them are read before any of them counts, so that every problem is found.
    let matcher = section.get(&MATCHER).map(|node| node.parsed(Matcher::parse));
    let on_fault = section.get(&ON_FAULT).map(|node| node.choice());
    let timeout = section.get(&TIMEOUT).map(|node| node.number(&TIMEOUT));
    let matcher = matcher.unwrap_or_else(|| Some(Matcher::default()))?;
    let on_fault = on_fault.map_or(Some(None), |read| read.map(Some))?;
    let timeout = timeout.map_or(Some(None), |read| read.map(Duration::from_millis).map(Some))?;
    Some(Attachment { matcher, on_fault, timeout })
}
