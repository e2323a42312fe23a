//! The `sallyport` command: what it understands, and how it ends. Answers go to a handle that the caller chooses, as a table
//! for people or as JSON for programs; complaints go to standard error.
//!
//! | exit code | |
//! |---|---|
//! | 0 | done |
//! | 1 | it did not work; the message says why |
//! | 2 | the command line is not understood |
//! | 3 | the configuration is refused; every problem was listed |

pub mod audit;
mod check;
pub mod component;
mod doctor;
pub mod evidence;
pub mod identity;
mod init;
pub mod key;
mod output;
mod remote;
mod route;
mod serve;
mod show;
mod since;
mod workbench;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::json;

use crate::app;
use crate::audit::{Event, Outcome, Who, record_directly};
use crate::clock::{Clock as _, SystemClock, SystemEntropy};
use crate::component::{COMPILE_VERB, WORKER_VERB, compile_child, worker_child, worker_trial};
use crate::config::{self, Config, Report};
use crate::db::Db;
use crate::telemetry;

/// What a command works with.
pub struct Context<'a> {
    /// The database, migrated.
    pub db: Db,
    /// Whether the answer is JSON.
    pub json: bool,
    /// Where the answer goes.
    pub out: &'a mut dyn Write,
}

/// A self-hosted AI gateway: every prompt, tool call and cost passes through policy that you own, into an audit trail that
/// you can prove.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 command line not understood, 3 configuration refused."
)]
pub struct Cli {
    /// The directory with configuration, keys, spool and database [default: ~/.sallyport]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The configuration file; its directory is the home
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "home")]
    config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make a home: configuration, keys, database
    Init(init::Init),
    /// Run the gateway
    Serve,
    /// Check the configuration; every problem is listed
    Check,
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at everything that the gateway needs to run
    Doctor,
    #[command(flatten)]
    Identity(identity::IdentityCommand),
    /// What was asked, and what it cost
    #[command(subcommand)]
    Analytics(audit::Analytics),
    /// The audit trail
    #[command(subcommand)]
    Audit(audit::TrailCommand),
    /// Policies: try one on recorded traffic
    #[command(subcommand)]
    Policy(evidence::Policy),
    /// Components: write, build, try, sign and look at them
    #[command(subcommand)]
    Component(component::ComponentCommand),
    /// Keys that sign components
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Print every limit that clients, upstreams and components can meet
    Limits {
        /// As a table in Markdown
        #[arg(long)]
        markdown: bool,
    },
    /// Routes: which one takes a call, and why
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// The endpoints for administration
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Compile one component; the gateway calls itself with this, in a limited process
    #[command(name = COMPILE_VERB, hide = true)]
    CompileComponent,
    /// Run tenants' components; the gateway calls itself with this, in a confined process
    #[command(name = WORKER_VERB, hide = true)]
    RunComponents,
    /// Try what a process that runs tenants' components may not do
    #[command(name = "try-worker", hide = true)]
    TryWorker,
}

/// `sallyport config ..`.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration in force, defaults filled in, secrets masked
    Show,
    /// Print a JSON Schema of the configuration file, for editors and for tools that write it
    Schema,
    /// Print every key of the configuration file as Markdown
    Reference,
}

/// `sallyport admin ..`.
#[derive(Debug, Subcommand)]
enum AdminCommand {
    #[command(about = "Print them as an OpenAPI document")]
    Openapi,
    /// Print them as Markdown
    Reference,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is done.
    Done,
    /// It said what is wrong.
    Failed,
    /// The configuration is refused; the problems were listed.
    Refused,
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::CompileComponent) {
        return compile_child();
    }
    if matches!(cli.command, Command::RunComponents) {
        return worker_child();
    }
    if matches!(cli.command, Command::TryWorker) {
        return worker_trial();
    }
    telemetry::init();
    let ending = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(cli, &mut io::stdout())));
    match ending {
        Ok(ending) => ending.into(),
        Err(error) => {
            // Standard error may be closed: then there is nobody to tell.
            drop(writeln!(io::stderr(), "sallyport: {error:#}"));
            let refused = error.downcast_ref::<Report>().is_some();
            if refused { Ending::Refused.into() } else { Ending::Failed.into() }
        }
    }
}

/// Runs one command; the answer goes to `out`.
pub async fn run(cli: Cli, out: &mut (dyn Write + Send)) -> anyhow::Result<Ending> {
    if let Command::Limits { markdown } = cli.command {
        return show::limits(markdown, cli.json, out);
    }
    match cli.command {
        Command::Config(ConfigCommand::Schema) => return show::text(&config::schema(), out),
        Command::Config(ConfigCommand::Reference) => return show::text(&config::reference(), out),
        Command::Admin(AdminCommand::Openapi) => return show::text(&app::admin_openapi(), out),
        Command::Admin(AdminCommand::Reference) => return show::text(&app::admin_reference(), out),
        _ => {}
    }
    let file = cli.file()?;
    let json = cli.json;
    match cli.command {
        Command::Init(asked) => init::run(&asked, &file, json, out).await,
        Command::Check => check::run(&file, json, out),
        Command::Config(_) => show::run(&Config::load(&file)?, json, out),
        Command::Doctor => doctor::run(&file, json, out).await,
        Command::Serve => Box::pin(serve::run(&file)).await,
        Command::Identity(command) => {
            let config = Config::load(&file)?;
            let db = open(&config).await?;
            let mut context = identity::IdentityContext {
                db: &db,
                keys: &config.keys_dir(),
                settings: &config.auth,
                clock: &SystemClock::default(),
                entropy: &SystemEntropy,
                json,
                out,
            };
            if let Some(change) = identity::run(command, &mut context).await? {
                record_directly(&db, row(change)).await?;
            }
            db.close().await;
            Ok(Ending::Done)
        }
        Command::Audit(audit::TrailCommand::Replay(asked)) => {
            Box::pin(evidence::replay_trace(&asked, &Config::load(&file)?, json, out)).await
        }
        Command::Audit(audit::TrailCommand::Reconcile(asked)) => {
            audit::reconcile(&asked, &Config::load(&file)?, json, out).await?;
            Ok(Ending::Done)
        }
        Command::Policy(evidence::Policy::Try(asked)) => {
            Box::pin(evidence::try_policy(&asked, &Config::load(&file)?, json, out)).await
        }
        Command::Audit(audit::TrailCommand::Read(command)) => {
            let db = open(&Config::load(&file)?).await?;
            audit::run(command, &mut Context { db: db.clone(), json, out }).await?;
            db.close().await;
            Ok(Ending::Done)
        }
        Command::Analytics(command) => {
            let db = open(&Config::load(&file)?).await?;
            audit::run_analytics(command, &mut Context { db: db.clone(), json, out }).await?;
            db.close().await;
            Ok(Ending::Done)
        }
        Command::Component(command) => Box::pin(component::run(command, &file, json, out)).await,
        Command::Route(route::RouteCommand::Explain(asked)) => {
            route::explain(&asked, &Config::load(&file)?, json, out).await
        }
        Command::Key(key::KeyCommand::Rotate(asked)) => {
            let config = Config::load(&file)?;
            let db = open(&config).await?;
            let change = key::rotate(&asked, &config, &db, json, out).await?;
            record_directly(&db, row(change)).await?;
            db.close().await;
            Ok(Ending::Done)
        }
        Command::Key(command) => key::run(&command, file.parent().unwrap_or(&file), json, out).await,
        Command::CompileComponent
        | Command::RunComponents
        | Command::TryWorker
        | Command::Admin(_)
        | Command::Limits { .. } => {
            anyhow::bail!("runs in a process of its own")
        }
    }
}

// === impl Cli ===

impl Cli {
    /// The configuration file that the command line names.
    fn file(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.config {
            return Ok(file.clone());
        }
        let home = match &self.home {
            Some(home) => home.clone(),
            None => std::env::home_dir()
                .context("this user has no home directory: give --home")?
                .join(".sallyport"),
        };
        Ok(home.join(config::FILE))
    }
}

// === impl Ending ===

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Done => Self::SUCCESS,
            Ending::Failed => Self::from(1),
            Ending::Refused => Self::from(3),
        }
    }
}

/// The audit row of a change that was made here, by whoever may run this command on this home.
fn row(change: identity::Change) -> Event {
    let identity::Change { action, tenant, subject, detail } = change;
    let nobody = Who::nobody();
    let who = Who {
        client_id: "sp_cli".into(),
        call_source: "cli".into(),
        tenant_id: if tenant.is_empty() { nobody.tenant_id.clone() } else { tenant.into() },
        ..nobody
    };
    let payload = json!({ "subject": subject, "detail": detail });
    Event::change(SystemClock::default().now(), action, who, Outcome::Allowed, payload)
}

/// The database, up to date.
async fn open(config: &Config) -> anyhow::Result<Db> {
    let db = Db::open(&config.database.url).await.context("cannot open the database")?;
    db.migrate().await.context("cannot bring the database up to date")?;
    Ok(db)
}

#[cfg(test)]
mod tests;
