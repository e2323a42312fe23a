//! The `server:` block: where the gateway listens, and what a connection and a body may take.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use super::components::ComponentSettings;
use super::endpoint::{Endpoint, Scheme};
use super::file::millis;
use super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::network::Network;
use super::node::{Node, Section};
use crate::limits::Limit;
use crate::tls::{ClientAuth, ListenerName, TlsSettings};

const DEFAULT_PORT: u16 = 8080;
/// Default and maximum of `body_limit_bytes`.
pub(super) const MAX_BODY: usize = 32 * 1024 * 1024;
const HEAD_TIMEOUT_MS: u64 = 30_000;

const LISTEN: ConfigKey = ConfigKey::text(
    "listen",
    "Address and port. Anything but loopback needs `public_url`, and [`tls`](#tls) or `trusted_proxies`; it is refused with a development key",
)
.or(Absent::Text("127.0.0.1:8080"));
const ADMIN_LISTEN: ConfigKey = ConfigKey::text(
    "admin_listen",
    "Address and port of a listener for administration alone: `/v1/admin` is then answered there and no longer on `listen`. It has its \
     own places for connections, so that clients cannot keep administrators out. Anything but loopback needs [`tls`](#tls) or `trusted_proxies`",
);
const METRICS_LISTEN: ConfigKey = ConfigKey::text(
    "metrics_listen",
    "Address and port of a listener for figures alone: `GET /metrics` in the format of Prometheus, without a credential. Whoever reaches it \
     reads how many connections and answers there are, and whether the gateway is well; nothing of users, tenants or models",
);
const PUBLIC_URL: ConfigKey = ConfigKey::text("public_url", "How clients reach the gateway")
    .or(Absent::Derived("`http://` or `https://` + `listen`"));
const TRUSTED_PROXIES: ConfigKey = ConfigKey::list(
    "trusted_proxies",
    &Form::Text,
    "Addresses and networks of the proxies in front of the gateway, at which TLS ends: `10.0.0.7`, `10.1.0.0/16`. A listener in clear that \
     other machines can reach takes connections of these alone. They are exempt from `max_connections_per_address`",
);
const BODY_LIMIT: ConfigKey =
    ConfigKey::number("body_limit_bytes", &(1024..=MAX_BODY as u64), MAX_BODY as u64, "Longest request body");
const BODY_MEMORY: ConfigKey = ConfigKey::number(
    "body_memory_bytes",
    &(1_048_576..=1_099_511_627_776),
    1024 * 1024 * 1024,
    "How much memory the bodies of all requests may hold together. A tenant may hold half of it, a user an eighth, but always one \
     body; beyond that callers get a 429 or a 529 with `retry-after` and the code `bodies_full`",
);
const HEAD_TIMEOUT: ConfigKey = ConfigKey::number(
    "head_timeout_ms",
    &(100..=HEAD_TIMEOUT_MS),
    HEAD_TIMEOUT_MS,
    "How long a client may take for the head of a request, from its first moment, before its connection is closed; less, never \
     more. Over each stretch as long as this a body has to come with 4096 bytes a second, else it is a 408",
);
const IDLE_TIMEOUT: ConfigKey = ConfigKey::number(
    "idle_timeout_ms",
    &(100..=3_600_000),
    120_000,
    "How long a connection may be idle between requests",
);
const MAX_CONNECTIONS: ConfigKey = ConfigKey::number(
    "max_connections",
    &(16..=1_000_000),
    10_000,
    "Connections at once, at most half of the open files that the system grants. Half of them are kept for connections on which a \
     credential was accepted: where the others are too many, the oldest of them is closed",
);
const MAX_PER_ADDRESS: ConfigKey = ConfigKey::number(
    "max_connections_per_address",
    &(1..=1_000_000),
    1_000,
    "From one address (an IPv4 address or a /64 of IPv6); its network (/24, /48) may hold four times as many. Loopback is exempt, \
     for the sake of a reverse proxy on this machine: limit connections there",
);

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "server",
    &ConfigBlock {
        about: "How clients reach the gateway.",
        keys: &[
            LISTEN,
            ADMIN_LISTEN,
            METRICS_LISTEN,
            PUBLIC_URL,
            TRUSTED_PROXIES,
            BODY_LIMIT,
            BODY_MEMORY,
            HEAD_TIMEOUT,
            IDLE_TIMEOUT,
            MAX_CONNECTIONS,
            MAX_PER_ADDRESS,
        ],
        notes: "",
    },
    "How clients reach the gateway",
);

/// The `server:` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Address and port to listen on for administration alone, where that has a listener of its own.
    pub admin_listen: Option<SocketAddr>,
    /// Address and port to listen on for figures alone.
    pub metrics_listen: Option<SocketAddr>,
    /// The URL by which clients reach the gateway, without a slash at the end.
    pub public_url: String,
    /// The proxies in front of the gateway.
    pub trusted_proxies: Vec<Network>,
    /// Longest request body, in bytes.
    pub body_limit: usize,
    /// How long a client may take for the head of a request.
    pub head_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address that is not this machine.
    pub max_connections_per_address: usize,
    /// How many bytes all bodies of requests may hold together.
    pub body_memory: usize,
}

/// The limits that this block sets.
pub(super) fn limits(part: &'static str) -> Vec<Limit> {
    vec![
        Limit::bytes(part, "body of a request", MAX_BODY, "413 `request_too_large`, not retried")
            .set_by("server.body_limit_bytes"),
        Limit::time(
            part,
            "until the head of a request is there",
            Duration::from_millis(HEAD_TIMEOUT_MS),
            "the connection is closed",
        )
        .set_by("server.head_timeout_ms"),
    ]
}

// === impl Server ===

impl Server {
    /// Reads the block. `components`: a gateway that trusts a development key listens on loopback alone. `tls`: what is not encrypted is
    /// for this machine and for proxies that are named.
    pub(super) fn read(top: &Section<'_>, components: &ComponentSettings, tls: Option<&TlsSettings>) -> Self {
        let section = top.block(&KEY);
        let listen_node = section.get(&LISTEN);
        let listen = listen_node
            .as_ref()
            .and_then(address)
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
        let admin_node = section.get(&ADMIN_LISTEN);
        let admin_listen = admin_node.as_ref().and_then(address);
        if let Some(node) = &admin_node
            && let Some(admin) = admin_listen
            && admin.port() != 0
            && admin == listen
        {
            node.error("is the address of server.listen: leave it out to have both on one listener");
        }
        let metrics_node = section.get(&METRICS_LISTEN);
        let metrics_listen = metrics_node.as_ref().and_then(address);
        if let Some(node) = &metrics_node
            && let Some(metrics) = metrics_listen
            && metrics.port() != 0
            && (metrics == listen || Some(metrics) == admin_listen)
        {
            node.error("is the address of another listener: figures have one of their own");
        }
        let url_node = section.get(&PUBLIC_URL);
        let public_url = url_node.as_ref().and_then(|node| {
            let url = node.parsed(Endpoint::parse)?;
            if url.scheme == Scheme::Http && !url.is_loopback() {
                node.warn("is not https: tokens and prompts travel in clear");
            }
            Some(node.text()?.trim_end_matches('/').to_owned())
        });
        let proxies = section.items(&TRUSTED_PROXIES);
        let trusted_proxies: Vec<Network> =
            proxies.iter().filter_map(|item| item.parsed(str::parse::<Network>)).collect();
        let is_exposed = |address: SocketAddr| !address.ip().is_loopback();
        if let Some(node) = listen_node.as_ref().filter(|_| is_exposed(listen) && url_node.is_none()) {
            node.error(
                "is reachable from other machines: say in server.public_url how clients reach it (https)",
            );
        }
        let encrypted = |listener| tls.is_some_and(|tls| tls.covers(listener));
        let listeners = [
            (&listen_node, Some(listen), ListenerName::Public),
            (&admin_node, admin_listen, ListenerName::Admin),
        ];
        for (node, address, name) in listeners {
            let exposed = node.as_ref().filter(|_| address.is_some_and(is_exposed) && !encrypted(name));
            if let Some(node) = exposed.filter(|_| proxies.is_empty()) {
                node.error(
                    "is reachable from other machines and not encrypted: give the gateway a certificate (tls), or name the proxy at which \
                     TLS ends in server.trusted_proxies",
                );
            }
        }
        if let Some(node) =
            url_node.as_ref().filter(|_| public_url.as_ref().is_some_and(|url| url.starts_with("http://")))
            && encrypted(ListenerName::Public)
        {
            node.warn("says http, and server.listen speaks TLS");
        }
        let development = components.publishers.iter().any(|publisher| publisher.development);
        if let Some(node) = metrics_node.as_ref().filter(|_| metrics_listen.is_some_and(is_exposed))
            && tls.is_none_or(|tls| tls.clients.of(ListenerName::Metrics) != ClientAuth::Require)
        {
            node.warn(
                "is reachable from other machines: whoever reaches it reads the figures. A firewall helps, or tls.client_certificates.metrics",
            );
        }
        let exposed =
            [(listen_node, Some(listen)), (admin_node, admin_listen), (metrics_node, metrics_listen)]
                .into_iter()
                .filter_map(|(node, address)| node.filter(|_| address.is_some_and(is_exposed)));
        for node in exposed.filter(|_| development) {
            node.error(
                "is reachable from other machines, while components.publishers trusts a development key",
            );
        }
        Self {
            listen,
            admin_listen,
            metrics_listen,
            public_url: public_url.unwrap_or_else(|| {
                let scheme = if encrypted(ListenerName::Public) { Scheme::Https } else { Scheme::Http };
                format!("{}://{listen}", scheme.as_str())
            }),
            trusted_proxies,
            body_limit: section.number(&BODY_LIMIT),
            head_timeout: section.millis(&HEAD_TIMEOUT),
            idle_timeout: section.millis(&IDLE_TIMEOUT),
            max_connections: section.number(&MAX_CONNECTIONS),
            max_connections_per_address: section.number(&MAX_PER_ADDRESS),
            body_memory: section.number(&BODY_MEMORY),
        }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({
            "listen": self.listen,
            "admin_listen": self.admin_listen,
            "metrics_listen": self.metrics_listen,
            "public_url": self.public_url,
            "trusted_proxies": self.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "body_limit_bytes": self.body_limit,
            "body_memory_bytes": self.body_memory,
            "head_timeout_ms": millis(self.head_timeout),
            "idle_timeout_ms": millis(self.idle_timeout),
            "max_connections": self.max_connections,
            "max_connections_per_address": self.max_connections_per_address,
        })
    }
}

fn address(node: &Node<'_>) -> Option<SocketAddr> {
    node.parsed(|text| text.parse().map_err(|_| "must be an address and a port: 127.0.0.1:8080"))
}
