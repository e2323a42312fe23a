//! One connection of the upstream: reads requests byte for byte, runs the script's steps, and notices a client that leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::script::Step;
use super::{Seen, State};

/// What became of the connection after an answer.
enum After {
    Kept,
    Closed,
}

struct Open(Arc<State>);
struct Busy(Arc<State>);

// === impl Open, Busy ===

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(mut stream: TcpStream, state: Arc<State>) {
    state.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(Arc::clone(&state));
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = BytesMut::new();
    while let Some(seen) = request(&mut stream, &mut buffer).await {
        state.busy.fetch_add(1, Ordering::SeqCst);
        let busy = Busy(Arc::clone(&state));
        let steps = state.answer_for(&seen).steps(&seen);
        let outcome = answer(&mut stream, &mut buffer, steps).await;
        drop(busy);
        match outcome {
            Ok(After::Kept) => {}
            Ok(After::Closed) => return,
            Err(_) => {
                state.client_gone();
                return;
            }
        }
    }
}

/// The next request; `None` at the end of the connection.
async fn request(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Seen> {
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = buffer.split_to(end + 4);
    let head = String::from_utf8_lossy(&head[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect();
    let value =
        |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
    let body = if value("transfer-encoding").is_some() {
        chunked(stream, buffer).await?
    } else {
        let length = value("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        while buffer.len() < length {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        buffer.split_to(length).freeze()
    };
    Some(Seen { method, target, headers, body, at: Instant::now() })
}

/// The body of a chunked request.
async fn chunked(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let end = loop {
            if let Some(end) = find(buffer, b"\r\n") {
                break end;
            }
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        };
        let line = buffer.split_to(end + 2);
        let size = usize::from_str_radix(std::str::from_utf8(&line[..end]).ok()?.trim(), 16).ok()?;
        while buffer.len() < size + 2 {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        body.extend_from_slice(&buffer[..size]);
        buffer.advance(size + 2);
        if size == 0 {
            return Some(body.freeze());
        }
    }
}

/// Runs the steps; an error means that the client went away before the last one.
async fn answer(stream: &mut TcpStream, buffer: &mut BytesMut, steps: Vec<Step>) -> std::io::Result<After> {
    for step in steps {
        match step {
            Step::Write(bytes) => write(stream, buffer, &bytes).await?,
            Step::Repeat(bytes, times, pause) => {
                for _ in 0..times {
                    write(stream, buffer, &bytes).await?;
                    wait(stream, buffer, pause).await?;
                }
            }
            Step::Wait(pause) => wait(stream, buffer, pause).await?,
            Step::Gate(gate) => {
                tokio::select! {
                    permit = gate.acquire() => permit.expect("a gate is never closed").forget(),
                    gone = leaving(stream, buffer) => return Err(gone),
                }
            }
            Step::Hang => return Err(leaving(stream, buffer).await),
            Step::Close => {
                stream.shutdown().await?;
                return Ok(After::Closed);
            }
            Step::Reset => {
                stream.set_zero_linger()?;
                return Ok(After::Closed);
            }
        }
    }
    Ok(After::Kept)
}

/// Writes all bytes while watching for a client that leaves.
async fn write(stream: &mut TcpStream, buffer: &mut BytesMut, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let (reader, writer) = stream.split();
                let mut reader = reader;
                tokio::select! {
                    ready = writer.writable() => ready?,
                    read = reader.read_buf(buffer) => if read? == 0 { return Err(gone()) },
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn wait(stream: &mut TcpStream, buffer: &mut BytesMut, pause: Duration) -> std::io::Result<()> {
    if pause.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        gone = leaving(stream, buffer) => Err(gone),
    }
}

/// Resolves when the client closes or resets; bytes of a pipelined request are kept.
async fn leaving(stream: &mut TcpStream, buffer: &mut BytesMut) -> std::io::Error {
    loop {
        match stream.read_buf(buffer).await {
            Ok(0) => return gone(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn gone() -> std::io::Error {
    std::io::ErrorKind::ConnectionAborted.into()
}

fn find(buffer: &[u8], needle: &[u8]) -> Option<usize> {
    buffer.windows(needle.len()).position(|window| window == needle)
}
