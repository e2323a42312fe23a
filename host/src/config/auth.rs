//! The `auth:` block: whose tokens the gateway issues and accepts.

use serde_json::{Value, json};

use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
use super::node::{Node, Section};
use super::secrets::Secrets;
use super::server::Server;
use super::{client_documents, oidc};
use crate::auth::{AuthSettings, Tier};
use crate::tls::{ClientAuth, ListenerName, TlsSettings};

const ISSUER: ConfigKey =
    ConfigKey::text("issuer", "`iss` of the gateway's tokens").or(Absent::Derived("`server.public_url`"));
const AUDIENCE: ConfigKey =
    ConfigKey::text("audience", "`aud` of the gateway's tokens").or(Absent::Text("cowork"));
const TTL: ConfigKey = ConfigKey::number("ttl_seconds", &(60..=3_600), 3_600, "Life of a token");

const TIERS: ConfigKey = ConfigKey::list(
    "tiers",
    &Form::Choice(tier_names),
    "How users may prove who they are before they are given a token: `pat` is a personal access token, `session` a sign-in in a browser, `mtls` a \
     certificate of the device, which takes [`tls.client_ca`](#tls) and `tls.client_certificates.public`. Tokens of a tier that is left out are refused",
)
.or(Absent::Derived("`pat` and `session`, and `mtls` where clients are asked for certificates on `server.listen`"));

const REGISTRATION: ConfigKey = ConfigKey::flag(
    "open_registration",
    "Whether OAuth clients may register themselves without being asked who they are (RFC 7591): MCP clients do. They may ask for `inference` and \
     `openid` alone, the consent page says that nobody looked at them, and those that were granted nothing are forgotten after a day",
);

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "auth",
    &ConfigBlock {
        about: "What the gateway's tokens say.",
        keys: &[ISSUER, AUDIENCE, TTL, TIERS, REGISTRATION, client_documents::KEY, oidc::KEY],
        notes: "",
    },
    "What the gateway's tokens say",
);

/// Reads the block.
pub(super) fn read(
    top: &Section<'_>,
    server: &Server,
    tls: Option<&TlsSettings>,
    secrets: &Secrets,
) -> AuthSettings {
    let section = top.block(&KEY);
    let mut settings = AuthSettings::new(section.text(&ISSUER).unwrap_or_else(|| server.public_url.clone()));
    if let Some(audience) = section.text(&AUDIENCE) {
        settings.audience = audience;
    }
    settings.ttl = section.seconds(&TTL);
    settings.registration = section.flag(&REGISTRATION);
    settings.documents = client_documents::read(&section);
    settings.providers = oidc::read(&section, secrets);
    let asks = tls.is_some_and(|tls| {
        tls.covers(ListenerName::Public) && tls.clients.of(ListenerName::Public) != ClientAuth::Off
    });
    settings.tiers = match section.get(&TIERS) {
        None => Tier::ALL.into_iter().filter(|tier| *tier != Tier::Mtls || asks).collect(),
        Some(list) => {
            let tiers: Vec<Tier> = list.items().iter().filter_map(Node::choice::<Tier>).collect();
            if tiers.is_empty() {
                list.error("leaves nobody a way to sign in");
            }
            if tiers.contains(&Tier::Mtls) && !asks {
                list.error("has mtls, and tls.client_certificates.public asks nobody for a certificate");
            }
            tiers
        }
    };
    settings
}

/// As `sallyport config show` prints it.
pub(super) fn show(settings: &AuthSettings) -> Value {
    json!({
        "issuer": settings.issuer,
        "audience": settings.audience,
        "ttl_seconds": settings.ttl.as_secs(),
        "open_registration": settings.registration,
        "client_documents": settings.documents.as_ref().map(client_documents::show),
        "tiers": settings.tiers.iter().map(|tier| tier.as_str()).collect::<Vec<_>>(),
        "providers": settings.providers.iter().map(|it| oidc::show(it)).collect::<Vec<_>>(),
    })
}

fn tier_names() -> Vec<&'static str> {
    Tier::ALL.iter().map(|tier| tier.as_str()).collect()
}

impl Word for Tier {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}
