//! Predicates: say whether a route takes a call. They change nothing and count nothing.

use serde::de::DeserializeOwned;

use crate::{Body, Call};

/// A routing predicate of an admin.
///
/// ```
/// use sallyport_guest_sdk::{Body, Call, NoConfig, predicate::Predicate};
///
/// struct LongConversations;
///
/// impl Predicate for LongConversations {
///     type Config = NoConfig;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn matches(&self, call: &Call, _: &dyn Body) -> bool { call.message_count > 100 }
/// }
///
/// sallyport_guest_sdk::export_predicate!(LongConversations);
/// # fn main() {}
/// ```
pub trait Predicate: Sized + 'static {
    /// What a route's `predicate_config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Checks the configuration and builds what every call needs. Runs once: the instance is snapshotted after it.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Whether the route that `call` names takes it. A trap, a timeout or garbage is no match.
    fn matches(&self, call: &Call, body: &dyn Body) -> bool;
}

/// Exports a type that implements [`Predicate`] as a component of the `predicate` world.
#[macro_export]
macro_rules! export_predicate {
    ($predicate:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_configure!($predicate, <$predicate as $crate::predicate::Predicate>::configure);

            impl $crate::__private::predicate::Guest for SallyportGuest {
                fn matches(call: $crate::Call, body: &$crate::__private::predicate::Body) -> bool {
                    SALLYPORT_CONFIGURED
                        .with($crate::__private::Slot::get)
                        .is_some_and(|it| $crate::predicate::Predicate::matches(&*it, &call, body))
                }
            }

            $crate::bindings::predicate::export_predicate_part!(
                SallyportGuest with_types_in $crate::bindings::predicate
            );
        };
    };
}
