//! The `tls:` block: the certificate that the gateway shows, on which listeners, and whose certificates it takes.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
use super::node::{Node, Section};
use crate::tls::{self, ClientAuth, ClientSettings, ListenerName, TlsSettings};

const DAY: Duration = Duration::from_hours(24);

const CERTIFICATE: ConfigKey = ConfigKey::text(
    "certificate",
    "PEM file with the gateway's certificate, and behind it those that lead to an authority which clients know",
)
.required();
const PRIVATE_KEY: ConfigKey =
    ConfigKey::text("key", "PEM file with the private key of that certificate; mode at most 0640").required();
const LISTENERS: ConfigKey = ConfigKey::list(
    "listeners",
    &Form::Choice(names),
    "Which listeners speak TLS: `public` is `server.listen`, `admin` is `server.admin_listen`, `metrics` is `server.metrics_listen`. Fixed for the life of the process",
)
.or(Absent::Derived("all"));
const WARNING_DAYS: ConfigKey = ConfigKey::number(
    "warning_days",
    &(0..=3650),
    14,
    "So many days before the certificate ends, the log begins to warn of it",
);

const CLIENT_CA: ConfigKey =
    ConfigKey::text("client_ca", "PEM file with the authorities whose certificates are taken from clients");
const CLIENT_CRLS: ConfigKey = ConfigKey::list(
    "client_crls",
    &Form::Text,
    "PEM files with lists of what these authorities revoked. If there is one, there has to be one for each authority in a client's chain, \
     and after the end of a list no certificate is taken",
);
const PUBLIC_AUTH: ConfigKey =
    ConfigKey::choice::<ClientAuth>("public", "On `server.listen`").or_default::<ClientAuth>();
const ADMIN_AUTH: ConfigKey =
    ConfigKey::choice::<ClientAuth>("admin", "On `server.admin_listen`").or_default::<ClientAuth>();
const METRICS_AUTH: ConfigKey =
    ConfigKey::choice::<ClientAuth>("metrics", "On `server.metrics_listen`").or_default::<ClientAuth>();
const CLIENT_CERTIFICATES: ConfigBlock = ConfigBlock {
    about: "Whether clients are asked for a certificate: `off`; `request`, where a client may have none; `require`, where it has to have one. A certificate \
            that cannot be verified ends the handshake in both. One that is taken says nothing of who calls: a credential is needed besides, or it is exchanged for one.",
    keys: &[PUBLIC_AUTH, ADMIN_AUTH, METRICS_AUTH],
    notes: "",
};
const ASKED: ConfigKey = ConfigKey::mapping(
    "client_certificates",
    &CLIENT_CERTIFICATES,
    "Whether clients are asked for a certificate, by listener",
);

const TLS: ConfigBlock = ConfigBlock {
    about: "The certificate of the gateway. With this block its listeners speak TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1; without it they speak in \
            clear. Files that change are taken over within seconds, and by `SIGHUP`: connections that come from then on see the new \
            certificate. Files that cannot be used change nothing, leave a warning, and make `/ready` say `degraded`.",
    keys: &[CERTIFICATE, PRIVATE_KEY, LISTENERS, WARNING_DAYS, CLIENT_CA, CLIENT_CRLS, ASKED],
    notes: "",
};

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping("tls", &TLS, "The certificate of the gateway");

/// Reads the block, and the files that it names.
pub(super) fn read(top: &Section<'_>, home: &Path) -> Option<TlsSettings> {
    let node = top.get(&KEY)?;
    let section = node.section(&TLS);
    let file = |key| Some(home.join(section.required(key)?.text()?));
    let (certificate, key) = (file(&CERTIFICATE), file(&PRIVATE_KEY));
    let listeners = match section.get(&LISTENERS) {
        Some(list) => list.items().iter().filter_map(Node::choice::<ListenerName>).collect(),
        None => ListenerName::ALL.to_vec(),
    };
    let days = section.number::<u32>(&WARNING_DAYS);
    let clients = clients(&section, home, &listeners);
    let settings =
        TlsSettings { certificate: certificate?, key: key?, listeners, warn_before: DAY * days, clients };
    for problem in tls::check(&settings) {
        node.error_below(&format!(".{}", problem.key), problem.message);
    }
    Some(settings)
}

fn clients(section: &Section<'_>, home: &Path, listeners: &[ListenerName]) -> ClientSettings {
    let ca_node = section.get(&CLIENT_CA);
    let ca = ca_node.as_ref().and_then(|node| Some(home.join(node.text()?)));
    let lists = section.items(&CLIENT_CRLS);
    let asked = section.block(&ASKED);
    let clients = ClientSettings {
        ca,
        crls: lists.iter().filter_map(|item| Some(home.join(item.text()?))).collect(),
        public: asked.choice(&PUBLIC_AUTH),
        admin: asked.choice(&ADMIN_AUTH),
        metrics: asked.choice(&METRICS_AUTH),
    };
    let mut nobody = true;
    let keys = [&PUBLIC_AUTH, &ADMIN_AUTH, &METRICS_AUTH].into_iter().zip(ListenerName::ALL.iter().copied());
    for (key, name) in keys {
        let Some(node) = asked.get(key).filter(|_| clients.of(name) != ClientAuth::Off) else { continue };
        nobody = false;
        if ca_node.is_none() {
            node.error("needs tls.client_ca: the authorities whose certificates are taken");
        }
        if !listeners.contains(&name) {
            node.error("is about a listener that does not speak TLS (tls.listeners)");
        }
    }
    if let Some(node) = ca_node.as_ref().filter(|_| nobody) {
        node.warn("is not used: tls.client_certificates asks nobody for a certificate");
    }
    if let Some(list) = lists.first().filter(|_| ca_node.is_none()) {
        list.error("needs tls.client_ca: the authorities that made the list");
    }
    clients
}

/// As `sallyport config show` prints it.
pub(super) fn show(settings: &TlsSettings) -> Value {
    json!({
        "certificate": settings.certificate,
        "key": settings.key,
        "listeners": settings.listeners.iter().map(|name| name.word()).collect::<Vec<_>>(),
        "warning_days": settings.warn_before.as_secs() / DAY.as_secs(),
        "client_ca": settings.clients.ca,
        "client_crls": settings.clients.crls,
        "client_certificates": {
            "public": settings.clients.public.word(),
            "admin": settings.clients.admin.word(),
            "metrics": settings.clients.metrics.word(),
        },
    })
}

fn names() -> Vec<&'static str> {
    ListenerName::ALL.iter().map(|name| name.word()).collect()
}

impl Word for ListenerName {
    const ALL: &'static [Self] = &[Self::Public, Self::Admin, Self::Metrics];

    fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

impl Word for ClientAuth {
    const ALL: &'static [Self] = &[Self::Off, Self::Request, Self::Require];

    fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Request => "request",
            Self::Require => "require",
        }
    }
}
