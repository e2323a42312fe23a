//! Every way a call is not served. What each becomes on the wire stands in one table, `http/error.rs`.

use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::level::Level;
use sallyport_protocol::messages::batch::BatchError;
use sallyport_protocol::messages::index::Malformed;

use super::row::CallEnding;
use crate::audit::{Outcome, Unavailable};
use crate::component::Fault;
use crate::component::contract::provider::Failure;
use crate::component::contract::{self, RefusalKind};
use crate::db::DbError;

/// How a user gets rid of what is refused in each turn, since clients send the whole conversation each time.
pub(super) const WAYS_OUT: &str =
    "Take it out of the conversation to go on: in Claude Code, /rewind to before it, or /clear.";

/// Why a call is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The body is no Messages request.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No route takes the model.
    #[error("no route serves the model {model}")]
    NoRoute {
        /// What the client asked for.
        model: String,
    },
    /// The request needs what no provider of its routes was shown to carry.
    #[error("the request needs {level}, which the provider {provider} was not shown to carry")]
    LevelMissing {
        /// What it needs.
        level: Level,
        /// The provider of the last target that was passed over.
        provider: String,
    },
    /// A component said no.
    #[error("{component}: {}", .refusal.reason)]
    Component {
        /// Which one.
        component: String,
        /// What it said.
        refusal: Denial,
        /// A person could have agreed, but there is nobody to ask.
        ask: bool,
    },
    /// A component that decides did not answer: the call is denied.
    #[error("{component} could not decide")]
    Undecided {
        /// Which one.
        component: String,
        /// Why.
        #[source]
        fault: Fault,
    },
    /// The gateway runs as much as it can.
    #[error("the gateway is at its limit")]
    Overloaded,
    /// No durable row can be had, so there is no answer.
    #[error("the audit trail is not available")]
    AuditUnavailable(#[source] Unavailable),
    /// The bundle has no such provider.
    #[error("the provider {tag} is not in force")]
    NoProvider {
        /// The tag that the route names.
        tag: String,
    },
    /// The provider broke.
    #[error("the provider {tag} broke")]
    ProviderFault {
        /// Its tag.
        tag: String,
        /// How.
        #[source]
        fault: Fault,
    },
    /// The provider asked the host for something that it may not do, or answered against the contract.
    #[error("the provider {tag} broke the contract: {what}")]
    ProviderBroke {
        /// Its tag.
        tag: String,
        /// What it did.
        what: String,
    },
    /// The provider ended the exchange with an error for the client.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The provider does not carry the request, and asked no upstream for anything.
    #[error("{}", .0.message)]
    Declined(Failure),
    /// The upstream does not take the gateway's credential: the operator's affair, which no caller can mend.
    #[error("the gateway's credential was refused by the upstream")]
    Credential,
    /// The gateway could not fetch what it shows the upstream: an identity server fails.
    #[error("the gateway cannot fetch its credential for the upstream now")]
    Unidentified,
    /// The route's upstreams failed too often of late, and are left alone for a while.
    #[error("the upstreams of this model are not available")]
    NoUpstream {
        /// When one of them is asked again.
        retry_after_ms: u32,
    },
    /// What a component was given to read is more than it can judge within its limits.
    #[error("the request is larger than {component} can judge")]
    TooLarge {
        /// Which one.
        component: String,
        /// What it ran into.
        #[source]
        fault: Fault,
    },
    /// The upstream's answer is no answer of the Messages API.
    #[error("the upstream's answer cannot be used: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: String,
    },
    /// The route takes nothing that the gateway does not know.
    #[error("the route is strict, and the gateway does not know {what}")]
    Unknown {
        /// The first construct that is not known.
        what: String,
    },
    /// What hooks change in the request cannot be put in.
    #[error("the request could not be changed without harm")]
    EditFailed,
    /// The upstream's answer reads in more than one way, or hides what hooks have to be asked about.
    #[error("the upstream's answer cannot be judged: {what}")]
    Unreadable {
        /// What is wrong with it.
        what: String,
    },
    /// A tool call of the answer is longer than what the gateway holds back.
    #[error(
        "a tool call of the answer is too large: its input is longer than {limit} bytes, or its pieces are too many"
    )]
    ToolCallTooLarge {
        /// The longest input.
        limit: usize,
    },
    /// The body is no batch.
    #[error(transparent)]
    NoBatch(#[from] BatchError),
    /// One request of a batch is refused, and the batch with it.
    #[error("request {index} ({custom_id}) of the batch: {refusal}")]
    OfBatch {
        /// Which request, from 0.
        index: usize,
        /// The client's name for it.
        custom_id: String,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// Requests of a batch go to different upstreams, and a batch is kept by one.
    #[error("it goes to another upstream than the first request, and one upstream keeps a whole batch")]
    Split,
    /// What was asked for is no part of what the upstream has.
    #[error("no upstream of yours has {what}")]
    NotOffered {
        /// What.
        what: &'static str,
    },
    /// The tenant has no such batch or file, or its upstream is not configured any more.
    #[error("there is no {kind} {id}")]
    NotStored {
        /// `batch` or `file`.
        kind: &'static str,
        /// What the client asked for.
        id: String,
    },
    /// The tenant keeps as many batches or files as it may.
    #[error("the tenant has {most} {what}, and no more are kept: delete some")]
    StoredFull {
        /// What is kept.
        what: &'static str,
        /// How many.
        most: i64,
    },
    /// Whose a batch or a file is cannot be looked up or written down.
    #[error("the gateway cannot look up whose it is now")]
    Store(#[source] DbError),
    /// The upload is none, or is too large to be judged.
    #[error("{what}")]
    NoUpload {
        /// What is wrong with it.
        what: String,
    },
    /// The route carries nothing that it cannot carry whole.
    #[error("the route is lossless, and {field} cannot be carried")]
    Lossy {
        /// The first part that would be lost.
        field: String,
    },
}

/// A no, by a component or on its behalf.
#[derive(Debug, Clone, PartialEq)]
pub struct Denial {
    /// What it is called.
    pub code: RefusalCode,
    /// Why, for the user.
    pub reason: String,
    /// When the same call would fit, if it ever does.
    pub retry_after_ms: Option<u32>,
    /// What kind of no it is.
    pub kind: RefusalKind,
}

/// What a refusal is called in headers and rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalCode {
    /// The gateway's own name for it.
    Own(ErrorCode),
    /// The name that a component gave it.
    Component(ComponentCode),
}

/// A code that a component gave. It goes into log, row and header: what is none, but words of the policy or of the prompt, stays out of
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentCode(String);

/// Longest code of a component.
const LONGEST_CODE: usize = 64;

/// From this size on a component that ran out of time or memory did so because of the size.
const LARGE: usize = 1024 * 1024;

// === impl Refusal ===

impl Refusal {
    /// The same, told as what it is where `bytes` were more than a component could read within its limits.
    pub(super) fn of_size(self, bytes: usize) -> Self {
        match self {
            Self::Undecided { component, fault } if bytes >= LARGE && fault.is_of_size() => {
                Self::TooLarge { component, fault }
            }
            Self::ProviderFault { tag, fault } if bytes >= LARGE && fault.is_of_size() => {
                Self::TooLarge { component: tag, fault }
            }
            other => other,
        }
    }

    /// A stable name for rows and clients.
    pub fn code(&self) -> RefusalCode {
        let own = match self {
            Self::Component { refusal, .. } => return refusal.code.clone(),
            Self::OfBatch { refusal, .. } => return refusal.code(),
            Self::LevelMissing { .. } => ErrorCode::LevelMissing,
            Self::NoUpload { .. } => ErrorCode::Invalid,
            Self::Split => ErrorCode::BatchSplit,
            Self::NotOffered { .. } => ErrorCode::NotOffered,
            Self::NotStored { .. } => ErrorCode::NotFound,
            Self::StoredFull { .. } => ErrorCode::StoredFull,
            Self::Store(_) => ErrorCode::DatabaseUnavailable,
            Self::Malformed(Malformed::Depth) => ErrorCode::BodyTooDeep,
            Self::Malformed(Malformed::Many { .. }) => ErrorCode::BodyTooMany,
            Self::Malformed(Malformed::Folded(_)) => ErrorCode::BodyAmbiguous,
            Self::Unknown { .. } => ErrorCode::UnknownConstruct,
            Self::Malformed(_) | Self::NoBatch(_) => ErrorCode::BodyMalformed,
            Self::NoRoute { .. } => ErrorCode::NoRoute,
            Self::Undecided { .. } => ErrorCode::PolicyFault,
            Self::Overloaded => ErrorCode::Overloaded,
            Self::AuditUnavailable(_) => ErrorCode::AuditUnavailable,
            Self::NoProvider { .. } => ErrorCode::NoProvider,
            Self::ProviderFault { .. } => ErrorCode::ProviderFault,
            Self::ProviderBroke { .. } => ErrorCode::ProviderContract,
            Self::Failed(_) => ErrorCode::UpstreamError,
            Self::Declined(_) => ErrorCode::ProviderDeclined,
            Self::Credential => ErrorCode::UpstreamCredential,
            Self::Unidentified => ErrorCode::CredentialUnavailable,
            Self::NoUpstream { .. } => ErrorCode::UpstreamsUnavailable,
            Self::TooLarge { .. } => ErrorCode::RequestTooLarge,
            Self::BadAnswer { .. } => ErrorCode::UpstreamAnswer,
            Self::EditFailed => ErrorCode::RewriteFailed,
            Self::Unreadable { .. } => ErrorCode::AnswerUnreadable,
            Self::ToolCallTooLarge { .. } => ErrorCode::ToolCallTooLarge,
            Self::Lossy { .. } => ErrorCode::Lossy,
        };
        RefusalCode::Own(own)
    }

    /// Whether a policy said no, rather than something failing.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Component { .. }
            | Self::Undecided { .. }
            | Self::NoRoute { .. }
            | Self::Unknown { .. }
            | Self::EditFailed
            | Self::Declined(_)
            | Self::LevelMissing { .. }
            | Self::Split
            | Self::NotOffered { .. }
            | Self::NotStored { .. }
            | Self::StoredFull { .. }
            | Self::Lossy { .. } => Outcome::Denied,
            Self::OfBatch { refusal, .. } => refusal.outcome(),
            _ => Outcome::Error,
        }
    }

    /// What the row says.
    pub(super) fn ending(&self) -> CallEnding {
        if let Self::OfBatch { index, custom_id, refusal } = self {
            let inner = refusal.ending();
            let reason = inner.reason.map(|reason| format!("request {index} ({custom_id}): {reason}"));
            return CallEnding { reason, ..inner };
        }
        let fault = match self {
            Self::Undecided { fault, .. }
            | Self::ProviderFault { fault, .. }
            | Self::TooLarge { fault, .. } => Some(fault.to_string()),
            _ => None,
        };
        let status = match self {
            Self::Failed(failure) | Self::Declined(failure) => Some(failure.status),
            _ => None,
        };
        CallEnding {
            outcome: self.outcome(),
            code: Some(self.code()),
            reason: Some(fault.map_or_else(|| self.to_string(), |fault| format!("{self}: {fault}"))),
            status,
        }
    }

    /// The same for something that is part of the conversation, so that every later turn would be refused as well: with the ways
    /// out of it.
    #[must_use]
    pub(super) fn of_conversation(mut self) -> Self {
        if let Self::Component { refusal, .. } = &mut self {
            let stop = if refusal.reason.ends_with(['.', '!', '?']) { "" } else { "." };
            refusal.reason = format!("{}{stop} {WAYS_OUT}", refusal.reason);
        }
        self
    }

    /// What kind of no a component said, if one did.
    pub fn kind(&self) -> Option<&RefusalKind> {
        match self {
            Self::Component { refusal, .. } => Some(&refusal.kind),
            _ => None,
        }
    }
}

// === impl Denial ===

impl Denial {
    /// A denial of the gateway's own.
    pub(super) fn own(code: ErrorCode, reason: impl Into<String>) -> Self {
        let code = RefusalCode::Own(code);
        Self { code, reason: reason.into(), retry_after_ms: None, kind: RefusalKind::Denied }
    }

    /// A finding that refuses the call, called after its rule.
    pub(super) fn of_rule(rule: &str, reason: String) -> Self {
        Self {
            code: RefusalCode::of_component(rule),
            reason,
            retry_after_ms: None,
            kind: RefusalKind::Denied,
        }
    }
}

impl From<contract::Refusal> for Denial {
    fn from(said: contract::Refusal) -> Self {
        let contract::Refusal { code, reason, retry_after_ms, kind } = said;
        Self { code: RefusalCode::of_component(&code), reason, retry_after_ms, kind }
    }
}

// === impl RefusalCode ===

impl RefusalCode {
    /// As it stands in headers and rows.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Own(code) => code.as_str(),
            Self::Component(ComponentCode(code)) => code,
        }
    }

    /// What a component calls it, if that is a name.
    fn of_component(code: &str) -> Self {
        let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | ':');
        if code.is_empty() || code.len() > LONGEST_CODE || !code.chars().all(plain) {
            return Self::Own(ErrorCode::Denied);
        }
        Self::Component(ComponentCode(code.to_owned()))
    }
}
