//! `component.toml`: what a publisher writes down about a component, and how it becomes the statement that is signed.

use serde::Deserialize;
use time::{Date, OffsetDateTime, Time};

use super::capability::Capability;
use super::credential::CredentialForm;
use super::fact::Fact;
use super::statement::{Digest, HookEvent, Kind, Limits, Name, Statement, StatementError, Upstream, World};

/// How long a statement holds after its release.
const YEARS: i32 = 5;

/// What stands in `component.toml`, beside a component's source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `namespace/name`
    pub name: Name,
    /// The publisher's version, for people.
    pub version: semver::Version,
    /// Rises with every release.
    pub serial: u64,
    /// What it is.
    pub kind: Kind,
    /// The WIT world it is built against: `hook@0.1.0`.
    pub world: World,
    /// The events it wants, for hooks.
    #[serde(default)]
    pub events: Vec<HookEvent>,
    /// Capabilities it asks for.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// For policies: the facts of a call that it reads (`model`, `principal.roles`). It is told nothing else, and what it said
    /// about the same facts is remembered. Absent: it is asked each time, about everything.
    #[serde(default)]
    pub reads: Option<Vec<Fact>>,
    /// Limits it is content with.
    #[serde(default)]
    pub limits: Limits,
    /// For providers: the upstream that it adapts. A provider without one answers by itself, and its routes need no endpoint.
    #[serde(default)]
    pub upstream: Option<Upstream>,
    /// For providers: how the upstream takes a credential; `bearer` if not said.
    #[serde(default)]
    pub credential: Option<CredentialForm>,
    /// The lowest version of the gateway that it runs on.
    pub min_host: semver::Version,
    /// The day of the release (`2026-11-01`), from which the statement's times follow: the same source gives the same
    /// package.
    #[serde(deserialize_with = "day")]
    pub released: Date,
}

/// Why `component.toml` makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, a key that is unknown or missing, or a value of another type.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// Its parts contradict each other.
    #[error(transparent)]
    Contradiction(#[from] StatementError),
}

// === impl Manifest ===

impl Manifest {
    /// Reads `component.toml`. Unknown keys are refused, and so is what no statement could say. Errors: see
    /// [`ManifestError`].
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text)?;
        // What can be signed at all does not depend on the component: any bytes will do.
        manifest.statement(b"\0").check()?;
        Ok(manifest)
    }

    /// What is to be signed about `component`.
    pub fn statement(&self, component: &[u8]) -> Statement {
        let midnight = |day| OffsetDateTime::new_utc(day, Time::MIDNIGHT);
        Statement {
            name: self.name.clone(),
            version: self.version.clone(),
            serial: self.serial,
            kind: self.kind,
            world: self.world.clone(),
            digest: Digest::of(component),
            size: component.len() as u64,
            events: self.events.clone(),
            capabilities: self.capabilities.clone(),
            reads: self.reads.clone(),
            limits: self.limits,
            upstream: self.upstream.clone(),
            credential: self.credential.clone(),
            min_host: self.min_host.clone(),
            not_before: midnight(self.released),
            expires: midnight(years_later(self.released)),
        }
    }
}

// === private helpers ===

/// 29 February becomes the 28th. Beyond the calendar's end there is no later day.
fn years_later(date: Date) -> Date {
    let year = date.year().saturating_add(YEARS);
    let same_day = date.replace_year(year);
    same_day.or_else(|_| Date::from_calendar_date(year, date.month(), 28)).unwrap_or(Date::MAX)
}

fn day<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    let format = time::macros::format_description!("[year]-[month]-[day]");
    Date::parse(&text, format).map_err(|_| serde::de::Error::custom("not a day: 2026-11-01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = r#"
name = "acme/no-shell"
version = "0.1.0"
serial = 1
kind = "hook"
world = "hook@0.1.0"
events = ["PreToolUse"]
min_host = "0.1.0"
released = "2028-02-29"
"#;

    #[test]
    fn a_manifest_becomes_a_statement_that_holds_for_five_years_also_from_a_leap_day() {
        let statement = Manifest::parse(HOOK).unwrap().statement(b"component");
        assert_eq!(statement.name.as_str(), "acme/no-shell");
        assert_eq!(statement.digest, Digest::of(b"component"));
        assert_eq!(statement.size, 9);
        assert_eq!(statement.not_before.date().to_string(), "2028-02-29");
        assert_eq!(statement.expires.date().to_string(), "2033-02-28");
        statement.check().unwrap();
    }

    #[test]
    fn a_provider_says_which_paths_its_upstream_is_known_by() {
        let provider = |paths: &str| {
            let text = HOOK.replace("hook", "provider").replace("events = [\"PreToolUse\"]", "");
            format!("{text}upstream = {{ paths = [{paths}] }}\n")
        };
        let statement =
            Manifest::parse(&provider("\"/v1/messages\", \"/v1beta/models\"")).unwrap().statement(b"x");
        assert_eq!(statement.upstream.unwrap().paths, ["/v1/messages", "/v1beta/models"]);
        for wrong in ["v1", "/", "/a//b", "/a/../b", "/a/", "/a?b", "/%61", ""] {
            let error = Manifest::parse(&provider(&format!("{wrong:?}"))).unwrap_err().to_string();
            assert!(error.contains("paths of an upstream"), "{wrong}: {error}");
        }
        let many = vec!["\"/a\""; 17].join(", ");
        assert!(Manifest::parse(&provider(&many)).is_err());
    }

    #[test]
    fn a_policy_says_which_facts_it_reads() {
        let policy = |more: &str| {
            let text = HOOK.replace("hook", "policy").replace("events = [\"PreToolUse\"]", more);
            Manifest::parse(&text).map_err(|error| error.to_string())
        };
        let statement = policy(r#"reads = ["model", "attributes.unknown"]"#).unwrap().statement(b"x");
        assert_eq!(statement.reads, Some(vec![Fact::Model, Fact::Attribute("unknown".to_owned())]));
        assert_eq!(policy("reads = []").unwrap().statement(b"x").reads, Some(Vec::new()));
        let json = serde_json::to_string(&policy("").unwrap().statement(b"x")).unwrap();
        assert!(!json.contains("reads"), "{json}");
        for (wrong, reason) in [
            ("reads = [\"trace\"]", "there is no fact \"trace\""),
            ("reads = [\"model\", \"model\"]", "model stands there twice"),
            ("reads = [\"model\"]\ncapabilities = [\"settle\"]", "none that settles"),
        ] {
            let error = policy(wrong).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("\"attributes.{number}\"")).collect();
        assert!(policy(&format!("reads = [{}]", many.join(", "))).unwrap_err().contains("at most 64 facts"));
    }

    #[test]
    fn what_no_gateway_would_take_is_refused_with_its_reason() {
        for (from, to, reason) in [
            ("serial = 1", "serial = 1\nseriall = 2", "unknown field `seriall`"),
            ("serial = 1", "", "missing field `serial`"),
            ("serial = 1", "serial = 1\nserial = 2", "duplicate key"),
            ("2028-02-29", "2027-02-29", "not a day"),
            ("hook@0.1.0", "policy@0.1.0", "a hook is not built against the world policy@0.1.0"),
            ("\"PreToolUse\"", "", "a hook names its events"),
            ("\"PreToolUse\"", "\"PreToolUse\", \"PreToolUse\"", "PreToolUse stands there twice"),
            ("PreToolUse", "PreTool", "unknown variant `PreTool`"),
            ("acme/no-shell", "No Shell", "named namespace/name"),
            ("kind = \"hook\"", "kind = \"plugin\"", "unknown variant `plugin`"),
            ("serial = 1", "serial = 1\nreads = [\"model\"]", "only a policy says what it reads"),
            ("released", "upstream = {}\nreleased", "only a provider names an upstream"),
            (
                "serial = 1",
                "serial = 1\ncredential = \"bearer\"",
                "only a provider says how a credential is sent",
            ),
            (
                "serial = 1",
                "serial = 1\ncredential = \"Host\"",
                "a credential is sent as bearer or in a header",
            ),
        ] {
            let error = Manifest::parse(&HOOK.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
