//! Which addresses are dialled. A name is looked up once for each connection and all its addresses are checked before one of them is
//! tried, so that a name which has another address a moment later gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use crate::config::is_public;

/// Which addresses a client dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Any: an operator said where requests go.
    Any,
    /// Those of the public internet alone.
    Public,
}

/// From a host's name, or its address however spelled, to addresses. A port of 0 is that of the URL.
pub(super) trait Lookup: Send + Sync + 'static {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
pub(super) struct SystemLookup;

/// Names that lead to addresses which may be dialled.
#[derive(Clone)]
pub(super) struct CheckedLookup {
    lookup: Arc<dyn Lookup>,
    policy: AddressPolicy,
}

// === impl AddressPolicy ===

impl AddressPolicy {
    /// Refuses an address that may not be dialled.
    pub(super) fn check(self, address: IpAddr) -> io::Result<()> {
        if self == Self::Any || is_public(address) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the address is not of the public internet"))
    }
}

// === impl SystemLookup ===

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
    }
}

// === impl CheckedLookup ===

impl CheckedLookup {
    pub(super) fn new(lookup: Arc<dyn Lookup>, policy: AddressPolicy) -> Self {
        Self { lookup, policy }
    }
}

impl Service<Name> for CheckedLookup {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let looking = self.lookup.lookup(name.as_str().to_owned());
        let policy = self.policy;
        Box::pin(async move {
            let addresses = looking.await?;
            // One address that may not be dialled refuses them all: an honest name has none.
            addresses.iter().try_for_each(|address| policy.check(address.ip()))?;
            Ok(addresses.into_iter())
        })
    }
}
