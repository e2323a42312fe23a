//! What a call belongs to besides its trace: session, prompt and agent, as Claude Code names them in headers and reports. These
//! names are claims of the client. They join rows, and say what a personal access token leaves open; they give nobody a right.

use http::HeaderMap;
use sallyport_protocol::headers;
use sallyport_protocol::hooks::Report;
use sallyport_protocol::id::{CallSource, SessionId};

use super::facts::text;
use crate::auth::{Credential, Principal};

/// Longest name of a session, a prompt or an agent that is kept.
const LONGEST_NAME: usize = 256;
/// What Claude Code calls the requests of a subagent.
const SUBAGENT: &str = "subagent";

/// The names of one call or report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The column `session_id`.
    pub(super) session_id: SessionId,
    /// The column `call_source`.
    pub(super) source: CallSource,
    /// The client's name of its session.
    pub(super) session: Option<String>,
    /// The client's name of the prompt that caused it.
    pub(super) prompt: Option<String>,
    /// The subagent that makes it.
    pub(super) agent: Option<String>,
}

// === impl Lineage ===

impl Lineage {
    /// What the headers of a call say.
    pub(super) fn of_call(headers: &HeaderMap, principal: &Principal) -> Self {
        let class = text(headers, headers::CLAUDE_CODE_REQUEST_CLASS);
        let [session, prompt, agent] =
            [headers::CLAUDE_CODE_SESSION_ID, headers::CLAUDE_CODE_PROMPT_ID, headers::CLAUDE_CODE_AGENT_ID]
                .map(|name| text(headers, name));
        Self::new(principal, session, prompt, agent).of_subagent_if(principal, class == Some(SUBAGENT))
    }

    /// What a client reports.
    pub(super) fn of_report(report: &Report, principal: &Principal) -> Self {
        Self::new(principal, Some(&report.session), report.prompt.as_deref(), report.agent.as_deref())
    }

    /// Something about a session as a whole.
    pub(super) fn of_session(name: &str, principal: &Principal) -> Self {
        Self::new(principal, Some(name), None, None)
    }

    /// The name under which the session is remembered: the client's, else that of the credential.
    pub(super) fn session_name(&self) -> &str {
        self.session.as_deref().unwrap_or(self.session_id.as_str())
    }

    fn new(principal: &Principal, session: Option<&str>, prompt: Option<&str>, agent: Option<&str>) -> Self {
        let name = |text: Option<&str>| {
            text.filter(|text| (1..=LONGEST_NAME).contains(&text.len())).map(str::to_owned)
        };
        let session = name(session);
        let named = session.as_deref().and_then(session_of).filter(|_| is_open(principal));
        let agent = name(agent);
        let is_agent = agent.is_some();
        Self {
            session_id: named.unwrap_or_else(|| principal.session.clone()),
            source: principal.source,
            session,
            prompt: name(prompt),
            agent,
        }
        .of_subagent_if(principal, is_agent)
    }

    fn of_subagent_if(mut self, principal: &Principal, is_agent: bool) -> Self {
        if is_agent && is_open(principal) {
            self.source = CallSource::Subagent;
        }
        self
    }
}

// === private helpers ===

/// Whether the credential says nothing of session and source: a personal access token is the same in all of them, while an access
/// token was issued for one.
fn is_open(principal: &Principal) -> bool {
    matches!(principal.credential, Credential::Pat { .. })
}

/// A session of Claude Code as an id of ours. Its names are UUIDs, with their hyphens: none of them is a session that the gateway
/// gave out.
fn session_of(name: &str) -> Option<SessionId> {
    let groups = name.split('-').map(str::len);
    let hex = name.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_uuid = hex && groups.eq([8, 4, 4, 4, 12]);
    is_uuid.then(|| SessionId::parse(&format!("sess_{name}")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sallyport_protocol::id::{ClientId, TenantId, UserId};

    use super::*;

    const UUID: &str = "3f0e0ec1-6e1c-4f43-8f2a-4a4f3d8e9c11";

    fn principal(credential: Credential) -> Principal {
        Principal {
            user: UserId::parse("u_1").unwrap(),
            name: None,
            tenant: TenantId::parse("acme").unwrap(),
            session: SessionId::parse("sess_of_the_token").unwrap(),
            client: ClientId::cli(),
            source: CallSource::Api,
            roles: std::sync::Arc::default(),
            department: None,
            scopes: std::sync::Arc::default(),
            policy_version: None,
            credential,
            models: crate::auth::UsableModels::All,
        }
    }

    fn called(named: &[(&'static str, &str)], principal: &Principal) -> Lineage {
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Lineage::of_call(&headers, principal)
    }

    #[test]
    fn a_personal_access_token_leaves_session_and_source_to_the_client_and_an_access_token_does_not() {
        let named = [(headers::CLAUDE_CODE_SESSION_ID, UUID), (headers::CLAUDE_CODE_AGENT_ID, "a1")];
        let pat = principal(Credential::Pat { id: "p".to_owned() });
        let lineage = called(&named, &pat);
        assert_eq!(lineage.session_id.as_str(), format!("sess_{UUID}"));
        assert_eq!((lineage.source, lineage.session_name()), (CallSource::Subagent, UUID));

        let jwt =
            principal(Credential::Jwt { jti: "j".to_owned(), tier: crate::auth::Tier::Pat, bound_to: None });
        let lineage = called(&named, &jwt);
        assert_eq!((lineage.session_id.as_str(), lineage.source), ("sess_of_the_token", CallSource::Api));
        assert_eq!((lineage.session_name(), lineage.agent.as_deref()), (UUID, Some("a1")));

        let class = [(headers::CLAUDE_CODE_REQUEST_CLASS, "subagent")];
        assert_eq!(called(&class, &pat).source, CallSource::Subagent);
        assert_eq!(called(&[(headers::CLAUDE_CODE_REQUEST_CLASS, "main")], &pat).source, CallSource::Api);
    }

    #[test]
    fn no_client_can_name_a_session_that_the_gateway_gave_out() {
        let pat = principal(Credential::Pat { id: "p".to_owned() });
        let given = SessionId::from_bytes([0xab; 16]);
        let bare = given.as_str().trim_start_matches("sess_");
        for name in
            [given.as_str(), bare, "", "x", &"a".repeat(400), &UUID.to_uppercase(), &UUID.replace('3', "g")]
        {
            let lineage = called(&[(headers::CLAUDE_CODE_SESSION_ID, name)], &pat);
            assert_eq!(lineage.session_id.as_str(), "sess_of_the_token", "{name}");
        }
    }
}
