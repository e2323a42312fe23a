//! Words of the audit trail that are closed lists: what happened, how it ended, and what a change is called. Whoever reads rows can
//! rely on them; the reference page is printed from here.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::fault::{BreachCode, EgressCode, FaultCode};
use crate::{attempt, verdict};

/// What happened: the column `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A call of a model.
    Inference,
    /// A tool that the model asked for.
    ToolCall,
    /// A tool run through the MCP proxy.
    McpExec,
    /// What a call cost; closes a trace.
    Cost,
    /// A sign-in, or its refusal.
    Auth,
    /// A report of a hook.
    Hook,
    /// A change made by an administrator, or by the gateway to itself.
    Admin,
}

/// How it ended: the column `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It went through.
    Allowed,
    /// A policy, or the gateway, said no.
    Denied,
    /// It failed.
    Error,
}

/// An access token was given out: the payload's `code` in rows of kind `auth` that are no refusal.
pub const TOKEN_ISSUED: &str = "token_issued";
/// Somebody signed in with a browser.
pub const SIGNED_IN: &str = "signed_in";
/// A session ended because its user said so.
pub const SIGNED_OUT: &str = "signed_out";
/// A user let a workstation in, or turned it away.
pub const DEVICE_LINKED: &str = "device_linked";
/// A user gave a client access, or refused it.
pub const ACCESS_GRANTED: &str = "access_granted";

/// What rows of kind `auth` that are no refusal say, and what it means.
const SIGN_INS: [(&str, &str); 5] = [
    (TOKEN_ISSUED, "An access token was given out."),
    (SIGNED_IN, "Somebody signed in with a browser."),
    (SIGNED_OUT, "A session ended because its user said so."),
    (DEVICE_LINKED, "A user let a workstation in; with the outcome `denied`, turned it away."),
    (ACCESS_GRANTED, "A user gave a client access; with the outcome `denied`, refused it."),
];

/// Fields that several rows of changes have.
const SUBJECT: &[&str] = &["subject", "detail"];
const STEP: &[&str] = &[
    "component",
    "reason",
    "revision",
    "host",
    "version",
    "serial",
    "digest",
    "config",
    "mode",
    "percent",
    "replaces",
    "new_capabilities",
    "publisher",
    "lost",
];
const WITHDRAW: &[&str] = &[
    "component",
    "reason",
    "revision",
    "host",
    "version",
    "digest",
    "breach",
    "calls",
    "faults",
    "refusals",
    "p95_micros",
    "lost",
];

/// Lists the changes once: variant, code, payload, and what it says.
macro_rules! actions {
    ($($variant:ident, $code:literal, $fields:expr, $about:literal;)+) => {
        /// What was changed: the payload's `code` in rows of kind `admin` about something that was done. A row whose outcome is
        /// `error` says that it was not done after all.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Action {
            $(
                #[doc = $about]
                $variant,
            )+
        }

        impl Action {
            /// Every change.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in the row: what it is about, a dot, and what was done to it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// What was done.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)+
                }
            }

            /// What the payload may hold besides `code` and, for components, `catalog`: the tenant's id or `platform`.
            pub const fn fields(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => $fields,)+
                }
            }
        }
    };
}

actions! {
    TenantCreate, "tenant.create", SUBJECT, "A tenant was made.";
    TenantDisable, "tenant.disable", SUBJECT, "A tenant's users are let in no more.";
    TenantEnable, "tenant.enable", SUBJECT, "A tenant's users are let in again.";
    TenantTier, "tenant.tier", SUBJECT, "The weakest way to sign in that a tenant takes was set.";
    TenantModels, "tenant.models", SUBJECT, "Whether a tenant's users may call every model, or those that are listed for their roles, was set.";
    RoleAllow, "role.allow", SUBJECT, "A role may call models.";
    RoleDisallow, "role.disallow", SUBJECT, "A role may call models no more.";
    GroupCreate, "group.create", SUBJECT, "A provider made a group.";
    GroupChange, "group.change", SUBJECT, "A provider changed a group, or who is in it; roles that follow from it changed with it.";
    GroupDelete, "group.delete", SUBJECT, "A provider deleted a group.";
    GroupGive, "group.give", SUBJECT, "A role follows from being in a group.";
    GroupTake, "group.take", SUBJECT, "A role follows from being in a group no more.";
    UserCreate, "user.create", SUBJECT, "A user was made.";
    UserChange, "user.change", SUBJECT, "What a user may do, or its department, was changed; its access tokens ended.";
    UserDisable, "user.disable", SUBJECT, "A user is let in no more.";
    UserEnable, "user.enable", SUBJECT, "A user is let in again.";
    UserRevoke, "user.revoke", SUBJECT, "Every session and token of a user ended.";
    CertificateLink, "certificate.link", SUBJECT, "A name in certificates stands for a user.";
    CertificateUnlink, "certificate.unlink", SUBJECT, "A name in certificates stands for a user no more; the user's tokens ended.";
    SubjectLink, "subject.link", SUBJECT, "What an identity provider calls somebody stands for a user.";
    SubjectUnlink, "subject.unlink", SUBJECT, "What an identity provider calls somebody stands for a user no more; the user's sessions ended.";
    UserPassword, "user.password", SUBJECT, "A user was given a password; where it had one, its sessions ended.";
    KeyRotate, "key.rotate", SUBJECT, "Another key signs access tokens; the ones before verify until the time in `detail`.";
    ClientCreate, "client.create", SUBJECT, "An OAuth client was made.";
    ClientDelete, "client.delete", SUBJECT, "An OAuth client was deleted, and all that was granted to it ended.";
    SessionRevoke, "session.revoke", SUBJECT, "A session ended.";
    TokenRevoke, "token.revoke", SUBJECT, "An access token ended.";
    PatCreate, "pat.create", SUBJECT, "A personal access token was made.";
    PatRevoke, "pat.revoke", SUBJECT, "A personal access token ended.";
    BundleSwap, "bundle.swap", &["reason"], "A configuration was read again; the row's `policy_ver` is the bundle that comes into force.";
    ComponentUpload, "component.upload", &[
        "component", "version", "serial", "kind", "digest", "size", "publisher", "capabilities", "needs_grant", "imports",
        "without_configuration",
    ], "A package was verified, compiled and tried, and is kept.";
    ComponentDelete, "component.delete", &["component", "version", "serial", "digest"], "A version that nobody uses was deleted.";
    ComponentShadow, "component.shadow", STEP, "A release is tried in the shadow of what is in force.";
    ComponentCanary, "component.canary", STEP, "A release is tried with a share of users.";
    ComponentActivate, "component.activate", STEP, "A release was put in force.";
    ComponentRollback, "component.rollback", STEP, "An earlier release was put in force again.";
    ComponentWithdraw, "component.withdraw", WITHDRAW, "A trial ended, by an administrator or because it did badly.";
    ComponentRetire, "component.retire", STEP, "A component was taken out of force.";
    ComponentRevoke, "component.revoke", &["kind", "subject", "reason"], "A component, a release, or all that a key signed may not run any more.";
    PublisherTrust, "publisher.trust", &["key", "namespace", "kinds", "expires_at", "replaces"], "A publisher's key is trusted.";
    CapabilityGrant, "capability.grant", &["component", "capability", "expires_at"], "A component may use a capability.";
    CapabilityWithdraw, "capability.withdraw", &["component", "capability"], "A component may use a capability no more.";
    EvidenceExpire, "evidence.expire", &["detail"], "Evidence whose days are over is deleted.";
    EvidenceShred, "evidence.shred", SUBJECT, "The key of a tenant's evidence was deleted: nobody reads it any more.";
    EvidenceReplay, "evidence.replay", SUBJECT, "Somebody on the gateway's host opened the evidence of a call, to run it again.";
    PolicyTry, "policy.try", SUBJECT, "Somebody on the gateway's host opened evidence, to try a policy on it.";
    AuditReconcile, "audit.reconcile", &["reason", "detail"], "Somebody on the gateway's host approved that the trail goes on in a database that its spool does not know.";
    AuditReconciled, "audit.reconciled", &["reason", "detail"], "The trail goes on in a database that was approved: what the spool gave it, and which rows are lost.";
}

// === impl RowKind ===

impl RowKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Inference, Self::ToolCall, Self::McpExec, Self::Cost, Self::Auth, Self::Hook, Self::Admin];

    /// As it stands in the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::ToolCall => "tool_call",
            Self::McpExec => "mcp_exec",
            Self::Cost => "cost",
            Self::Auth => "auth",
            Self::Hook => "hook",
            Self::Admin => "admin",
        }
    }

    /// What happened.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Inference => "A call of a model.",
            Self::ToolCall => "A tool that the model asked for.",
            Self::McpExec => "A tool run through the MCP proxy.",
            Self::Cost => "What a call cost; closes a trace.",
            Self::Auth => "A sign-in, or its refusal.",
            Self::Hook => "A report of a hook.",
            Self::Admin => "A change made by an administrator, or by the gateway to itself.",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Error];

    /// As it stands in the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }

    /// How it ended.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Allowed => "It went through.",
            Self::Denied => "A policy, or the gateway, said no.",
            Self::Error => "It failed.",
        }
    }
}

// === impl Action ===

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The lists as tables in Markdown.
pub fn markdown() -> String {
    let table = |head: [&str; 2], rows: Vec<(&str, &str)>| {
        let rows: Vec<_> = rows.iter().map(|(word, about)| format!("| `{word}` | {about} |")).collect();
        format!("| {} | {} |\n|---|---|\n{}\n", head[0], head[1], rows.join("\n"))
    };
    let kinds = RowKind::ALL.iter().map(|kind| (kind.as_str(), kind.about())).collect();
    let outcomes = Outcome::ALL.iter().map(|outcome| (outcome.as_str(), outcome.about())).collect();
    let faults = FaultCode::ALL.iter().map(|it| (it.as_str(), it.about())).collect();
    let egress = EgressCode::ALL.iter().map(|it| (it.as_str(), it.about())).collect();
    let breaches = BreachCode::ALL.iter().map(|it| (it.as_str(), it.about())).collect();
    let actions: Vec<_> = Action::ALL
        .iter()
        .map(|action| {
            let fields: Vec<_> = action.fields().iter().map(|field| format!("`{field}`")).collect();
            format!("| `{action}` | {} | {} |", action.about(), fields.join(", "))
        })
        .collect();
    format!(
        "## `kind`\n{}\n## `outcome`\n{}\n## Sign-ins: `code` in rows of kind `auth`\n{}\n{}## `fault` of a component\n{}\n## `fault` of a request in `egress`\n{}\n{}## `breach` of a canary\n{}\n## Changes: `code` in rows of kind `admin`\n| `code` | means | payload |\n|---|---|---|\n{}\n",
        table(["`kind`", "means"], kinds),
        table(["`outcome`", "means"], outcomes),
        table(["`code`", "means"], SIGN_INS.to_vec()),
        verdict::markdown(),
        table(["`fault`", "means"], faults),
        table(["`fault`", "means"], egress),
        attempt::markdown(),
        table(["`breach`", "means"], breaches),
        actions.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::attempt::AttemptEnd;
    use crate::verdict::Verdict;

    #[test]
    fn words_are_written_in_rows_as_the_page_says() {
        fn written(word: impl Serialize) -> serde_json::Value {
            serde_json::to_value(word).unwrap()
        }
        for kind in RowKind::ALL {
            assert_eq!(written(kind), kind.as_str());
        }
        for outcome in Outcome::ALL {
            assert_eq!(written(outcome), outcome.as_str());
        }
        for action in Action::ALL {
            assert_eq!(written(action), action.as_str());
        }
    }

    #[test]
    fn a_change_is_named_by_what_it_is_about_and_what_was_done_and_once() {
        let names: BTreeSet<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for name in names {
            let (about, done) = name.split_once('.').unwrap();
            let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
            assert!(plain(about) && plain(done), "{name}");
        }
    }

    #[test]
    fn the_page_has_a_row_for_every_word() {
        let page = markdown();
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        let words = RowKind::ALL.len()
            + Outcome::ALL.len()
            + Verdict::ALL.len()
            + FaultCode::ALL.len()
            + EgressCode::ALL.len()
            + BreachCode::ALL.len()
            + AttemptEnd::ALL.len()
            + SIGN_INS.len()
            + Action::ALL.len();
        // Nine of them are heads of tables.
        assert_eq!(rows, words + 9);
    }
}
