//! Where the components of recorded calls are found again, by digest: inside the binary, in files, in the catalog.

use std::path::PathBuf;

use sallyport_protocol::package::{Package, Verified};

use crate::cli::workbench::self_signed;
use crate::db::{Db, DbError};
use crate::shipped::first_party;

/// Every package at hand.
pub(super) struct RecordedPackages {
    db: Db,
    local: Vec<Package>,
}

// === impl RecordedPackages ===

impl RecordedPackages {
    /// The packages inside the binary, those of `files` that can be read, and those of the catalog.
    pub(super) fn new(db: Db, files: &[PathBuf]) -> Self {
        let embedded = first_party().into_iter().filter_map(|it| Package::parse(it.bytes).ok());
        let read = |file: &PathBuf| Package::parse(std::fs::read(file).ok()?).ok();
        Self { db, local: embedded.chain(files.iter().filter_map(read)).collect() }
    }

    /// The component with this digest, as it may run for the tenant. Who signed it does not matter here, nor whether it was
    /// revoked since: the digest says that it is the one that ran, and nothing is put in force.
    pub(super) async fn find(&self, tenant: &str, digest: &str) -> Result<Option<Verified>, DbError> {
        let at_hand = self.local.iter().find(|it| it.statement().digest.hex() == digest);
        let found = if let Some(package) = at_hand {
            Some(package.clone())
        } else {
            let stored = self.db.component_packages_of(tenant, digest).await?;
            stored.into_iter().find_map(|bytes| Package::parse(bytes).ok())
        };
        let verified = found.and_then(|it| self_signed(it.statement().clone(), it.component()).ok());
        // The digest of the bytes themselves, not the one that a row or a statement names.
        Ok(verified.filter(|it| it.statement().digest.hex() == digest))
    }

    /// The newest component at hand that has this name.
    pub(super) fn named(&self, name: &str) -> Option<Verified> {
        let found = self.local.iter().filter(|it| it.statement().name.as_str() == name);
        let newest = found.max_by_key(|it| it.statement().serial)?;
        self_signed(newest.statement().clone(), newest.component()).ok()
    }
}

impl std::fmt::Debug for RecordedPackages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RecordedPackages").field("local", &self.local.len()).finish_non_exhaustive()
    }
}
