//! What every part of Sallyport says to every other: ids, headers, the Messages wire format, signatures,
//! packages, costs and tokens. Pure: no input or output, no async, no clock, no global state, so that
//! everything here can be tested by calling it.

pub mod attempt;
pub mod audit;
pub mod canonical;
pub mod cost;
pub mod errors;
pub mod facts;
pub mod fault;
pub mod glob;
pub mod headers;
pub mod hooks;
pub mod id;
pub mod level;
pub mod messages;
pub mod otlp;
pub mod package;
pub mod signature;
pub mod strict_json;
pub mod token;
pub mod verdict;
mod words;
