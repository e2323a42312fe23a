//! A throw-away PostgreSQL server: made from whatever is installed, reachable on the loopback only, gone when dropped.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A running server with an empty database `postgres`. Dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Server {
    binaries: PathBuf,
    as_postgres: bool,
    url: String,
    directory: TempDir,
}

// === impl Server ===

impl Server {
    /// Starts a server; `None` if none is installed. As root it runs as user `postgres`, because it refuses to run as root.
    /// Nothing is flushed to disk: a test that pulls the plug needs another one.
    pub fn start() -> io::Result<Option<Self>> {
        let Some(binaries) = installed() else {
            return Ok(None);
        };
        let directory = tempfile::Builder::new().prefix("sallyport-postgres-").tempdir()?;
        let as_postgres = std::fs::metadata(directory.path())?.uid() == 0;
        if as_postgres {
            chown(directory.path(), Some(number("-u")?), Some(number("-g")?))?;
        }
        let mut server = Self { binaries, as_postgres, url: String::new(), directory };
        let data = server.data();
        let initdb =
            ["-D", &text(&data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
        run(server.command("initdb").args(initdb))?;

        // Between choosing a port and taking it somebody else may take it: then another is chosen.
        let mut attempt = 0;
        loop {
            attempt += 1;
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let options = format!(
                "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off \
                 -c synchronous_commit=off -c full_page_writes=off -c max_connections=200",
                text(server.directory.path()),
            );
            let log = text(&server.directory.path().join("log"));
            let started = run(server.command("pg_ctl").args([
                "start",
                "-w",
                "-t",
                "60",
                "-s",
                "-D",
                &text(&data),
                "-l",
                &log,
                "-o",
                &options,
            ]));
            match started {
                Ok(()) => {
                    server.url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
                    return Ok(Some(server));
                }
                Err(_) if attempt < 5 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it listens: `postgres://postgres@127.0.0.1:<port>/postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs a statement, as somebody else who has the database would.
    pub fn execute(&self, statement: &str) -> io::Result<()> {
        run(self.command("psql").args(["-v", "ON_ERROR_STOP=1", "-d", &self.url, "-c", statement]))
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = if self.as_postgres {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // The directory of the tests may be one that user postgres cannot enter.
        command.current_dir(self.directory.path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = text(&self.data());
        // Nothing to do about a failure here, and nothing is kept that it could harm.
        run(self.command("pg_ctl").args(["stop", "-s", "-m", "immediate", "-D", &data])).ok();
    }
}

/// Where `initdb` and `pg_ctl` are; the newest version, if there are several.
fn installed() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (root, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr/local/lib/postgresql", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/usr", "bin"),
    ] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            let binaries = entry.path().join(below);
            if binaries.join("initdb").is_file() && binaries.join("pg_ctl").is_file() {
                found.push((digits.parse().unwrap_or(0), binaries));
            }
        }
    }
    let packaged = PathBuf::from("/usr/bin");
    if packaged.join("initdb").is_file() && packaged.join("pg_ctl").is_file() {
        found.push((0, packaged));
    }
    found.into_iter().max().map(|(_, binaries)| binaries)
}

fn run(command: &mut Command) -> io::Result<()> {
    // Not pipes: the server inherits them, and one that it holds open never ends.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} failed: {status}", command.get_program().display())))
}

/// The number of user or group `postgres`.
fn number(flag: &str) -> io::Result<u32> {
    let output = Command::new("id").args([flag, "postgres"]).output()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(io::Error::other)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_server_answers_until_it_is_dropped() {
        let Some(server) = Server::start().unwrap() else {
            eprintln!("skipped, PostgreSQL is not installed: {}", module_path!());
            return;
        };
        let address = server.url().split(['@', '/']).nth(3).unwrap().to_owned();
        TcpStream::connect(&address).unwrap();
        let files = server.directory.path().to_owned();
        drop(server);
        TcpStream::connect(&address).unwrap_err();
        assert!(!files.exists());
    }
}
