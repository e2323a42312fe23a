//! `sallyport doctor`: everything that the gateway needs to run, looked at one by one.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use super::{Ending, open};
use crate::auth::keys::Keys;
use crate::component;
use crate::config::Config;

/// What one look found.
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Failure,
}

/// Looks at everything; what fails does not keep it from looking at the rest.
pub(super) async fn run(file: &Path, json: bool, out: &mut (dyn Write + Send)) -> anyhow::Result<Ending> {
    let mut findings = Vec::new();
    match Config::load(file) {
        Err(report) => {
            let all = report.problems().iter().map(|problem| failure("configuration", problem.to_string()));
            findings.extend(all);
        }
        Ok(config) => {
            findings.push(ok("configuration", file.display().to_string()));
            let warnings = config.warnings.iter();
            findings.extend(warnings.map(|warning| Finding {
                what: "configuration",
                state: State::Warning,
                detail: warning.to_string(),
            }));
            findings.push(ok("secrets", format!("{} known", config.secrets.names().count())));
            findings.push(match Keys::load(&config.keys_dir()) {
                Ok(_) => ok("keys", config.keys_dir().display().to_string()),
                Err(error) => failure("keys", format!("{:#}", anyhow::Error::new(error))),
            });
            findings.push(match open(&config).await {
                Ok(db) => {
                    db.close().await;
                    ok("database", crate::config::masked_url(&config.database_url))
                }
                Err(error) => failure("database", format!("{error:#}")),
            });
            findings.push(writable("audit spool", &config.audit.spool_dir));
            findings.push(writable("component cache", &config.cache_dir()));
            findings.push(worker().await);
            findings.push(port(&config));
        }
    }
    let failed = findings.iter().any(|finding| finding.state == State::Failure);
    if json {
        let all: Vec<Value> = findings
            .iter()
            .map(|found| json!({ "what": found.what, "state": found.state.as_str(), "detail": found.detail }))
            .collect();
        writeln!(out, "{}", json!({ "ok": !failed, "findings": all }))?;
    } else {
        for found in &findings {
            writeln!(out, "{:<8} {:<16} {}", found.state.as_str(), found.what, found.detail)?;
        }
    }
    Ok(if failed { Ending::Failed } else { Ending::Done })
}

// === impl State ===

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

fn ok(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, state: State::Ok, detail: detail.into() }
}

fn failure(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, state: State::Failure, detail: detail.into() }
}

fn writable(what: &'static str, directory: &Path) -> Finding {
    let shown = directory.display();
    match std::fs::create_dir_all(directory).and_then(|()| tempfile::tempfile_in(directory)) {
        Ok(_) => ok(what, shown.to_string()),
        Err(error) => failure(what, format!("{shown} cannot be written: {error}")),
    }
}

/// A worker process starts, and the kernel has what confines it.
async fn worker() -> Finding {
    let what = "worker process";
    let program = match component::own_program() {
        Ok(program) => program,
        Err(error) => return failure(what, format!("cannot find this binary: {error}")),
    };
    match component::try_worker(&program).await {
        Ok(confinement) if confinement.is_whole() => ok(what, confinement.to_string()),
        Ok(confinement) => Finding { what, state: State::Warning, detail: confinement.to_string() },
        Err(fault) => failure(what, fault.to_string()),
    }
}

/// The address is free, or somebody (most likely this very gateway) is there already.
fn port(config: &Config) -> Finding {
    let listen = config.server.listen;
    match TcpListener::bind(listen) {
        Ok(_) => ok("address", format!("{listen} is free")),
        Err(error) => {
            Finding { what: "address", state: State::Warning, detail: format!("{listen} is taken: {error}") }
        }
    }
}
