//! Listeners: what each socket of the gateway answers, and who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::Network;
use crate::limits::Limit;
use crate::tls::{ClientCertificate, Handshake, ListenerName, Tls};

/// Connections at once of a listener that is for administration or figures alone: it has its own, so that clients cannot keep others out.
const ADMIN_CONNECTIONS: usize = 128;

/// A socket, and what is answered on it.
#[derive(Debug)]
pub(crate) struct HttpListener {
    pub(crate) socket: TcpListener,
    pub(crate) surface: Surface,
    /// Where it speaks TLS: what for.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Which endpoints a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// All of them.
    Whole,
    /// Those of clients: all but administration.
    Clients,
    /// Administration, and whether the gateway is well.
    Administration,
    /// Figures, and whether the gateway is well.
    Metrics,
}

/// Who is at the other end of a connection: an extension of each of its requests. The address is that of the socket, whatever headers
/// say: behind a proxy it is the proxy's.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What it showed in the handshake, verified.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

/// The limits of listeners.
pub(super) fn limits(part: &'static str) -> Vec<Limit> {
    let most = u64::try_from(ADMIN_CONNECTIONS).unwrap_or(u64::MAX);
    vec![Limit::count(
        part,
        "connections of the listener of administration, or of figures",
        most,
        "the connection is closed",
    )]
}

// === impl HttpListener ===

impl HttpListener {
    /// How connections begin here; `None` where they are in clear.
    pub(super) fn handshake(&self) -> Option<Handshake> {
        self.tls.as_ref()?.handshake(self.surface.name())
    }

    /// Whether a connection of this address is taken: what is not encrypted is for this machine, and for proxies that are named. Figures
    /// are for whoever reaches them: no credential comes to them, and no prompt.
    pub(super) fn takes(&self, peer: IpAddr, proxies: &[Network]) -> bool {
        self.tls.is_some()
            || self.surface == Surface::Metrics
            || peer.to_canonical().is_loopback()
            || is_among(peer, proxies)
    }

    /// How many of `total` connections it may hold.
    pub(super) fn share(&self, total: usize) -> usize {
        match self.surface {
            Surface::Whole | Surface::Clients => total,
            Surface::Administration | Surface::Metrics => total.min(ADMIN_CONNECTIONS),
        }
    }
}

// === impl Surface ===

impl Surface {
    /// As the configuration names the listener that has it.
    pub(crate) const fn name(self) -> ListenerName {
        match self {
            Self::Whole | Self::Clients => ListenerName::Public,
            Self::Administration => ListenerName::Admin,
            Self::Metrics => ListenerName::Metrics,
        }
    }
}

/// Whether an address is one of a proxy that speaks for others.
pub(super) fn is_among(peer: IpAddr, proxies: &[Network]) -> bool {
    proxies.iter().any(|network| network.contains(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn in_clear_only_this_machine_and_named_proxies_are_served() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = HttpListener { socket, surface: Surface::Whole, tls: None };
        let proxies = ["10.1.0.0/16".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let takes = |peer: &str| listener.takes(peer.parse().unwrap(), &proxies);
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"] {
            assert!(takes(peer), "{peer}");
        }
        for peer in ["10.2.0.1", "192.0.2.1", "2001:db8::8"] {
            assert!(!takes(peer), "{peer}");
        }
    }
}
