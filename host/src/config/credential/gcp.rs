//! `gcp:` of the secrets file: as whom access tokens of Google Cloud are fetched.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::super::report::Problem;
use super::super::secrets::SecretFields;
use super::url::TokenUrl;
use crate::assertion::AssertionKey;

/// Longest file of a workload identity.
const MAX_FILE: u64 = 64 * 1024;
/// Where tokens come from, unless the key's file says otherwise.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

const SERVICE_ACCOUNT_KEY: ConfigKey = ConfigKey::of(
    "service_account_key",
    Form::Secret,
    "The JSON key of a service account, as Google gives it out: `{ file: key.json }`",
);
const WORKLOAD_IDENTITY_FILE: ConfigKey = ConfigKey::text(
    "workload_identity_file",
    "The JSON configuration of a workload identity federation whose `credential_source` is a file; that file is read for each token",
);
const METADATA_SERVER: ConfigKey = ConfigKey::of(
    "metadata_server",
    Form::Flag,
    "`true`: tokens come from the metadata server of the machine. Nothing but this key makes the gateway ask it",
);
const METADATA_ENDPOINT: ConfigKey =
    ConfigKey::text("metadata_endpoint", "Where that is, with `metadata_server`")
        .or(Absent::Text("http://169.254.169.254"));
const SERVICE_ACCOUNT: ConfigKey =
    ConfigKey::text("service_account", "Which account of the machine, with `metadata_server`")
        .or(Absent::Text("default"));
const SCOPE: ConfigKey = ConfigKey::text("scope", "What tokens are good for")
    .or(Absent::Text("https://www.googleapis.com/auth/cloud-platform"));

/// The keys of `gcp`.
pub(in crate::config) const BLOCK: ConfigBlock = ConfigBlock {
    about: "A Google Cloud identity: its access token is sent as bearer. Exactly one of `service_account_key`, `workload_identity_file` \
            and `metadata_server` says where it comes from.",
    keys: &[
        SERVICE_ACCOUNT_KEY,
        WORKLOAD_IDENTITY_FILE,
        METADATA_SERVER,
        METADATA_ENDPOINT,
        SERVICE_ACCOUNT,
        SCOPE,
    ],
    notes: "",
};

/// As whom access tokens are fetched, and what for.
#[derive(Debug, Clone)]
pub struct GcpCredential {
    /// What tokens are good for.
    pub scope: String,
    /// Where they come from.
    pub source: GcpSource,
}

/// Where access tokens come from.
#[derive(Debug, Clone)]
pub enum GcpSource {
    /// From Google, for an assertion that a key of the account signs.
    ServiceAccount(ServiceAccount),
    /// From Google, for a token of another identity provider.
    WorkloadIdentity(WorkloadIdentity),
    /// From the machine's metadata server.
    Metadata {
        /// Where it answers.
        url: TokenUrl,
    },
}

/// A service account and its key.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    /// Who it is.
    pub email: String,
    /// Names the key to Google.
    pub key_id: Option<String>,
    /// Signs.
    pub key: AssertionKey,
    /// Where tokens are given out.
    pub token_url: TokenUrl,
    text: SecretString,
}

/// A workload that another identity provider knows
/// (<https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers>).
#[derive(Debug, Clone)]
pub struct WorkloadIdentity {
    /// The provider in the workload identity pool.
    pub audience: String,
    /// What kind of token the other provider gives out.
    pub subject_token_type: String,
    /// Where that token is.
    pub subject_token_file: PathBuf,
    /// The field of the file that holds it, where the file is JSON.
    pub subject_token_field: Option<String>,
    /// Where it is exchanged.
    pub token_url: TokenUrl,
    /// Where what it was exchanged for is exchanged once more, for the token of a service account.
    pub impersonation_url: Option<TokenUrl>,
}

/// The key's file. Other fields say nothing that is needed.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct ExternalAccount {
    #[serde(rename = "type")]
    kind: String,
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: CredentialSource,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    format: Option<TokenFormat>,
}

#[derive(Deserialize)]
struct TokenFormat {
    #[serde(rename = "type")]
    kind: String,
    subject_token_field_name: Option<String>,
}

// === impl GcpCredential ===

impl GcpCredential {
    pub(super) fn read(fields: SecretFields<'_>) -> Result<Self, Vec<Problem>> {
        let kind = fields.one_of([&SERVICE_ACCOUNT_KEY, &WORKLOAD_IDENTITY_FILE, &METADATA_SERVER]);
        fields.only_with(&METADATA_SERVER, &[&METADATA_ENDPOINT, &SERVICE_ACCOUNT]);
        let scope = fields.text(&SCOPE);
        let source = match kind {
            Some(0) => fields
                .secret(&SERVICE_ACCOUNT_KEY)
                .and_then(|text| {
                    let read = ServiceAccount::read(text);
                    read.map_err(|message| fields.fail_at(&SERVICE_ACCOUNT_KEY, message)).ok()
                })
                .map(GcpSource::ServiceAccount),
            Some(1) => fields
                .text(&WORKLOAD_IDENTITY_FILE)
                .and_then(|file| {
                    let read = WorkloadIdentity::load(&fields.home().join(file));
                    read.map_err(|message| fields.fail_at(&WORKLOAD_IDENTITY_FILE, message)).ok()
                })
                .map(GcpSource::WorkloadIdentity),
            Some(2) => metadata(&fields).map(|url| GcpSource::Metadata { url }),
            _ => None,
        };
        fields.finish(scope.zip(source).map(|(scope, source)| Self { scope, source }))
    }

    /// Everything that `Debug` does not show.
    pub(super) fn secrets(&self) -> Vec<&SecretString> {
        match &self.source {
            GcpSource::ServiceAccount(account) => vec![&account.text],
            GcpSource::WorkloadIdentity(_) | GcpSource::Metadata { .. } => Vec::new(),
        }
    }
}

// === impl ServiceAccount ===

impl ServiceAccount {
    /// Reads a key's file. Errors: what is wrong, without its text.
    fn read(text: SecretString) -> Result<Self, String> {
        let file: KeyFile = serde_json::from_str(text.expose_secret()).map_err(
            |_| "is no JSON key of a service account: type, client_email and private_key are needed",
        )?;
        let private_key = SecretString::from(file.private_key);
        if file.kind != "service_account" {
            return Err("is a key file of another type than service_account".to_owned());
        }
        let token_url = TokenUrl::parse(file.token_uri.as_deref().unwrap_or(TOKEN_URL))
            .map_err(|error| format!("token_uri {error}"))?;
        let key = AssertionKey::parse(private_key.expose_secret())
            .map_err(|error| format!("private_key {error}"))?;
        Ok(Self { email: file.client_email, key_id: file.private_key_id, key, token_url, text })
    }
}

// === impl WorkloadIdentity ===

impl WorkloadIdentity {
    fn load(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let size = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
        if size > MAX_FILE {
            return Err(format!("{shown} is longer than {MAX_FILE} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
        let file: ExternalAccount = serde_json::from_str(&text).map_err(|_| {
            format!("{shown} is no configuration of a workload identity: audience, subject_token_type, token_url and credential_source are needed")
        })?;
        if file.kind != "external_account" {
            return Err(format!("{shown} is of another type than external_account"));
        }
        let CredentialSource { file: Some(token), format } = file.credential_source else {
            return Err(format!(
                "{shown} takes its token from something other than a file, which the gateway does not"
            ));
        };
        let subject_token_field = match format {
            None => None,
            Some(format) if format.kind == "text" => None,
            Some(format) if format.kind == "json" => match format.subject_token_field_name {
                Some(name) => Some(name),
                None => return Err(format!("{shown} names no subject_token_field_name")),
            },
            Some(_) => {
                return Err(format!("{shown} has a credential_source.format that is neither text nor json"));
            }
        };
        let url = |name: &str, text: &str| {
            TokenUrl::parse(text).map_err(|error| format!("{name} of {shown} {error}"))
        };
        let impersonation_url = file
            .service_account_impersonation_url
            .map(|text| url("service_account_impersonation_url", &text))
            .transpose()?;
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        Ok(Self {
            audience: file.audience,
            subject_token_type: file.subject_token_type,
            subject_token_file: directory.join(token),
            subject_token_field,
            token_url: url("token_url", &file.token_url)?,
            impersonation_url,
        })
    }
}

// === private helpers ===

/// Where the metadata server gives out tokens
/// (<https://cloud.google.com/compute/docs/access/authenticate-workloads#applications>).
fn metadata(fields: &SecretFields<'_>) -> Option<TokenUrl> {
    fields.granted(&METADATA_SERVER)?;
    let account = fields.parsed(&SERVICE_ACCOUNT, |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        if text.bytes().all(plain) { Ok(text.to_owned()) } else { Err("is no name of a service account") }
    })?;
    let endpoint = fields.parsed(&METADATA_ENDPOINT, TokenUrl::parse)?;
    endpoint.below(&format!("/computeMetadata/v1/instance/service-accounts/{account}/token"))
}
