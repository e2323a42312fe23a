//! Why what the configuration names is not put in force.

use std::path::PathBuf;

use sallyport_protocol::package::{Kind, PackageError};

use super::CatalogError;
use crate::component::BundleError;
use crate::db::DbError;

/// Why nothing new is put in force. What is in force stays.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// What is stored cannot be read.
    #[error("the catalog cannot be read")]
    Catalog(#[source] CatalogError),
    /// What was revoked cannot be read.
    #[error("the revocations cannot be read")]
    Revocations(#[source] DbError),
    /// The packages at hand cannot be used.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// The configuration names something that cannot be put in force.
    #[error("{place}")]
    Entry {
        /// Where it is named: `bundle[0]: acme/no-secrets`, `the provider echo`.
        place: String,
        /// Why.
        #[source]
        cause: EntryError,
    },
    /// A bundle has no version, and no row could name it.
    #[error("the bundle has no version")]
    Version(#[source] BundleError),
}

/// Why one thing that the configuration names cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Neither the binary, nor a file, nor the catalog has it.
    #[error("there is no such component")]
    Unknown,
    /// It is of another kind.
    #[error("{name} is no {wanted}")]
    Kind {
        /// Which component.
        name: String,
        /// What it should be.
        wanted: Kind,
    },
    /// It is attached to events, and is no hook.
    #[error("matcher, on_fault and timeout_ms are for hooks, and this is a {0}")]
    NotAHook(Kind),
    /// It may rewrite, and does not want to.
    #[error("rewrite is granted to what does not ask for it")]
    Rewrite,
    /// It is not trusted or not admitted.
    #[error(transparent)]
    Refused(#[from] CatalogError),
}

/// Why the packages at hand cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// A component inside the binary is no package: the binary is broken.
    #[error("{name}, which comes with the gateway, cannot be read")]
    Embedded {
        /// Which one.
        name: &'static str,
        /// Why.
        #[source]
        cause: PackageError,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A file is no package.
    #[error("{} is no package", file.display())]
    Package {
        /// Which one.
        file: PathBuf,
        /// Why.
        #[source]
        cause: PackageError,
    },
    /// A file has the name of a component inside the binary.
    #[error("{} would take the place of {name}, which comes with the gateway", file.display())]
    Taken {
        /// Which file.
        file: PathBuf,
        /// Which component.
        name: String,
    },
}
