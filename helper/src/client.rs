//! Calls to the gateway: over TLS that is verified, without following redirects, with a bound on time and size of every answer.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::exit::{Exit, Failure, one_line};
use crate::gateway::Gateway;
use crate::secret::Secret;

/// No answer of the gateway is longer.
const MOST_BODY: u64 = 64 * 1024;
const MOST_HEAD: usize = 32 * 1024;
/// How long the gateway may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// One gateway, and how to talk to it.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    gateway: Gateway,
    shows_certificate: bool,
}

/// What a client needs besides the gateway's address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    /// PEM of authorities that are believed besides those of the system.
    pub(crate) authorities: Option<Vec<u8>>,
    /// The certificate that this machine shows.
    pub(crate) certificate: Option<ClientCert>,
    /// How long one call may take.
    pub(crate) timeout: Duration,
}

/// What the gateway answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The body, whole.
    pub(crate) body: Vec<u8>,
    /// Cookies that it set, as it wrote them.
    pub(crate) cookies: Vec<String>,
}

// === impl Client ===

impl Client {
    /// A client of this gateway.
    pub(crate) fn new(gateway: &Gateway, wire: &Wire) -> Result<Self, Failure> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry the credential to whom it names.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MOST_HEAD)
            .timeout_global(Some(wire.timeout))
            .timeout_connect(Some(CONNECT.min(wire.timeout)))
            .max_idle_connections(0)
            .user_agent(concat!("sp-cowork-auth/", env!("CARGO_PKG_VERSION")));
        if gateway.is_loopback() {
            config = config.proxy(None);
        }
        if gateway.as_str().starts_with("https://") {
            config = config.tls_config(tls(wire)?);
        }
        let shows_certificate = wire.certificate.is_some();
        Ok(Self { agent: config.build().into(), gateway: gateway.clone(), shows_certificate })
    }

    /// `GET`, with a token where one is given.
    pub(crate) fn get(&self, path: &str, bearer: Option<&Secret>) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(Method::GET).uri(self.gateway.endpoint(path));
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {}", bearer.expose()));
        }
        let request = request.body(()).map_err(|_| bad_request())?;
        self.read(self.agent.run(request))
    }

    /// `POST` of JSON, with headers besides.
    pub(crate) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(Method::POST).uri(self.gateway.endpoint(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answered = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body);
                self.agent.run(request.map_err(|_| bad_request())?)
            }
            None => self.agent.run(request.body(()).map_err(|_| bad_request())?),
        };
        self.read(answered)
    }

    fn read(&self, answered: Result<Response<Body>, ureq::Error>) -> Result<Answer, Failure> {
        let unreachable = |error: &ureq::Error| {
            if self.shows_certificate && is_refused(error) {
                let what = format!("{} refuses this machine's certificate: {}", self.gateway, told(error));
                return Failure::new(Exit::Tier, what);
            }
            Failure::network(format!("cannot reach {}: {}", self.gateway, told(error)))
        };
        let mut response = answered.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        if response.status().is_redirection() {
            return Err(Failure::network(format!(
                "{} answers with a redirect (status {status}), which is not followed: give the address that it leads to",
                self.gateway
            )));
        }
        let cookies = response.headers().get_all("set-cookie").iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
        let body = response.body_mut().with_config().limit(MOST_BODY).read_to_vec();
        let body = body.map_err(|error| unreachable(&error))?;
        Ok(Answer { status, body, cookies })
    }
}

// === impl Answer ===

impl Answer {
    /// What the gateway says is wrong, in the form of its errors; the status alone where it says nothing.
    pub(crate) fn complaint(&self) -> String {
        #[derive(Deserialize)]
        struct Refused {
            error: Complaint,
        }
        #[derive(Deserialize)]
        struct Complaint {
            message: String,
        }
        match serde_json::from_slice::<Refused>(&self.body) {
            Ok(Refused { error }) => format!("status {}: {}", self.status, one_line(error.message)),
            Err(_) => format!("status {}", self.status),
        }
    }

    /// An answer that is none of those an endpoint gives.
    pub(crate) fn unexpected(&self, gateway: &Gateway) -> Failure {
        Failure::network(format!("{gateway} does not answer as a gateway does ({})", self.complaint()))
    }
}

// === private helpers ===

fn bad_request() -> Failure {
    Failure::usage("the credential has characters that cannot be sent")
}

fn tls(wire: &Wire) -> Result<TlsConfig, Failure> {
    let mut roots: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    if let Some(pem) = &wire.authorities {
        let own = certificates(pem);
        if own.is_empty() {
            return Err(Failure::usage("the file of authorities has no certificate in it"));
        }
        roots.extend(own);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(wire.certificate.clone())
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

/// The certificates of a PEM file.
pub(crate) fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

/// Whether the other side ended the connection because of what it was shown. TLS 1.3 tells the client of it after the handshake:
/// as an alert, or, where the client was writing, as a connection that is gone.
fn is_refused(error: &ureq::Error) -> bool {
    let alert = |error: &rustls::Error| matches!(error, rustls::Error::AlertReceived(_));
    match error {
        ureq::Error::Rustls(error) => alert(error),
        ureq::Error::Io(error) => {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            cause.is_some_and(alert)
                || matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
                )
        }
        _ => false,
    }
}

/// What went wrong, without what the other side chose.
fn told(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it took too long".to_owned(),
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
            "its answer is longer than that of a gateway".to_owned()
        }
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::Io(error) => one_line(error),
        ureq::Error::Protocol(error) => format!("its answer is not HTTP ({})", one_line(error)),
        error => one_line(error),
    }
}
