//! Talking to a running gateway as an administrator: what the online commands do their work with.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use crate::component::contract::Attribute;
use crate::component::contract::provider::{Auth, RequestBody, UpstreamRequest};
use crate::config::{Endpoint, Patience, SecretString};
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
    tenant: Option<String>,
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
        let file = at.token_file.clone().unwrap_or_else(|| home.join(TOKEN_FILE));
        let token = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "no token in {}: make one with gateway pat create --user admin --name components --scope admin",
                file.display()
            )
        })?;
        let upstream = Upstream::new().context("cannot load the certificate authorities")?;
        let token = SecretString::from(token.trim().to_owned());
        Ok(Self { upstream, endpoint, token, tenant: at.tenant.clone() })
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
        let query = self.tenant.as_ref().map(|tenant| format!("?tenant={tenant}")).unwrap_or_default();
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
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if answer.status.is_success() {
            return Ok(value);
        }
        let message = value.pointer("/error/message").and_then(Value::as_str);
        match (message, answer.headers.get("x-sallyport-code").and_then(|code| code.to_str().ok())) {
            (Some(message), Some(code)) => bail!("{message} ({code})"),
            (Some(message), None) => bail!("{message}"),
            _ => bail!("the gateway answered with {}", answer.status),
        }
    }
}
