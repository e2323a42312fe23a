//! What clients export over OTLP/HTTP <https://opentelemetry.io/docs/specs/otlp/>: what the gateway knows of them is put in, what they say in
//! its place is taken out, and all the rest stays. Both encodings are read as receivers read them; what could be read in two ways is refused.

mod binary;
mod text;

/// What begins so in the name of an attribute is the gateway's to say, wherever it stands.
pub const RESERVED: &str = "sallyport.";
/// What a client may not say of itself in a resource either: who it is, in the words of the semantic conventions.
const CLAIMS: [&str; 8] = [
    "user.id",
    "user.name",
    "user.full_name",
    "user.email",
    "user.roles",
    "enduser.id",
    "tenant.id",
    "department",
];

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Counts and sums.
    Metrics,
    /// Events.
    Logs,
    /// Spans.
    Traces,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/x-protobuf`
    Protobuf,
}

/// Why a body is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is no export of this signal: {0}")]
pub struct NotOtlp(&'static str);

// === impl Signal ===

impl Signal {
    /// Its path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
            Self::Traces => "/v1/traces",
        }
    }

    /// The one list of its messages, in JSON.
    const fn list(self) -> &'static str {
        match self {
            Self::Metrics => "resourceMetrics",
            Self::Logs => "resourceLogs",
            Self::Traces => "resourceSpans",
        }
    }
}

// === impl Encoding ===

impl Encoding {
    /// What a media type, with or without parameters, stands for.
    pub fn parse(media_type: &str) -> Option<Self> {
        let name = media_type.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Protobuf].into_iter().find(|it| it.media_type().eq_ignore_ascii_case(name))
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    /// The answer that everything was taken.
    pub const fn taken(self) -> &'static str {
        match self {
            Self::Json => "{}",
            Self::Protobuf => "",
        }
    }
}

/// The export with these attributes in each of its resources. What a client says in their place, or under a name of the gateway's own,
/// is taken out.
pub fn stamp(
    signal: Signal,
    encoding: Encoding,
    body: &[u8],
    attributes: &[(&str, &str)],
) -> Result<Vec<u8>, NotOtlp> {
    match encoding {
        Encoding::Json => text::stamp(signal, body, attributes),
        Encoding::Protobuf => binary::stamp(signal, body, attributes),
    }
}

// === private helpers ===

/// Whether a client may not say an attribute of this name of its resource.
fn is_claim(name: &str) -> bool {
    is_reserved(name) || CLAIMS.contains(&name)
}

/// Whether a client may say an attribute of this name nowhere.
fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED)
}

#[cfg(test)]
mod tests;
