//! `sallyport analytics requests list`, `sallyport audit lineage` and `sallyport audit tail`: the audit trail for people.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::clip;
use crate::clock::{Clock as _, SystemClock};
use crate::db::Db;
use crate::db::audit::{Filter, Row};

/// `sallyport audit ..`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show everything that one call caused, in order.
    Lineage(Lineage),
    /// Show the newest rows.
    Tail(Tail),
    /// Run the decisions of a recorded call again, and say whether they come out the same.
    Replay(super::evidence::Replay),
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
pub struct Lineage {
    /// The trace, as in the x-trace-id of the response.
    pub trace: String,
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
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub limit: i64,
}

/// How often `tail --follow` asks the database.
const POLL: Duration = Duration::from_millis(500);
/// So many rows come in one answer.
const PAGE: i64 = 500;

/// Runs `sallyport audit ..`.
pub async fn run(command: Command, context: &mut Context<'_>) -> anyhow::Result<()> {
    let answer = match command {
        Command::Lineage(asked) => lineage(&asked, &context.db, context.json, &mut *context.out).await,
        Command::Tail(asked) => tail(&asked, &context.db, context.json, &mut *context.out).await,
        Command::Replay(_) => bail!("needs the keys of the gateway"),
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
                clean(&row.user_id),
                clean(row.model.as_deref().unwrap_or("-")),
                clean(row.provider.as_deref().unwrap_or("-")),
                row.outcome.clone(),
                number(row.tokens_in),
                number(row.tokens_out),
                row.cost_micro.map_or_else(dash, dollars),
                number(row.latency_ms),
                clean(&row.trace_id),
            ]
        })
        .collect();
    table(head, &lines, out)
}

async fn lineage(asked: &Lineage, db: &Db, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
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

/// A table for people: columns as wide as what stands in them.
pub(super) fn table<const N: usize>(
    head: [&str; N],
    lines: &[[String; N]],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut widths = head.map(|name| name.chars().count());
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.map(str::to_owned);
    for line in std::iter::once(&head).chain(lines) {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn clock(row: &Row) -> String {
    let text = row.occurred_at.text();
    // Seconds and milliseconds are enough for people.
    text.get(..23).unwrap_or(&text).replace('T', " ")
}

fn number(value: Option<i32>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn dash() -> String {
    "-".to_owned()
}

fn dollars(micro: i64) -> String {
    let sign = if micro < 0 { "-" } else { "" };
    let micro = micro.unsigned_abs();
    format!("{sign}${}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

/// Names come from clients and tools: a terminal must not obey them, and nobody must be misled by them.
pub(super) fn clean(text: &str) -> String {
    clip::visible(text)
}

pub(super) fn since(text: &str, now: OffsetDateTime) -> anyhow::Result<OffsetDateTime> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(at);
    }
    let hint = "a time like 2026-04-01T00:00:00Z, or how long ago: 30m, 24h, 7d";
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => bail!("--since {} is not {hint}", clean(text)),
    };
    let count: i64 = text
        .get(..text.len() - 1)
        .and_then(|count| count.parse().ok())
        .with_context(|| format!("--since {} is not {hint}", clean(text)))?;
    let ago = time::Duration::seconds(count.saturating_mul(unit));
    now.checked_sub(ago).with_context(|| format!("--since {} is too long ago", clean(text)))
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
