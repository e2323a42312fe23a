//! `login`, `logout`, `status` and `whoami`: who is signed in on this machine.

use std::io::{self, IsTerminal as _, Read as _};

use serde_json::Value;

use crate::client::Client;
use crate::clock;
use crate::credential::Credential;
use crate::exit::{Exit, Failure, Said, one_line};
use crate::gateway::Gateway;
use crate::keystore::KeystoreKind;
use crate::ladder;
use crate::run::{current, hold};
use crate::secret::Secret;
use crate::settings::{Settings, Tier};

/// A personal access token is not longer.
const MOST_PAT: u64 = 512;
/// What personal access tokens begin with. The second is the form of an earlier gateway.
const PREFIXES: [&str; 2] = ["sp_pat_", "sp-live-"];

/// Signs in with a personal access token: asks the gateway whether it is good, then keeps it.
pub(crate) fn login(
    settings: &mut Settings,
    given: Option<String>,
    keystore: Option<KeystoreKind>,
) -> Result<Said, Failure> {
    let on_command_line = given.is_some();
    let pat = match given {
        Some(text) => Secret::new(text),
        None => ask()?,
    };
    let pat = parse_pat(&pat)?;
    let gateway = settings.gateway()?.clone();
    let _held = hold(settings);
    let credential = ladder::by_pat(settings, &gateway, &pat)?;
    settings.choose(None, keystore);
    keep(settings, &gateway, Tier::Pat, keystore, &pat)?;
    let said = signed_in(settings, &gateway, &credential);
    Ok(if on_command_line {
        said.noting(
            "the token stood on the command line, where other programs and the shell's history see it: give it on standard input",
        )
    } else {
        said
    })
}

/// Keeps a secret and notes in the configuration that its tier is used. The configuration comes first: a tier without a secret
/// is one that nobody signed in with.
pub(crate) fn keep(
    settings: &mut Settings,
    gateway: &Gateway,
    tier: Tier,
    keystore: Option<KeystoreKind>,
    secret: &Secret,
) -> Result<(), Failure> {
    let service = settings.service_to_write(tier).to_owned();
    if settings.file.config.gateway_url.is_none() {
        settings.file.set(None, "gateway_url", gateway.as_str())?;
    }
    if let Some(kind) = keystore {
        let name = if kind == KeystoreKind::File { "file" } else { "os" };
        settings.file.set(None, "keystore", name)?;
    }
    settings.file.set(Some(tier.name()), "keystore_service", &service)?;
    settings.file.save()?;
    settings.keystore(true).set(&service, gateway.as_str(), secret)?;
    clear(settings)
}

/// Says who signed in, and has the next run find the credential.
pub(crate) fn signed_in(settings: &Settings, gateway: &Gateway, credential: &Credential) -> Said {
    let key = settings.cache_key(gateway);
    let said = Said::done(format!("signed in at {gateway} as {}\n", name(credential)));
    match settings.cache.write(&key, credential) {
        Ok(()) => said,
        Err(error) => said.noting(format!("the credential is not cached: {error}")),
    }
}

/// Forgets every secret of this gateway, and the credential.
pub(crate) fn logout(settings: &Settings) -> Result<Said, Failure> {
    let _held = hold(settings);
    clear(settings)?;
    let gateway = settings.gateway()?;
    let keystore = settings.keystore(true);
    let mut removed = Vec::new();
    for tier in [Tier::Session, Tier::Pat] {
        if keystore.remove(settings.service_to_write(tier), gateway.as_str())? {
            removed.push(tier.name());
        }
    }
    let said = match removed.as_slice() {
        [] => Said::done(format!("nobody was signed in at {gateway}\n")),
        tiers => Said::done(format!("signed out of {gateway} ({})\n", tiers.join(", "))),
    };
    Ok(match (settings.device(), settings.pat_given()) {
        (Some(_), _) => said.noting("the device's certificate is still configured: [mtls] signs in"),
        (None, Some(_)) => said.noting("SP_COWORK_PAT is still set: it signs in"),
        (None, None) => said,
    })
}

/// What is configured and whether somebody is signed in; asks nobody but the keystore.
pub(crate) fn status(settings: &Settings) -> Said {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<12}{value}\n"));
    let file = settings.file.read_from.as_ref();
    line("config", file.map_or_else(|| "none".to_owned(), |path| path.display().to_string()));
    let Some(gateway) = settings.known_gateway() else {
        line("gateway", "none: sp-cowork-auth install --gateway https://..".to_owned());
        return Said { out: lines.concat().into_bytes(), notes: Vec::new(), exit: Exit::Credential };
    };
    line("gateway", gateway.to_string());
    let keystore = settings.keystore(false);
    let mut ready = false;
    for tier in settings.tiers() {
        let state = match tier {
            Tier::Mtls => {
                ready = true;
                let device = settings.device().and_then(|device| device.cert_keystore_ref.clone());
                format!("certificate {}", device.unwrap_or_default())
            }
            Tier::Pat if settings.pat_given().is_some() => {
                ready = true;
                "token of SP_COWORK_PAT".to_owned()
            }
            Tier::Session | Tier::Pat => {
                match keystore.get(settings.service_to_write(tier), gateway.as_str()) {
                    Ok(Some(_)) => {
                        ready = true;
                        "signed in".to_owned()
                    }
                    Ok(None) => "not signed in".to_owned(),
                    Err(fault) => Failure::from(fault).message,
                }
            }
        };
        line(tier.name(), one_line(state));
    }
    let now = clock::now();
    let cached = settings.cache.read(&settings.cache_key(gateway)).filter(|cached| cached.is_valid(now));
    line(
        "credential",
        match &cached {
            Some(cached) => {
                format!("{}, cached for {} more seconds", name(cached), cached.expires_at.saturating_sub(now))
            }
            None => "none cached".to_owned(),
        },
    );
    let exit = if ready || cached.is_some() { Exit::Done } else { Exit::Credential };
    Said { out: lines.concat().into_bytes(), notes: Vec::new(), exit }
}

/// Who the gateway takes the caller for.
pub(crate) fn whoami(settings: &Settings) -> Result<Said, Failure> {
    let gateway = settings.gateway()?;
    let (credential, notes) = current(settings)?;
    let client = Client::new(gateway, &settings.wire()?)?;
    let answer = client.get("/v1/cowork/whoami", Some(&credential.token))?;
    let mut lines = Vec::new();
    match answer.status {
        200 => {
            let Ok(Value::Object(fields)) = serde_json::from_slice(&answer.body) else {
                return Err(answer.unexpected(gateway));
            };
            for (name, value) in fields {
                let value = match value {
                    Value::String(text) => text,
                    Value::Array(items) if items.iter().all(Value::is_string) => {
                        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
                    }
                    Value::Null => continue,
                    other => other.to_string(),
                };
                lines.push(format!("{:<16}{}\n", one_line(name), one_line(value)));
            }
        }
        401 | 403 => {
            return Err(Failure::new(
                Exit::Credential,
                format!("{gateway} refuses the credential ({})", answer.complaint()),
            ));
        }
        // A gateway of an earlier version: the credential itself says whose it is.
        404 => {
            for (name, value) in &credential.headers {
                lines.push(format!("{:<20}{value}\n", name.trim_start_matches("x-")));
            }
        }
        _ => return Err(answer.unexpected(gateway)),
    }
    Ok(Said { out: lines.concat().into_bytes(), notes, exit: Exit::Done })
}

/// Forgets the cached credential.
pub(crate) fn clear(settings: &Settings) -> Result<(), Failure> {
    let cleared = settings.cache.clear();
    cleared.map(drop).map_err(|error| Failure::file("remove", &settings.cache.path(), &error))
}

// === private helpers ===

fn name(credential: &Credential) -> String {
    let header = |name: &str| credential.headers.get(name).map_or("?", String::as_str);
    format!("{} of {}", header("x-user-id"), header("x-tenant-id"))
}

/// Asks for a token: without an echo at a terminal, else on standard input.
fn ask() -> Result<Secret, Failure> {
    if io::stdin().is_terminal() {
        let text = rpassword::prompt_password("Personal access token: ");
        return text
            .map(Secret::new)
            .map_err(|error| Failure::new(Exit::Internal, format!("cannot ask for the token: {error}")));
    }
    let mut text = String::new();
    let read = io::stdin().take(MOST_PAT + 2).read_to_string(&mut text);
    read.map_err(|_| Failure::usage("standard input is no text"))?;
    Ok(Secret::new(text))
}

fn parse_pat(text: &Secret) -> Result<Secret, Failure> {
    let pat = text.expose().trim();
    if pat.is_empty() {
        return Err(Failure::usage("no token was given: it is read from standard input"));
    }
    if !PREFIXES.iter().any(|prefix| pat.starts_with(prefix)) {
        return Err(Failure::usage("that is no personal access token: one begins with sp_pat_"));
    }
    if u64::try_from(pat.len()).unwrap_or(u64::MAX) > MOST_PAT
        || !pat.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Failure::usage("that is no personal access token: it has other characters, or too many"));
    }
    Ok(Secret::new(pat.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_refused_before_anybody_is_asked() {
        let parse = |text: &str| parse_pat(&Secret::new(text.to_owned()));
        assert_eq!(parse(" sp_pat_1\n").unwrap().expose(), "sp_pat_1");
        assert_eq!(parse("sp-live-1").unwrap().expose(), "sp-live-1");
        for bad in
            ["", " \n", "hello-world", "sp_pat_1 2", "sp_pat_1\nsp_pat_2", "sp_pat_\u{e9}", "Bearer sp_pat_1"]
        {
            let refused = parse(bad).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage);
            assert!(bad.trim().is_empty() || !refused.message.contains(bad.trim()), "not quoted");
        }
        assert!(parse(&format!("sp_pat_{}", "x".repeat(600))).is_err());
    }
}
