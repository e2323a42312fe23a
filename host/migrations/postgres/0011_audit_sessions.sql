-- Everything that happened in one session, in order.
CREATE INDEX audit_events_by_session ON audit_events (session_id, occurred_at);
