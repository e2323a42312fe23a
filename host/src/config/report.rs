//! What is wrong with a configuration: every problem at once, each with the path of its key, so that one look is enough.

use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong, or that deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `gateway.routes[1].endpoint`, or the name of a file.
    pub path: String,
    /// What, for a person. Never holds a secret's value.
    pub message: String,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
}

/// Collects problems while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

// === impl Problem ===

impl Problem {
    /// A problem at a path.
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

// === impl Report ===

impl Report {
    /// A report of a single problem.
    pub(super) fn single(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem::new(path, message)] }
    }

    /// What is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the configuration has a problem")?,
            n => write!(f, "the configuration has {n} problems")?,
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Report {}

// === impl Problems ===

impl Problems {
    /// Notes something that makes the configuration unusable.
    pub(super) fn error(&self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.borrow_mut().push(Problem::new(path, message));
    }

    /// Notes something that works, but is probably not meant.
    pub(super) fn warn(&self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem::new(path, message));
    }

    /// Takes over what another reader found.
    pub(super) fn extend(&self, more: impl IntoIterator<Item = Problem>) {
        self.errors.borrow_mut().extend(more);
    }

    /// The warnings if there is no error, else the report.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Report> {
        let problems = self.errors.into_inner();
        if problems.is_empty() { Ok(self.warnings.into_inner()) } else { Err(Report { problems }) }
    }
}
