//! `sp-cowork-auth`: the credential helper of workstations. A client starts it and reads one line; there is no service and no
//! port.
//!
//! *Invariant:* standard output is written in one place, once, when everything else is done: what a client reads is the answer,
//! whole, or nothing.

mod cache;
mod cli;
mod client;
mod clock;
mod config;
mod credential;
mod enrol;
mod exit;
mod files;
mod gateway;
mod install;
mod keystore;
mod ladder;
mod login;
mod mdm;
mod pin;
mod places;
mod run;
mod schedule;
mod secret;
mod session;
mod settings;
mod validate;

use std::io::{self, Write as _};
use std::process::ExitCode;

use self::exit::{Exit, Said, one_line};
use self::places::Environment;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        // Where, not what: a message may hold a secret.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        complain(&format!("internal error at {place}"));
        std::process::exit(Exit::Internal.code().into());
    }));
    let said = match cli::answer(std::env::args_os(), &Environment::of_process()) {
        Ok(said) => said,
        Err(failure) => {
            complain(&failure.message);
            return failure.exit.code().into();
        }
    };
    let Said { out, notes, exit } = said;
    for note in notes {
        complain(&note);
    }
    if let Err(error) = print(&out) {
        complain(&format!("cannot write the answer: {error}"));
        return Exit::Stdout.code().into();
    }
    exit.code().into()
}

/// Writes the answer, whole.
fn print(answer: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(answer)?;
    out.flush()
}

/// One line for a person. Standard error may be closed: then there is nobody to tell.
fn complain(message: &str) {
    drop(writeln!(io::stderr(), "sp-cowork-auth: {}", one_line(message)));
}
