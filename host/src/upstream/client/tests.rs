use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// A name with these addresses.
struct Fixed(Vec<SocketAddr>);

impl Lookup for Fixed {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// A server on this machine. Dropped, it stops.
struct Server {
    url: String,
    /// Connections that it took.
    taken: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Server {
    /// One that answers every request with `head`, and then sends `body` so many times.
    async fn start(head: &'static str, body: &'static [u8], times: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let taken: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&taken);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                        let mut sent = stream.write_all(head.as_bytes()).await;
                        for _ in 0..times {
                            if sent.is_ok() {
                                sent = stream.write_all(body).await;
                            }
                        }
                        if sent.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, taken, _serving: serving }
    }
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

const LIMITS: FetchLimits = FetchLimits { timeout: Duration::from_mins(1), max_bytes: 1024 };

fn outbound() -> Outbound {
    Outbound::new(&TrustedServers::System).unwrap()
}

/// Why a client of the public internet does not reach a URL whose name has these addresses.
async fn refusal(url: &str, addresses: &[&str]) -> io::ErrorKind {
    let addresses = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
    let outbound = Outbound::with(&TrustedServers::System, Arc::new(Fixed(addresses))).unwrap();
    let error = outbound.client(AddressPolicy::Public).fetch(get(url), LIMITS).await.unwrap_err();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind();
        }
        cause = error.source();
    }
    panic!("no error of the system: {error:?}")
}

/// Not because nothing answers there: the same is said on a machine on which something does.
#[tokio::test]
async fn an_address_that_is_not_public_is_refused_and_not_tried() {
    const PRIVATE: [&str; 6] =
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00:ec2::254", "64:ff9b::7f00:1", "::1"];
    for address in PRIVATE {
        let named = refusal("http://a.name.example:1/", &[address]).await;
        assert_eq!(named, io::ErrorKind::PermissionDenied, "{address}");
        let beside = refusal("http://a.name.example:1/", &["93.184.216.34", address]).await;
        assert_eq!(beside, io::ErrorKind::PermissionDenied, "{address} beside one that is public");
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let spelled = refusal(&format!("http://{host}:1/"), &[]).await;
        assert_eq!(spelled, io::ErrorKind::PermissionDenied, "{address} in the URL");
    }
}

#[tokio::test]
async fn clients_share_certificates_and_no_connection() {
    let server = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok", 1).await;
    let outbound = outbound();
    let (one, other) = (outbound.client(AddressPolicy::Any), outbound.client(AddressPolicy::Any));
    for (client, connections) in [(&one, 1), (&one, 1), (&other, 2), (&other, 2), (&one, 2)] {
        let answer = client.fetch(get(&server.url), LIMITS).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, b"ok".as_slice()));
        assert_eq!(server.taken.load(Ordering::SeqCst), connections);
    }
}

#[tokio::test]
async fn an_answer_is_read_as_far_as_its_reader_wants_it_and_no_further() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const PIECE: &[u8] = b"100\r\n................................................................................................................................................................................................................................................................\r\n";
    // A gigabyte, if somebody would read it.
    let server = Server::start(HEAD, PIECE, 4 << 20).await;
    let read = outbound().client(AddressPolicy::Any).fetch(get(&server.url), LIMITS).await;
    assert!(matches!(read, Err(FetchError::TooLarge(1024))), "{read:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_was_sent_nothing_and_one_that_breaks_off_may_have_acted() {
    let client = outbound().client(AddressPolicy::Any);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let read = client.fetch(get(&format!("http://{gone}/")), LIMITS).await;
    assert!(matches!(read, Err(FetchError::Unreachable(_))), "{read:?}");
    let torn = Server::start("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b"", 0).await;
    let read = client.fetch(get(&torn.url), LIMITS).await;
    assert!(matches!(read, Err(FetchError::Closed(_))), "{read:?}");
}
