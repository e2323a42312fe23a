//! Policies: decide on one call. They may count, and may not change a byte.

use serde::de::DeserializeOwned;

pub use crate::bindings::policy::exports::sallyport::gateway::policy_api::{Settlement, Verdict};
use crate::{Body, Call, Host, Refusal, RefusalKind};

/// An admin's policy.
///
/// ```
/// use sallyport_guest_sdk::{Body, Call, Host, NoConfig, Refusal, policy::{Policy, Verdict}};
///
/// struct NoTools;
///
/// impl Policy for NoTools {
///     type Config = NoConfig;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn check(&self, call: &Call, _: &dyn Body, _: &dyn Host) -> Verdict {
///         if call.tools.is_empty() { Verdict::Allow } else { Refusal::denied("tools_offered", "no tools here").into() }
///     }
/// }
///
/// sallyport_guest_sdk::export_policy!(NoTools);
/// # fn main() {}
/// ```
pub trait Policy: Sized + 'static {
    /// What an entry's `config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Checks the configuration and builds what every call needs. Runs once: the instance is snapshotted after it.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Decides. A trap, a timeout or garbage is a denial.
    fn check(&self, call: &Call, body: &dyn Body, host: &dyn Host) -> Verdict;

    /// After the call, in a fresh instance; what was reserved and what was spent meet through the keys of the counters.
    fn settle(&self, call: &Call, spent: &Settlement, host: &dyn Host) {
        let _ = (call, spent, host);
    }
}

// === impl Refusal ===

impl Refusal {
    /// The policy does not permit it; no retry mends that.
    pub fn denied(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into(), retry_after_ms: None, kind: RefusalKind::Denied }
    }

    /// The principal is not entitled to the model.
    pub fn not_entitled(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::NotEntitled, ..Self::denied(code, reason) }
    }

    /// A rate is exceeded for so many milliseconds.
    pub fn rate_limited(code: impl Into<String>, reason: impl Into<String>, retry_after_ms: u32) -> Self {
        Self {
            kind: RefusalKind::RateLimited,
            retry_after_ms: Some(retry_after_ms),
            ..Self::denied(code, reason)
        }
    }

    /// A budget is used up for so many milliseconds.
    pub fn budget_exceeded(code: impl Into<String>, reason: impl Into<String>, retry_after_ms: u32) -> Self {
        Self { kind: RefusalKind::BudgetExceeded, ..Self::rate_limited(code, reason, retry_after_ms) }
    }
}

// === impl Verdict ===

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self::Deny(refusal)
    }
}

/// Exports a type that implements [`Policy`] as a component of the `policy` world.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_configure!($policy, <$policy as $crate::policy::Policy>::configure);

            impl $crate::__private::policy::Guest for SallyportGuest {
                fn check(
                    call: $crate::Call,
                    body: &$crate::__private::policy::Body,
                ) -> $crate::policy::Verdict {
                    match SALLYPORT_CONFIGURED.with($crate::__private::Slot::get) {
                        Some(policy) => {
                            $crate::policy::Policy::check(&*policy, &call, body, &$crate::Gateway)
                        }
                        None => {
                            $crate::Refusal::denied("not_configured", "the policy is not configured").into()
                        }
                    }
                }

                fn settle(call: $crate::Call, spent: $crate::policy::Settlement) {
                    if let Some(policy) = SALLYPORT_CONFIGURED.with($crate::__private::Slot::get) {
                        $crate::policy::Policy::settle(&*policy, &call, &spent, &$crate::Gateway);
                    }
                }
            }

            $crate::bindings::policy::export_policy_part!(
                SallyportGuest with_types_in $crate::bindings::policy
            );
        };
    };
}
