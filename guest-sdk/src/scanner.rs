//! Scanners: findings that depend on the text alone, so that the gateway remembers them. They import nothing.

use serde::de::DeserializeOwned;

pub use crate::bindings::scanner::exports::sallyport::gateway::scanner_api::{Action, Finding, TextKind};

/// A text scanner.
///
/// ```
/// use sallyport_guest_sdk::{NoConfig, scanner::{Action, Finding, Scanner, TextKind}};
///
/// struct Shouting;
///
/// impl Scanner for Shouting {
///     type Config = NoConfig;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn scan(&self, _: TextKind, text: &str) -> Vec<Finding> {
///         text.match_indices('!').map(|(at, mark)| Finding::new("shouting", Action::Flag, at..at + mark.len())).collect()
///     }
/// }
///
/// sallyport_guest_sdk::export_scanner!(Shouting);
/// # fn main() {}
/// ```
pub trait Scanner: Sized + 'static {
    /// What an entry's `config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Checks the configuration and builds what every call needs. Runs once: the instance is snapshotted after it.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Scans one text. The same text and configuration must give the same findings.
    fn scan(&self, kind: TextKind, text: &str) -> Vec<Finding>;
}

// === impl Finding ===

impl Finding {
    /// Something found in this byte range, with nothing standing there instead.
    pub fn new(rule: impl Into<String>, action: Action, range: std::ops::Range<usize>) -> Self {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            rule: rule.into(),
            action,
            start: offset(range.start),
            end: offset(range.end),
            replacement: String::new(),
        }
    }
}

/// Exports a type that implements [`Scanner`] as a component of the `scanner` world.
#[macro_export]
macro_rules! export_scanner {
    ($scanner:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_configure!($scanner, <$scanner as $crate::scanner::Scanner>::configure);

            impl $crate::__private::scanner::Guest for SallyportGuest {
                fn scan(kind: $crate::scanner::TextKind, text: String) -> Vec<$crate::scanner::Finding> {
                    match SALLYPORT_CONFIGURED.with($crate::__private::Slot::get) {
                        Some(scanner) => $crate::scanner::Scanner::scan(&*scanner, kind, &text),
                        None => vec![$crate::scanner::Finding::new(
                            "not_configured",
                            $crate::scanner::Action::Deny,
                            0..0,
                        )],
                    }
                }
            }

            $crate::bindings::scanner::export_scanner_part!(
                SallyportGuest with_types_in $crate::bindings::scanner
            );
        };
    };
}
