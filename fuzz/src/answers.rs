//! Answers of upstreams over HTTP/1.1: what the gateway reads of one is what hyper reads, or it reads nothing.

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The gateway's reader as it is: a file that needs nothing of the gateway, which would take an hour to build with these flags.
#[path = "../../host/src/upstream/h1/reader.rs"]
#[allow(dead_code, reason = "limits that only the gateway lists")]
mod reader;

/// Status and body.
type Read = (u16, Vec<u8>);

/// Panics where an answer is another one to hyper, or depends on how it is cut. The first byte says how.
pub fn check(data: &[u8]) {
    let Some((cut, answer)) = data.split_first() else { return };
    let whole = ours(answer, usize::MAX);
    let pieces = ours(answer, usize::from(*cut).max(1));
    assert_eq!(pieces, whole, "an answer depends on how it comes");
    if let Some(read) = whole {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(theirs(answer)), Some(read), "an answer that is another one");
    }
}

/// What the gateway reads; `None` if it refuses, or if the answer does not end.
fn ours(answer: &[u8], piece: usize) -> Option<Read> {
    let mut buffer = BytesMut::new();
    let mut heads = reader::Heads::new(false);
    let (mut head, mut body) = (None, Vec::new());
    for piece in answer.chunks(piece) {
        buffer.extend_from_slice(piece);
        if head.is_none() {
            head = heads.next(&mut buffer).ok()?;
        }
        let Some(head) = &mut head else { continue };
        body.extend_from_slice(&head.body.take(&mut buffer).ok()?);
        if head.body.is_over() {
            return Some((head.status.as_u16(), body));
        }
    }
    head.filter(|head| head.body.may_end()).map(|head| (head.status.as_u16(), body))
}

/// What hyper reads; `None` if it refuses.
async fn theirs(answer: &[u8]) -> Option<Read> {
    let (here, mut there) = tokio::io::duplex(1 << 20);
    // As many headers as the gateway takes: the library's own limit is lower.
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_headers(reader::MOST_HEADERS);
    let (mut sender, connection) = client.handshake(TokioIo::new(here)).await.ok()?;
    let answering = async {
        let mut asked = [0; 1024];
        drop(there.read(&mut asked).await);
        // hyper may have read enough.
        drop(there.write_all(answer).await);
        drop(there.shutdown().await);
    };
    let request = http::Request::get("/").header("host", "upstream").body(String::new()).ok()?;
    let reading = async {
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?;
        Some((status, body.to_bytes().to_vec()))
    };
    let (read, (), _) = tokio::join!(reading, answering, connection);
    read
}
