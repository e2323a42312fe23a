//! Talking to a running gateway as an administrator: what the online commands do their work with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Uri, header};
use sallyport_protocol::id::TenantId;
use serde_json::Value;

use crate::config::{self, Endpoint, Scheme};
use crate::upstream::{AddressPolicy, FetchLimits, HttpClient, Outbound, TrustedServers, WholeAnswer};

/// Where a gateway that serves says its address: files in its home. The first is there if administration has a listener of its own.
const ADDRESS_FILES: [&str; 2] = ["admin-address", CLIENTS_ADDRESS];
const CLIENTS_ADDRESS: &str = "address";
/// How long a gateway may take to say how it does.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the token is looked for in the home, unless the command line says otherwise.
const TOKEN_FILE: &str = "admin.token";
/// How long a command waits: a component that was uploaded is compiled before the gateway answers.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Which gateway, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct Where {
    /// The gateway's URL [default: the one that serves this home]
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// A file that holds a personal access token with the scope admin [default: admin.token in the home]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the authorities that the gateway's certificate may lead to [default: those of the system; for the gateway that
    /// serves this home, the certificate that its configuration names]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The catalog of this tenant instead of the platform's
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// A gateway that is asked.
pub(super) struct Remote {
    client: HttpClient,
    endpoint: Endpoint,
    /// `Bearer <token>`; `Debug` does not show it.
    authorization: HeaderValue,
    tenant: Option<TenantId>,
}

// === impl Remote ===

impl Remote {
    /// The gateway that `at` names, or the one that serves `home`.
    pub(super) fn open(at: &Where, home: &Path) -> anyhow::Result<Self> {
        let mut trusted = at.ca.clone().map_or(TrustedServers::System, TrustedServers::Authorities);
        let url = if let Some(url) = &at.gateway {
            url.clone()
        } else {
            let url = own_url(home, &ADDRESS_FILES)
                .with_context(|| format!("no gateway serves {}: name one with --gateway", home.display()))?;
            if url.starts_with("https://") && at.ca.is_none() {
                trusted = TrustedServers::Exactly(certificate(home)?);
            }
            url
        };
        let endpoint = Endpoint::parse(&url).with_context(|| format!("{url:?} is no gateway's URL"))?;
        if endpoint.scheme == Scheme::Http && !endpoint.is_loopback() {
            bail!("{url} is not encrypted: a token goes to https:// or to this machine only");
        }
        let file = at.token_file.clone().unwrap_or_else(|| home.join(TOKEN_FILE));
        let token = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "no token in {}: make one with gateway pat create --user admin --name components --scope admin",
                file.display()
            )
        })?;
        let client = client(&trusted).context("cannot load the certificate authorities")?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .with_context(|| format!("{} holds no token", file.display()))?;
        authorization.set_sensitive(true);
        let tenant =
            at.tenant.as_deref().map(TenantId::parse).transpose().context("--tenant is no tenant's id")?;
        Ok(Self { client, endpoint, authorization, tenant })
    }

    /// Looks.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Does something.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, body.to_string().into()).await
    }

    /// Uploads.
    pub(super) async fn upload(&self, path: &str, bytes: Vec<u8>) -> anyhow::Result<Value> {
        self.send(Method::POST, path, bytes.into()).await
    }

    /// Takes back.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, Bytes::new()).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let query =
            self.tenant.as_ref().map(|tenant| format!("?tenant={}", tenant.as_str())).unwrap_or_default();
        let mut request = request(&self.endpoint, &format!("/v1/admin/{path}{query}"), body)?;
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        let limits = FetchLimits { timeout: COMMAND_TIMEOUT, max_bytes: MAX_ANSWER_BYTES };
        let answer = self
            .client
            .fetch(request, limits)
            .await
            .with_context(|| format!("the gateway at {} does not answer", self.endpoint.authority))?;
        let read = serde_json::from_slice::<Value>(&answer.body);
        if answer.status.is_success() {
            return read
                .with_context(|| format!("what answers at {} is no gateway", self.endpoint.authority));
        }
        // A proxy before the gateway may refuse in words of its own: then the status has to do.
        let value = read.unwrap_or_default();
        let message = value.pointer("/error/message").and_then(Value::as_str);
        match (message, answer.headers.get("x-sallyport-code").and_then(|code| code.to_str().ok())) {
            (Some(message), Some(code)) => bail!("{message} ({code})"),
            (Some(message), None) => bail!("{message}"),
            _ => bail!("the gateway answered with {}", answer.status),
        }
    }
}

/// The status of the gateway that serves a home, as its `/ready` says it; `None` where none serves.
pub(super) async fn ready(home: &Path) -> Option<anyhow::Result<String>> {
    let said = what_ready_says(home).await?;
    Some(said.and_then(|said| {
        let status = said.get("status").and_then(Value::as_str).context("what answers is no gateway")?;
        Ok(status.to_owned())
    }))
}

/// All that the gateway that serves a home says at `/ready`; `None` where none serves.
pub(super) async fn what_ready_says(home: &Path) -> Option<anyhow::Result<Value>> {
    let url = own_url(home, &[CLIENTS_ADDRESS])?;
    Some(ask_ready(home, &url).await.with_context(|| format!("the gateway at {url} does not answer")))
}

async fn ask_ready(home: &Path, url: &str) -> anyhow::Result<Value> {
    let trusted = if url.starts_with("https://") {
        TrustedServers::Exactly(certificate(home)?)
    } else {
        TrustedServers::System
    };
    let request = request(&Endpoint::parse(url)?, "/ready", Bytes::new())?;
    let limits = FetchLimits { timeout: READY_TIMEOUT, max_bytes: MAX_ANSWER_BYTES };
    let WholeAnswer { body, .. } = client(&trusted)?.fetch(request, limits).await?;
    serde_json::from_slice(&body).context("what answers is no gateway")
}

/// To any address: the person at the command line says where the gateway is.
fn client(trusted: &TrustedServers) -> std::io::Result<HttpClient> {
    Ok(Outbound::new(trusted)?.client(AddressPolicy::Any))
}

fn request(to: &Endpoint, path: &str, body: Bytes) -> anyhow::Result<Request<Bytes>> {
    let mut request = Request::new(body);
    *request.uri_mut() = Uri::builder()
        .scheme(to.scheme.as_str())
        .authority(to.authority.as_str())
        .path_and_query(to.join(path))
        .build()?;
    Ok(request)
}

/// Where the gateway of a home says that it is: the first of the files that is there.
fn own_url(home: &Path, files: &[&str]) -> Option<String> {
    let text = files.iter().find_map(|file| std::fs::read_to_string(home.join(file)).ok())?;
    let address = text.trim();
    Some(if address.contains("://") { address.to_owned() } else { format!("http://{address}") })
}

/// The file of the certificate that a home's configuration names. The rest of the configuration is not looked at: secrets in it may
/// come from commands.
pub(super) fn certificate(home: &Path) -> anyhow::Result<PathBuf> {
    let file = home.join(config::FILE);
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let value = config::value(&text).map_err(anyhow::Error::msg)?;
    let named = value.pointer("/tls/certificate").and_then(Value::as_str);
    let named = named.with_context(|| format!("{} names no tls.certificate: give --ca", file.display()))?;
    Ok(home.join(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(gateway: &str, tenant: Option<&str>) -> String {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(TOKEN_FILE), "sp_pat_x").unwrap();
        let at = Where {
            gateway: Some(gateway.to_owned()),
            tenant: tenant.map(str::to_owned),
            ..Where::default()
        };
        Remote::open(&at, home.path()).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_token_is_not_sent_in_clear_to_another_machine() {
        assert!(refusal("http://gateway.example", None).contains("not encrypted"));
    }

    #[test]
    fn what_is_no_tenant_does_not_reach_the_query() {
        assert!(refusal("https://gateway.example", Some("acme&x=1")).contains("no tenant's id"));
    }
}
