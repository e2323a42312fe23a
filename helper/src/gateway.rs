//! The gateway's address: `https`, or `http` to this machine alone. It is parsed; what the text looks like decides nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr as _;

use ureq::http::Uri;

/// An address that credentials may be sent to, without a `/` at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gateway {
    text: String,
    /// Whether it is this machine: no proxy stands between.
    loopback: bool,
}

// === impl Gateway ===

impl Gateway {
    /// Reads an address, or says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let uri = Uri::from_str(text).map_err(|error| format!("is no address ({error})"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("is no address: it begins with https://".to_owned());
        };
        if authority.as_str().contains('@') {
            return Err("names a user: a credential has no place in an address".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("has a query or a fragment".to_owned());
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err("names no host".to_owned());
        }
        let loopback = is_loopback(&host);
        match scheme {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err("is http://, which is for this machine alone: use https://".to_owned()),
            _ => return Err(format!("begins with {scheme}://, not with https://")),
        }
        if authority.port().is_none() && authority.as_str().contains("]:") | authority.as_str().ends_with(':')
        {
            return Err("has a port that is none".to_owned());
        }
        let path = uri.path().trim_end_matches('/');
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err("has a path with . or ..".to_owned());
        }
        // The default port is the same gateway as none, and its credentials are the same ones.
        let port = match (scheme, authority.port_u16()) {
            ("https", Some(443)) | ("http", Some(80)) | (_, None) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        Ok(Self { text: format!("{scheme}://{host}{port}{path}"), loopback })
    }

    /// As it is written into files and asked for in keystores.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Scheme, host and port, as a browser names where a request is from (RFC 6454).
    pub(crate) fn origin(&self) -> String {
        self.text.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
    }

    /// The address of one of its endpoints: `path` begins with `/`.
    pub(crate) fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Whether a host is this machine: an address of the loopback networks, or the name that RFC 6761 reserves for them.
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::is_loopback(&address),
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.is_loopback(),
            None => Ipv6Addr::is_loopback(&address),
        },
        Err(_) => bare == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_clear_is_for_this_machine_alone() {
        for good in [
            "http://127.0.0.1:3000",
            "http://127.9.9.9",
            "http://[::1]:8080",
            "http://localhost:3000",
            "http://[::ffff:127.0.0.1]",
            "https://gateway.example.com",
        ] {
            assert!(Gateway::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://gateway.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1@example.com",
            "http://127.0.0.1:80@example.com/",
            "http://example.com/127.0.0.1",
            "http://example.com?127.0.0.1",
            "http://0x7f.1",
            "http://0.0.0.0",
            "http://10.0.0.1",
            "http://[::]",
            "http://[::ffff:10.0.0.1]",
            "http://127.0.0.1#@example.com",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "gateway.example.com",
            "/relative",
            "",
            "https://",
            "https://user:password@gateway.example.com",
            "https://gateway.example.com/?a=b",
            "https://gateway.example.com/a/../b",
        ] {
            assert!(Gateway::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_gateway_is_written_in_one_way() {
        for text in [
            "https://Gateway.Example.com",
            "https://gateway.example.com/",
            "https://gateway.example.com:443",
            " https://gateway.example.com ",
        ] {
            assert_eq!(Gateway::parse(text).unwrap().as_str(), "https://gateway.example.com", "{text}");
        }
        let prefixed = Gateway::parse("https://gateway.example.com/t/acme/").unwrap();
        assert_eq!(prefixed.origin(), "https://gateway.example.com");
        assert_eq!(
            prefixed.endpoint("/v1/auth/cowork/pat"),
            "https://gateway.example.com/t/acme/v1/auth/cowork/pat"
        );
    }
}
