//! `sallyport audit reconcile`: lets a gateway go on with a database that its spool does not know.

use std::io::Write;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::audit::{Action, ChainKey, Event, Outcome, Survey, SurveyError, Who, record_directly};
use crate::auth::keys::Keys;
use crate::cli::open;
use crate::cli::output::clean;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::db::Db;

/// What `audit reconcile` is asked.
#[derive(Debug, Args)]
#[command(after_help = "\
The spool remembers the database that it delivered to. If that one was removed, emptied, exchanged or brought back from a backup,
the gateway refuses every call with a 503, and /ready says why. Mend the database if you can: a gateway that finds the one it knows
goes on by itself. If this database is the one to go on with, run this command: rows that the spool still holds are delivered to it,
each once; rows that neither has are named as lost. The command leaves a row, and the gateway another one once it goes on, which is
within seconds, or at its next start. Where rows of another gateway have the same name, choose another audit.replica first.

Whatever else an older database holds is in force again: users, tokens and revocations as they were then.")]
pub struct Reconcile {
    /// Say what going on would mean, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the audit rows
    #[arg(long, value_name = "TEXT", default_value = "approved on the command line")]
    pub reason: String,
}

/// Runs it.
pub(crate) async fn run(
    asked: &Reconcile,
    config: &Config,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if let Some(file) = Db::file_of(&config.database.url).filter(|file| asked.dry_run && !file.exists()) {
        let text = format!(
            "The database file {} is missing; without --dry-run an empty one is made.",
            file.display()
        );
        return if json {
            say(&json!({ "found": text, "approved": false }), out)
        } else {
            Ok(writeln!(out, "{text}")?)
        };
    }
    let db = open(config).await?;
    let surveyed = survey(config, &db, &asked.reason).await?;
    let Some(survey) = surveyed else {
        db.close().await;
        if json {
            return say(&json!({ "found": null, "approved": false }), out);
        }
        writeln!(out, "The database is the one that the spool delivered to: there is nothing to reconcile.")?;
        return Ok(());
    };
    if !asked.dry_run {
        record_directly(&db, row(&survey, &asked.reason)).await.context("the approval has no row")?;
        survey.approve().context("the approval could not be left in the spool")?;
    }
    db.close().await;
    let Survey { found, again, lost, .. } = &survey;
    if json {
        let answer = json!({ "found": found, "rows_from_spool": again,
            "rows_lost": lost.map(|(from, to)| [from, to]), "approved": !asked.dry_run });
        return say(&answer, out);
    }
    writeln!(out, "Found: {}.", clean(found))?;
    writeln!(out, "Rows that the spool still holds and the database lacks: {again}. They are delivered.")?;
    let replica = &config.audit.replica;
    match lost {
        Some((from, to)) => writeln!(out, "Rows {from} to {to} of {replica} are in neither: they are lost.")?,
        None => writeln!(out, "No row is lost.")?,
    }
    if asked.dry_run {
        writeln!(out, "Nothing was changed.")?;
    } else {
        writeln!(
            out,
            "Approved. A gateway that runs goes on within seconds; where its database file was removed or replaced, start it again."
        )?;
    }
    Ok(())
}

/// Compares spool and database; `None` if they belong together.
pub(crate) async fn survey(config: &Config, db: &Db, reason: &str) -> anyhow::Result<Option<Survey>> {
    let keys = Keys::load(&config.keys_dir()).context("cannot load the gateway's keys")?;
    let mut settings = config.audit.clone();
    settings.chain_key = Some(ChainKey(*keys.audit_chain().expose()));
    match Survey::take(&settings, db, reason).await {
        Ok(survey) => Ok(survey),
        Err(SurveyError::NoSpool(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn say(answer: &serde_json::Value, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{answer}")?;
    Ok(())
}

fn row(survey: &Survey, reason: &str) -> Event {
    let who = Who { client_id: "sp_cli".into(), call_source: "cli".into(), ..Who::nobody() };
    let detail = json!({ "database": survey.database(), "found": survey.found, "rows_from_spool": survey.again,
        "rows_lost": survey.lost.map(|(from, to)| [from, to]) });
    let payload = json!({ "reason": reason, "detail": detail });
    let now = SystemClock::default().now();
    Event::change(now, Action::AuditReconcile, who, Outcome::Allowed, payload)
}
