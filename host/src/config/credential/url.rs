//! Where an identity server is: what it is sent proves who the gateway is, so it goes over TLS, to this machine, or to the one beside
//! which it runs (metadata servers have link-local addresses and speak HTTP).

use std::fmt;
use std::net::IpAddr;

use ::http::Uri;

/// The address of an identity server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUrl {
    uri: Uri,
}

/// Why a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenUrlError {
    /// Not a URL, or one with a user, a fragment or no host.
    #[error("is not a plain URL")]
    Malformed,
    /// In clear, to another machine.
    #[error("must start with https://: what is sent there proves who the gateway is")]
    Clear,
}

// === impl TokenUrl ===

impl TokenUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, TokenUrlError> {
        let uri: Uri = text.parse().map_err(|_| TokenUrlError::Malformed)?;
        let authority = uri.authority().ok_or(TokenUrlError::Malformed)?;
        if authority.as_str().contains('@') || authority.host().is_empty() || text.contains('#') {
            return Err(TokenUrlError::Malformed);
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self { uri }),
            Some("http") if is_near(authority.host()) => Ok(Self { uri }),
            Some("http") => Err(TokenUrlError::Clear),
            _ => Err(TokenUrlError::Malformed),
        }
    }

    /// The URL.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The same with a path of the server's own behind it; `None` where that makes no URL.
    pub fn below(&self, path: &str) -> Option<Self> {
        Self::parse(&format!("{}{path}", self.to_string().trim_end_matches('/'))).ok()
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

// === private helpers ===

fn is_near(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let near = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        // fd00:ec2::254 and fd20:ce::254 are those of the metadata servers of Amazon and Google.
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unique_local()
        }
    };
    bare == "localhost" || bare == "metadata.google.internal" || bare.parse().is_ok_and(near)
}

#[cfg(test)]
mod tests {
    use super::{TokenUrl, TokenUrlError};

    #[test]
    fn what_proves_who_the_gateway_is_goes_in_clear_to_no_other_machine() {
        for url in [
            "https://oauth2.googleapis.com/token",
            "http://127.0.0.1:8000/token",
            "http://[::1]/token",
            "http://localhost/token",
            "http://169.254.169.254",
            "http://[fd00:ec2::254]",
        ] {
            assert_eq!(
                TokenUrl::parse(url).map(|url| url.to_string().trim_end_matches('/').to_owned()),
                Ok(url.to_owned())
            );
        }
        for url in
            ["http://oauth2.googleapis.com/token", "http://10.0.0.1/token", "http://127.0.0.1.evil.example/t"]
        {
            assert_eq!(TokenUrl::parse(url), Err(TokenUrlError::Clear), "{url}");
        }
        for url in ["", "/token", "ftp://h/x", "https://user:pw@h/x", "https://h/x#f", "not a url"] {
            assert_eq!(TokenUrl::parse(url), Err(TokenUrlError::Malformed), "{url}");
        }
        let below = TokenUrl::parse("http://169.254.169.254/").unwrap().below("/latest/api/token").unwrap();
        assert_eq!(below.to_string(), "http://169.254.169.254/latest/api/token");
    }
}
