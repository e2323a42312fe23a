//! The command line: what is understood, and which command answers.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::credential::Format;
use crate::exit::{Failure, Said};
use crate::keystore::KeystoreKind;
use crate::places::Environment;
use crate::settings::Settings;
use crate::{enrol, install, login, run, session, validate};

/// Prints the credential that Claude Desktop, Cowork and Claude Code call a Sallyport gateway with.
#[derive(Debug, Parser)]
#[command(name = "sp-cowork-auth", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 something found wrong, 2 output not written, 3 gateway not reached, 4 another key, 5 no credential or a \
refused one, 10 a configured tier failed, 12 more rights needed, 64 command line or configuration not understood, 70 internal."
)]
struct Cli {
    /// How the credential is printed
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Print the credential, as without a command
    Run,
    /// Sign in with a personal access token, which is read from standard input or asked for, or in the browser
    Login {
        /// The token; other programs see it here: better give it on standard input
        pat: Option<String>,
        /// In the browser
        #[arg(long, conflicts_with = "pat")]
        browser: bool,
        /// Where it is kept from now on
        #[arg(long, value_enum)]
        keystore: Option<KeystoreKind>,
    },
    /// Forget what was signed in with
    Logout,
    /// Show what is configured and whether somebody is signed in; calls nobody
    Status,
    /// Ask the gateway who calls
    Whoami,
    /// Set this machine up for a gateway, and print what device management distributes
    Install(install::Install),
    /// Make this machine's key and ask for its certificate, or take the certificate
    Enrol(enrol::Enrol),
    /// Look whether this machine is set up
    Validate {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at everything, and ask the gateway for a credential too
    Doctor {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back what install left
    Uninstall {
        /// Configuration and secrets too
        #[arg(long)]
        purge: bool,
    },
}

/// Does what the command line asks.
pub(crate) fn answer(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Said, Failure> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Said::done(error.render().to_string()));
        }
        Err(error) => return Err(Failure::usage(complaint(&error))),
    };
    let mut settings = Settings::load(environment)?;
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run::run(&settings, cli.format),
        Command::Login { browser: true, keystore, .. } => session::login(&mut settings, keystore),
        Command::Login { pat, keystore, .. } => login::login(&mut settings, pat, keystore),
        Command::Logout => login::logout(&settings),
        Command::Status => Ok(login::status(&settings)),
        Command::Whoami => login::whoami(&settings),
        Command::Install(asked) => install::install(&mut settings, &asked),
        Command::Enrol(asked) => enrol::enrol(&mut settings, &asked),
        Command::Validate { json } => Ok(validate::validate(&settings, json, false)),
        Command::Doctor { json } => Ok(validate::validate(&settings, json, true)),
        Command::Uninstall { purge } => install::uninstall(&settings, purge),
    }
}

/// The first line of what the parser says.
fn complaint(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    format!("{} (--help says what there is)", line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
