//! The rules by name, and the shapes of the keys that a prefix gives away.

use crate::Response;

/// A kind of secret. The names are stable: they stand in configurations and audit rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    AwsAccessKey,
    AwsSecretKey,
    GithubToken,
    GithubFineGrained,
    GitlabToken,
    SlackToken,
    SlackWebhook,
    StripeKey,
    GoogleApiKey,
    AnthropicKey,
    OpenaiKey,
    SallyportPat,
    NpmToken,
    PrivateKey,
    Jwt,
    DsnPassword,
    CreditCard,
    GenericSecret,
}

/// A key that begins with a fixed text and goes on in one alphabet.
pub(crate) struct Shape {
    pub(crate) rule: Rule,
    pub(crate) prefix: &'static str,
    pub(crate) alphabet: Alphabet,
    /// How many characters follow the prefix.
    pub(crate) length: std::ops::RangeInclusive<usize>,
    /// The prefix is short enough to be the end of a word: nothing of a word may stand before it.
    pub(crate) alone: bool,
}

/// Which characters a key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// `A-Z0-9`
    Upper,
    /// `A-Za-z0-9`
    Alnum,
    /// `A-Za-z0-9_`
    Word,
    /// `A-Za-z0-9_-`
    Url,
    /// `A-Za-z0-9/`
    Path,
}

/// Longer than any key: the upper end of the shapes whose issuers do not promise a length.
const LONG: usize = 512;

/// Where several shapes share a beginning, the longer prefix stands first.
pub(crate) const SHAPES: &[Shape] = &[
    shape(Rule::AwsAccessKey, "AKIA", Alphabet::Upper, 16, 16),
    shape(Rule::AwsAccessKey, "ASIA", Alphabet::Upper, 16, 16),
    shape(Rule::AwsAccessKey, "ABIA", Alphabet::Upper, 16, 16),
    shape(Rule::AwsAccessKey, "ACCA", Alphabet::Upper, 16, 16),
    shape(Rule::GithubToken, "ghp_", Alphabet::Alnum, 36, 255),
    shape(Rule::GithubToken, "gho_", Alphabet::Alnum, 36, 255),
    shape(Rule::GithubToken, "ghu_", Alphabet::Alnum, 36, 255),
    shape(Rule::GithubToken, "ghs_", Alphabet::Alnum, 36, 255),
    shape(Rule::GithubToken, "ghr_", Alphabet::Alnum, 36, 255),
    shape(Rule::GithubFineGrained, "github_pat_", Alphabet::Word, 60, 255),
    shape(Rule::GitlabToken, "glpat-", Alphabet::Url, 20, 300),
    shape(Rule::SlackToken, "xoxb-", Alphabet::Url, 20, 255),
    shape(Rule::SlackToken, "xoxp-", Alphabet::Url, 20, 255),
    shape(Rule::SlackToken, "xoxa-", Alphabet::Url, 20, 255),
    shape(Rule::SlackToken, "xoxr-", Alphabet::Url, 20, 255),
    shape(Rule::SlackToken, "xoxs-", Alphabet::Url, 20, 255),
    shape(Rule::SlackToken, "xapp-", Alphabet::Url, 20, 255),
    shape(Rule::SlackWebhook, "hooks.slack.com/services/", Alphabet::Path, 40, 80),
    shape(Rule::StripeKey, "sk_live_", Alphabet::Alnum, 20, 255),
    shape(Rule::StripeKey, "rk_live_", Alphabet::Alnum, 20, 255),
    shape(Rule::StripeKey, "whsec_", Alphabet::Alnum, 32, 64),
    shape(Rule::GoogleApiKey, "AIza", Alphabet::Url, 35, 35),
    shape(Rule::AnthropicKey, "sk-ant-", Alphabet::Url, 40, LONG),
    shape(Rule::OpenaiKey, "sk-proj-", Alphabet::Url, 40, LONG),
    shape(Rule::OpenaiKey, "sk-svcacct-", Alphabet::Url, 40, LONG),
    shape(Rule::OpenaiKey, "sk-admin-", Alphabet::Url, 40, LONG),
    Shape { alone: true, ..shape(Rule::OpenaiKey, "sk-", Alphabet::Alnum, 48, 48) },
    shape(Rule::SallyportPat, "sp_pat_", Alphabet::Url, 40, 128),
    shape(Rule::NpmToken, "npm_", Alphabet::Alnum, 36, 36),
];

// === impl Rule ===

impl Rule {
    pub(crate) const ALL: [Self; 18] = [
        Self::AwsAccessKey,
        Self::AwsSecretKey,
        Self::GithubToken,
        Self::GithubFineGrained,
        Self::GitlabToken,
        Self::SlackToken,
        Self::SlackWebhook,
        Self::StripeKey,
        Self::GoogleApiKey,
        Self::AnthropicKey,
        Self::OpenaiKey,
        Self::SallyportPat,
        Self::NpmToken,
        Self::PrivateKey,
        Self::Jwt,
        Self::DsnPassword,
        Self::CreditCard,
        Self::GenericSecret,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AwsAccessKey => "aws_access_key",
            Self::AwsSecretKey => "aws_secret_key",
            Self::GithubToken => "github_token",
            Self::GithubFineGrained => "github_fine_grained_token",
            Self::GitlabToken => "gitlab_token",
            Self::SlackToken => "slack_token",
            Self::SlackWebhook => "slack_webhook",
            Self::StripeKey => "stripe_key",
            Self::GoogleApiKey => "google_api_key",
            Self::AnthropicKey => "anthropic_key",
            Self::OpenaiKey => "openai_key",
            Self::SallyportPat => "sallyport_pat",
            Self::NpmToken => "npm_token",
            Self::PrivateKey => "private_key",
            Self::Jwt => "jwt",
            Self::DsnPassword => "dsn_password",
            Self::CreditCard => "credit_card",
            Self::GenericSecret => "generic_secret",
        }
    }

    /// What happens about it where the configuration does not say.
    pub(crate) fn usual(self) -> Response {
        match self {
            Self::Jwt | Self::GenericSecret => Response::Flag,
            _ => Response::Deny,
        }
    }
}

// === impl Alphabet ===

impl Alphabet {
    pub(crate) fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Path => byte.is_ascii_alphanumeric() || byte == b'/',
        }
    }
}

const fn shape(rule: Rule, prefix: &'static str, alphabet: Alphabet, least: usize, most: usize) -> Shape {
    Shape { rule, prefix, alphabet, length: least..=most, alone: false }
}
