-- What was uploaded, who is trusted to sign it, and what is in force where. `tenant_id` is '' for what belongs to the platform.

-- A package exactly as it was uploaded. A version of a component is one set of bytes for good.
CREATE TABLE component_versions (
    tenant_id   TEXT NOT NULL,
    name        TEXT NOT NULL,
    version     TEXT NOT NULL,
    serial      BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    package     BYTEA NOT NULL,
    uploaded_at TIMESTAMPTZ NOT NULL,
    uploaded_by TEXT NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
);

-- One component's place in a bundle: which version is in force, which is tried beside it, and which were before. `revision` rises
-- with every step, so that of two administrators who step at once one is told.
CREATE TABLE component_entries (
    tenant_id TEXT NOT NULL,
    name      TEXT NOT NULL,
    place     JSONB NOT NULL,
    revision  BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE publishers (
    key_id     TEXT NOT NULL,
    namespace  TEXT NOT NULL,
    tenant_id  TEXT NOT NULL,
    public_key TEXT NOT NULL,
    label      TEXT NOT NULL,
    kinds      JSONB NOT NULL,
    trusted_at TIMESTAMPTZ NOT NULL,
    trusted_by TEXT NOT NULL,
    expires_at TIMESTAMPTZ,
    PRIMARY KEY (key_id, namespace, tenant_id)
);

-- Which capability a component may have, since when, and until when.
CREATE TABLE component_grants (
    tenant_id  TEXT NOT NULL,
    name       TEXT NOT NULL,
    capability TEXT NOT NULL,
    granted_at TIMESTAMPTZ NOT NULL,
    granted_by TEXT NOT NULL,
    expires_at TIMESTAMPTZ,
    PRIMARY KEY (tenant_id, name, capability)
);

-- What may not run any more: a component's digest, one version (`name@version`), or everything that a key signed.
CREATE TABLE component_revocations (
    kind       TEXT NOT NULL CHECK (kind IN ('digest', 'version', 'key')),
    subject    TEXT NOT NULL,
    tenant_id  TEXT NOT NULL,
    reason     TEXT NOT NULL,
    revoked_at TIMESTAMPTZ NOT NULL,
    revoked_by TEXT NOT NULL,
    PRIMARY KEY (kind, subject, tenant_id)
);

-- One row. Every change above raises it; each gateway looks at it and reads again.
CREATE TABLE catalog_epoch (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL
);
INSERT INTO catalog_epoch (id, epoch) VALUES (1, 0);
