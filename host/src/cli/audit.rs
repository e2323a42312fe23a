//! `sallyport analytics requests list`, `sallyport audit lineage`, `session` and `tail`: the audit trail for people.

mod reconcile;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use time::OffsetDateTime;

pub(super) use self::reconcile::{Reconcile, run as reconcile, survey};
use super::Context;
use super::output::{clean, dash, table};
use super::since::since;
use crate::clock::{Clock as _, SystemClock};
use crate::db::Db;
use crate::db::audit::{Filter, Row};

/// `sallyport audit ..`.
#[derive(Debug, Subcommand)]
pub enum TrailCommand {
    /// What reads rows
    #[command(flatten)]
    Read(ReadCommand),
    /// Run the decisions of a recorded call again, and say whether they come out the same.
    Replay(super::evidence::Replay),
    /// Let a gateway go on whose database was exchanged, emptied or brought back from a backup.
    Reconcile(Reconcile),
}

/// Commands that read rows, and need no key of the gateway.
#[derive(Debug, Subcommand)]
pub enum ReadCommand {
    /// Show everything that one call caused, in order.
    Lineage(LineageArgs),
    /// Show everything that happened in one session, or for one prompt of it, in order.
    Session(SessionArgs),
    /// Show the newest rows.
    Tail(Tail),
}

/// `sallyport analytics ..`.
#[derive(Debug, Subcommand)]
pub enum Analytics {
    /// Calls of models.
    #[command(subcommand)]
    Requests(Requests),
}

/// `sallyport analytics requests ..`.
#[derive(Debug, Subcommand)]
pub enum Requests {
    /// List calls, newest first.
    List(List),
}

/// What `audit lineage` is asked.
#[derive(Debug, Args)]
pub struct LineageArgs {
    /// The trace, as in the x-trace-id of the response.
    pub trace: String,
    /// Only rows of this tenant.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// What `audit session` is asked.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The session, as in the column `session_id`: for Claude Code, `sess_` and the id of its session.
    pub session: String,
    /// Only what this prompt caused, by the client's id of it.
    #[arg(long)]
    pub prompt: Option<String>,
    /// Only rows of this tenant.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// What `audit tail` is asked.
#[derive(Debug, Args)]
pub struct Tail {
    /// Go on as rows come in.
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with so many rows.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(i64).range(0..=1_000_000))]
    pub lines: i64,
    /// Only rows of this tenant.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// What `analytics requests list` is asked.
#[derive(Debug, Args)]
pub struct List {
    /// Only calls since then: a time (2026-04-01T00:00:00Z) or how long ago (30m, 24h, 7d).
    #[arg(long)]
    pub since: Option<String>,
    /// Only calls of this user.
    #[arg(long)]
    pub user: Option<String>,
    /// Only calls of this model.
    #[arg(long)]
    pub model: Option<String>,
    /// Only calls of this tenant.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Also calls that only counted tokens.
    #[arg(long)]
    pub count_tokens: bool,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub limit: i64,
}

/// How often `tail --follow` asks the database.
const POLL: Duration = Duration::from_millis(500);
/// So many rows come in one answer.
const PAGE: i64 = 500;

/// Runs `sallyport audit lineage`, `session` and `tail`.
pub async fn run(command: ReadCommand, context: &mut Context<'_>) -> anyhow::Result<()> {
    let answer = match command {
        ReadCommand::Lineage(asked) => lineage(&asked, &context.db, context.json, &mut *context.out).await,
        ReadCommand::Session(asked) => session(&asked, &context.db, context.json, &mut *context.out).await,
        ReadCommand::Tail(asked) => tail(&asked, &context.db, context.json, &mut *context.out).await,
    };
    until_the_reader_left(answer)
}

/// Runs `sallyport analytics ..`.
pub async fn run_analytics(command: Analytics, context: &mut Context<'_>) -> anyhow::Result<()> {
    let Analytics::Requests(Requests::List(asked)) = command;
    let now = SystemClock::default().now();
    until_the_reader_left(list(&asked, now, &context.db, context.json, &mut *context.out).await)
}

async fn list(
    asked: &List,
    now: OffsetDateTime,
    db: &Db,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let filter = Filter {
        since: asked.since.as_deref().map(|text| since(text, now)).transpose()?,
        user: asked.user.clone(),
        model: asked.model.clone(),
        tenant: asked.tenant.clone(),
        counts: asked.count_tokens,
        limit: asked.limit,
    };
    let rows = db.audit_requests(&filter).await?;
    if json {
        return whole(&rows, out);
    }
    if rows.is_empty() {
        writeln!(out, "No calls match.")?;
        return Ok(());
    }
    let head = ["TIME", "USER", "MODEL", "PROVIDER", "OUTCOME", "IN", "OUT", "COST", "MS", "TRACE"];
    let lines: Vec<[String; 10]> = rows
        .iter()
        .map(|row| {
            [
                clock(row),
                row.user_id.clone(),
                row.model.clone().unwrap_or_else(dash),
                row.provider.clone().unwrap_or_else(dash),
                row.outcome.clone(),
                number(row.tokens_in),
                number(row.tokens_out),
                row.cost_micro.map_or_else(dash, dollars),
                number(row.latency_ms),
                row.trace_id.clone(),
            ]
        })
        .collect();
    table(&head, &lines, out)
}

async fn lineage(asked: &LineageArgs, db: &Db, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = db.audit_lineage(&asked.trace, asked.tenant.as_deref()).await?;
    if json {
        return whole(&rows, out);
    }
    let Some(first) = rows.first() else { bail!("no rows have the trace {}", clean(&asked.trace)) };
    writeln!(
        out,
        "{}  user {}  tenant {}  session {}  client {}  source {}  policy {}",
        clean(&first.trace_id),
        clean(&first.user_id),
        clean(&first.tenant_id),
        clean(&first.session_id),
        clean(&first.client_id),
        clean(&first.call_source),
        clean(&first.policy_ver),
    )?;
    for (index, row) in rows.iter().enumerate() {
        let branch = if index + 1 == rows.len() { "└─" } else { "├─" };
        writeln!(out, "{branch} {}", line(row))?;
    }
    Ok(())
}

async fn session(asked: &SessionArgs, db: &Db, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = db.audit_session(&asked.session, asked.prompt.as_deref(), asked.tenant.as_deref()).await?;
    if json {
        return whole(&rows, out);
    }
    if rows.is_empty() {
        bail!("no rows have the session {}", clean(&asked.session));
    }
    for row in &rows {
        one(row, false, out)?;
    }
    Ok(())
}

async fn tail(asked: &Tail, db: &Db, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let tenant = asked.tenant.as_deref();
    let rows = db.audit_newest(tenant, asked.lines.max(1)).await?;
    let mut last = rows.last().map_or(0, |row| row.id);
    let skipped = if asked.lines == 0 { rows.len() } else { 0 };
    for row in rows.iter().skip(skipped) {
        one(row, json, out)?;
    }
    out.flush()?;
    if !asked.follow {
        return Ok(());
    }
    loop {
        let rows = db.audit_after(last, tenant, PAGE).await?;
        for row in &rows {
            one(row, json, out)?;
            last = row.id;
        }
        out.flush()?;
        if rows.is_empty() {
            tokio::time::sleep(POLL).await;
        }
    }
}

fn whole(rows: &[Row], out: &mut dyn Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, rows)?;
    writeln!(out)?;
    Ok(())
}

fn one(row: &Row, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, row)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}  {}  {}", line(row), clean(&row.user_id), clean(&row.trace_id))?;
    }
    Ok(())
}

/// A row in one line.
fn line(row: &Row) -> String {
    let mut parts = vec![format!("{} {:<9} {:<7}", clock(row), row.kind, row.outcome)];
    for name in ["tool", "server", "hook", "event", "code", "reason"] {
        if let Some(value) = row.payload.get(name).and_then(serde_json::Value::as_str) {
            parts.push(format!("{name} {}", clean(value)));
        }
    }
    match (&row.model, &row.provider) {
        (Some(model), Some(provider)) => parts.push(format!("{} via {}", clean(model), clean(provider))),
        (Some(name), None) | (None, Some(name)) => parts.push(clean(name)),
        (None, None) => {}
    }
    parts.extend(row.tokens_in.map(|tokens| format!("in {tokens}")));
    parts.extend(row.tokens_out.map(|tokens| format!("out {tokens}")));
    parts.extend(row.cost_micro.map(dollars));
    parts.extend(row.latency_ms.map(|latency| format!("{latency} ms")));
    parts.join("  ").trim_end().to_owned()
}

fn clock(row: &Row) -> String {
    let Ok(text) = row.occurred_at.text() else { return dash() };
    // Seconds and milliseconds are enough for people.
    text.get(..23).unwrap_or(&text).replace('T', " ")
}

fn number(value: Option<i32>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn dollars(micro: i64) -> String {
    let sign = if micro < 0 { "-" } else { "" };
    let micro = micro.unsigned_abs();
    format!("{sign}${}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

/// `audit tail | head` is not an error.
fn until_the_reader_left(answer: anyhow::Result<()>) -> anyhow::Result<()> {
    match answer {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
