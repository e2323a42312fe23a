//! The bindings that wasmtime generates from `wit/`: one module per world, all sharing [`types`].
//!
//! Exports are async, so that a guest runs on a fiber and can be made to yield; imports may trap, so that a guest
//! which asks for too much is stopped instead of answered. What deciding guests are asked and answer can be written down as it
//! is: it travels to workers and back, and a decision can be replayed.

/// What all worlds share.
#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod shared {
    wasmtime::component::bindgen!({
        path: "../wit",
        interfaces: "import sallyport:gateway/types@0.1.0;",
        imports: { default: trappable },
        with: { "sallyport:gateway/types.body": crate::component::capability::Body },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// The interface `types`, with those records that every component is told as records of ours, whose texts are shared.
#[expect(unreachable_pub, reason = "the bindings name it")]
pub mod types {
    pub use super::shared::sallyport::gateway::types::*;
    pub use crate::component::facts::{CallFacts as Call, PrincipalFacts as Principal};
}

#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod policy {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "policy",
        imports: {
            "sallyport:gateway/counters.take": async | trappable,
            "sallyport:gateway/counters.correct": async | trappable,
            "sallyport:gateway/counters.reserve": async | trappable,
            "sallyport:gateway/counters.release": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: { "sallyport:gateway/types": crate::component::bindings::types },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod scanner {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "scanner",
        exports: { default: async },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod hook {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "hook",
        imports: { "sallyport:gateway/egress.fetch": async | trappable, default: trappable },
        exports: { default: async },
        with: {
            "sallyport:gateway/types": crate::component::bindings::types,
            "sallyport:gateway/evidence": crate::component::bindings::policy::sallyport::gateway::evidence,
        },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod predicate {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "predicate",
        imports: { default: trappable },
        exports: { default: async },
        additional_derives: [serde::Serialize, serde::Deserialize],
        with: { "sallyport:gateway/types": crate::component::bindings::types },
    });
}

#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod provider {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "provider",
        imports: { default: trappable },
        exports: { default: async },
        with: { "sallyport:gateway/types": crate::component::bindings::types },
    });
}
