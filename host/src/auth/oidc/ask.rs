//! What is asked of the servers of identity providers, and how they fail to answer.

use std::fmt;

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

/// Asks servers of identity providers over the wire: bounded in time and size, without following anything, and only over TLS or on this
/// machine.
pub trait IdentityServers: Send + Sync {
    /// The body of an answer of success.
    fn ask(&self, question: IdentityQuestion) -> BoxFuture<'_, Result<Zeroizing<Vec<u8>>, AskFault>>;
}

/// One question: a document, or a form that is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityQuestion {
    /// Where.
    pub url: String,
    /// The fields of a form; none: the document is fetched.
    pub form: Option<Vec<(&'static str, Zeroizing<String>)>>,
    /// The client and its secret, for the header of RFC 6749, section 2.3.1.
    pub basic: Option<(String, Zeroizing<String>)>,
}

/// Why there is no answer that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskFault {
    /// No connection, or it broke.
    #[error("the identity provider cannot be reached")]
    Unreachable,
    /// It took too long.
    #[error("the identity provider did not answer in time")]
    TimedOut,
    /// It fails.
    #[error("the identity provider fails with status {0}")]
    Failing(u16),
    /// It refuses what it was asked.
    #[error("the identity provider refuses with status {status}{}", .code.as_deref().map_or_else(String::new, |code| format!(" ({code})")))]
    Refused {
        /// Its status.
        status: u16,
        /// Its reason, if that is one that is known.
        code: Option<String>,
    },
    /// It answers something else.
    #[error("the identity provider's answer cannot be used: {0}")]
    Unusable(&'static str),
}

// === impl IdentityQuestion ===

impl IdentityQuestion {
    /// A document.
    pub(super) fn document(url: &str) -> Self {
        Self { url: url.to_owned(), form: None, basic: None }
    }
}

impl fmt::Debug for IdentityQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityQuestion").field("url", &self.url).finish_non_exhaustive()
    }
}

// === impl AskFault ===

impl AskFault {
    /// A stable name for the audit row.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable => "provider_unreachable",
            Self::TimedOut => "provider_timed_out",
            Self::Failing(_) => "provider_failing",
            Self::Refused { .. } => "provider_refuses",
            Self::Unusable(_) => "provider_unusable",
        }
    }
}
