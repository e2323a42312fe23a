//! Signing in in the browser: the gateway's page asks who it is and sends a code to this machine, which exchanges it for a session.
//!
//! The code comes back over loopback (RFC 8252, section 7.3). It is of use to nobody else: it is bound to a challenge (RFC 7636,
//! S256), and an answer without our `state` is not ours.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::client::{Answer, Client};
use crate::credential::Credential;
use crate::exit::{Exit, Failure, Said, one_line};
use crate::gateway::Gateway;
use crate::keystore::KeystoreKind;
use crate::ladder::{self, session_cookie};
use crate::login::{keep, signed_in};
use crate::run::hold;
use crate::secret::Secret;
use crate::settings::{Settings, Tier};

/// How long a person may take at `login --browser`.
const AT_LEISURE: Duration = Duration::from_mins(5);
/// How long while a client waits, which gives this program 60 seconds.
pub(crate) const WHILE_ASKED: Duration = Duration::from_secs(50);
/// A request of a browser to us is not longer.
const MOST_REQUEST: usize = 8 * 1024;
/// More requests than a browser makes by itself.
const MOST_REQUESTS: usize = 64;
/// How long one of them may take.
const ONE_REQUEST: Duration = Duration::from_secs(2);
const PATH: &str = "/callback";

/// What is sent with the browser and has to come back, or is shown when it did.
struct Journey {
    listener: TcpListener,
    port: u16,
    state: String,
    verifier: Secret,
}

/// What a request to us was.
#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    /// The code.
    Code(String),
    /// The person, or the gateway, said no.
    Denied(String),
    /// Nothing of ours.
    Stray,
}

/// Signs in in the browser and keeps the session.
pub(crate) fn login(settings: &mut Settings, keystore: Option<KeystoreKind>) -> Result<Said, Failure> {
    let gateway = settings.gateway()?.clone();
    let (cookie, credential) = sign_in(settings, &gateway, AT_LEISURE)?;
    let _held = hold(settings);
    settings.choose(None, keystore);
    keep(settings, &gateway, Tier::Session, keystore, &cookie)?;
    Ok(signed_in(settings, &gateway, &credential))
}

/// Has a person sign in. The session's cookie, and a first credential.
pub(crate) fn sign_in(
    settings: &Settings,
    gateway: &Gateway,
    timeout: Duration,
) -> Result<(Secret, Credential), Failure> {
    let client = Client::new(gateway, &settings.wire()?)?;
    let journey = Journey::begin()?;
    let address = journey.address(gateway);
    // Not the answer, so not on standard output.
    drop(writeln!(io::stderr(), "sp-cowork-auth: sign in at {address}"));
    open_browser(settings, &address);
    let code = journey.wait(gateway, timeout)?;
    let body = json!({ "code": code, "code_verifier": journey.verifier.expose() }).to_string();
    let answer = client.post("/v1/auth/cowork/session", &[], Some(&Zeroizing::new(body)))?;
    let credential = ladder::read(Tier::Session, gateway, &answer)?;
    let cookie = session(gateway, &answer)?;
    Ok((cookie, credential))
}

// === impl Journey ===

impl Journey {
    fn begin() -> Result<Self, Failure> {
        let internal = |what: String| Failure::new(Exit::Internal, what);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|error| internal(format!("cannot listen on this machine: {error}")))?;
        let port = listener.local_addr().map_err(|error| internal(error.to_string()))?.port();
        let listening = listener.set_nonblocking(true);
        listening.map_err(|error| internal(error.to_string()))?;
        let random = || -> Result<String, Failure> {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *bytes).map_err(|error| internal(format!("no randomness: {error}")))?;
            Ok(URL_SAFE_NO_PAD.encode(*bytes))
        };
        Ok(Self { listener, port, state: random()?, verifier: Secret::new(random()?) })
    }

    /// Where the browser goes.
    fn address(&self, gateway: &Gateway) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose().as_bytes()));
        let page = gateway.endpoint("/cowork/device-link");
        // Nothing of the redirect but `:` and `/` has to be written otherwise in a query.
        let redirect = format!("http%3A%2F%2F127.0.0.1%3A{}%2Fcallback", self.port);
        let state = &self.state;
        format!(
            "{page}?redirect={redirect}&state={state}&code_challenge={challenge}&code_challenge_method=S256"
        )
    }

    /// Waits for the browser to come back.
    fn wait(&self, gateway: &Gateway, timeout: Duration) -> Result<String, Failure> {
        let until = Instant::now() + timeout;
        let mut requests = 0;
        while Instant::now() < until && requests < MOST_REQUESTS {
            let Ok((mut stream, _)) = self.listener.accept() else {
                std::thread::sleep(Duration::from_millis(25));
                continue;
            };
            requests += 1;
            let Some(target) = target(&mut stream) else { continue };
            match self.arrival(&target) {
                Arrival::Code(code) => {
                    answer(&mut stream, "200 OK", "You are signed in. This window may be closed.");
                    return Ok(code);
                }
                Arrival::Denied(why) => {
                    answer(&mut stream, "200 OK", "You are not signed in. This window may be closed.");
                    return Err(Failure::new(
                        Exit::Credential,
                        format!("{gateway} did not sign in: {}", one_line(why)),
                    ));
                }
                Arrival::Stray => answer(&mut stream, "404 Not Found", "There is nothing here."),
            }
        }
        Err(Failure::new(Exit::Credential, "nobody signed in in the browser".to_owned()))
    }

    /// What a request for a target is.
    fn arrival(&self, target: &str) -> Arrival {
        let Some((PATH, query)) = target.split_once('?') else { return Arrival::Stray };
        let field = |name: &str| {
            let mut found = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = found.find(|(key, _)| *key == name).map(|(_, value)| value);
            // Twice is neither.
            if found.any(|(key, _)| key == name) { None } else { value }
        };
        if field("state") != Some(self.state.as_str()) {
            return Arrival::Stray;
        }
        let plain = |text: &&str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !text.is_empty() && text.len() <= 1024 && text.bytes().all(fits)
        };
        match (field("code").filter(plain), field("error")) {
            (Some(code), None) => Arrival::Code(code.to_owned()),
            (_, Some(error)) => Arrival::Denied(error.to_owned()),
            (None, None) => Arrival::Stray,
        }
    }
}

// === private helpers ===

/// The cookie of the session.
fn session(gateway: &Gateway, answer: &Answer) -> Result<Secret, Failure> {
    session_cookie(answer)
        .ok_or_else(|| Failure::network(format!("{gateway} signed in and gave no session to keep")))
}

/// The target of a `GET`; `None` for what is no request, or comes too slowly.
fn target(stream: &mut TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    let until = Instant::now() + ONE_REQUEST;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        let left = until.checked_duration_since(Instant::now())?;
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).ok()?;
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(buffer.get(..read)?);
        if bytes.len() > MOST_REQUEST {
            return None;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut words = text.lines().next()?.split(' ');
    (words.next() == Some("GET")).then(|| words.next().map(str::to_owned))?
}

fn answer(stream: &mut TcpStream, status: &str, text: &str) {
    let body = format!("<!doctype html><html lang=\"en\"><title>Sign in</title><p>{text}</p></html>");
    let length = body.len();
    // The browser may be gone: what it asked was heard.
    drop(write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {length}\r\n\
         content-security-policy: default-src 'none'\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n\
         connection: close\r\n\r\n{body}"
    ));
}

/// Opens the address in the user's browser; without one the person opens what was said on standard error.
fn open_browser(settings: &Settings, address: &str) {
    let mut command = match &settings.browser {
        Some(program) => Command::new(program),
        None if cfg!(windows) => {
            let mut command = Command::new("rundll32.exe");
            command.arg("url.dll,FileProtocolHandler");
            command
        }
        None if cfg!(target_os = "macos") => Command::new("/usr/bin/open"),
        None => Command::new("xdg-open"),
    };
    // What a browser prints must not reach the client.
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(command.spawn());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_with_our_state_and_one_code_is_ours() {
        let mut journey = Journey::begin().unwrap();
        journey.state = "ours".to_owned();
        let arrival = |target: &str| journey.arrival(target);
        assert_eq!(arrival("/callback?code=abc&state=ours"), Arrival::Code("abc".to_owned()));
        assert_eq!(
            arrival("/callback?state=ours&code=a-b.c_d~e&iss=x"),
            Arrival::Code("a-b.c_d~e".to_owned())
        );
        assert_eq!(
            arrival("/callback?error=access_denied&state=ours"),
            Arrival::Denied("access_denied".to_owned())
        );
        for stray in [
            "/",
            "/favicon.ico",
            "/callback",
            "/callback?code=abc",
            "/callback?code=abc&state=theirs",
            "/callback?code=abc&state=",
            "/callback?code=abc&state=ours&state=theirs",
            "/callback?code=abc&state=theirs&state=ours",
            "/callback?code=abc&code=def&state=ours",
            "/callback?code=&state=ours",
            "/callback?code=a%20b&state=ours",
            "/callback?state=ours",
            "/callback?error=x&state=theirs",
            "/other?code=abc&state=ours",
        ] {
            assert_eq!(arrival(stray), Arrival::Stray, "{stray}");
        }
    }

    #[test]
    fn the_address_has_a_challenge_of_the_verifier_and_never_the_verifier() {
        let gateway = Gateway::parse("https://gateway.example.com/t/acme").unwrap();
        let mut journey = Journey::begin().unwrap();
        // RFC 7636, appendix B.
        journey.verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let address = journey.address(&gateway);
        assert!(
            address.starts_with("https://gateway.example.com/t/acme/cowork/device-link?redirect="),
            "{address}"
        );
        assert!(
            address.contains(
                "&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
            ),
            "{address}"
        );
        assert!(!address.contains(journey.verifier.expose()));
        let other = Journey::begin().unwrap();
        assert_ne!(journey.state, other.state);
        assert_eq!((other.state.len(), other.verifier.expose().len()), (43, 43));
    }
}
