//! The Messages wire format: its event stream, its errors and its replies. What an Anthropic client sees is
//! written here and nowhere else.

pub mod batch;
pub mod error;
pub mod event;
pub mod fold;
pub mod grammar;
pub mod index;
pub(crate) mod json;
pub mod splice;
pub mod sse;
