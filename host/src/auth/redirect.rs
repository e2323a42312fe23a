//! Where a browser may be sent back to with a code: exactly where the client said before, but for the port of a program on this machine
//! (RFC 8252, section 7.3). Texts are compared as they stand: what two programs could read in two ways matches nothing.

/// Whether it is an address of a program on the browser's own machine, written in the one way: `http`, `127.0.0.1` or `[::1]`, a port, a path.
pub fn loopback(uri: &str) -> bool {
    parts(uri).is_some_and(|(port, path)| !port.is_empty() && !path.is_empty() && plain(uri))
}

/// Whether a code for a client that may go to `registered` may go to `asked`.
pub(crate) fn matches(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let host = |uri: &str| uri.starts_with("http://127.0.0.1");
    match (parts(registered), parts(asked)) {
        (Some((_, one)), Some((port, other))) => {
            host(registered) == host(asked) && one == other && !port.is_empty() && plain(asked)
        }
        _ => false,
    }
}

/// Whether a client may have codes sent there: encrypted, or on the browser's own machine; no other schemes, which any program could
/// claim, and nothing that two programs read in two ways.
pub(crate) fn may_be_registered(uri: &str) -> bool {
    if uri.len() > 512 || !plain(uri) {
        return false;
    }
    if parts(uri).is_some() {
        return true;
    }
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.is_empty() != authority.contains(':');
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !name.starts_with('.')
        && !name.ends_with('.');
    is_port && is_name && (scheme == "https" || scheme == "http" && name == "localhost")
}

/// Port and path of an address on the browser's own machine; none if it is another one.
fn parts(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://127.0.0.1").or_else(|| uri.strip_prefix("http://[::1]"))?;
    let (port, path) = match rest.strip_prefix(':') {
        Some(rest) => {
            let (port, _) = rest.split_once('/').unwrap_or((rest, ""));
            let is_port = matches!(port.parse::<u16>(), Ok(1..)) && port.bytes().all(|b| b.is_ascii_digit());
            if !is_port {
                return None;
            }
            (port, rest.strip_prefix(port)?)
        }
        None => ("", rest),
    };
    (path.is_empty() || path.starts_with('/')).then_some((port, path))
}

/// No fragment, no user, no step back, no escape, nothing invisible.
fn plain(uri: &str) -> bool {
    uri.bytes().all(|b| b.is_ascii_graphic() && !b"#@\\%*\"<>^`{|}".contains(&b))
        && !uri.contains("/..")
        && !uri.contains("/./")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_goes_exactly_where_the_client_said() {
        let registered = "https://app.example/cb";
        assert!(matches(registered, registered));
        for other in [
            "https://app.example/cb/",
            "https://app.example/cb/x",
            "https://app.example/c",
            "https://app.example/cb?x=1",
            "https://app.example/cb#x",
            "https://app.example/a/../cb",
            "https://APP.example/cb",
            "https://app.example./cb",
            "https://app.example:443/cb",
            "https://app.example/%63b",
            "https://user@app.example/cb",
            "http://app.example/cb",
            "https://app.example.evil.example/cb",
            "",
        ] {
            assert!(!matches(registered, other), "{other}");
        }
    }

    #[test]
    fn on_the_own_machine_any_port_will_do_and_nothing_else_differs() {
        for registered in ["http://127.0.0.1/cb", "http://127.0.0.1:1234/cb"] {
            assert!(matches(registered, "http://127.0.0.1:49152/cb"));
            for other in [
                "http://127.0.0.1:0/cb",
                "http://127.0.0.1:70000/cb",
                "http://127.0.0.1:+80/cb",
                "http://127.0.0.1:80/cb2",
                "http://127.0.0.1:80/cb?x",
                "http://127.0.0.1:80",
                "http://127.0.0.1.evil.example/cb",
                "http://127.0.0.1.evil.example:80/cb",
                "http://127.0.0.1:80@evil.example/cb",
                "http://127.1:80/cb",
                "http://localhost:80/cb",
                "http://[::1]:80/cb",
                "https://127.0.0.1:80/cb",
            ] {
                assert!(!matches(registered, other), "{other}");
            }
        }
        assert!(matches("http://[::1]/cb", "http://[::1]:80/cb"));
        assert!(
            !matches("http://localhost:1/cb", "http://localhost:2/cb"),
            "a name is what the resolver says"
        );
        assert!(loopback("http://127.0.0.1:80/cb") && loopback("http://[::1]:80/"));
        for other in [
            "http://127.0.0.1/cb",
            "http://127.0.0.1:80",
            "http://localhost:80/cb",
            "http://127.0.0.1:80/a#b",
        ] {
            assert!(!loopback(other), "{other}");
        }
    }

    #[test]
    fn what_a_client_may_register_is_encrypted_or_on_the_own_machine() {
        for good in [
            "https://app.example/cb?x=1",
            "https://app.example:8443/",
            "http://127.0.0.1/cb",
            "http://localhost:7/cb",
        ] {
            assert!(may_be_registered(good), "{good}");
        }
        let long = format!("https://app.example/{}", "a".repeat(512));
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "com.example.app:/cb",
            "http://app.example/cb",
            "https://*.example/cb",
            "https://app.example/cb#x",
            "https://user@app.example/cb",
            "https://app.example./cb",
            "https://app.example:/cb",
            "https:///cb",
            "https://app.example/a/../b",
            "//app.example/cb",
            "",
            &long,
        ] {
            assert!(!may_be_registered(bad), "{bad}");
        }
    }
}
