-- What components were asked in calls and what they answered, sealed with a key of each tenant, so that decisions can be run again.
-- `recorded_ms` and `used_ms` are milliseconds since 1970.

-- A call. A client may give several calls one trace, so the gateway's own id of the request belongs to the key.
CREATE TABLE call_evidence (
    tenant_id   TEXT NOT NULL,
    trace_id    TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    recorded_ms INTEGER NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (tenant_id, trace_id, request_id)
) STRICT;
CREATE INDEX call_evidence_by_age ON call_evidence (recorded_ms);
CREATE INDEX call_evidence_by_trace ON call_evidence (trace_id);

-- A configuration that a component of a recorded call had. `used_ms` is raised while calls with it are recorded.
CREATE TABLE evidence_configs (
    tenant_id TEXT NOT NULL,
    digest    TEXT NOT NULL,
    used_ms   INTEGER NOT NULL,
    sealed    BLOB NOT NULL,
    PRIMARY KEY (tenant_id, digest)
) STRICT;

-- The key that seals what is a tenant's, itself sealed with the gateway's evidence key. Without this row nobody can read it again.
CREATE TABLE tenant_data_keys (
    tenant_id TEXT PRIMARY KEY NOT NULL,
    key_id    TEXT NOT NULL,
    wrapped   BLOB NOT NULL,
    made_at   TEXT NOT NULL
) STRICT;
