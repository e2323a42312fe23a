//! How a command ends: the exit codes that scripts and device management rely on, and what is said on standard error.

use std::fmt::Display;

/// The exit codes. 6 (a manifest that was replayed) and 8 (a key that is not pinned) are kept for `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done = 0,
    /// `validate` or `doctor` found something that is wrong.
    Invalid = 1,
    /// The answer could not be written to standard output.
    Stdout = 2,
    /// The gateway was not reached, or what answered is not one.
    Network = 3,
    /// A key is not the one that was asked for.
    Signature = 4,
    /// There is no credential, or the gateway refused it.
    Credential = 5,
    /// A tier is configured and cannot be used: its certificate, its keystore, its session.
    Tier = 10,
    /// The place may only be written with more rights.
    Elevation = 12,
    /// The command line, the environment or the configuration file is not understood.
    Usage = 64,
    /// A mistake of this program, or of the machine.
    Internal = 70,
}

/// Why a command did not do what it was asked: a code for programs, one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// One line, without a full stop. Never a secret.
    pub(crate) message: String,
}

/// What a command has to say when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// For standard output, whole, with its line ends.
    pub(crate) out: Vec<u8>,
    /// For standard error, a line each.
    pub(crate) notes: Vec<String>,
    /// How the process ends.
    pub(crate) exit: Exit,
}

// === impl Exit ===

impl Exit {
    /// As the system has it.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

// === impl Failure ===

impl Failure {
    /// Ends with this code and these words.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The gateway cannot be used.
    pub(crate) fn network(message: impl Into<String>) -> Self {
        Self::new(Exit::Network, message)
    }

    /// What the user gave is not understood.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file could not be read or written. Rights that are missing have a code of their own.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let exit = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Exit::Elevation,
            _ => Exit::Internal,
        };
        Self::new(exit, format!("cannot {what} {}: {error}", path.display()))
    }
}

// === impl Said ===

impl Said {
    /// Done, with this on standard output.
    pub(crate) fn done(out: impl Into<Vec<u8>>) -> Self {
        Self { out: out.into(), notes: Vec::new(), exit: Exit::Done }
    }

    /// The same with something to note for people.
    pub(crate) fn noting(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// One line of printable text out of whatever somebody else chose: control characters become spaces, what is long is cut.
pub(crate) fn one_line(text: impl Display) -> String {
    const MOST: usize = 400;
    let text = text.to_string();
    let mut line: String = text
        .chars()
        .map(|char| if char.is_control() || is_directional(char) { ' ' } else { char })
        .take(MOST)
        .collect();
    if text.chars().nth(MOST).is_some() {
        line.push_str("..");
    }
    line.trim().to_owned()
}

/// Characters that change the direction or the lines of what follows.
fn is_directional(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_is_one_printable_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[31mc\u{202e}d\n"), "a b  [31mc d");
        assert_eq!(one_line("x".repeat(1000)).len(), 402);
    }
}
