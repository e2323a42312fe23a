//! Talking to a running gateway as an administrator: what the online commands do their work with.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use sallyport_protocol::id::TenantId;
use serde_json::Value;

use crate::component::contract::Attribute;
use crate::component::contract::provider::{Auth, RequestBody, UpstreamRequest};
use crate::config::{Endpoint, Patience, Scheme, SecretString};
use crate::upstream::{Destination, Upstream};

/// Where a gateway that serves says its address: a file in its home.
const ADDRESS_FILE: &str = "address";
/// Where the token is looked for in the home, unless the command line says otherwise.
const TOKEN_FILE: &str = "admin.token";
/// Longest answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Which gateway, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct Where {
    /// The gateway's URL [default: the one that serves this home]
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// A file that holds a personal access token with the scope admin [default: admin.token in the home]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The catalog of this tenant instead of the platform's
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// A gateway that is asked.
pub(super) struct Remote {
    upstream: Upstream,
    endpoint: Endpoint,
    token: SecretString,
    tenant: Option<TenantId>,
}

// === impl Remote ===

impl Remote {
    /// The gateway that `at` names, or the one that serves `home`.
    pub(super) fn open(at: &Where, home: &Path) -> anyhow::Result<Self> {
        let url = if let Some(url) = &at.gateway {
            url.clone()
        } else {
            let address = std::fs::read_to_string(home.join(ADDRESS_FILE))
                .with_context(|| format!("no gateway serves {}: name one with --gateway", home.display()))?;
            format!("http://{}", address.trim())
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
        let upstream = Upstream::new().context("cannot load the certificate authorities")?;
        let token = SecretString::from(token.trim().to_owned());
        let tenant =
            at.tenant.as_deref().map(TenantId::parse).transpose().context("--tenant is no tenant's id")?;
        Ok(Self { upstream, endpoint, token, tenant })
    }

    /// Looks.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send("GET", path, RequestBody::Empty).await
    }

    /// Does something.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send("POST", path, RequestBody::Bytes(body.to_string().into_bytes())).await
    }

    /// Uploads.
    pub(super) async fn upload(&self, path: &str, bytes: Vec<u8>) -> anyhow::Result<Value> {
        self.send("POST", path, RequestBody::Bytes(bytes)).await
    }

    /// Takes back.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send("DELETE", path, RequestBody::Empty).await
    }

    async fn send(&self, method: &str, path: &str, body: RequestBody) -> anyhow::Result<Value> {
        let query =
            self.tenant.as_ref().map(|tenant| format!("?tenant={}", tenant.as_str())).unwrap_or_default();
        let wanted = UpstreamRequest {
            method: method.to_owned(),
            path: format!("/v1/admin/{path}{query}"),
            headers: vec![Attribute {
                name: "content-type".to_owned(),
                value: "application/json".to_owned(),
            }],
            body,
            auth: Auth::Bearer,
        };
        let to = Destination {
            endpoint: &self.endpoint,
            credential: Some(&self.token),
            patience: Patience::default(),
        };
        let mut answer = self
            .upstream
            .send(to, wanted, &Bytes::new())
            .await
            .with_context(|| format!("the gateway at {} does not answer", self.endpoint.authority))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.body.chunk().await.context("the gateway's answer broke off")? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                bail!("the gateway's answer is too long");
            }
        }
        let read = serde_json::from_slice::<Value>(&bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(gateway: &str, tenant: Option<&str>) -> String {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(TOKEN_FILE), "sp_pat_x").unwrap();
        let at =
            Where { gateway: Some(gateway.to_owned()), token_file: None, tenant: tenant.map(str::to_owned) };
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
