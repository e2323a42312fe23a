//! Where an upstream is: a base URL, or the full path of its API as the vendors document it. Both lead to the same target.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ::http::Uri;

/// What the paths of a provider begin with.
const VERSION: &str = "/v1";

/// An upstream's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Encrypted or not.
    pub scheme: Scheme,
    /// Host and port, as in the URL.
    pub authority: String,
    /// What stands before a provider's own path: empty, or starts with `/` and does not end with one.
    pub path: String,
    /// The API lives directly under `path`: the `/v1` of a provider's path is left out.
    unversioned: bool,
}

/// How to talk to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear.
    Http,
    /// TLS.
    Https,
}

/// Why a text is no endpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("is not a URL")]
    Malformed,
    /// Neither `https` nor `http`.
    #[error("must start with https:// or http://")]
    Scheme,
    /// `user:password@host`.
    #[error("must not hold a user or a password: name a secret in api_key_secret")]
    UserInfo,
    /// A query or a fragment.
    #[error("must not have a query or a fragment")]
    Query,
    /// `..`, an empty segment, a backslash.
    #[error("has a path that is not plain")]
    Path,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads a URL. `/v1` at the end of its path is cut off: it belongs to the paths of a provider.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::of_api(text, &BTreeSet::new())
    }

    /// Reads the URL of an upstream's API, whose address its vendor documents with one of `paths` at the end (`/v1/messages`). Such a
    /// path is cut back to what stands before it. Where the URL ends in one without its `/v1`, the API has no version in its paths.
    pub fn of_api(text: &str, paths: &BTreeSet<String>) -> Result<Self, EndpointError> {
        if text.contains('#') {
            return Err(EndpointError::Query);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::Malformed)?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(EndpointError::Scheme),
        };
        let authority = uri.authority().ok_or(EndpointError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let bad_port =
            authority.as_str().ends_with(':') || authority.port().is_some_and(|port| port.as_str() == "0");
        if authority.host().is_empty() || bad_port || out_of_range(authority) {
            return Err(EndpointError::Malformed);
        }
        if uri.query().is_some() {
            return Err(EndpointError::Query);
        }
        let path = uri.path().trim_end_matches('/');
        if !is_plain(path) {
            return Err(EndpointError::Path);
        }
        let (path, unversioned) = base(path, paths);
        Ok(Self { scheme, authority: authority.as_str().to_owned(), path: path.to_owned(), unversioned })
    }

    /// The path and query to ask for when a provider wants `target` (`/v1/messages?beta=true`).
    pub fn join(&self, target: &str) -> String {
        let target = match target.strip_prefix(VERSION) {
            Some(rest) if self.unversioned && rest.starts_with('/') => rest,
            _ => target,
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{target}", self.path)
    }

    /// The host without a port.
    pub fn host(&self) -> &str {
        let end = match self.authority.rfind(':') {
            Some(colon) if !self.authority.ends_with(']') => colon,
            _ => self.authority.len(),
        };
        self.authority.get(..end).unwrap_or(&self.authority)
    }

    /// The AWS region that the host's name says: `bedrock-runtime.eu-central-1.amazonaws.com`, also behind a VPC endpoint
    /// (`vpce-1.bedrock-runtime.eu-central-1.vpce.amazonaws.com`) and in other partitions (`.amazonaws.com.cn`, `.api.aws`).
    pub fn aws_region(&self) -> Option<&str> {
        let labels: Vec<&str> = self.host().split('.').collect();
        let end = labels.iter().position(|label| *label == "amazonaws").or_else(|| {
            let of_api = labels.iter().rev().take(2).eq(["aws", "api"].iter());
            of_api.then(|| labels.len().saturating_sub(2))
        })?;
        let mut before = labels.get(..end)?.iter().rev().filter(|label| **label != "vpce");
        before.next().copied().filter(|label| is_aws_region(label))
    }

    /// Whether it is on this very machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path)
    }
}

/// Whether a text is the name of an AWS region: `eu-central-1`, `us-gov-west-1`.
pub(super) fn is_aws_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [area, places @ .., number] = parts.as_slice() else { return false };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    area.len() == 2
        && word(area)
        && !places.is_empty()
        && places.iter().all(|place| word(place))
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

// === impl Scheme ===

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

fn out_of_range(authority: &::http::uri::Authority) -> bool {
    // `Authority` does not tell a port that is too large from none.
    let port = authority.as_str().rsplit(']').next().and_then(|rest| rest.rsplit_once(':'));
    port.is_some_and(|(_, port)| port.parse::<u16>().is_err())
}

fn is_plain(path: &str) -> bool {
    path.split('/').skip(1).all(|segment| !segment.is_empty() && segment != "." && segment != "..")
        && !path.contains(['\\', '%'])
}

/// What stands before the API's own path, and whether `/v1` is missing from that.
fn base<'a>(path: &'a str, paths: &BTreeSet<String>) -> (&'a str, bool) {
    let longest = |ends: &mut dyn Iterator<Item = &str>| {
        ends.filter_map(|end| path.strip_suffix(end)).min_by_key(|base| base.len())
    };
    let whole = longest(&mut paths.iter().map(String::as_str));
    if let Some(base) = whole.or_else(|| path.strip_suffix(VERSION)) {
        return (base, false);
    }
    let unversioned = longest(&mut paths.iter().filter_map(|end| end.strip_prefix(VERSION)));
    unversioned.map_or((path, false), |base| (base, true))
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, EndpointError};

    #[test]
    fn the_region_of_an_aws_endpoint_is_read_from_its_name_and_from_no_other_name() {
        for (endpoint, region) in [
            ("https://bedrock-runtime.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com:443/model", Some("us-gov-west-1")),
            ("https://vpce-0a1b.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", Some("ap-southeast-2")),
            ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://bedrock-mantle.us-east-1.api.aws", Some("us-east-1")),
            ("https://bedrock.amazonaws.com", None),
            ("https://eu-central-1.example.com", None),
            ("http://127.0.0.1:8000", None),
            ("http://[::1]:8000", None),
        ] {
            assert_eq!(Endpoint::parse(endpoint).unwrap().aws_region(), region, "{endpoint}");
        }
    }

    #[test]
    fn a_base_url_and_the_full_path_lead_to_the_same_target() {
        let paths = ["/v1/messages", "/v1/chat/completions"].map(str::to_owned).into();
        let target = |endpoint: &str, path: &str| {
            let endpoint = Endpoint::of_api(endpoint, &paths).unwrap();
            format!("{}://{}{}", endpoint.scheme.as_str(), endpoint.authority, endpoint.join(path))
        };
        let messages = "https://api.anthropic.com/v1/messages?beta=true";
        for endpoint in [
            "https://api.anthropic.com",
            "https://api.anthropic.com/",
            "https://api.anthropic.com/v1",
            "https://api.anthropic.com/v1/messages",
        ] {
            assert_eq!(target(endpoint, "/v1/messages?beta=true"), messages, "{endpoint}");
        }
        for (endpoint, expected) in [
            ("http://127.0.0.1:8000/v1/chat/completions", "http://127.0.0.1:8000/v1/chat/completions"),
            ("https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1/chat/completions"),
            (
                "https://h.example/compatible-mode/v1/chat/completions",
                "https://h.example/compatible-mode/v1/chat/completions",
            ),
            ("https://h.example/paas/v4/chat/completions", "https://h.example/paas/v4/chat/completions"),
        ] {
            assert_eq!(target(endpoint, "/v1/chat/completions"), expected, "{endpoint}");
        }
    }

    #[test]
    fn only_a_path_that_a_provider_describes_is_cut_off() {
        let base = |text: &str, paths: &[&str]| {
            let paths = paths.iter().map(|&path| path.to_owned()).collect();
            Endpoint::of_api(text, &paths).unwrap().path
        };
        let url = "https://h.example/team/v1/messages";
        assert_eq!(base(url, &[]), "/team/v1/messages");
        assert_eq!(base(url, &["/v1/chat/completions"]), "/team/v1/messages");
        assert_eq!(base(url, &["/messages", "/v1/messages"]), "/team", "the longest path counts");
    }

    #[test]
    fn what_is_not_a_plain_address_is_refused() {
        for (text, expected) in [
            ("api.anthropic.com", EndpointError::Scheme),
            ("ftp://h.example", EndpointError::Scheme),
            ("not a url", EndpointError::Malformed),
            ("https://", EndpointError::Malformed),
            ("https://h.example:99999", EndpointError::Malformed),
            ("https://user:pw@h.example", EndpointError::UserInfo),
            ("https://h.example/?key=1", EndpointError::Query),
            ("https://h.example/#f", EndpointError::Query),
            ("https://h.example/a/../b", EndpointError::Path),
            ("https://h.example//b", EndpointError::Path),
            ("https://h.example/%2e%2e/b", EndpointError::Path),
        ] {
            assert_eq!(Endpoint::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest_of_the_world() {
        for text in ["http://localhost:1", "http://127.0.0.1", "http://127.9.9.9:80", "http://[::1]:8080/v1"]
        {
            assert!(Endpoint::parse(text).unwrap().is_loopback(), "{text}");
        }
        for text in
            ["http://10.0.0.1", "http://127.0.0.1.evil.example", "http://localhost.example:1", "http://[::2]"]
        {
            assert!(!Endpoint::parse(text).unwrap().is_loopback(), "{text}");
        }
    }
}
