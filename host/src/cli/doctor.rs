//! `sallyport doctor`: everything that the gateway needs to run, looked at one by one.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use super::audit::survey;
use super::{Ending, open, remote};
use crate::auth::keys::Keys;
use crate::clock::{Clock as _, SystemClock};
use crate::component;
use crate::config::Config;
use crate::db::Db;
use crate::tls::{Shown, TlsSettings};

/// What one look found.
struct Finding {
    what: &'static str,
    state: CheckState,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckState {
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
                state: CheckState::Warning,
                detail: warning.to_string(),
            }));
            findings.push(ok("secrets", format!("{} known", config.secrets.names().count())));
            findings.push(match Keys::load(&config.keys_dir()) {
                Ok(_) => ok("keys", config.keys_dir().display().to_string()),
                Err(error) => failure("keys", format!("{:#}", anyhow::Error::new(error))),
            });
            match open(&config).await {
                Ok(db) => {
                    findings.push(ok("database", crate::config::masked_url(&config.database.url)));
                    findings.push(trail(&config, &db).await);
                    db.close().await;
                }
                Err(error) => findings.push(failure("database", format!("{error:#}"))),
            }
            findings.push(writable("audit spool", &config.audit.spool_dir));
            findings.push(writable("component cache", &config.cache_dir()));
            findings.push(worker().await);
            findings.extend(config.tls.as_ref().and_then(certificate));
            findings.push(port(&config));
            findings.extend(gateway(&config).await);
        }
    }
    let failed = findings.iter().any(|finding| finding.state == CheckState::Failure);
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

// === impl CheckState ===

impl CheckState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

fn ok(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, state: CheckState::Ok, detail: detail.into() }
}

fn failure(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, state: CheckState::Failure, detail: detail.into() }
}

fn writable(what: &'static str, directory: &Path) -> Finding {
    let shown = directory.display();
    match std::fs::create_dir_all(directory).and_then(|()| tempfile::tempfile_in(directory)) {
        Ok(_) => ok(what, shown.to_string()),
        Err(error) => failure(what, format!("{shown} cannot be written: {error}")),
    }
}

/// The database is the one that the spool delivered to.
async fn trail(config: &Config, db: &Db) -> Finding {
    let what = "audit trail";
    match survey(config, db, "").await {
        Ok(None) => ok(what, "the database is the one that the spool delivers to"),
        Ok(Some(survey)) => {
            failure(what, format!("{}; see `sallyport audit reconcile --help`", survey.found))
        }
        Err(error) => failure(what, format!("{error:#}")),
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
        Ok(confinement) => Finding { what, state: CheckState::Warning, detail: confinement.to_string() },
        Err(fault) => failure(what, fault.to_string()),
    }
}

/// Until when the certificate is valid.
fn certificate(tls: &TlsSettings) -> Option<Finding> {
    let Shown { fingerprint, valid_until } = Shown::of(tls)?;
    let left = valid_until - SystemClock::default().now();
    let state = match left {
        left if left <= time::Duration::ZERO => CheckState::Failure,
        left if left <= tls.warn_before => CheckState::Warning,
        _ => CheckState::Ok,
    };
    let detail = format!("valid until {}, SHA-256 {fingerprint}", valid_until.date());
    Some(Finding { what: "certificate", state, detail })
}

/// What the gateway that serves this home says of itself; nothing if none does.
async fn gateway(config: &Config) -> Option<Finding> {
    let what = "gateway";
    Some(match remote::ready(&config.home).await? {
        Ok(status) if status == "ready" => ok(what, "ready"),
        Ok(status) => {
            Finding { what, state: CheckState::Warning, detail: format!("{status}: look at its /ready") }
        }
        Err(error) => failure(what, format!("{error:#}")),
    })
}

/// The address is free, or somebody (most likely this very gateway) is there already.
fn port(config: &Config) -> Finding {
    let listen = config.server.listen;
    match TcpListener::bind(listen) {
        Ok(_) => ok("address", format!("{listen} is free")),
        Err(error) => Finding {
            what: "address",
            state: CheckState::Warning,
            detail: format!("{listen} is taken: {error}"),
        },
    }
}
