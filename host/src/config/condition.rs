//! What a route asks of a call besides its model: who calls, from where, what the request needs, and what it may cost. All of it has to
//! hold.

use serde_json::{Value, json};

use super::key::{ConfigKey, Form, Word};
use super::node::{Node, Section};
use super::pattern::Pattern;

const ONE_OR_MORE: Form = Form::Either(&[Form::Text, Form::List(&Form::Text)]);

const AGENT: ConfigKey = ConfigKey::of(
    "agent",
    ONE_OR_MORE,
    "Takes calls of these agents alone: `x-agent-name`, which is a claim of the client. Here as in the keys below a name or a list of \
     names, in which `*` stands for any run of characters",
);
const USER: ConfigKey = ConfigKey::of(
    "user",
    ONE_OR_MORE,
    "Takes calls of these users alone, by id. An access token knows no other name",
);
const TENANT: ConfigKey = ConfigKey::of("tenant", ONE_OR_MORE, "Takes calls of these tenants alone");
const DEPARTMENT: ConfigKey = ConfigKey::of(
    "department",
    ONE_OR_MORE,
    "Takes calls of users of these departments alone; who has none is never meant",
);
const ROLE: ConfigKey =
    ConfigKey::of("role", ONE_OR_MORE, "Takes calls of users with one of these roles alone");
const CLIENT: ConfigKey =
    ConfigKey::of("client", ONE_OR_MORE, "Takes calls of these clients alone, as the credential names them");
const REQUIRES: ConfigKey = ConfigKey::list(
    "requires",
    &Form::Choice(needs),
    "Takes calls alone that need all of these: their request has tools, asks for thinking, holds an image or a document",
);
const MAX_COST: ConfigKey = ConfigKey::of(
    "max_cost_micro",
    Form::Number(1, 1_000_000_000_000),
    "Takes calls alone that cost no more than so many microdollars at the route's own target, if they use all of `max_tokens`. The prompt \
     is taken for a token in four bytes, without caches",
);

/// The keys, as they stand in a route.
pub(super) const KEYS: [ConfigKey; 8] = [AGENT, USER, TENANT, DEPARTMENT, ROLE, CLIENT, REQUIRES, MAX_COST];

/// What a route asks of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    agent: Option<Vec<Pattern>>,
    user: Option<Vec<Pattern>>,
    tenant: Option<Vec<Pattern>>,
    department: Option<Vec<Pattern>>,
    role: Option<Vec<Pattern>>,
    client: Option<Vec<Pattern>>,
    requires: Vec<Need>,
    /// In microdollars.
    pub(super) max_cost: Option<u64>,
}

/// What a request needs of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It has tools.
    Tools,
    /// It asks for thinking.
    Thinking,
    /// It holds an image.
    Images,
    /// It holds a document.
    Documents,
}

/// Whose call it is, and what it needs: what conditions are about.
#[derive(Debug, Clone, Copy)]
pub struct RouteCaller<'a> {
    /// Its user's id.
    pub user: &'a str,
    /// The user's tenant.
    pub tenant: &'a str,
    /// The user's department.
    pub department: Option<&'a str>,
    /// The user's roles.
    pub roles: &'a [String],
    /// The client software.
    pub client: &'a str,
    /// The agent that the client names.
    pub agent: Option<&'a str>,
}

/// What conditions want to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestNeeds<'a> {
    /// Its bytes.
    pub body: &'a [u8],
    /// Whether it names tools.
    pub has_tools: bool,
    /// The most tokens that it asks for.
    pub max_tokens: Option<u32>,
}

// === impl Conditions ===

impl Conditions {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let patterns = |key: &ConfigKey| section.get(key).map(|node| patterns(&node));
        Self {
            agent: patterns(&AGENT),
            user: patterns(&USER),
            tenant: patterns(&TENANT),
            department: patterns(&DEPARTMENT),
            role: patterns(&ROLE),
            client: patterns(&CLIENT),
            requires: section.items(&REQUIRES).iter().filter_map(Node::choice).collect(),
            max_cost: section.get(&MAX_COST).and_then(|node| node.number(&MAX_COST)),
        }
    }

    pub(super) fn show(&self) -> Value {
        let list = |patterns: &Option<Vec<Pattern>>| {
            patterns.as_ref().map(|all| all.iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>())
        };
        json!({
            "agent": list(&self.agent),
            "user": list(&self.user),
            "tenant": list(&self.tenant),
            "department": list(&self.department),
            "role": list(&self.role),
            "client": list(&self.client),
            "requires": self.requires.iter().map(|need| need.word()).collect::<Vec<_>>(),
            "max_cost_micro": self.max_cost,
        })
    }

    /// The first condition that does not hold of this caller, by its key.
    pub(super) fn unmet_by(&self, caller: &RouteCaller<'_>) -> Option<&'static str> {
        let holds = |wanted: &Option<Vec<Pattern>>, found: Option<&str>| {
            let meant = |all: &Vec<Pattern>| found.is_some_and(|name| all.iter().any(|it| it.matches(name)));
            wanted.as_ref().is_none_or(meant)
        };
        [
            ("agent", holds(&self.agent, caller.agent)),
            ("user", holds(&self.user, Some(caller.user))),
            ("tenant", holds(&self.tenant, Some(caller.tenant))),
            ("department", holds(&self.department, caller.department)),
            ("role", self.role.is_none() || caller.roles.iter().any(|role| holds(&self.role, Some(role)))),
            ("client", holds(&self.client, Some(caller.client))),
        ]
        .into_iter()
        .find(|(_, holds)| !holds)
        .map(|(key, _)| key)
    }

    /// Whether any of them is about what stands in the request.
    pub(super) fn are_of_request(&self) -> bool {
        !self.requires.is_empty() || self.max_cost.is_some()
    }

    /// What a request has to need. It is looked for only where it is asked for.
    pub(super) fn requires(&self) -> &[Need] {
        &self.requires
    }

    /// Whether every call that meets `other` meets these.
    pub(super) fn cover(&self, other: &Self) -> bool {
        let lists = [
            (&self.agent, &other.agent),
            (&self.user, &other.user),
            (&self.tenant, &other.tenant),
            (&self.department, &other.department),
            (&self.role, &other.role),
            (&self.client, &other.client),
        ];
        let covered = |(wide, narrow): (&Option<Vec<Pattern>>, &Option<Vec<Pattern>>)| match (wide, narrow) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => {
                narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
            }
        };
        lists.into_iter().all(covered)
            && self.requires.iter().all(|need| other.requires.contains(need))
            && self.max_cost.is_none()
    }
}

// === impl Need ===

impl Need {
    /// Whether a body needs it. Read from the bytes: quotes within a text are escaped, so what stands in quotes here is a key or a value.
    pub fn is_of(self, body: &[u8], has_tools: bool) -> bool {
        match self {
            Self::Tools => has_tools,
            Self::Thinking => {
                let mut found = after(body, b"\"thinking\"", b"{");
                found.any(|rest| {
                    !rest
                        .split(|byte| *byte == b'}')
                        .next()
                        .unwrap_or_default()
                        .windows(10)
                        .any(|it| it == b"\"disabled\"")
                })
            }
            Self::Images => after(body, b"\"type\"", b"\"image\"").next().is_some(),
            Self::Documents => after(body, b"\"type\"", b"\"document\"").next().is_some(),
        }
    }
}

impl Word for Need {
    const ALL: &'static [Self] = &[Self::Tools, Self::Thinking, Self::Images, Self::Documents];

    fn word(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Images => "images",
            Self::Documents => "documents",
        }
    }
}

// === private helpers ===

fn needs() -> Vec<&'static str> {
    Need::ALL.iter().map(|need| need.word()).collect()
}

fn patterns(node: &Node<'_>) -> Vec<Pattern> {
    if node.value().is_array() {
        let items = node.items();
        if items.is_empty() {
            node.error("must not be empty: no call would be meant");
        }
        items.iter().filter_map(|item| item.parsed(Pattern::parse)).collect()
    } else {
        node.parsed(Pattern::parse).into_iter().collect()
    }
}

/// What stands behind each `key` whose value begins with `value`.
fn after<'b>(body: &'b [u8], key: &'static [u8], value: &'static [u8]) -> impl Iterator<Item = &'b [u8]> {
    memchr::memmem::find_iter(body, key).filter_map(move |at| {
        let rest = body.get(at + key.len()..)?.trim_ascii_start();
        rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_needs_is_read_from_its_bytes() {
        let is = |need: Need, body: &str| need.is_of(body.as_bytes(), false);
        assert!(is(Need::Images, r#"{"content":[{"type" : "image","source":{}}]}"#));
        assert!(is(Need::Documents, r#"{"content":[{"source":{},"type":"document"}]}"#));
        assert!(!is(Need::Images, r#"{"content":"a text with \"type\":\"image\" in it"}"#));
        assert!(is(Need::Thinking, r#"{"thinking":{"type":"enabled","budget_tokens":1024}}"#));
        assert!(is(Need::Thinking, r#"{"thinking": {"type":"adaptive"}}"#));
        assert!(!is(Need::Thinking, r#"{"thinking":{"type":"disabled"}}"#));
        assert!(!is(Need::Thinking, r#"{"content":[{"type":"thinking","thinking":"so"}]}"#));
        assert!(Need::Tools.is_of(b"{}", true) && !is(Need::Tools, "{}"));
    }
}
