//! The reverse proxy that does nothing else: what is measured beside the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running one. Dropped, it is gone.
pub(super) struct Nginx {
    child: Child,
    _home: tempfile::TempDir,
}

const CONFIG: &str = "worker_processes 2; daemon off; pid nginx.pid; error_log error.log crit;
events { worker_connections 4096; }
http {
  access_log off; client_max_body_size 64m; client_body_buffer_size 2m; keepalive_requests 10000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream scripted { server UPSTREAM; keepalive 256; keepalive_requests 10000000; }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    location / { proxy_pass http://scripted; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_request_buffering off; }
  }
}
";

// === impl Nginx ===

impl Nginx {
    /// Starts it in front of the upstream; `None` where it is not installed.
    pub(super) async fn start(upstream: &str) -> anyhow::Result<Option<(Self, SocketAddr)>> {
        let home = tempfile::tempdir()?;
        // Its children run as another user and want to enter.
        Command::new("chmod").arg("755").arg(home.path()).status()?;
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = CONFIG.replace("UPSTREAM", upstream).replace("PORT", &free.port().to_string());
        std::fs::write(home.path().join("nginx.conf"), config)?;
        let Some(binary) = installed("nginx") else { return Ok(None) };
        let child = Command::new(binary)
            .arg("-c")
            .arg(home.path().join("nginx.conf"))
            .arg("-p")
            .arg(home.path())
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self { child, _home: home };
        for _ in 0..200 {
            if std::net::TcpStream::connect(free).is_ok() {
                return Ok(Some((nginx, free)));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        anyhow::bail!("nginx does not listen")
    }

    /// Its process, whose children do the work.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its children go with it on this signal, and on no harder one.
        drop(sallyport_tests::process::signal(self.child.id(), "TERM"));
        drop(self.child.wait());
    }
}

/// Where a program is.
fn installed(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}
