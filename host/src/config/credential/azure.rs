//! `azure:` of the secrets file: as which application access tokens of Microsoft Entra are fetched.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::super::report::Problem;
use super::super::secrets::SecretFields;
use super::url::TokenUrl;
use crate::assertion::{self, AssertionKey};

const TENANT_ID: ConfigKey =
    ConfigKey::text("tenant_id", "The directory: its id, or one of its domains").required();
const CLIENT_ID: ConfigKey = ConfigKey::text("client_id", "The application").required();
const CLIENT_SECRET: ConfigKey =
    ConfigKey::of("client_secret", Form::Secret, "Proves who asks by a secret of the application");
const CLIENT_CERTIFICATE: ConfigKey = ConfigKey::of(
    "client_certificate",
    Form::Secret,
    "Proves it by a certificate of the application: PEM with the certificate and its RSA key, `{ file: app.pem }`",
);
const FEDERATED_TOKEN_FILE: ConfigKey = ConfigKey::text(
    "federated_token_file",
    "Proves it by a token of another identity provider, as Kubernetes puts it into a file, which is read for each token",
);
const SCOPE: ConfigKey = ConfigKey::text(
    "scope",
    "What tokens are good for; `https://ai.azure.com/.default` where the resource is one of Foundry",
)
.or(Absent::Text("https://cognitiveservices.azure.com/.default"));
const AUTHORITY: ConfigKey =
    ConfigKey::text("authority", "The identity server, which is another one in national clouds")
        .or(Absent::Text("https://login.microsoftonline.com"));

/// The keys of `azure`.
pub(in crate::config) const BLOCK: ConfigBlock = ConfigBlock {
    about: "An application of Microsoft Entra: its access token is sent as bearer. Exactly one of `client_secret`, `client_certificate` \
            and `federated_token_file` proves who asks.",
    keys: &[TENANT_ID, CLIENT_ID, CLIENT_SECRET, CLIENT_CERTIFICATE, FEDERATED_TOKEN_FILE, SCOPE, AUTHORITY],
    notes: "",
};

/// As which application access tokens are fetched, and what for.
#[derive(Debug, Clone)]
pub struct AzureCredential {
    /// Where tokens are given out.
    pub token_url: TokenUrl,
    /// The application.
    pub client_id: String,
    /// What tokens are good for.
    pub scope: String,
    /// What proves who asks.
    pub proof: AzureProof,
}

/// What proves who asks.
#[derive(Debug, Clone)]
pub enum AzureProof {
    /// A secret of the application.
    Secret(SecretString),
    /// A certificate of the application.
    Certificate {
        /// Signs.
        key: AssertionKey,
        /// SHA-256 of the certificate, by which Entra finds it.
        thumbprint: [u8; 32],
    },
    /// A token in a file.
    TokenFile(PathBuf),
}

// === impl AzureCredential ===

impl AzureCredential {
    pub(super) fn read(fields: SecretFields<'_>) -> Result<Self, Vec<Problem>> {
        let kind = fields.one_of([&CLIENT_SECRET, &CLIENT_CERTIFICATE, &FEDERATED_TOKEN_FILE]);
        let tenant = fields.parsed(&TENANT_ID, directory);
        let client_id = fields.text(&CLIENT_ID);
        let scope = fields.text(&SCOPE);
        let authority = fields.parsed(&AUTHORITY, TokenUrl::parse);
        let proof = match kind {
            Some(0) => fields.secret(&CLIENT_SECRET).map(AzureProof::Secret),
            Some(1) => fields.secret(&CLIENT_CERTIFICATE).and_then(|pem| {
                certificate(&pem).map_err(|error| fields.fail_at(&CLIENT_CERTIFICATE, error.to_string())).ok()
            }),
            Some(2) => fields.file(&FEDERATED_TOKEN_FILE).map(AzureProof::TokenFile),
            _ => None,
        };
        let token_url = tenant
            .zip(authority)
            .and_then(|(tenant, authority)| authority.below(&format!("/{tenant}/oauth2/v2.0/token")));
        let made = token_url.zip(client_id).zip(scope).zip(proof);
        fields.finish(made.map(|(((token_url, client_id), scope), proof)| Self {
            token_url,
            client_id,
            scope,
            proof,
        }))
    }

    /// Everything that `Debug` does not show, but for keys: their certificates' digests are shown.
    pub(super) fn secrets(&self) -> Vec<&SecretString> {
        match &self.proof {
            AzureProof::Secret(secret) => vec![secret],
            AzureProof::Certificate { .. } | AzureProof::TokenFile(_) => Vec::new(),
        }
    }
}

// === private helpers ===

fn certificate(pem: &SecretString) -> Result<AzureProof, assertion::AssertionKeyError> {
    let key = AssertionKey::parse(pem.expose_secret())?;
    let certificate = assertion::certificate(pem.expose_secret())?;
    Ok(AzureProof::Certificate { key, thumbprint: Sha256::digest(certificate).into() })
}

fn directory(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if text.bytes().all(plain) && !text.starts_with('.') {
        Ok(text.to_owned())
    } else {
        Err("is neither an id nor a domain of a directory")
    }
}
