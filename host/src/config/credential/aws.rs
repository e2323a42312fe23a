//! `aws:` of the secrets file: as whom requests are signed.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::super::report::Problem;
use super::super::secrets::SecretFields;
use super::url::TokenUrl;
use crate::modes;

/// Longest profile file that is read.
const MAX_PROFILES: u64 = 1024 * 1024;

const SERVICE: ConfigKey =
    ConfigKey::text("service", "The service's name in signatures").or(Absent::Text("bedrock"));
const ACCESS_KEY_ID: ConfigKey = ConfigKey::text("access_key_id", "Signs with a key of its own: its id");
const SECRET_ACCESS_KEY: ConfigKey =
    ConfigKey::of("secret_access_key", Form::Secret, "The key itself; needed with `access_key_id`");
const SESSION_TOKEN: ConfigKey =
    ConfigKey::of("session_token", Form::Secret, "Beside a key that was given out for a while");
const PROFILE: ConfigKey = ConfigKey::text(
    "profile",
    "Signs with the key of a profile: its name. The profile is read at the start and at `SIGHUP`, and has to hold a key itself: no \
     `source_profile`, `credential_process` or `sso_session`",
);
const PROFILE_FILE: ConfigKey =
    ConfigKey::text("profile_file", "The file of profiles, which nobody else may read")
        .or(Absent::Derived("`~/.aws/credentials`"));

const ROLE_ARN: ConfigKey = ConfigKey::text(
    "role_arn",
    "Signs with keys that STS gives out for a role, for the token of another identity provider (`AssumeRoleWithWebIdentity`)",
);
const WEB_IDENTITY_TOKEN_FILE: ConfigKey = ConfigKey::text(
    "web_identity_token_file",
    "The file with that token, which is read whenever keys are fetched; needed with `role_arn`",
);
const SESSION_NAME: ConfigKey =
    ConfigKey::text("session_name", "What the role's session is called in AWS's logs")
        .or(Absent::Text("sallyport"));
const STS_ENDPOINT: ConfigKey = ConfigKey::text(
    "sts_endpoint",
    "Where STS answers, with `role_arn`; one of your region is nearer: `https://sts.eu-central-1.amazonaws.com`",
)
.or(Absent::Text("https://sts.amazonaws.com"));
const INSTANCE_METADATA: ConfigKey = ConfigKey::of(
    "instance_metadata",
    Form::Flag,
    "`true`: signs with the keys of the machine's own role, from its metadata service (IMDSv2). Nothing but this key makes the gateway ask it",
);
const METADATA_ENDPOINT: ConfigKey =
    ConfigKey::text("metadata_endpoint", "Where that is, with `instance_metadata`")
        .or(Absent::Text("http://169.254.169.254"));

/// The keys of `aws`.
pub(in crate::config) const BLOCK: ConfigBlock = ConfigBlock {
    about: "An AWS identity. Requests of its routes are signed for the region that the endpoint's name says \
            (`bedrock-runtime.eu-central-1.amazonaws.com`), or else for the route's `region`. Exactly one of `access_key_id`, \
            `profile`, `role_arn` and `instance_metadata` says where the keys come from.",
    keys: &[
        SERVICE,
        ACCESS_KEY_ID,
        SECRET_ACCESS_KEY,
        SESSION_TOKEN,
        PROFILE,
        PROFILE_FILE,
        ROLE_ARN,
        WEB_IDENTITY_TOKEN_FILE,
        SESSION_NAME,
        STS_ENDPOINT,
        INSTANCE_METADATA,
        METADATA_ENDPOINT,
    ],
    notes: "",
};

/// As whom requests are signed, and for which service.
#[derive(Debug, Clone)]
pub struct AwsCredential {
    /// The service's name in signatures.
    pub service: String,
    /// Where keys come from.
    pub source: AwsSource,
}

/// Where the keys that sign come from.
#[derive(Debug, Clone)]
pub enum AwsSource {
    /// They are known.
    Keys(AwsKeys),
    /// From STS, for the token of another identity provider.
    WebIdentity {
        /// The role.
        role_arn: String,
        /// What its session is called.
        session_name: String,
        /// Where the token is.
        token_file: PathBuf,
        /// Where STS answers.
        sts: TokenUrl,
    },
    /// From the metadata service of the machine.
    Metadata {
        /// Where it answers.
        url: TokenUrl,
    },
}

/// Keys that sign.
#[derive(Debug, Clone)]
pub struct AwsKeys {
    /// Names the key to AWS.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: SecretString,
    /// Is sent beside the signature, where the key was given out for a while.
    pub session_token: Option<SecretString>,
}

// === impl AwsCredential ===

impl AwsCredential {
    pub(super) fn read(fields: SecretFields<'_>) -> Result<Self, Vec<Problem>> {
        let service = fields.parsed(&SERVICE, service);
        let kind = fields.one_of([&ACCESS_KEY_ID, &PROFILE, &ROLE_ARN, &INSTANCE_METADATA]);
        fields.only_with(&ACCESS_KEY_ID, &[&SECRET_ACCESS_KEY, &SESSION_TOKEN]);
        fields.only_with(&PROFILE, &[&PROFILE_FILE]);
        fields.only_with(&ROLE_ARN, &[&WEB_IDENTITY_TOKEN_FILE, &SESSION_NAME, &STS_ENDPOINT]);
        fields.only_with(&INSTANCE_METADATA, &[&METADATA_ENDPOINT]);
        let source = match kind {
            Some(0) => keys(&fields).map(AwsSource::Keys),
            Some(1) => profile(&fields).map(AwsSource::Keys),
            Some(2) => web_identity(&fields),
            Some(3) => {
                let url = fields.parsed(&METADATA_ENDPOINT, TokenUrl::parse);
                fields.granted(&INSTANCE_METADATA).and(url).map(|url| AwsSource::Metadata { url })
            }
            _ => None,
        };
        fields.finish(service.zip(source).map(|(service, source)| Self { service, source }))
    }

    /// Everything that `Debug` does not show.
    pub(super) fn secrets(&self) -> Vec<&SecretString> {
        match &self.source {
            AwsSource::Keys(keys) => {
                [&keys.secret_access_key].into_iter().chain(&keys.session_token).collect()
            }
            AwsSource::WebIdentity { .. } | AwsSource::Metadata { .. } => Vec::new(),
        }
    }
}

// === private helpers ===

fn web_identity(fields: &SecretFields<'_>) -> Option<AwsSource> {
    let role_arn = fields.parsed(&ROLE_ARN, |text| {
        let plain = text.starts_with("arn:")
            && text.len() <= 2048
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if plain { Ok(text.to_owned()) } else { Err("is no ARN of a role") }
    });
    if !fields.has(&WEB_IDENTITY_TOKEN_FILE) {
        fields.fail_at(&WEB_IDENTITY_TOKEN_FILE, "is missing");
        return None;
    }
    let token_file = fields.file(&WEB_IDENTITY_TOKEN_FILE);
    // <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>: what a session's name is made of.
    let session_name = fields.parsed(&SESSION_NAME, |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_=,.@-".contains(&byte);
        if (2..=64).contains(&text.len()) && text.bytes().all(plain) {
            Ok(text.to_owned())
        } else {
            Err("is no name of a session: 2 to 64 letters, digits and _=,.@-")
        }
    });
    let sts = fields.parsed(&STS_ENDPOINT, TokenUrl::parse);
    Some(AwsSource::WebIdentity {
        role_arn: role_arn?,
        session_name: session_name?,
        token_file: token_file?,
        sts: sts?,
    })
}

fn keys(fields: &SecretFields<'_>) -> Option<AwsKeys> {
    let access_key_id = fields.parsed(&ACCESS_KEY_ID, key_id);
    let secret_access_key = fields.secret(&SECRET_ACCESS_KEY);
    let session_token = if fields.has(&SESSION_TOKEN) { Some(fields.secret(&SESSION_TOKEN)?) } else { None };
    Some(AwsKeys { access_key_id: access_key_id?, secret_access_key: secret_access_key?, session_token })
}

fn profile(fields: &SecretFields<'_>) -> Option<AwsKeys> {
    let name = fields.text(&PROFILE)?;
    let file = if fields.has(&PROFILE_FILE) {
        fields.home().join(fields.text(&PROFILE_FILE)?)
    } else {
        std::env::home_dir().unwrap_or_default().join(".aws/credentials")
    };
    profile_in(&file, &name).map_err(|message| fields.fail_at(&PROFILE, message)).ok()
}

/// The keys of a profile, as AWS's own tools write it: `[name]`, or `[profile name]`, and lines of `key = value`
/// (<https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>).
fn profile_in(file: &Path, name: &str) -> Result<AwsKeys, String> {
    let text = modes::read_private(file, 0o037, MAX_PROFILES)?;
    let shown = file.display();
    let (mut found, mut inside) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let title = title.0.trim();
            inside = title == name || title.strip_prefix("profile ").is_some_and(|it| it.trim() == name);
            found |= inside;
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
        let value = value.trim();
        match key.trim() {
            "aws_access_key_id" => id = Some(value.to_owned()),
            "aws_secret_access_key" => secret = Some(SecretString::from(value)),
            "aws_session_token" => token = Some(SecretString::from(value)),
            _ => {}
        }
    }
    if !found {
        return Err(format!("{shown} has no such profile"));
    }
    let missing = |key: &str| format!("the profile in {shown} holds no {key}");
    let access_key_id = key_id(&id.ok_or_else(|| missing("aws_access_key_id"))?)?;
    let secret_access_key =
        secret.filter(|it| !it.expose_secret().is_empty()).ok_or_else(|| missing("aws_secret_access_key"))?;
    Ok(AwsKeys { access_key_id, secret_access_key, session_token: token })
}

/// The id stands in a header, between commas and slashes.
fn key_id(text: &str) -> Result<String, String> {
    let plain = (16..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain.then(|| text.to_owned()).ok_or_else(|| "is no id of an access key".to_owned())
}

fn service(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.len() <= 64 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("is no name of a service")
    }
}
