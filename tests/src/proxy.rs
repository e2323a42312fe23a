//! A bare reverse proxy: a hyper server, a hyper client and nothing in between. What the gateway costs is measured against it.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Forwards everything to `upstream` until the task is dropped.
pub async fn serve(listener: TcpListener, upstream: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let client = client.clone();
                connections.spawn(async move {
                    let service = service_fn(move |mut request: http::Request<Incoming>| {
                        let client = client.clone();
                        async move {
                            let target = request.uri().path_and_query().map_or("/", |t| t.as_str());
                            *request.uri_mut() = format!("http://{upstream}{target}").parse::<http::Uri>()?;
                            client.request(request).await.map_err(anyhow::Error::from)
                        }
                    });
                    // A client that breaks off is no failure of the proxy.
                    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        }
    }
}
