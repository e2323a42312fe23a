//! The commands of `sallyport`.

pub mod identity;
