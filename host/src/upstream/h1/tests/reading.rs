//! What is read of an answer: as hyper reads it, or not at all, however the bytes are cut.

use bytes::BytesMut;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::reader::{HEAD_BYTES, Heads, MOST_HEADERS, Malformed, SKIPPED_BYTES};

/// Status and body.
type Read = (u16, Vec<u8>);

/// Why an answer was not read to its end.
#[derive(Debug, PartialEq, Eq)]
enum Not {
    Malformed(Malformed),
    Early,
}

impl From<Malformed> for Not {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// How we read it, if it comes in pieces of `piece` bytes and the connection ends after it.
fn ours(bytes: &[u8], piece: usize) -> Result<Read, Not> {
    let mut buffer = BytesMut::new();
    let mut heads = Heads::new(false);
    let (mut head, mut body) = (None, Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        if head.is_none() {
            head = heads.next(&mut buffer)?;
        }
        let Some(head) = &mut head else { continue };
        body.extend_from_slice(&head.body.take(&mut buffer)?);
        if head.body.is_over() {
            return Ok((head.status.as_u16(), body));
        }
    }
    match head {
        Some(head) if head.body.may_end() => Ok((head.status.as_u16(), body)),
        _ => Err(Not::Early),
    }
}

/// How hyper reads it; `None` if it does not.
async fn theirs(bytes: &[u8]) -> Option<Read> {
    let (here, mut there) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(here)).await.ok()?;
    let answer = async {
        let mut asked = [0; 1024];
        let count = there.read(&mut asked).await.unwrap();
        assert!(asked[..count].ends_with(b"\r\n\r\n"), "the request came at once");
        // The other side may have seen enough.
        drop(there.write_all(bytes).await);
        drop(there.shutdown().await);
    };
    let request = http::Request::get("/").header("host", "upstream").body(String::new()).unwrap();
    let read = async {
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.ok()?;
        Some((status, body.to_bytes().to_vec()))
    };
    let (read, (), _) = tokio::join!(read, answer, connection);
    read
}

fn compare(bytes: &[u8]) -> Result<Read, Not> {
    let whole = ours(bytes, usize::MAX);
    for piece in [1, 2, 3, 7, 100] {
        let pieces = ours(bytes, piece);
        // A line of a head is looked at once its end is there: if the connection ends first, a fault in it is not seen.
        if !bytes.ends_with(b"\n") && pieces == Err(Not::Early) && whole == Err(Malformed::Head.into()) {
            continue;
        }
        assert_eq!(pieces, whole, "in pieces of {piece}: {}", bytes.escape_ascii());
    }
    if let Ok(read) = &whole {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let theirs = runtime.block_on(theirs(bytes));
        assert_eq!(theirs.as_ref(), Some(read), "{}", bytes.escape_ascii());
    }
    whole
}

#[test]
fn what_is_read_is_what_another_reader_reads() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            "hello world",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n005  \r\nhello\r\n0\r\n\r\n", "hello"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\nx-sum: 1\r\ny: 2\r\n\r\n",
            "hello",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
        ),
        ("HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "ok"),
    ] {
        let (status, read) =
            compare(answer.as_bytes()).unwrap_or_else(|error| panic!("{error:?}: {answer:?}"));
        assert_eq!((String::from_utf8(read).unwrap().as_str(), status / 100), (body, 2), "{answer:?}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_not_read() {
    use Malformed::*;
    let in_chunks = |chunks: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    let with = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let many = |count: usize| "x: y\r\n".repeat(count);
    for (answer, why) in [
        (with("content-length: 20\r\ntransfer-encoding: chunked"), LengthAndEncoding),
        (with("content-length: 5\r\ncontent-length: 6"), Length),
        (with("content-length: 5, 5"), Length),
        (with("content-length: +5"), Length),
        (with("content-length: 0x5"), Length),
        (with("content-length: "), Length),
        (with("content-length: 99999999999999999999"), Length),
        (with("transfer-encoding: gzip, chunked"), Encoding),
        (with("transfer-encoding: chunked\r\ntransfer-encoding: chunked"), Encoding),
        (with("transfer-encoding: identity"), Encoding),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), Encoding),
        (with("x: a\r\n folded: b"), Head),
        (with("x : a"), Head),
        (with("x: a\0b"), Head),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(), Head),
        ("HTTP/2 200 OK\r\n\r\n".to_owned(), Head),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), Head),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), Head),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_owned(), Upgrade),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(17), Interim),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", many(MOST_HEADERS + 1)), HeadTooLarge),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(HEAD_BYTES)), HeadTooLarge),
        (format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(HEAD_BYTES)), HeadTooLarge),
        (in_chunks("\r\nhello\r\n0\r\n\r\n"), ChunkLength),
        (in_chunks("5\nhello\r\n0\r\n\r\n"), ChunkLength),
        (in_chunks("-5\r\nhello\r\n0\r\n\r\n"), ChunkLength),
        (in_chunks("0x5\r\nhello\r\n0\r\n\r\n"), ChunkLength),
        (in_chunks("5 5\r\nhello\r\n0\r\n\r\n"), ChunkLength),
        (in_chunks("5;a\rb\r\nhello\r\n0\r\n\r\n"), ChunkLength),
        (in_chunks("1000000000000000\r\nhello"), ChunkLength),
        (in_chunks(&"0".repeat(2_000)), ChunkLength),
        (in_chunks("4\r\nhello\r\n0\r\n\r\n"), ChunkEnd),
        (in_chunks("5\r\nhello\n0\r\n\r\n"), ChunkEnd),
        (in_chunks(&format!("1;{}\r\na\r\n", "x".repeat(1_000)).repeat(17)), Skipped),
        (in_chunks(&format!("0\r\n{}", "x: y\r\n".repeat(SKIPPED_BYTES / 6 + 1))), Skipped),
        (in_chunks("0\r\nHTTP/1.1 200 OK\r\n\r\n"), Trailer),
        (in_chunks("0\r\nx: y\n\r\n"), Trailer),
    ] {
        assert_eq!(compare(answer.as_bytes()), Err(Not::Malformed(why)), "{:.200}", answer.escape_debug());
    }
}

#[test]
fn an_answer_that_ends_early_is_none() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhell",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n",
    ] {
        assert_eq!(compare(answer.as_bytes()), Err(Not::Early), "{answer:?}");
    }
}

#[test]
fn a_fault_in_a_line_without_an_end_is_refused_one_way_or_the_other() {
    let answer = b"HTTP/1.0 100 Continue\r\n\r,";
    assert_eq!(compare(answer), Err(Not::Malformed(Malformed::Head)));
    assert_eq!(ours(answer, 1), Err(Not::Early), "its line's end did not come");
}

#[test]
fn what_follows_an_answer_stays_where_it_is() {
    for answer in ["content-length: 2\r\n\r\nok", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] {
        let mut buffer = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{answer}HTTP/1.1 500 next").as_str());
        let mut head = Heads::new(false).next(&mut buffer).unwrap().unwrap();
        assert_eq!(head.body.take(&mut buffer).unwrap(), "ok");
        assert!(head.body.is_over() && head.reusable);
        assert_eq!(buffer, "HTTP/1.1 500 next");
    }
}

#[test]
fn the_answer_to_a_request_for_a_head_has_no_body() {
    let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
    let head = Heads::new(true).next(&mut buffer).unwrap().unwrap();
    assert_eq!((head.status, head.body.is_over()), (StatusCode::OK, true));
}

/// Answers as servers write them, and as one that lies would.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let header = prop_oneof![
        3 => Just(b"transfer-encoding: chunked\r\n".to_vec()),
        3 => (0_usize..40).prop_map(|length| format!("Content-Length: {length}\r\n").into_bytes()),
        1 => Just(b"connection: close\r\n".to_vec()),
        1 => "[a-z]{1,6}:[ \ta-z,;=]{0,9}\r\n".prop_map(String::into_bytes),
    ];
    let chunk = (0_usize..20, "(;[a-z=]{0,4})?", "[ -~]{20}").prop_map(|(length, extension, text)| {
        format!("{length:x}{extension}\r\n{}\r\n", text.get(..length).unwrap_or_default()).into_bytes()
    });
    let status = prop_oneof![6 => Just("200 OK"), 1 => Just("100 Continue"), 1 => Just("204 No Content"), 1 => Just("304 x")];
    let head = (prop::bool::weighted(0.9), status, prop::collection::vec(header, 0..3)).prop_map(
        |(new, status, headers)| {
            let line = format!("HTTP/1.{} {status}\r\n", u8::from(new));
            [line.into_bytes(), headers.concat(), b"\r\n".to_vec()].concat()
        },
    );
    let end = prop_oneof![4 => Just(b"0\r\n\r\n".to_vec()), 1 => Just(b"0\r\na: b\r\n\r\n".to_vec()), 1 => Just(Vec::new())];
    let flaw = prop_oneof![2 => Just(None), 1 => (any::<prop::sample::Index>(), prop::sample::select(&b"\r\n\0 :;0a,H"[..]), 0_u8..3).prop_map(Some)];
    (prop::collection::vec(head, 1..3), prop::collection::vec(chunk, 0..4), end, flaw).prop_map(
        |(heads, chunks, end, flaw)| {
            let mut answer = [heads.concat(), chunks.concat(), end].concat();
            if let Some((place, byte, how)) = flaw {
                let place = place.index(answer.len());
                match how {
                    0 => answer[place] = byte,
                    1 => answer.insert(place, byte),
                    _ => drop(answer.remove(place)),
                }
            }
            answer
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_answer_is_read_in_another_way_than_hyper_reads_it(answer in answer()) {
        drop(compare(&answer));
    }
}
