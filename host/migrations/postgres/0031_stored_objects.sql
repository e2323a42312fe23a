-- Batches and files that an upstream keeps for a tenant: upstreams know the gateway's credential alone, so whose each is stands here.
-- `made_ms` and `priced_ms` are milliseconds since 1970.
CREATE TABLE stored_objects (
    tenant_id  TEXT NOT NULL,
    -- batch, file
    kind       TEXT NOT NULL,
    -- The upstream's.
    id         TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    -- Who keeps it: provider, address, name of the credential.
    provider   TEXT NOT NULL,
    address    TEXT NOT NULL,
    credential TEXT NOT NULL,
    made_ms    BIGINT NOT NULL,
    -- What the upstream last said of it, as JSON, and whether it will say nothing else.
    object     TEXT NOT NULL,
    settled    BIGINT NOT NULL,
    -- When the cost of a batch was written.
    priced_ms  BIGINT,
    PRIMARY KEY (tenant_id, kind, id)
);
CREATE INDEX stored_objects_by_time ON stored_objects (tenant_id, kind, made_ms, id);
CREATE INDEX stored_objects_by_id ON stored_objects (kind, id);
