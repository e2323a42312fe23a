//! A gateway that answers by script, byte for byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What is written to a client.
pub(crate) enum Reply {
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// These bytes, then nothing for so long.
    Stall(Vec<u8>, Duration),
    /// The first bytes, then the second ones until the client has gone, 2 GiB at most.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, one each so many milliseconds.
    Drip(Vec<u8>, u64),
}

/// The server. It lives as long as the process.
pub(crate) struct Double {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

// === impl Double ===

impl Double {
    /// A gateway that answers what `script` makes of the number of the request and its text.
    pub(crate) fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&requests), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || {
                    let mut stream = stream;
                    let Some(request) = read(&mut stream) else { return };
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        seen.len()
                    };
                    // The client may leave whenever it likes.
                    drop(write(&mut stream, script(number, &request)));
                });
            }
        });
        Self { port, requests }
    }

    /// One that gives everybody a credential of so many seconds.
    pub(crate) fn kind(ttl: u64) -> Self {
        Self::start(move |number, _| ok(&credential(&format!("token-{number}"), ttl)))
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it was asked.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// What an exchange answers.
pub(crate) fn credential(token: &str, ttl: u64) -> Value {
    json!({ "token": token, "ttl": ttl, "headers": {
        "x-user-id": "u_29f8a3", "x-session-id": "sess_1", "x-trace-id": "t_1", "x-client-id": "sp_cowork",
        "x-tenant-id": "acme", "x-policy-version": "unversioned", "x-call-source": "cowork",
    } })
}

/// Status 200 with a body.
pub(crate) fn ok(body: &Value) -> Reply {
    status("200 OK", body)
}

/// A status with a body of JSON.
pub(crate) fn status(line: &str, body: &Value) -> Reply {
    Reply::Bytes(answer(line, "application/json", body.to_string().as_bytes()))
}

/// An answer, whole.
pub(crate) fn answer(line: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {line}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The error of a gateway.
pub(crate) fn error(message: &str) -> Value {
    json!({ "type": "error", "error": { "type": "authentication_error", "message": message } })
}

// === private helpers ===

fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn write(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes),
        Reply::Stall(bytes, time) => {
            stream.write_all(&bytes)?;
            thread::sleep(time);
            Ok(())
        }
        Reply::Endless(first, again) => {
            stream.write_all(&first)?;
            let mut left = 2_usize << 30;
            while left > 0 {
                stream.write_all(&again)?;
                left = left.saturating_sub(again.len());
            }
            Ok(())
        }
        Reply::Drip(bytes, milliseconds) => {
            for byte in bytes {
                stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(milliseconds));
            }
            Ok(())
        }
    }
}
