//! The ids that name users, tenants, sessions, traces and clients, each its own type so that one cannot be
//! passed for another and a malformed one never gets past the edge.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id accepted, in bytes, prefix included.
pub const MAX_LEN: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing stands after the prefix.
    #[error("the id is empty")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("the id is longer than {MAX_LEN} bytes")]
    TooLong,
    /// It does not start as ids of its kind do.
    #[error("the id does not start with {expected}")]
    Prefix {
        /// How it has to start.
        expected: &'static str,
    },
    /// A character other than an ASCII letter, a digit, `-`, `_` or `.` (and `:` in a policy version).
    #[error("the id has a character that ids do not have")]
    Character,
    /// Not one of the closed set.
    #[error("not a known call source")]
    UnknownSource,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, prefixes: [$($prefix:literal),*], expected: $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it as it is. Errors: see [`IdError`].
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text, &[$($prefix),*], $expected, false)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same, shared.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        text_type!($name);
    };
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A user: `u_` and up to 126 further characters; ours are `u_<32 hex>`.
    UserId, prefixes: ["u_"], expected: "u_"
}
id! {
    /// A tenant: a short name without a prefix, such as `acme`.
    TenantId, prefixes: [""], expected: "a letter or digit"
}
id! {
    /// One conversation, or one exchange of a token: `sess_<uuid>` or `s_...`; ours are `sess_<32 hex>`.
    SessionId, prefixes: ["sess_", "s_"], expected: "sess_ or s_"
}
id! {
    /// One inference call and everything it caused: `t_...`; ours are `t_<32 hex>`, the trace id of W3C Trace
    /// Context.
    TraceId, prefixes: ["t_"], expected: "t_"
}
id! {
    /// The client software: `sp_cowork`, `sp_cli`, `sp_desktop`, `sp_web` or a registered `sp_...`.
    ClientId, prefixes: ["sp_"], expected: "sp_"
}

/// The bundle that was in force: its hash, or `unversioned` where there is none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyVersion(Arc<str>);

text_type!(PolicyVersion);

/// What kind of work caused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallSource {
    /// A person in Claude Cowork.
    Cowork,
    /// An agent that another agent started.
    Subagent,
    /// A scheduled or batch job.
    Job,
    /// A program using an SDK.
    Api,
    /// A person at a terminal.
    Cli,
    /// A person in a browser.
    Web,
    /// The authorization server.
    Oauth,
    /// An MCP client.
    Mcp,
}

// === impl UserId ===

impl UserId {
    /// `u_<32 hex>` of 16 random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hexed("u_", bytes))
    }
}

// === impl SessionId ===

impl SessionId {
    /// `sess_<32 hex>` of 16 random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hexed("sess_", bytes))
    }
}

// === impl TraceId ===

impl TraceId {
    /// `t_<32 hex>` of 16 random bytes, or of the trace id of a `traceparent` header.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hexed("t_", bytes))
    }

    /// An id that begins with its time: 48 bits of milliseconds since 1970, then 80 random bits. Rows of one time stand together in
    /// an index of trace ids, so that a database writes few pages for many rows.
    pub fn at(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        let (time, rest) = bytes.split_at_mut(6);
        time.copy_from_slice(unix_ms.to_be_bytes().split_at(2).1);
        rest.copy_from_slice(&random);
        Self::from_bytes(bytes)
    }

    /// `t_` and the trace id of a `traceparent` header (W3C Trace Context, section 3.2); `None` where the
    /// header is not a valid one.
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let mut parts = header.splitn(5, '-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        (well_formed && known && !zero(trace) && !zero(parent)).then(|| Self(Arc::from(format!("t_{trace}"))))
    }
}

// === impl ClientId ===

impl ClientId {
    /// Claude Cowork.
    pub fn cowork() -> Self {
        Self(Arc::from("sp_cowork"))
    }

    /// A command line: Claude Code, or our own.
    pub fn cli() -> Self {
        Self(Arc::from("sp_cli"))
    }

    /// A desktop application.
    pub fn desktop() -> Self {
        Self(Arc::from("sp_desktop"))
    }

    /// The dashboard.
    pub fn web() -> Self {
        Self(Arc::from("sp_web"))
    }
}

// === impl PolicyVersion ===

impl PolicyVersion {
    /// What stands on the wire where no bundle is in force.
    pub const NONE: &'static str = "unversioned";

    /// No bundle is in force.
    pub fn unversioned() -> Self {
        Self(Arc::from(Self::NONE))
    }

    /// Checks `text`: `unversioned`, or a hash with or without the name of its algorithm (`sha256:...`).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, &[""], "a letter or digit", true)?;
        Ok(Self(Arc::from(text)))
    }

    /// As it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

// === impl CallSource ===

impl CallSource {
    /// Every source, in the order of the documentation.
    pub const ALL: [Self; 8] =
        [Self::Cowork, Self::Subagent, Self::Job, Self::Api, Self::Cli, Self::Web, Self::Oauth, Self::Mcp];

    /// The source with this name. Errors: [`IdError::UnknownSource`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        Self::ALL.into_iter().find(|source| source.as_str() == text).ok_or(IdError::UnknownSource)
    }

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cowork => "cowork",
            Self::Subagent => "subagent",
            Self::Job => "job",
            Self::Api => "api",
            Self::Cli => "cli",
            Self::Web => "web",
            Self::Oauth => "oauth",
            Self::Mcp => "mcp",
        }
    }
}

impl fmt::Display for CallSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for CallSource {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

fn check(text: &str, prefixes: &[&str], expected: &'static str, colon: bool) -> Result<(), IdError> {
    let rest =
        prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).ok_or(IdError::Prefix { expected })?;
    let Some(first) = rest.bytes().next() else {
        return Err(IdError::Empty);
    };
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong);
    }
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || (colon && b == b':')) {
        return Err(IdError::Character);
    }
    if !first.is_ascii_alphanumeric() {
        return Err(IdError::Character);
    }
    Ok(())
}

fn hexed(prefix: &str, bytes: [u8; 16]) -> Arc<str> {
    let mut text = String::with_capacity(prefix.len() + 32);
    text.push_str(prefix);
    crate::canonical::push_hex(&mut text, &bytes);
    Arc::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_reference_documents_are_ids() {
        assert_eq!(UserId::parse("u_29f8a3").unwrap().as_str(), "u_29f8a3");
        assert_eq!(TenantId::parse("acme-eu.1").unwrap().to_string(), "acme-eu.1");
        SessionId::parse("sess_3f0e0ec1-6e1c-4f43-8f2a-4a4f3d8e9c11").unwrap();
        SessionId::parse("s_1").unwrap();
        TraceId::parse("t_a8bf").unwrap();
        assert_eq!(ClientId::parse("sp_cowork").unwrap(), ClientId::cowork());
        PolicyVersion::parse("sha256:00ff").unwrap();
        assert_eq!(PolicyVersion::parse("unversioned").unwrap(), PolicyVersion::unversioned());
    }

    #[test]
    fn minted_ids_parse_again() {
        assert_eq!(UserId::from_bytes([0xab; 16]).as_str(), format!("u_{}", "ab".repeat(16)));
        assert_eq!(SessionId::from_bytes([0; 16]).as_str(), format!("sess_{}", "00".repeat(16)));
        let first = TraceId::at(0x0001_0203_0405, [0xff; 10]);
        assert_eq!(first.as_str(), "t_000102030405ffffffffffffffffffff");
        assert!(
            first.as_str() < TraceId::at(0x0001_0203_0406, [0; 10]).as_str(),
            "ids of a later time sort behind"
        );
        let trace = TraceId::from_bytes([7; 16]);
        assert_eq!(TraceId::parse(trace.as_str()).unwrap(), trace);
    }

    #[test]
    fn a_trace_id_is_taken_from_a_valid_traceparent_alone() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |text: &str| TraceId::from_traceparent(text).map(|id| id.to_string());
        let expected = Some(format!("t_{trace}"));
        assert_eq!(of(&format!("00-{trace}-00f067aa0ba902b7-01")), expected);
        assert_eq!(of(&format!("cc-{trace}-00f067aa0ba902b7-01-what-the-future")), expected);
        for text in [
            String::new(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-x"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{trace}0-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(of(&text), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_could_break_a_header_or_a_log_line_is_no_id() {
        for text in ["u_a b", "u_a\n", "u_\r\nx: y", "u_a\0", "u_é", "u_a/b", "u_'", "u_%41", "u_-a", "u_a:b"]
        {
            assert_eq!(UserId::parse(text), Err(IdError::Character), "{text:?}");
        }
        assert_eq!(UserId::parse("u_"), Err(IdError::Empty));
        assert_eq!(TenantId::parse(""), Err(IdError::Empty));
        assert_eq!(UserId::parse("U_1"), Err(IdError::Prefix { expected: "u_" }));
        assert_eq!(SessionId::parse("session_1"), Err(IdError::Prefix { expected: "sess_ or s_" }));
        assert_eq!(UserId::parse(&format!("u_{}", "a".repeat(127))), Err(IdError::TooLong));
        UserId::parse(&format!("u_{}", "a".repeat(126))).unwrap();
        assert_eq!(TenantId::parse("../x"), Err(IdError::Character));
    }

    #[test]
    fn a_malformed_id_inside_json_is_refused() {
        assert!(serde_json::from_str::<TraceId>("\"t_ok\"").is_ok());
        assert!(serde_json::from_str::<TraceId>("\"nope\"").is_err());
        assert_eq!(serde_json::to_string(&ClientId::cli()).unwrap(), "\"sp_cli\"");
    }

    #[test]
    fn every_call_source_survives_the_wire() {
        for source in CallSource::ALL {
            assert_eq!(CallSource::parse(source.as_str()), Ok(source));
            assert_eq!(serde_json::to_string(&source).unwrap(), format!("\"{source}\""));
        }
        assert_eq!(CallSource::parse("Cowork"), Err(IdError::UnknownSource));
    }
}
