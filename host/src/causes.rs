//! An error with its causes in one line, as log lines, rows and answers tell it: `it failed: the disk: no space`.

use std::error::Error;
use std::fmt;

/// Shows an error and what caused it.
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(out, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it failed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_what_caused_it_outermost_first() {
        let error = Outer(std::io::Error::other("the disk"));
        assert_eq!(Causes(&error).to_string(), "it failed: the disk");
        assert_eq!(Causes(&std::io::Error::other("alone")).to_string(), "alone");
    }
}
