//! The bindings generated from `wit/`, one module per interface a guest exports. Guests never name them: the export
//! macros do.
//!
//! Each world of `wit/` is generated in two parts, `configured` (which all kinds share) and the part that is its own,
//! since the macros that `wit-bindgen` makes for an interface may exist only once in a crate. A guest links the two
//! parts that its macro names and their union is the world; imports that a guest does not call are not in its component.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::or_fun_call,
    clippy::indexing_slicing,
    unused_qualifications,
    unreachable_pub,
    reason = "generated code"
)]

pub mod configured {
    wit_bindgen::generate!({
        inline: "package sallyport:sdk; world configured { export sallyport:gateway/configurable@0.1.0; }",
        path: "../wit",
        world: "sallyport:sdk/configured",
        pub_export_macro: true,
        export_macro_name: "export_configured",
        runtime_path: "::sallyport_guest_sdk::wit_bindgen::rt",
        generate_all,
    });
}

pub mod policy {
    wit_bindgen::generate!({
        inline: "package sallyport:sdk; world policy-part {
            import sallyport:gateway/types@0.1.0;
            import sallyport:gateway/counters@0.1.0;
            import sallyport:gateway/evidence@0.1.0;
            export sallyport:gateway/policy-api@0.1.0;
        }",
        path: "../wit",
        world: "sallyport:sdk/policy-part",
        pub_export_macro: true,
        export_macro_name: "export_policy_part",
        runtime_path: "::sallyport_guest_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
        generate_all,
    });
}

pub mod scanner {
    wit_bindgen::generate!({
        inline: "package sallyport:sdk; world scanner-part { export sallyport:gateway/scanner-api@0.1.0; }",
        path: "../wit",
        world: "sallyport:sdk/scanner-part",
        pub_export_macro: true,
        export_macro_name: "export_scanner_part",
        runtime_path: "::sallyport_guest_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
        generate_all,
    });
}

pub mod hook {
    wit_bindgen::generate!({
        inline: "package sallyport:sdk; world hook-part {
            import sallyport:gateway/types@0.1.0;
            import sallyport:gateway/evidence@0.1.0;
            import sallyport:gateway/egress@0.1.0;
            export sallyport:gateway/hook-api@0.1.0;
        }",
        path: "../wit",
        world: "sallyport:sdk/hook-part",
        pub_export_macro: true,
        export_macro_name: "export_hook_part",
        runtime_path: "::sallyport_guest_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
        generate_all,
        with: {
            "sallyport:gateway/types@0.1.0": crate::bindings::policy::sallyport::gateway::types,
            "sallyport:gateway/evidence@0.1.0": crate::bindings::policy::sallyport::gateway::evidence,
        },
    });
}

pub mod predicate {
    wit_bindgen::generate!({
        inline: "package sallyport:sdk; world predicate-part {
            import sallyport:gateway/types@0.1.0;
            export sallyport:gateway/predicate-api@0.1.0;
        }",
        path: "../wit",
        world: "sallyport:sdk/predicate-part",
        pub_export_macro: true,
        export_macro_name: "export_predicate_part",
        runtime_path: "::sallyport_guest_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
        generate_all,
        with: {
            "sallyport:gateway/types@0.1.0": crate::bindings::policy::sallyport::gateway::types,
        },
    });
}

pub mod provider {
    wit_bindgen::generate!({
        inline: "package sallyport:sdk; world provider-part {
            import sallyport:gateway/types@0.1.0;
            export sallyport:gateway/provider-api@0.1.0;
        }",
        path: "../wit",
        world: "sallyport:sdk/provider-part",
        pub_export_macro: true,
        export_macro_name: "export_provider_part",
        runtime_path: "::sallyport_guest_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
        additional_derives_ignore: ["messages-request"],
        generate_all,
        with: {
            "sallyport:gateway/types@0.1.0": crate::bindings::policy::sallyport::gateway::types,
        },
    });
}
