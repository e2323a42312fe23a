//! The keys of a credential of a cloud, each read after its description, every mismatch noted with its path. What stands in the file is
//! never repeated, the names of unknown keys included: somebody may have put a secret in the place of a name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::source::Source;
use super::tree::Tree;
use crate::config::key::{Absent, ConfigBlock, ConfigKey};
use crate::config::report::Problem;

/// A mapping of the secrets file all of whose keys are known.
pub(in crate::config) struct SecretFields<'t> {
    entries: &'t BTreeMap<String, Tree>,
    path: &'t str,
    home: &'t Path,
    problems: RefCell<Vec<Problem>>,
}

// === impl SecretFields ===

impl<'t> SecretFields<'t> {
    /// The mapping at `path`, whose keys are those of `block`.
    pub(in crate::config) fn of(
        tree: &'t Tree,
        block: &ConfigBlock,
        path: &'t str,
        home: &'t Path,
    ) -> Result<Self, Vec<Problem>> {
        let Tree::Map(entries) = tree else {
            return Err(vec![Problem::new(path, "must be a mapping")]);
        };
        let fields = Self { entries, path, home, problems: RefCell::default() };
        if entries.keys().any(|name| block.keys.iter().all(|key| key.name != name)) {
            let known: Vec<_> = block.keys.iter().map(|key| key.name).collect();
            fields.fail(format!("holds a key that is not known; known here are {}", known.join(", ")));
        }
        Ok(fields)
    }

    /// `made`, if nothing was wrong on the way.
    pub(in crate::config) fn finish<T>(self, made: Option<T>) -> Result<T, Vec<Problem>> {
        let problems = self.problems.into_inner();
        match made {
            Some(made) if problems.is_empty() => Ok(made),
            _ => Err(problems),
        }
    }

    /// The directory that relative paths begin at.
    pub(in crate::config) fn home(&self) -> &Path {
        self.home
    }

    /// Whether a key is there.
    pub(in crate::config) fn has(&self, key: &ConfigKey) -> bool {
        self.get(key).is_some()
    }

    /// Notes what is wrong with the whole.
    pub(in crate::config) fn fail(&self, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(self.path, message));
    }

    /// Notes what is wrong with a key.
    pub(in crate::config) fn fail_at(&self, key: &ConfigKey, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(format!("{}.{}", self.path, key.name), message));
    }

    /// The one of these keys that is there: it says of which kind the credential is. Notes, where there are more or none.
    pub(in crate::config) fn one_of<const N: usize>(&self, kinds: [&ConfigKey; N]) -> Option<usize> {
        let there: Vec<usize> = (0..N).filter(|at| kinds.get(*at).is_some_and(|key| self.has(key))).collect();
        if let [one] = there.as_slice() {
            return Some(*one);
        }
        let names: Vec<_> = kinds.iter().map(|key| key.name).collect();
        self.fail(format!("must hold exactly one of {}", names.join(", ")));
        None
    }

    /// Notes each of `keys` that is there though it belongs to another kind than the one that `kind` says.
    pub(in crate::config) fn only_with(&self, kind: &ConfigKey, keys: &[&ConfigKey]) {
        for key in keys.iter().filter(|key| self.has(key) && !self.has(kind)) {
            self.fail_at(key, format!("means nothing without {}", kind.name));
        }
    }

    /// A secret that has to be there, wherever its value is found.
    pub(in crate::config) fn secret(&self, key: &ConfigKey) -> Option<SecretString> {
        let Some(tree) = self.get(key) else {
            self.fail_at(key, "is missing");
            return None;
        };
        Source::of(tree)
            .and_then(|source| source.resolve(self.home))
            .map_err(|message| self.fail_at(key, message))
            .ok()
    }

    /// A text that is no secret; what holds without it, if it is not there.
    pub(in crate::config) fn text(&self, key: &ConfigKey) -> Option<String> {
        match self.get(key) {
            None => {
                self.missing(key);
                if let Absent::Text(usual) = key.absent { Some(usual.to_owned()) } else { None }
            }
            Some(Tree::Text(text)) if text.expose_secret().trim().is_empty() => {
                self.fail_at(key, "must not be empty");
                None
            }
            Some(Tree::Text(text)) => Some(text.expose_secret().to_owned()),
            Some(_) => {
                self.fail_at(key, "must be text");
                None
            }
        }
    }

    /// A text that `parse` understands.
    pub(in crate::config) fn parsed<T, E: std::fmt::Display>(
        &self,
        key: &ConfigKey,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(&self.text(key)?).map_err(|error| self.fail_at(key, error.to_string())).ok()
    }

    /// The path of a file that can be read now, and will be read again whenever it is needed.
    pub(in crate::config) fn file(&self, key: &ConfigKey) -> Option<PathBuf> {
        let path = self.home.join(self.text(key)?);
        match std::fs::File::open(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                self.fail_at(key, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    /// A flag that can only be `true`: it grants something by its name.
    pub(in crate::config) fn granted(&self, key: &ConfigKey) -> Option<()> {
        if let Some(Tree::Flag(true)) = self.get(key) {
            return Some(());
        }
        self.fail_at(key, "must be true, or not be there");
        None
    }

    fn get(&self, key: &ConfigKey) -> Option<&'t Tree> {
        self.entries.get(key.name).filter(|tree| !matches!(tree, Tree::Nothing))
    }

    fn missing(&self, key: &ConfigKey) {
        if matches!(key.absent, Absent::Required) {
            self.fail_at(key, "is missing");
        }
    }
}
