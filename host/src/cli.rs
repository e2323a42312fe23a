//! The `sallyport` command.

pub mod audit;

/// What a command works with.
pub struct Context<'a> {
    /// The database, migrated.
    pub db: crate::db::Db,
    /// Whether the answer is JSON.
    pub json: bool,
    /// Where the answer goes.
    pub out: &'a mut dyn std::io::Write,
}
