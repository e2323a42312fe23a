//! Connections that say nothing, say it slowly, or hold what they said: each has to be let go, and what it took given back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::{Findings, Site, Until};

/// How to say nothing.
#[derive(Debug, Clone, Copy)]
enum Silence {
    Nothing,
    HalfPreface,
    HalfHead,
    PingsOnly,
}

/// Connections without a request: nothing sent, half the preface of HTTP/2, half a head, HTTP/2 that answers pings and asks for
/// nothing. Each has to be closed within `timeout`.
pub async fn silent(site: &Site, until: Until, crowd: usize, timeout: Duration) -> Findings {
    let mut findings = Findings::of("silent connections");
    while until.goes_on(findings.rounds) {
        let mut open = JoinSet::new();
        for number in 0..crowd {
            let how =
                [Silence::Nothing, Silence::HalfPreface, Silence::HalfHead, Silence::PingsOnly][number % 4];
            let site = site.seen_from(u8::try_from(66 + number % 8).unwrap_or(66));
            open.spawn(async move { (how, tokio::time::timeout(timeout, held(&site, how)).await.is_ok()) });
        }
        while let Some(ended) = open.join_next().await {
            let (how, closed) = ended.expect("a connection does not panic");
            findings.expect(closed, || format!("{how:?} is still open after {timeout:?}"));
        }
        findings.rounds += 1;
    }
    findings
}

/// Returns when the gateway has closed the connection, or never took it.
async fn held(site: &Site, how: Silence) {
    let Ok(mut stream) = site.connect().await else { return };
    let said: &[u8] = match how {
        Silence::Nothing => b"",
        Silence::HalfPreface => b"PRI * HT",
        Silence::HalfHead => b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-slow: ",
        Silence::PingsOnly => return pings(stream).await,
    };
    if stream.write_all(said).await.is_ok() {
        drop(stream.read_to_end(&mut Vec::new()).await);
    }
}

/// A client of HTTP/2 that does what it has to, and asks for nothing.
async fn pings(stream: tokio::net::TcpStream) {
    let Ok((_sender, mut connection)) = h2::client::handshake(stream).await else { return };
    let Some(mut ping) = connection.ping_pong() else { return };
    let chat = async {
        while ping.ping(h2::Ping::opaque()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = connection => {}
        () = chat => {}
    }
}

/// Bodies that come a byte at a time, of a caller that is known. Each has to end within `timeout`.
pub async fn slow_bodies(site: &Site, until: Until, crowd: usize, timeout: Duration) -> Findings {
    let mut findings = Findings::of("slow bodies");
    while until.goes_on(findings.rounds) {
        let mut open = JoinSet::new();
        for _ in 0..crowd {
            let site = site.clone();
            open.spawn(async move { tokio::time::timeout(timeout, drip(&site)).await.is_ok() });
        }
        while let Some(ended) = open.join_next().await {
            let ended = ended.expect("a connection does not panic");
            findings.expect(ended, || {
                format!("a body of a byte now and then is read for {timeout:?} and longer")
            });
        }
        findings.rounds += 1;
    }
    findings
}

async fn drip(site: &Site) {
    let Ok(mut stream) = site.connect().await else { return };
    let head = head(site, 1_000_000);
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let mut answer = [0; 1024];
    loop {
        match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await {
            // It was told no, or let go.
            Ok(_) => return,
            Err(_) if stream.write_all(b" ").await.is_err() => return,
            Err(_) => {}
        }
    }
}

/// Bodies of 30 MiB that stop a byte before their end, all at once, of one caller. Each has to be refused or ended within
/// `timeout`; what they take meanwhile is for the story to look at.
pub async fn held_bodies(site: &Site, until: Until, crowd: usize, timeout: Duration) -> Findings {
    let mut findings = Findings::of("bodies held");
    let size = 30 * 1024 * 1024;
    let piece = Bytes::from(vec![b' '; 256 * 1024]);
    while until.goes_on(findings.rounds) {
        let mut open = JoinSet::new();
        for _ in 0..crowd {
            let (site, piece) = (site.clone(), piece.clone());
            open.spawn(async move {
                let began = Instant::now();
                (tokio::time::timeout(timeout, hold(&site, size, &piece)).await.is_ok(), began.elapsed())
            });
        }
        while let Some(ended) = open.join_next().await {
            let (ended, after) = ended.expect("a connection does not panic");
            findings.expect(ended, || {
                format!("an unfinished body of {size} bytes is held for {after:?} and longer")
            });
        }
        findings.rounds += 1;
    }
    findings
}

async fn hold(site: &Site, size: usize, piece: &Bytes) {
    let Ok(stream) = site.connect().await else { return };
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        writer.write_all(head(site, size).as_bytes()).await?;
        let mut left = size - 1;
        while left > 0 {
            let next = left.min(piece.len());
            writer.write_all(&piece[..next]).await?;
            left -= next;
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut answer = [0; 1024];
    tokio::select! {
        // Refused, or let go.
        _ = write => {}
        _ = reader.read(&mut answer) => {}
    }
}

fn head(site: &Site, length: usize) -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n",
        site.token
    )
}
