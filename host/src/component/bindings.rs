//! The bindings that wasmtime generates from `wit/`: one module per world, all sharing the types of the first.
//!
//! Exports are async, so that a guest runs on a fiber and can be made to yield; imports may trap, so that a guest
//! which asks for too much is stopped instead of answered. What deciding guests are asked and answer can be written down as it
//! is: it travels to workers and back, and a decision can be replayed.

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
        with: { "sallyport:gateway/types.body": crate::component::capability::Body },
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
            "sallyport:gateway/types": crate::component::bindings::policy::sallyport::gateway::types,
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
        with: { "sallyport:gateway/types": crate::component::bindings::policy::sallyport::gateway::types },
    });
}

#[expect(unreachable_pub, reason = "generated from wit/")]
pub mod provider {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "provider",
        imports: { default: trappable },
        exports: { default: async },
        with: { "sallyport:gateway/types": crate::component::bindings::policy::sallyport::gateway::types },
    });
}
