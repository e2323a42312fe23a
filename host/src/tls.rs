//! TLS where the gateway listens: the certificate that it shows, whose certificates it takes, and how both are exchanged while it
//! serves. It reads files and opens no socket: `http` hands it connections.

mod accept;
mod certificate;
mod client;
mod files;
mod keep;
mod lab;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::accept::{Encrypted, Handshake, HandshakeError};
pub(crate) use self::certificate::fingerprint;
pub(crate) use self::client::ClientCertificate;
pub(crate) use self::files::{Shown, check};
pub(crate) use self::keep::{Tls, TlsHealth};
pub(crate) use self::lab::SelfSigned;

/// What the configuration says of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The file with the gateway's certificate, and behind it those that lead to an authority.
    pub certificate: PathBuf,
    /// The file with the private key of the first certificate.
    pub key: PathBuf,
    /// Which listeners speak TLS.
    pub listeners: Vec<ListenerName>,
    /// How long before the end of a certificate the log begins to warn.
    pub warn_before: Duration,
    /// Certificates of clients.
    pub clients: ClientSettings,
}

/// Who has to show a certificate, and whose are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The file with the authorities whose certificates are taken.
    pub ca: Option<PathBuf>,
    /// Files with lists of what was revoked.
    pub crls: Vec<PathBuf>,
    /// What is asked on `server.listen`.
    pub public: ClientAuth,
    /// What is asked on `server.admin_listen`.
    pub admin: ClientAuth,
    /// What is asked on `server.metrics_listen`.
    pub metrics: ClientAuth,
}

/// Whether a client is asked for a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No.
    #[default]
    Off,
    /// It is asked, and may have none. One that cannot be verified ends the handshake.
    Request,
    /// It is asked, and has to have one.
    Require,
}

/// A listener, as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerName {
    /// `server.listen`
    Public,
    /// `server.admin_listen`
    Admin,
    /// `server.metrics_listen`
    Metrics,
}

/// What is wrong with one of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileProblem {
    /// The key of the configuration that names the file: `certificate`, `client_crls[1]`.
    pub(crate) key: String,
    /// What, for a person.
    pub(crate) message: String,
}

// === impl TlsSettings ===

impl TlsSettings {
    /// Whether this listener speaks TLS.
    pub fn covers(&self, listener: ListenerName) -> bool {
        self.listeners.contains(&listener)
    }

    /// Every file that is read.
    fn files(&self) -> Vec<&PathBuf> {
        let ClientSettings { ca, crls, .. } = &self.clients;
        [&self.certificate, &self.key].into_iter().chain(ca).chain(crls).collect()
    }
}

// === impl ClientSettings ===

impl ClientSettings {
    /// What is asked on a listener.
    pub fn of(&self, listener: ListenerName) -> ClientAuth {
        match listener {
            ListenerName::Public => self.public,
            ListenerName::Admin => self.admin,
            ListenerName::Metrics => self.metrics,
        }
    }
}

// === impl FileProblem ===

impl FileProblem {
    fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl std::fmt::Display for FileProblem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "tls.{}: {}", self.key, self.message)
    }
}
