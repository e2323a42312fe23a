//! Steps back: a signed record says that exactly one release was put in force again in exactly one catalog, after a later one.

use sallyport_protocol::package::{Package, Rollback, RollbackError};

use super::{Requirement, Trust};

impl Trust {
    /// Signs the record of a step back, as text. What cannot be written as text cannot be stored.
    pub fn sign_rollback(&self, record: &Rollback) -> Result<Option<String>, RollbackError> {
        let signed = record.sign(&self.rollback_key)?;
        Ok(String::from_utf8(signed.to_json()).ok())
    }

    /// Whether the record of `purpose`, if there is one, is of this package and this catalog.
    pub(super) fn proves_rollback(&self, package: &Package, purpose: Requirement<'_>) -> bool {
        let Some(record) = purpose.rollback else { return false };
        let statement = package.statement();
        match Rollback::read(record.as_bytes(), &self.rollback_key.verifying_key()) {
            Ok(record) => {
                record.name == statement.name
                    && record.tenant.as_ref() == purpose.tenant
                    && record.to.digest == statement.digest
                    && record.to.serial == statement.serial
            }
            Err(error) => {
                tracing::error!(component.name = statement.name.as_str(), "{error}");
                false
            }
        }
    }
}
