//! Where a configured guest lives: the export macros keep one [`Slot`] per component, which the host snapshots after
//! `configure`, so that every later instance starts with it filled.

use std::{cell::RefCell, rc::Rc};

use serde::{Deserialize, de::DeserializeOwned};

/// The configuration of a guest that has none: `{}`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Holds the one configured value of a component.
#[derive(Debug)]
pub struct Slot<T>(RefCell<Option<Rc<T>>>);

/// Reads an entry's configuration; the error names the key and is shown to the admin.
pub(crate) fn parse<C: DeserializeOwned>(config: &str) -> Result<C, String> {
    serde_json::from_str(config).map_err(|error| format!("the configuration cannot be read: {error}"))
}

// === impl Slot ===

impl<T> Slot<T> {
    /// A slot that nothing configured yet.
    pub const fn empty() -> Self {
        Self(RefCell::new(None))
    }

    /// Parses `config`, builds the value and keeps it. On an error the slot keeps what it had.
    pub fn fill<C: DeserializeOwned>(
        &self,
        config: &str,
        configure: impl FnOnce(C) -> Result<T, String>,
    ) -> Result<(), String> {
        let value = configure(parse(config)?)?;
        self.0.replace(Some(Rc::new(value)));
        Ok(())
    }

    /// The configured value; `None` before `configure` succeeded.
    pub fn get(&self) -> Option<Rc<T>> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Greeting {
        name: String,
    }

    #[test]
    fn a_refused_configuration_leaves_the_last_good_one() {
        let slot = Slot::empty();
        assert!(slot.get().is_none());
        assert_eq!(slot.fill(r#"{"name":"a"}"#, |greeting: Greeting| Ok(greeting.name)), Ok(()));
        assert!(slot.fill(r#"{"nome":"b"}"#, |greeting: Greeting| Ok(greeting.name)).is_err());
        assert_eq!(slot.fill(r#"{"name":"b"}"#, |_: Greeting| Err("no".into())), Err("no".into()));
        assert_eq!(slot.get().as_deref().map(String::as_str), Some("a"));
    }

    #[test]
    fn an_unknown_key_is_named() {
        assert!(parse::<NoConfig>("{}").is_ok());
        assert!(parse::<NoConfig>(r#"{"modle":1}"#).is_err_and(|error| error.contains("modle")));
    }
}
