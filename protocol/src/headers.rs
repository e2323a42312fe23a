//! Names of the headers that carry identity and lineage, in one place so that reading, checking and stripping
//! agree. All lower case, as HTTP/2 wants them.

/// Who calls: `u_...`.
pub const USER_ID: &str = "x-user-id";
/// Which conversation it belongs to: `sess_...` or `s_...`.
pub const SESSION_ID: &str = "x-session-id";
/// Which inference call it belongs to: `t_...`.
pub const TRACE_ID: &str = "x-trace-id";
/// Which client sent it: `sp_...`.
pub const CLIENT_ID: &str = "x-client-id";
/// Which tenant the caller belongs to.
pub const TENANT_ID: &str = "x-tenant-id";
/// Which bundle was in force when the token was issued.
pub const POLICY_VERSION: &str = "x-policy-version";
/// What kind of work caused the call; see [`crate::id::CallSource`].
pub const CALL_SOURCE: &str = "x-call-source";

/// The seven identity headers, in the order in which they are issued. They are claims to check, and are
/// stripped before a request leaves for an upstream.
pub const SEVEN: [&str; 7] =
    [USER_ID, SESSION_ID, TRACE_ID, CLIENT_ID, TENANT_ID, POLICY_VERSION, CALL_SOURCE];

/// The caller's W3C trace context, the first source of a trace id; see
/// [`crate::id::TraceId::from_traceparent`].
pub const TRACEPARENT: &str = "traceparent";
/// Claude Code's session: read for lineage, stripped before the upstream.
pub const CLAUDE_CODE_SESSION_ID: &str = "x-claude-code-session-id";
/// Claude Code's prompt: ties the turns, hooks and telemetry of one prompt together; stripped before the
/// upstream.
pub const CLAUDE_CODE_PROMPT_ID: &str = "x-claude-code-prompt-id";
/// What kind of request Claude Code makes: `main`, `subagent`, or work of its own in the background. A claim of the client.
pub const CLAUDE_CODE_REQUEST_CLASS: &str = "x-claude-code-request-class";
/// Which of Claude Code's subagents makes a request.
pub const CLAUDE_CODE_AGENT_ID: &str = "x-claude-code-agent-id";
/// What kind of subagent that is.
pub const CLAUDE_CODE_AGENT_TYPE: &str = "x-claude-code-agent-type";
/// Which agent of the client speaks, for routing; stripped before the upstream.
pub const AGENT_NAME: &str = "x-agent-name";
