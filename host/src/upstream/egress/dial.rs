//! Connections of which the address was checked: a name is looked up here, once for each connection, and what is dialled is what was
//! looked at. A name that has another address a moment later gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::is_public;

/// From a host's name, or its address however spelled, to addresses.
pub(super) trait Lookup: Send + Sync + 'static {
    fn lookup(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
pub(super) struct System;

/// Dials.
#[derive(Clone)]
pub(super) struct Dial {
    lookup: Arc<dyn Lookup>,
    private: bool,
}

// === impl System ===

impl Lookup for System {
    fn lookup(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

// === impl Dial ===

impl Dial {
    pub(super) fn new(lookup: Arc<dyn Lookup>, private: bool) -> Self {
        Self { lookup, private }
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.private || is_public(address)
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let addresses = self.lookup.lookup(host, uri.port_u16().unwrap_or(usual)).await?;
        // One address that may not be dialled spoils them all: an honest name has none.
        if !addresses.iter().all(|address| self.allows(address.ip())) {
            return Err(forbidden());
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) if self.allows(stream.peer_addr()?.ip()) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Ok(_) => return Err(forbidden()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

// === private helpers ===

fn forbidden() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the address is not of the public internet")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with these addresses.
    struct Fixed(Vec<SocketAddr>);

    impl Lookup for Fixed {
        fn lookup(&self, _: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            let addresses = self.0.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
            Box::pin(std::future::ready(Ok(addresses)))
        }
    }

    async fn dialled(addresses: &[&str]) -> io::ErrorKind {
        let addresses =
            addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
        let dial = Dial::new(Arc::new(Fixed(addresses)), false);
        dial.connect(Uri::from_static("http://a.name.example:1/")).await.unwrap_err().kind()
    }

    /// Not because nothing answers there: the same is said on a machine on which something does.
    #[tokio::test]
    async fn an_address_that_is_not_public_is_refused_and_not_tried() {
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00:ec2::254", "64:ff9b::7f00:1", "::1"]
        {
            assert_eq!(dialled(&[address]).await, io::ErrorKind::PermissionDenied, "{address}");
            let beside = dialled(&["93.184.216.34", address]).await;
            assert_eq!(beside, io::ErrorKind::PermissionDenied, "{address} beside one that is public");
        }
    }
}
