//! Sallyport: a self-hosted AI gateway whose providers, policies and hooks are signed WebAssembly components.
//!
//! The library holds everything; the binary (`main.rs`) only calls [`cli::run`]. Parts meet in [`app`] and nowhere else.

pub mod app;
pub mod assertion;
pub mod audit;
pub mod auth;
pub mod catalog;
pub mod causes;
pub mod cli;
pub mod clip;
pub mod clock;
pub mod component;
pub mod config;
pub mod db;
pub mod evidence;
mod http;
pub mod limits;
mod modes;
pub mod pipeline;
pub mod shipped;
pub mod telemetry;
pub mod tls;
pub mod trust;
pub mod upstream;
