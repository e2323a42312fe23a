//! Hooks: answer the lifecycle events that their package names.

use serde::de::DeserializeOwned;

use crate::Evidence;
pub use crate::bindings::hook::exports::sallyport::gateway::hook_api::{
    Event, Occurrence, Outcome, Subagent, ToolCall, ToolFailure, ToolResult,
};
pub use crate::host::{EgressFault, Outside, Request, Response};

/// A tenant's hook.
///
/// ```
/// use sallyport_guest_sdk::{Evidence, NoConfig, hook::{Event, Hook, Occurrence, Outcome}};
///
/// struct Polite;
///
/// impl Hook for Polite {
///     type Config = NoConfig;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn on_event(&self, what: &Occurrence, host: &dyn Evidence) -> Outcome {
///         match &what.event {
///             Event::UserPromptSubmit(prompt) if !prompt.contains("please") => {
///                 host.note("polite", "false");
///                 Outcome::Ask("without a please?".into())
///             }
///             _ => Outcome::Proceed,
///         }
///     }
/// }
///
/// sallyport_guest_sdk::export_hook!(Polite);
/// # fn main() {}
/// ```
pub trait Hook: Sized + 'static {
    /// What an entry's `config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Checks the configuration and builds what every call needs. Runs once: the instance is snapshotted after it.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Answers one event. A trap, a timeout or garbage counts as the hook's declared failure mode.
    fn on_event(&self, what: &Occurrence, host: &dyn Evidence) -> Outcome;
}

/// A hook that asks others: its package declares the grants as capabilities `egress:<name>`, and an admin gives them.
///
/// ```
/// use sallyport_guest_sdk::{NoConfig, hook::{CallingHook, Occurrence, Outcome, Outside, Request}};
///
/// struct Moderated;
///
/// impl CallingHook for Moderated {
///     type Config = NoConfig;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn on_event(&self, what: &Occurrence, host: &dyn Outside) -> Outcome {
///         match host.fetch("moderation", &Request::post_json("/v1/check", format!("{what:?}"))) {
///             Ok(answer) if answer.status == 204 => Outcome::Proceed,
///             Ok(_) => Outcome::Block("moderation says no".into()),
///             Err(fault) => Outcome::Block(format!("moderation cannot be asked: {fault}")),
///         }
///     }
/// }
///
/// sallyport_guest_sdk::export_calling_hook!(Moderated);
/// # fn main() {}
/// ```
pub trait CallingHook: Sized + 'static {
    /// What an entry's `config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Checks the configuration and builds what every call needs. Runs once: the instance is snapshotted after it, and nothing
    /// can be fetched in it.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Answers one event. A trap, a timeout or garbage counts as the hook's declared failure mode.
    fn on_event(&self, what: &Occurrence, host: &dyn Outside) -> Outcome;
}

/// Exports a type that implements [`Hook`] as a component of the `hook` world.
#[macro_export]
macro_rules! export_hook {
    ($hook:ty) => {
        $crate::export_any_hook!($hook, $crate::hook::Hook);
    };
}

/// Exports a type that implements [`CallingHook`] as a component of the `hook` world that imports `egress`.
#[macro_export]
macro_rules! export_calling_hook {
    ($hook:ty) => {
        $crate::export_any_hook!($hook, $crate::hook::CallingHook);
    };
}

/// What [`export_hook`] and [`export_calling_hook`] share. Two traits, so that a hook which calls nobody does not import
/// `egress`, not even by a table of functions.
#[doc(hidden)]
#[macro_export]
macro_rules! export_any_hook {
    ($hook:ty, $kind:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $kind as Kind;
            $crate::export_configure!($hook, <$hook as Kind>::configure);

            impl $crate::__private::hook::Guest for SallyportGuest {
                fn on_event(what: $crate::hook::Occurrence) -> $crate::hook::Outcome {
                    match SALLYPORT_CONFIGURED.with($crate::__private::Slot::get) {
                        Some(hook) => Kind::on_event(&*hook, &what, &$crate::Gateway),
                        None => $crate::hook::Outcome::Block("the hook is not configured".to_owned()),
                    }
                }
            }

            $crate::bindings::hook::export_hook_part!(
                SallyportGuest with_types_in $crate::bindings::hook
            );
        };
    };
}
