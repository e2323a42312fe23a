//! `validate` and `doctor`: whether this machine is set up, a line for each thing that has to be so.

use serde_json::json;

use crate::client::Client;
use crate::clock;
use crate::exit::{Exit, Failure, Said, one_line};
use crate::install::{Capabilities, environment_file, pinned};
use crate::ladder;
use crate::pin::PublicKey;
use crate::places::Os;
use crate::settings::{Settings, Tier};

/// How it is with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One line.
struct Check {
    name: &'static str,
    state: State,
    detail: String,
}

/// Looks at everything. `thorough` asks the gateway for a credential too.
pub(crate) fn validate(settings: &Settings, as_json: bool, thorough: bool) -> Said {
    let mut checks = Vec::new();
    let mut note = |name, state, detail: String| checks.push(Check { name, state, detail: one_line(detail) });
    match std::env::current_exe() {
        Ok(path) => note("binary", State::Ok, path.display().to_string()),
        Err(error) => note("binary", State::Fail, error.to_string()),
    }
    match &settings.file.read_from {
        Some(path) if *path == settings.file.path => note("config", State::Ok, path.display().to_string()),
        Some(path) => note("config", State::Warn, format!("{}, a name of earlier versions", path.display())),
        None => note("config", State::Warn, format!("there is no {}", settings.file.path.display())),
    }
    match settings.known_gateway() {
        None => note("gateway", State::Fail, "none is configured: install --gateway https://..".to_owned()),
        Some(gateway) => {
            let client = settings.wire().and_then(|wire| Client::new(gateway, &wire));
            match client.and_then(|client| Ok((Capabilities::ask(&client, gateway)?, client))) {
                Err(failure) => note("gateway", State::Fail, failure.message),
                Ok((Capabilities { modes }, client)) => {
                    note("gateway", State::Ok, format!("{gateway} takes {}", modes.join(", ")));
                    for tier in settings.tiers() {
                        if !modes.iter().any(|mode| mode == tier.name()) {
                            let name = tier.name();
                            note(
                                "tier",
                                State::Fail,
                                format!("{name} is configured, and {gateway} does not take it"),
                            );
                        }
                    }
                    let (state, detail) = key(settings, PublicKey::ask(&client, gateway));
                    note("key", state, detail);
                }
            }
            let (state, detail) = signed_in(settings, gateway.as_str());
            note("sign-in", state, detail);
            let cached = settings.cache.read(&settings.cache_key(gateway));
            match cached.filter(|cached| cached.is_valid(clock::now())) {
                Some(cached) => {
                    let left = cached.expires_at.saturating_sub(clock::now());
                    note("credential", State::Ok, format!("cached for {left} more seconds"));
                }
                None => {
                    note("credential", State::Warn, "none is cached: the next run asks for one".to_owned());
                }
            }
            if thorough {
                match ladder::obtain(settings, false) {
                    Ok(_) => note("exchange", State::Ok, "the gateway gives a credential".to_owned()),
                    Err(failure) => note("exchange", State::Fail, failure.message),
                }
            }
        }
    }
    let (system, user) = (&settings.places.org_plugins, &settings.places.user_plugins);
    if system.is_dir() {
        let scope = if system == user { "user, as everywhere on this system" } else { "system" };
        note("org-plugins", State::Ok, format!("{} (scope: {scope})", system.display()));
    } else if user.is_dir() {
        note("org-plugins", State::Warn, format!("{} (scope: user)", user.display()));
    } else {
        note("org-plugins", State::Warn, format!("there is no {}: install makes it", system.display()));
    }
    if thorough && Os::here() == Os::Linux {
        let path = environment_file(&settings.places);
        if path.is_file() {
            note("environment", State::Ok, path.display().to_string());
        } else {
            note("environment", State::Warn, format!("there is no {}: install --apply", path.display()));
        }
    }
    let failed = checks.iter().any(|check| check.state == State::Fail);
    let exit = if failed { Exit::Invalid } else { Exit::Done };
    Said { out: print(&checks, as_json, !failed).into_bytes(), notes: Vec::new(), exit }
}

// === private helpers ===

fn key(settings: &Settings, answered: Result<Option<PublicKey>, Failure>) -> (State, String) {
    match (pinned(settings), answered) {
        (Err(failure), _) | (_, Err(failure)) => (State::Fail, failure.message),
        (Ok(None), Ok(None)) => (State::Warn, "none is pinned, and the gateway has none".to_owned()),
        (Ok(None), Ok(Some(_))) => (State::Warn, "none is pinned: install --gateway pins it".to_owned()),
        (Ok(Some(key)), Ok(None)) => {
            (State::Warn, format!("{} is pinned, and the gateway has none", key.thumbprint()))
        }
        (Ok(Some(key)), Ok(Some(answered))) if key == answered => {
            (State::Ok, format!("{} is pinned", key.thumbprint()))
        }
        (Ok(Some(key)), Ok(Some(answered))) => (
            State::Fail,
            format!("{} is pinned, and the gateway has {}", key.thumbprint(), answered.thumbprint()),
        ),
    }
}

fn signed_in(settings: &Settings, gateway: &str) -> (State, String) {
    let tiers = settings.tiers();
    let Some(first) = tiers.first() else {
        return (State::Warn, "no tier is configured: sp-cowork-auth login".to_owned());
    };
    if *first == Tier::Mtls {
        return (State::Ok, "by the device's certificate".to_owned());
    }
    let keystore = settings.keystore(false);
    for tier in tiers {
        if tier == Tier::Pat && settings.pat_given().is_some() {
            return (State::Ok, "by the token of SP_COWORK_PAT".to_owned());
        }
        match keystore.get(settings.service_to_write(tier), gateway) {
            Ok(Some(_)) => return (State::Ok, format!("by {}", tier.name())),
            Ok(None) => {}
            Err(fault) => return (State::Fail, Failure::from(fault).message),
        }
    }
    (State::Warn, "nobody: sp-cowork-auth login".to_owned())
}

fn print(checks: &[Check], as_json: bool, ok: bool) -> String {
    if as_json {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| json!({ "name": check.name, "state": check.state.name(), "detail": check.detail }))
            .collect();
        return format!("{}\n", json!({ "ok": ok, "checks": checks }));
    }
    let line = |check: &Check| format!("[{}] {}: {}\n", check.state.name(), check.name, check.detail);
    checks.iter().map(line).collect::<Vec<String>>().concat()
}

// === impl State ===

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}
