//! Credentials of clouds in the secrets file: who the gateway is to Amazon, Google or Microsoft. What a request carries is made of them
//! where the gateway dials out (`upstream`); here is only what the operator said.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use self::aws::AwsCredential;
use self::azure::AzureCredential;
use self::gcp::GcpCredential;
use super::key::{ConfigBlock, ConfigKey, Form};
use super::report::Problem;
use super::secrets::{SecretFields, Tree};

pub(super) mod aws;
pub(super) mod azure;
pub(super) mod gcp;
pub(super) mod url;

/// An identity in a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudCredential {
    /// Its name in the secrets file.
    pub name: String,
    /// Whose identity it is.
    pub identity: CloudIdentity,
    fingerprint: [u8; 32],
}

/// The identity itself.
#[derive(Debug, Clone)]
pub enum CloudIdentity {
    /// Signs requests as AWS wants it.
    Aws(AwsCredential),
    /// Shows access tokens of Google Cloud.
    Gcp(GcpCredential),
    /// Shows access tokens of Microsoft Entra.
    Azure(AzureCredential),
}

const AWS: ConfigKey = ConfigKey::mapping("aws", &aws::BLOCK, "Signs requests (AWS Signature Version 4)");
const GCP: ConfigKey = ConfigKey::mapping("gcp", &gcp::BLOCK, "Shows an access token of Google Cloud");
const AZURE: ConfigKey =
    ConfigKey::mapping("azure", &azure::BLOCK, "Shows an access token of Microsoft Entra");

/// What an entry of the secrets file may be besides a text.
pub(super) const ENTRY: ConfigKey = ConfigKey::of(
    "secrets.yaml",
    Form::Mapping(&ConfigBlock {
        about: "An entry of the secrets file is a text, or a mapping with one of these keys. A route names it in `api_key_secret` and needs \
                no `api_key_form`: a credential of a cloud says itself how it is sent.",
        keys: &[AWS, GCP, AZURE],
        notes: "Wherever a secret is expected, it stands there itself or is `{ file: .. }`, `{ env: .. }` or `{ command: [..] }`. Relative \
                paths begin at the directory of the secrets file. Tokens of clouds are kept in memory alone and are fetched again ahead \
                of their end.",
    }),
    "",
);

// === impl CloudCredential ===

impl CloudCredential {
    /// The clouds, as they are written in the file.
    pub(super) const CLOUDS: [&str; 3] = [AWS.name, GCP.name, AZURE.name];

    /// Reads the mapping that stands at `path`.
    pub(super) fn read(
        name: &str,
        cloud: &str,
        tree: &Tree,
        path: &str,
        home: &Path,
    ) -> Result<Self, Vec<Problem>> {
        let identity = match cloud {
            "aws" => {
                CloudIdentity::Aws(AwsCredential::read(SecretFields::of(tree, &aws::BLOCK, path, home)?)?)
            }
            "gcp" => {
                CloudIdentity::Gcp(GcpCredential::read(SecretFields::of(tree, &gcp::BLOCK, path, home)?)?)
            }
            "azure" => CloudIdentity::Azure(AzureCredential::read(SecretFields::of(
                tree,
                &azure::BLOCK,
                path,
                home,
            )?)?),
            _ => return Err(vec![Problem::new(path, "is no cloud that the gateway knows")]),
        };
        Ok(Self::new(name.to_owned(), identity))
    }

    /// One of this name.
    pub fn new(name: String, identity: CloudIdentity) -> Self {
        let fingerprint = identity.fingerprint();
        Self { name, identity, fingerprint }
    }

    /// Changes with everything that is said of the identity, secrets included: what was fetched for one is not used for another.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whose it is, as it is written in the file.
    pub fn cloud(&self) -> &'static str {
        match &self.identity {
            CloudIdentity::Aws(_) => AWS.name,
            CloudIdentity::Gcp(_) => GCP.name,
            CloudIdentity::Azure(_) => AZURE.name,
        }
    }
}

// === impl CloudIdentity ===

impl CloudIdentity {
    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        // `Debug` shows everything but the secrets.
        hasher.update(format!("{self:?}"));
        let secrets = match self {
            Self::Aws(aws) => aws.secrets(),
            Self::Gcp(gcp) => gcp.secrets(),
            Self::Azure(azure) => azure.secrets(),
        };
        for secret in secrets {
            let secret: &SecretString = secret;
            hasher.update(Sha256::digest(secret.expose_secret()));
        }
        hasher.finalize().into()
    }
}

impl PartialEq for CloudIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Eq for CloudIdentity {}
