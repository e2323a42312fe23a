//! Who may call what: rules over models, tools, routes, roles, clients and times, and the models each role is entitled to.

mod hours;

use sallyport_guest_sdk::{
    Body, Call, Glob, Host, Refusal,
    policy::{Policy, Verdict},
};
use serde::Deserialize;
use std::collections::BTreeMap;

use hours::Hours;

/// The policy.
pub struct Scope {
    config: Config,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What happens to a call that no rule matches.
    #[serde(default)]
    default: Effect,
    /// The first rule that matches decides.
    #[serde(default)]
    rules: Vec<Rule>,
    /// The models that each role may call; `*` is everyone. Absent: no model needs an entitlement.
    #[serde(default)]
    entitlements: Option<BTreeMap<String, Vec<Glob>>>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The call may go on.
    #[default]
    Allow,
    /// The call is refused.
    Deny,
}

/// Matches a call when every list that is given has a pattern for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names the rule in the reason and on the audit row.
    name: String,
    /// What it does.
    effect: Effect,
    /// Shown to the user instead of the reason that the policy makes up.
    #[serde(default)]
    reason: Option<String>,
    /// The model that the client named.
    #[serde(default)]
    models: Option<Vec<Glob>>,
    /// Tools that the request defines or names: a `deny` matches if any of them is listed, an `allow` only if all of them are. A
    /// server of tools offers all that it may have, `mcp__NAME__*`.
    #[serde(default)]
    tools: Option<Vec<Glob>>,
    /// What the gateway does not know of the request, such as `content.type=news`: as with tools, a `deny` matches if any of it is
    /// listed, an `allow` only if all of it is.
    #[serde(default)]
    unknown: Option<Vec<Glob>>,
    /// The route's model pattern.
    #[serde(default)]
    routes: Option<Vec<Glob>>,
    /// The provider's tag.
    #[serde(default)]
    providers: Option<Vec<Glob>>,
    /// One of the caller's roles.
    #[serde(default)]
    roles: Option<Vec<Glob>>,
    /// The caller's department; a caller without one is never matched.
    #[serde(default)]
    departments: Option<Vec<Glob>>,
    /// `u_...`
    #[serde(default)]
    users: Option<Vec<Glob>>,
    /// `sp_cli`, `sp_cowork`, ...
    #[serde(default)]
    clients: Option<Vec<Glob>>,
    /// `cowork`, `subagent`, `job`, `api`, `cli`, `web`, `oauth`, `mcp`.
    #[serde(default)]
    sources: Option<Vec<Glob>>,
    /// A time window.
    #[serde(default)]
    hours: Option<Hours>,
}

sallyport_guest_sdk::export_policy!(Scope);

/// Longest name of a server of tools that is compared.
const LONGEST_SERVER: usize = 512;
/// The entitlement list that everyone has.
const EVERYONE: &str = "*";

// === impl Scope ===

impl Policy for Scope {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        for (index, rule) in config.rules.iter().enumerate() {
            rule.check().map_err(|error| format!("rules[{index}]{error}"))?;
        }
        Ok(Self { config })
    }

    fn check(&self, call: &Call, _: &dyn Body, host: &dyn Host) -> Verdict {
        if !self.entitled(call) {
            let reason = format!("your roles do not include the model {}", shown(&call.model));
            return Refusal::not_entitled("model_not_entitled", reason).into();
        }
        let Ok(time_ms) = call.time_ms.parse() else {
            return Refusal::denied("time_unreadable", "the time of the call cannot be read").into();
        };
        match self.config.rules.iter().find(|rule| rule.matches(call, time_ms)) {
            Some(rule) => {
                host.note("scope.rule", &rule.name);
                match rule.effect {
                    Effect::Allow => Verdict::Allow,
                    Effect::Deny => rule.refusal(call).into(),
                }
            }
            None if self.config.default == Effect::Allow => Verdict::Allow,
            None => {
                let reason = format!("no rule allows this call of {}", shown(&call.model));
                Refusal::denied("no_rule_allows", reason).into()
            }
        }
    }
}

impl Scope {
    fn entitled(&self, call: &Call) -> bool {
        let Some(lists) = &self.config.entitlements else { return true };
        let roles = call.principal.roles.iter().map(String::as_str);
        roles.chain([EVERYONE]).filter_map(|role| lists.get(role)).any(|models| any(models, &call.model))
    }
}

// === impl Rule ===

impl Rule {
    /// A list that can never match is a mistake; the error says where.
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err(".name is empty".into());
        }
        let lists = [
            ("models", &self.models),
            ("tools", &self.tools),
            ("unknown", &self.unknown),
            ("routes", &self.routes),
            ("providers", &self.providers),
            ("roles", &self.roles),
            ("departments", &self.departments),
            ("users", &self.users),
            ("clients", &self.clients),
            ("sources", &self.sources),
        ];
        match lists.iter().find(|(_, list)| list.as_ref().is_some_and(Vec::is_empty)) {
            Some((name, _)) => Err(format!(".{name} is empty: the rule would never match")),
            None => Ok(()),
        }
    }

    fn matches(&self, call: &Call, time_ms: u64) -> bool {
        let who = &call.principal;
        let one = |patterns: &Option<Vec<Glob>>, value: &str| {
            patterns.as_ref().is_none_or(|patterns| any(patterns, value))
        };
        one(&self.models, &call.model)
            && one(&self.routes, &call.route)
            && one(&self.providers, &call.provider)
            && one(&self.users, &who.user)
            && one(&self.clients, &who.client)
            && one(&self.sources, &who.source)
            && self.roles.as_ref().is_none_or(|roles| who.roles.iter().any(|role| any(roles, role)))
            && self
                .departments
                .as_ref()
                .is_none_or(|list| who.department.as_ref().is_some_and(|department| any(list, department)))
            && self.tools.as_ref().is_none_or(|tools| match self.effect {
                Effect::Deny => call.tools.iter().any(|tool| is_offered(tools, tool)),
                Effect::Allow => call.tools.iter().all(|tool| any(tools, tool)),
            })
            && self.unknown.as_ref().is_none_or(|list| {
                // What cannot be read is not known either.
                let names = unknown_of(call).unwrap_or_else(|| vec!["?".to_owned()]);
                match self.effect {
                    Effect::Deny => names.iter().any(|name| any(list, name)),
                    Effect::Allow => names.iter().all(|name| any(list, name)),
                }
            })
            && self.hours.as_ref().is_none_or(|hours| hours.contains(time_ms))
    }

    fn refusal(&self, call: &Call) -> Refusal {
        let name = &self.name;
        let (code, what) = if let Some(tools) = &self.tools {
            let tool = call.tools.iter().find(|tool| is_offered(tools, tool)).map_or("", String::as_str);
            ("tool_not_allowed", format!("the tool {}", shown(tool)))
        } else if let Some(list) = &self.unknown {
            let names = unknown_of(call).unwrap_or_default();
            let name = names.iter().find(|name| any(list, name)).map_or("", String::as_str);
            ("unknown_not_allowed", format!("what the gateway does not know: {}", shown(name)))
        } else if self.models.is_some() {
            ("model_not_allowed", format!("the model {}", shown(&call.model)))
        } else if self.hours.is_some() {
            ("time_not_allowed", "this call at this time".to_owned())
        } else {
            ("call_not_allowed", "this call".to_owned())
        };
        let reason = self.reason.clone();
        Refusal::denied(code, reason.unwrap_or_else(|| format!("the rule {name} does not allow {what}")))
    }
}

fn any(patterns: &[Glob], value: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(value))
}

/// Whether `tool` is a tool that a pattern lists, or stands for tools of which a pattern lists one.
fn is_offered(patterns: &[Glob], tool: &str) -> bool {
    if tool.ends_with('*') {
        // The comparison takes as long as both are together long; no server has such a name.
        tool.len() > LONGEST_SERVER || patterns.iter().any(|pattern| pattern.overlaps(tool))
    } else {
        any(patterns, tool)
    }
}

/// What the gateway does not know of the request: `None` where that cannot be read.
fn unknown_of(call: &Call) -> Option<Vec<String>> {
    match call.attributes.iter().find(|attribute| attribute.name == "unknown") {
        Some(unknown) => serde_json::from_str(&unknown.value).ok(),
        None => Some(Vec::new()),
    }
}

/// A name that the client chose, short enough for a message.
fn shown(name: &str) -> &str {
    name.get(..name.floor_char_boundary(100)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
