//! The stories: what the gateway promises, told against its binary and a scripted upstream.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a story are tests too"
)]

mod admin_api;
mod attacks;
mod audit;
mod batches;
mod blanks;
mod bombs;
mod canaries;
mod catalog;
mod certified;
mod claude_code;
mod client_documents;
mod clients;
mod clouds;
mod conformance;
mod conversations;
mod counting;
mod crash;
mod crossings;
mod crowds;
mod disguise;
mod disk;
mod echoes;
mod egress;
mod encrypted;
mod ending;
mod entitlements;
mod evidence;
mod exercise;
mod failover;
mod faults;
mod files;
mod fixtures;
mod forged;
mod full;
mod generated;
mod governance;
mod heads;
mod hooks;
mod hostile;
mod identity;
mod identity_providers;
mod kept;
mod kit;
mod lab;
mod left;
mod levels;
mod lineage;
mod links;
mod listeners;
mod models;
mod modes;
mod neighbours;
mod oauth;
mod providers;
mod quotas;
mod reference;
mod reload;
mod replicas;
mod revoked;
mod rewrite;
mod rig;
mod routing;
mod scim;
mod secrets;
mod shapes;
mod shares;
mod shown;
mod sign_in;
mod size;
mod sizes;
mod sums;
mod swap;
mod targets;
mod telemetry;
mod tenants;
mod tidy;
mod tiers;
mod token_keys;
mod trail;
mod verdicts;
mod wire;
mod workers;
mod workstations;

use std::io::Write as _;

use serde_json::{Value, json};

/// Whether to count far and to judge figures: `cargo xtask soak`, on a quiet machine and a release binary.
fn soak() -> bool {
    std::env::var_os("SALLYPORT_SOAK").is_some()
}

/// Straight to the runner's output: what a passing test prints is not shown.
fn tell(line: &str) {
    drop(std::io::stdout().write_all(format!("{line}\n").as_bytes()));
}

/// A question to a model.
fn ask(model: &str, text: &str) -> Value {
    json!({"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": text}]})
}

/// The usual question.
fn hello() -> Value {
    ask("claude-sonnet-4-5", "Hello")
}

/// What an access token says, unverified.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap())
        .unwrap()
}

/// Waits until the clock shows another second: what is taken back counts for all of the second in which that happens.
#[expect(clippy::disallowed_methods, reason = "a story tells a gateway of the real time")]
async fn another_second() {
    let now = || time::OffsetDateTime::now_utc().unix_timestamp();
    let began = now();
    sallyport_tests::wait::until_true("the clock goes on", sallyport_tests::wait::SOON, || now() > began)
        .await;
}

/// So many seconds from now, as the wire writes a time.
#[expect(clippy::disallowed_methods, reason = "a story tells a gateway of the real time")]
fn in_seconds(seconds: i64) -> String {
    let at = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}
