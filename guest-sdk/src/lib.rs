//! What a Sallyport guest is written with: one trait and one macro per kind of component.
//!
//! A guest is a plain type that implements [`policy::Policy`], [`scanner::Scanner`], [`hook::Hook`],
//! [`predicate::Predicate`] or [`provider::Provider`], and one line that exports it. What it may ask of the gateway comes in as a trait object
//! ([`Body`], [`Host`], [`Evidence`]), so that its logic runs in a native unit test with the doubles of [`testing`];
//! the imports of the world are called only in the built component, where they exist.
//!
//! Build with `--target wasm32-unknown-unknown` and `linker = "wasm-component-ld"`: the result is a component without a
//! single WASI import.

// The generated code names its runtime by the crate's name, both here and where a guest expands an export macro.
extern crate self as sallyport_guest_sdk;

#[doc(hidden)]
pub mod bindings;
mod body;
mod glob;
pub mod hook;
mod host;
pub mod policy;
pub mod predicate;
pub mod provider;
pub mod scanner;
mod slot;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod words;

#[doc(hidden)]
pub use wit_bindgen;

pub use bindings::policy::sallyport::gateway::types::{
    Attribute, Call, CallOutcome, Edit, Principal, Refusal, RefusalKind, Segment, SegmentKind, Usage,
};
pub use body::Body;
pub use glob::Glob;
pub use host::{Evidence, Gateway, Host, Outside, Window};
pub use slot::NoConfig;
pub use words::Words;

/// What the export macros expand to; no part of the contract with guests.
#[doc(hidden)]
pub mod __private {
    pub use crate::slot::Slot;

    pub use crate::bindings::configured::exports::sallyport::gateway::configurable as configured;
    pub use crate::bindings::hook::exports::sallyport::gateway::hook_api as hook;
    pub use crate::bindings::policy::exports::sallyport::gateway::policy_api as policy;
    pub use crate::bindings::predicate::exports::sallyport::gateway::predicate_api as predicate;
    pub use crate::bindings::provider::exports::sallyport::gateway::provider_api as provider;
    pub use crate::bindings::scanner::exports::sallyport::gateway::scanner_api as scanner;
}

/// The half of every export macro that all kinds share: the slot and `configure`.
#[doc(hidden)]
#[macro_export]
macro_rules! export_configure {
    ($guest:ty, $configure:expr) => {
        ::std::thread_local! {
            // Survives the snapshot that the host takes after `configure`: a guest has one thread, so this is plain memory.
            static SALLYPORT_CONFIGURED: $crate::__private::Slot<$guest> =
                const { $crate::__private::Slot::empty() };
        }

        struct SallyportGuest;

        impl $crate::__private::configured::Guest for SallyportGuest {
            fn configure(config: String) -> Result<(), String> {
                SALLYPORT_CONFIGURED.with(|slot| slot.fill(&config, $configure))
            }
        }

        $crate::bindings::configured::export_configured!(
            SallyportGuest with_types_in $crate::bindings::configured
        );
    };
}
