//! A route takes a call if it is in the caller's region: who belongs where is the configuration's to say.

use sallyport_guest_sdk::{Body, Call, Glob, Principal, predicate::Predicate};
use serde::Deserialize;

/// The predicate.
pub struct Region(Config);

/// A route's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first that matches says where a caller belongs.
    #[serde(default)]
    regions: Vec<Rule>,
    /// Where everybody else belongs; nowhere, if absent.
    default: Option<String>,
}

/// Who belongs to a region. Every list that is there has to match.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    region: String,
    tenants: Option<Vec<Glob>>,
    departments: Option<Vec<Glob>>,
    roles: Option<Vec<Glob>>,
    users: Option<Vec<Glob>>,
}

sallyport_guest_sdk::export_predicate!(Region);

// === impl Region ===

impl Predicate for Region {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        for (number, rule) in config.regions.iter().enumerate() {
            if rule.lists().iter().all(Option::is_none) {
                return Err(format!("regions[{number}] matches everybody: say it in default"));
            }
            if rule.lists().into_iter().flatten().any(Vec::is_empty) {
                return Err(format!("regions[{number}] has an empty list, which matches nobody"));
            }
        }
        if config.regions.is_empty() && config.default.is_none() {
            return Err("neither regions nor default: no route would take a call".into());
        }
        Ok(Self(config))
    }

    fn matches(&self, call: &Call, _: &dyn Body) -> bool {
        let rule = self.0.regions.iter().find(|rule| rule.matches(&call.principal));
        let theirs = rule.map(|rule| rule.region.as_str()).or(self.0.default.as_deref());
        theirs.is_some() && theirs == call.region.as_deref()
    }
}

// === impl Rule ===

impl Rule {
    fn lists(&self) -> [Option<&Vec<Glob>>; 4] {
        [&self.tenants, &self.departments, &self.roles, &self.users].map(Option::as_ref)
    }

    fn matches(&self, principal: &Principal) -> bool {
        let any = |list: &Option<Vec<Glob>>, names: &[&str]| {
            list.as_ref()
                .is_none_or(|list| names.iter().any(|name| list.iter().any(|glob| glob.matches(name))))
        };
        let roles: Vec<_> = principal.roles.iter().map(String::as_str).collect();
        let department: Vec<_> = principal.department.as_deref().into_iter().collect();
        any(&self.tenants, &[&principal.tenant])
            && any(&self.departments, &department)
            && any(&self.roles, &roles)
            && any(&self.users, &[&principal.user])
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::{FakeBody, call, configured};

    use super::*;

    const CONFIG: &str = r#"{"regions": [
        {"region": "eu", "departments": ["emea-*"]},
        {"region": "ch", "roles": ["banker"], "tenants": ["acme"]}], "default": "us"}"#;

    /// The regions of the routes that take a call of such a caller.
    fn taken(department: Option<&str>, roles: &[&str]) -> Vec<&'static str> {
        let region = configured(CONFIG, Region::configure).unwrap();
        let mut call = call("claude-opus-5");
        call.principal.department = department.map(str::to_owned);
        call.principal.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let mut taken = ["eu", "ch", "us"].to_vec();
        taken.retain(|route| {
            call.region = Some((*route).to_owned());
            region.matches(&call, &FakeBody::default())
        });
        taken
    }

    #[test]
    fn each_caller_belongs_to_one_region() {
        assert_eq!(taken(Some("emea-sales"), &["banker"]), ["eu"]);
        assert_eq!(taken(Some("amer-sales"), &["banker"]), ["ch"]);
        assert_eq!(taken(None, &[]), ["us"]);
    }

    #[test]
    fn a_route_without_a_region_takes_nobody() {
        let region = configured(CONFIG, Region::configure).unwrap();
        assert!(!region.matches(&call("m"), &FakeBody::default()));
        let nowhere =
            configured(r#"{"regions": [{"region": "eu", "users": ["u_bob"]}]}"#, Region::configure).unwrap();
        assert!(!nowhere.matches(&call("m"), &FakeBody::default()));
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for config in [
            "{}",
            r#"{"regions": [{"region": "eu"}]}"#,
            r#"{"regions": [{"region": "eu", "roles": []}]}"#,
            r#"{"default": "eu", "regoins": []}"#,
        ] {
            assert!(configured(config, Region::configure).is_err(), "{config}");
        }
    }
}
