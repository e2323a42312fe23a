//! The files that `sallyport init` writes.

/// `sallyport.yaml`: answers every model locally, with every sample component in force.
pub(crate) const CONFIG: &str = include_str!("template/sallyport.yaml");
/// `secrets.yaml`: explains itself and holds nothing.
pub(crate) const SECRETS: &str = include_str!("template/secrets.yaml");
