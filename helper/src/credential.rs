//! The credential as the gateway answers it and as it is printed: a token, how long it is good for, and the headers that go
//! with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::secret::Secret;

/// Longer tokens, more and longer headers are no answer of a gateway.
const MOST_TOKEN: usize = 16 * 1024;
const MOST_HEADERS: usize = 32;
const MOST_HEADER: usize = 1024;
/// No token is kept for longer, whatever its gateway says.
const MOST_TTL: u64 = 24 * 60 * 60;

/// How a credential is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// One line of JSON with `token`, `ttl` and `headers`, for Claude Desktop and Cowork
    #[default]
    Json,
    /// The token alone, for Claude Code's `apiKeyHelper`, which sends whatever it reads
    Bare,
}

/// What a client sends with its calls, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// The access token.
    pub(crate) token: Secret,
    /// When it was issued, in seconds since 1970, by this machine's clock.
    pub(crate) issued_at: u64,
    /// When it ends.
    pub(crate) expires_at: u64,
    /// The headers that go with it.
    pub(crate) headers: BTreeMap<String, String>,
}

/// As the gateway writes it. Fields of a newer gateway are passed over.
#[derive(Deserialize)]
struct Answered {
    token: Secret,
    ttl: u64,
    headers: BTreeMap<String, String>,
}

/// As the client reads it.
#[derive(Serialize)]
struct Printed<'a> {
    token: &'a str,
    ttl: u64,
    headers: &'a BTreeMap<String, String>,
}

// === impl Credential ===

impl Credential {
    /// Reads what an exchange answered. The text of a parser's error may quote the token, so it is not told.
    pub(crate) fn parse(body: &[u8], now: u64) -> Result<Self, Failure> {
        let bad = |what: &str| Failure::network(format!("the gateway's answer is no credential: {what}"));
        let Answered { token, ttl, headers } = serde_json::from_slice(body)
            .map_err(|_| bad("it is not JSON with `token`, `ttl` and `headers`"))?;
        let text = token.expose();
        if text.is_empty() || text.len() > MOST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("its token has characters that no token has, or too many"));
        }
        if ttl == 0 {
            return Err(bad("it has ended already"));
        }
        // The client adds these to each of its calls: nothing that would change what the call is.
        let fits = |(name, value): (&String, &String)| {
            name.starts_with("x-")
                && name.len() + value.len() <= MOST_HEADER
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        if headers.len() > MOST_HEADERS || !headers.iter().all(fits) {
            return Err(bad("its headers are none that a gateway asks for"));
        }
        Ok(Self { token, issued_at: now, expires_at: now.saturating_add(ttl.min(MOST_TTL)), headers })
    }

    /// Whether it may still be used.
    pub(crate) fn is_valid(&self, now: u64) -> bool {
        // A clock that was set back makes nothing valid again.
        self.issued_at <= now && now < self.expires_at
    }

    /// Whether it may be used without asking for the next one: not in the last fifth of its life, nor in its last five minutes
    /// if it lives that long.
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        let life = self.expires_at.saturating_sub(self.issued_at);
        self.is_valid(now) && self.expires_at - now > (life / 5).min(300)
    }

    /// What is printed, with its line end.
    pub(crate) fn print(&self, format: Format, now: u64) -> Result<String, Failure> {
        let ttl = self.expires_at.saturating_sub(now);
        let mut text = match format {
            Format::Bare => self.token.expose().to_owned(),
            Format::Json => {
                let printed = Printed { token: self.token.expose(), ttl, headers: &self.headers };
                serde_json::to_string(&printed)
                    .map_err(|error| Failure::new(crate::exit::Exit::Internal, error.to_string()))?
            }
        };
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &serde_json::Value) -> Result<Credential, Failure> {
        Credential::parse(body.to_string().as_bytes(), 1000)
    }

    #[test]
    fn a_credential_is_one_line_with_what_remains_of_its_life() {
        let credential =
            parse(&json!({ "token": "t.t", "ttl": 60, "headers": { "x-user-id": "u_1" }, "more": 1 }))
                .unwrap();
        assert_eq!(
            credential.print(Format::Json, 1010).unwrap(),
            "{\"token\":\"t.t\",\"ttl\":50,\"headers\":{\"x-user-id\":\"u_1\"}}\n"
        );
        assert_eq!(credential.print(Format::Bare, 1010).unwrap(), "t.t\n");
    }

    #[test]
    fn it_is_renewed_before_its_end_and_not_used_after_it() {
        let lives = |ttl: u64| parse(&json!({ "token": "t", "ttl": ttl, "headers": {} })).unwrap();
        let hour = lives(3600);
        assert!(hour.is_fresh(1000) && hour.is_fresh(1000 + 3299));
        assert!(!hour.is_fresh(1000 + 3300) && hour.is_valid(1000 + 3300));
        assert!(hour.is_valid(4599) && !hour.is_valid(4600));
        let minute = lives(60);
        assert!(minute.is_fresh(1047) && !minute.is_fresh(1048));
        assert!(!hour.is_valid(999), "issued in the future");
        assert_eq!(lives(u64::MAX).expires_at, 1000 + 24 * 60 * 60);
    }

    #[test]
    fn what_is_no_credential_is_refused_and_not_quoted() {
        for body in [
            json!(null),
            json!([]),
            json!({ "token": "secret" }),
            json!({ "token": "secret", "ttl": 60 }),
            json!({ "token": "secret", "ttl": "60", "headers": {} }),
            json!({ "token": "secret", "ttl": -1, "headers": {} }),
            json!({ "token": "secret", "ttl": 0, "headers": {} }),
            json!({ "token": "", "ttl": 60, "headers": {} }),
            json!({ "token": "secret\nsecond", "ttl": 60, "headers": {} }),
            json!({ "token": "secret second", "ttl": 60, "headers": {} }),
            json!({ "token": "s".repeat(20_000), "ttl": 60, "headers": {} }),
            json!({ "token": 5, "ttl": 60, "headers": {} }),
            json!({ "token": "secret", "ttl": 60, "headers": { "host": "evil" } }),
            json!({ "token": "secret", "ttl": 60, "headers": { "authorization": "Bearer x" } }),
            json!({ "token": "secret", "ttl": 60, "headers": { "x-a": "b\r\nhost: evil" } }),
            json!({ "token": "secret", "ttl": 60, "headers": { "x-a: b": "c" } }),
            json!({ "token": "secret", "ttl": 60, "headers": { "x-a": ["b"] } }),
        ] {
            let refused = parse(&body).unwrap_err();
            assert_eq!(refused.exit, crate::exit::Exit::Network, "{body}");
            assert!(!refused.message.contains("secret"), "{}", refused.message);
        }
        assert!(Credential::parse(b"<html>secret</html>", 0).is_err());
        assert!(Credential::parse(b"", 0).is_err());
    }
}
