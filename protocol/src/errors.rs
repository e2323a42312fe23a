//! Every code that the gateway itself gives to what goes wrong: in the header `x-sallyport-code` of an answer, and in the payload of
//! rows. A closed list, from which the answers are made and the reference page is printed. Components that refuse bring codes of
//! their own.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::messages::error::ErrorType;

/// What a client is told along with a code: status and type of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// One of these; the first, unless the code says when it is another.
    As(&'static [(u16, ErrorType)]),
    /// A denial: the status that the configuration names, and `permission_error`.
    Denial,
    /// What kind of refusal the component says that it is.
    ByKind,
    /// What the upstream answered, or the provider made of it.
    Upstream,
    /// Nothing: it stands in rows only.
    Nothing,
}

/// What a client is told about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryRule {
    /// Not to: the same request would be refused again.
    No,
    /// When.
    After,
    /// Nothing: it follows its own rules.
    Unsaid,
    /// What the component or the provider says.
    AsSaid,
}

/// Lists the codes once: variant, code, status and type, retry, what happened, what to do about it.
macro_rules! codes {
    ($($part:ident: $title:literal { $($variant:ident, $code:literal, $told:expr, $retry:ident, $about:literal, $remedy:literal;)+ })+) => {
        /// What the gateway calls something that went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(
                #[doc = concat!(
                    $about, " Told: `", stringify!($told), "`; retry: ", stringify!($retry), ". ", $remedy
                )]
                $variant,
            )+)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$($(Self::$variant),+),+];

            /// As it stands in headers and rows.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$variant => $code,)+)+
                }
            }

            /// Status and type of the error that a client is given.
            pub const fn told(self) -> Told {
                match self {
                    $($(Self::$variant => $told,)+)+
                }
            }

            /// What a client is told about trying again.
            pub const fn retry(self) -> RetryRule {
                match self {
                    $($(Self::$variant => RetryRule::$retry,)+)+
                }
            }

            /// What happened.
            pub const fn about(self) -> &'static str {
                match self {
                    $($(Self::$variant => $about,)+)+
                }
            }

            /// What whoever meets it does about it.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $($(Self::$variant => $remedy,)+)+
                }
            }
        }

        /// The codes of each part of the page.
        const PARTS: &[(&str, &[ErrorCode])] = &[$(($title, &[$(ErrorCode::$variant),+])),+];
    };
}

const BAD_REQUEST: Told = Told::As(&[(400, ErrorType::InvalidRequest)]);
const FORBIDDEN: Told = Told::As(&[(403, ErrorType::Permission)]);
const NOT_FOUND: Told = Told::As(&[(404, ErrorType::NotFound)]);
const CONFLICT: Told = Told::As(&[(409, ErrorType::InvalidRequest)]);
const TOO_LARGE: Told = Told::As(&[(413, ErrorType::RequestTooLarge)]);
const UNPROCESSABLE: Told = Told::As(&[(422, ErrorType::InvalidRequest)]);
const TOO_MANY: Told = Told::As(&[(429, ErrorType::RateLimit)]);
const BAD_GATEWAY: Told = Told::As(&[(502, ErrorType::Api)]);
const UNAVAILABLE: Told = Told::As(&[(503, ErrorType::Api)]);

codes! {
    Callers: "Who calls, and what it sends" {
        InvalidToken, "invalid_token", Told::As(&[(401, ErrorType::Authentication)]), No,
            "The credential is missing or not valid. The row's `reason` says why; the client is not told.",
            "Sign in again, or have an administrator make a new token.";
        IdentityMismatch, "identity_mismatch", FORBIDDEN, No,
            "A header claims another identity than the credential.",
            "Take the header out, or use the token that it came with.";
        InsufficientScope, "insufficient_scope", FORBIDDEN, No,
            "The credential is good, but not for this endpoint.",
            "Use a token that has the scope which the message names.";
        TierRequired, "tier_required", FORBIDDEN, No,
            "The tenant asks for a stronger way to sign in than the one that the credential came from.",
            "Sign in the way that the message names: in a browser, or with the certificate of the device.";
        RequestTooLarge, "request_too_large", TOO_LARGE, No,
            "The body is longer than the gateway reads, or more than a component can judge within its limits.",
            "Shorten the conversation; or the operator raises `server.body_limit_bytes`, or the component's limits.";
        BodyTooSlow, "body_too_slow", Told::As(&[(408, ErrorType::InvalidRequest)]), Unsaid,
            "The body came too slowly to be waited for.",
            "Send it again over a better connection.";
        BodiesFull, "bodies_full", Told::As(&[(429, ErrorType::RateLimit), (529, ErrorType::Overloaded)]), After,
            "Bodies hold as much memory as they may: those of the user or the tenant (429), or of everybody (529).",
            "Wait; or the operator raises `server.body_memory_bytes`.";
        TelemetryMalformed, "telemetry_malformed", BAD_REQUEST, No,
            "What was to be passed on to the collector is no OTLP.",
            "Have the client export metrics, logs and traces each to their own path, as JSON or in protobuf.";
        TelemetryFull, "telemetry_full", TOO_MANY, After,
            "The user, or the tenant, exports more telemetry than it may, or the collector does not keep up.",
            "Export less often; or the operator raises the limits of `telemetry`, or looks at the collector.";
        BodyMalformed, "body_malformed", Told::As(&[(400, ErrorType::InvalidRequest), (413, ErrorType::RequestTooLarge)]), No,
            "The body is no Messages request (400), or longer than can be indexed (413).",
            "Mend the client.";
        BodyTooDeep, "body_too_deep", BAD_REQUEST, No,
            "The body is nested deeper than the gateway reads.",
            "Nest it less.";
        BodyTooMany, "body_too_many", TOO_LARGE, No,
            "The body has more of something than the gateway keeps apart; the message names it.",
            "Shorten the conversation.";
        BodyAmbiguous, "body_ambiguous", BAD_REQUEST, No,
            "A key of the body is spelt almost like one of the API, and some readers would take it for that one.",
            "Spell it as the API does, or leave it out.";
    }
    Decisions: "Decisions on a call" {
        NoRoute, "no_route", NOT_FOUND, No,
            "No route serves the model.",
            "Ask for a model of `/v1/models`; or the operator adds a route.";
        NotOffered, "not_offered", NOT_FOUND, No,
            "The upstream has no batches, or keeps no files.",
            "Use a model of an upstream that has them: `anthropic` does.";
        BatchSplit, "batch_split", BAD_REQUEST, No,
            "The requests of a batch go to different upstreams.",
            "Make a batch for each upstream.";
        StoredFull, "stored_full", TOO_MANY, No,
            "The tenant keeps as many batches or files at upstreams as it may.",
            "Delete some.";
        UnknownConstruct, "unknown_construct", BAD_REQUEST, No,
            "The route is strict, and the request has something that the gateway does not know.",
            "Leave it out; or the operator makes the route lenient, or updates the gateway.";
        Lossy, "lossy", BAD_REQUEST, No,
            "The route is lossless, and its upstream has no place for a part of the request.",
            "Leave the part out that the message names, or use another model.";
        LevelMissing, "level_missing", BAD_REQUEST, No,
            "The request needs a part of the API that no provider of its routes was shown to carry; the message names it.",
            "Leave it out, or use another model; or the operator adds a target whose provider carries it.";
        Denied, "denied", Told::ByKind, AsSaid,
            "A component refused, and gave no usable code.",
            "Read the message; the author of the component gives it a code.";
        PolicyFault, "policy_fault", Told::Denial, No,
            "A component that decides did not answer.",
            "The operator looks at the row: it has the component's fault.";
        VerdictUnknown, "verdict_unknown", Told::Denial, No,
            "A policy gave a verdict that this gateway does not know.",
            "The operator updates the gateway, or takes the component out.";
        RewriteFailed, "rewrite_failed", Told::Denial, No,
            "What a scanner or a hook changes in the request cannot be put in without harm.",
            "Take the text out of the conversation that the component would have changed.";
        HookBlocked, "hook_blocked", Told::Denial, No,
            "A hook stopped the session, the prompt or the answer of a tool.",
            "Take it out of the conversation, as the message says.";
        HookAsks, "hook_asks", Told::Denial, No,
            "A hook wants a person's consent, and nobody can be asked here.",
            "Take it out of the conversation; or the operator has the hook decide by itself.";
        HookDepth, "hook_depth", Told::Denial, No,
            "Hooks keep changing what the others said; or a session's turns end in a hook that starts the next one. Told only in the first case.",
            "The operator orders the hooks so that they come to rest.";
        HookUnusable, "hook_unusable", Told::Denial, No,
            "A hook gave an answer that means nothing here.",
            "The operator looks at the row, and mends the hook.";
        Overloaded, "overloaded", Told::As(&[(529, ErrorType::Overloaded)]), Unsaid,
            "The gateway has no room for another guest.",
            "Try again; or the operator gives it more room.";
        AuditUnavailable, "audit_unavailable", UNAVAILABLE, Unsaid,
            "No durable row can be had, so there is no answer.",
            "The operator frees the disk, or brings the database back.";
    }
    Upstreams: "Providers and upstreams" {
        NoProvider, "no_provider", BAD_GATEWAY, Unsaid,
            "The provider of the route is not in force.",
            "The operator puts it in force, or changes the route.";
        ProviderFault, "provider_fault", BAD_GATEWAY, Unsaid,
            "The provider broke.",
            "The operator looks at the row: it has the fault.";
        ProviderContract, "provider_contract", BAD_GATEWAY, Unsaid,
            "The provider answered against the contract.",
            "The operator rolls it back; its author mends it.";
        ProviderDeclined, "provider_declined", Told::Upstream, AsSaid,
            "The provider does not carry the request, and asked no upstream.",
            "Leave out what the message names, or use another model.";
        UpstreamError, "upstream_error", Told::Upstream, AsSaid,
            "The upstream refused or failed.",
            "Read the message: it is the upstream's.";
        UpstreamCredential, "upstream_credential", BAD_GATEWAY, No,
            "The upstream does not take the gateway's credential, or an identity server gives none out for what the secrets file says.",
            "The operator puts in a new one.";
        CredentialUnavailable, "credential_unavailable", UNAVAILABLE, Unsaid,
            "The identity server that gives out the gateway's credential for the upstream cannot be reached or fails. Nothing was sent.",
            "Try again; the operator looks at the log, which says why.";
        UpstreamsUnavailable, "upstreams_unavailable", Told::As(&[(529, ErrorType::Overloaded)]), After,
            "The circuit breakers of all the route's targets are open: they failed too often of late, and are left alone for a while.",
            "Wait; the operator looks at `upstreams` in `/ready`, and at the rows before.";
        UpstreamAnswer, "upstream_answer", BAD_GATEWAY, Unsaid,
            "The upstream's answer is none of the Messages API, or broke off.",
            "Try again; the operator looks at the endpoint of the route.";
        AnswerUnreadable, "answer_unreadable", BAD_GATEWAY, Unsaid,
            "The upstream's answer reads in more than one way, or hides what hooks have to be asked about.",
            "The operator looks at the upstream: it does not speak the API as it is written.";
        ToolCallTooLarge, "tool_call_too_large", BAD_GATEWAY, Unsaid,
            "A tool call of the answer is longer than what is held back for hooks.",
            "Ask for less at once.";
    }
    Administration: "Administration" {
        NotFound, "not_found", NOT_FOUND, No,
            "There is no such thing, or it is another tenant's.",
            "Look at the list of the resource.";
        Forbidden, "forbidden", FORBIDDEN, No,
            "The role does not reach that far.",
            "Have somebody do it who has the role that the message names.";
        Invalid, "invalid", BAD_REQUEST, No,
            "The request asks for something that makes no sense.",
            "Change it as the message says.";
        MalformedPackage, "malformed_package", BAD_REQUEST, No,
            "What was uploaded is no package.",
            "Send what `sallyport component sign` wrote.";
        NotTrusted, "not_trusted", UNPROCESSABLE, No,
            "The package's signature, publisher, namespace or serial is not trusted here.",
            "Trust the publisher's key, or sign with one that is trusted.";
        Revoked, "revoked", UNPROCESSABLE, No,
            "The component, the release or the key was revoked.",
            "Bring a release that is not.";
        OtherBytes, "other_bytes", CONFLICT, No,
            "The version or the serial is taken by other bytes.",
            "Give the new bytes a new version and a higher serial.";
        GrantNeeded, "grant_needed", CONFLICT, No,
            "The release asks for a capability that nobody granted.",
            "Grant it, if you agree with it.";
        NotAdmitted, "not_admitted", UNPROCESSABLE, No,
            "The component could not be compiled, configured or tried; the message has the cause.",
            "Mend the component or its configuration.";
        NoSuchStep, "no_such_step", CONFLICT, No,
            "The step does not lead anywhere from here.",
            "Look at the component: it says what is in force.";
        ChangedMeanwhile, "changed_meanwhile", CONFLICT, No,
            "Somebody else changed it at the same time.",
            "Look again, then repeat.";
        NotInForceYet, "not_in_force_yet", UNAVAILABLE, No,
            "It is recorded and stored, but not in force on this gateway yet.",
            "Wait, and look at the component; do not repeat.";
        InUse, "in_use", CONFLICT, No,
            "Somebody needs the version.",
            "Step to another one first.";
        QuotaBytes, "quota_bytes", TOO_LARGE, No,
            "The tenant stores as many bytes as it may.",
            "Delete versions that nobody uses.";
        QuotaVersions, "quota_versions", CONFLICT, No,
            "The tenant stores as many versions as it may.",
            "Delete versions that nobody uses.";
        QuotaUploads, "quota_uploads", TOO_MANY, After,
            "The tenant uploaded as often as it may in an hour.",
            "Wait.";
        CompileQueueFull, "compile_queue_full", TOO_MANY, After,
            "As many components wait for the compiler as may.",
            "Wait.";
        CompileTimeSpent, "compile_time_spent", TOO_MANY, After,
            "The tenant has used up its compile time of an hour.",
            "Wait.";
        DatabaseUnavailable, "database_unavailable", UNAVAILABLE, No,
            "The database does not answer.",
            "The operator brings it back.";
        Unreadable, "unreadable", Told::As(&[(500, ErrorType::Api)]), No,
            "What is stored cannot be read.",
            "The operator looks at the log.";
    }
    Rows: "Rows only" {
        ClientDisconnected, "client_disconnected", Told::Nothing, Unsaid,
            "The client left before its answer was complete.",
            "Nothing. What the upstream had counted by then is on the row.";
        ReportMalformed, "report_malformed", Told::Nothing, Unsaid,
            "A client reported an event that cannot be read. It is told 400 without a code.",
            "Mend whatever reports.";
        RowsMissing, "rows_missing", Told::Nothing, Unsaid,
            "The gateway ended before all rows of a call were in the spool.",
            "Look for what ended it.";
        SpoolBroken, "spool_broken", Told::Nothing, Unsaid,
            "The chain of the spool is broken.",
            "The operator finds out who or what changed the files of the spool.";
        PayloadRefused, "payload_refused", Told::Nothing, Unsaid,
            "The database does not take the row's payload, so the row is there without it.",
            "The spool has the whole row.";
    }
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The code of the row about a request of an administrator that was not done.
    pub fn of_admin(self) -> String {
        format!("admin_{self}")
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// === impl Told ===

impl Told {
    /// The answer of this type, where there is a choice; else the usual one.
    pub fn answer(self, kind: ErrorType) -> Option<(u16, ErrorType)> {
        let Self::As(answers) = self else { return None };
        answers.iter().find(|(_, it)| *it == kind).or_else(|| answers.first()).copied()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As(answers) => {
                for (number, (status, kind)) in answers.iter().enumerate() {
                    let between = if number == 0 { "" } else { ", or " };
                    write!(f, "{between}{status} `{}`", kind.as_str())?;
                }
                Ok(())
            }
            Self::Denial => f.write_str("`deny.status` `permission_error`"),
            Self::ByKind => f.write_str("by its kind"),
            Self::Upstream => f.write_str("the upstream's, else 502 `api_error`"),
            Self::Nothing => f.write_str("-"),
        }
    }
}

// === impl RetryRule ===

impl fmt::Display for RetryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::After => "after `retry-after`",
            Self::Unsaid => "-",
            Self::AsSaid => "as it says",
        })
    }
}

/// The codes as tables in Markdown.
pub fn markdown() -> String {
    let row = |code: &ErrorCode| {
        let (told, retry, about, remedy) = (code.told(), code.retry(), code.about(), code.remedy());
        format!("| `{code}` | {told} | {retry} | {about} | {remedy} |\n")
    };
    let part = |(title, codes): &(&str, &[ErrorCode])| {
        let rows: Vec<_> = codes.iter().map(row).collect();
        let head = "| code | status and type | retry | means | what to do |\n|---|---|---|---|---|\n";
        format!("## {title}\n{head}{}\n", rows.concat())
    };
    PARTS.iter().map(part).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_is_lower_case_words_and_names_one_thing() {
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for name in names {
            let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(name.split('_').all(word), "{name}");
        }
    }

    #[test]
    fn an_answer_is_an_error_of_http() {
        for code in ErrorCode::ALL {
            if let Told::As(answers) = code.told() {
                assert!(!answers.is_empty(), "{code}");
                assert!(answers.iter().all(|(status, _)| (400..600).contains(status)), "{code}");
            }
        }
    }

    #[test]
    fn an_answer_of_another_type_is_the_usual_one() {
        let told = ErrorCode::BodiesFull.told();
        assert_eq!(told.answer(ErrorType::Overloaded), Some((529, ErrorType::Overloaded)));
        assert_eq!(told.answer(ErrorType::NotFound), Some((429, ErrorType::RateLimit)));
        assert_eq!(ErrorCode::RowsMissing.told().answer(ErrorType::Api), None);
    }

    #[test]
    fn the_page_has_a_row_for_every_code() {
        let page = markdown();
        assert_eq!(page.lines().filter(|line| line.starts_with("| `")).count(), ErrorCode::ALL.len());
    }
}
