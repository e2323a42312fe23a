-- What every call did, who made it and what it cost. Rows come from the spool, each exactly once: (replica, sequence) is dense.
CREATE TABLE audit_events (
  id           BIGSERIAL PRIMARY KEY,
  occurred_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
  kind         TEXT NOT NULL,      -- inference | tool_call | mcp_exec | cost | auth | hook | admin
  user_id      TEXT NOT NULL,
  session_id   TEXT NOT NULL,
  trace_id     TEXT NOT NULL,
  client_id    TEXT NOT NULL,
  tenant_id    TEXT NOT NULL,
  policy_ver   TEXT NOT NULL,
  call_source  TEXT NOT NULL,
  model        TEXT,
  provider     TEXT,
  tokens_in    INTEGER,
  tokens_out   INTEGER,
  cost_micro   BIGINT,             -- microdollars
  latency_ms   INTEGER,
  outcome      TEXT NOT NULL,      -- allowed | denied | error
  payload      JSONB NOT NULL,
  replica      TEXT NOT NULL,
  sequence     BIGINT NOT NULL,
  UNIQUE (replica, sequence)
);
CREATE INDEX ON audit_events (tenant_id, occurred_at DESC);
CREATE INDEX ON audit_events (trace_id);
CREATE INDEX ON audit_events (user_id, occurred_at DESC);
