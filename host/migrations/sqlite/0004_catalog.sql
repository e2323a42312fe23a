-- What was uploaded, who is trusted to sign it, and what is in force where. `tenant_id` is '' for what belongs to the platform.
-- Times are RFC 3339 in UTC with whole seconds.

-- A package exactly as it was uploaded. A version of a component is one set of bytes for good.
CREATE TABLE component_versions (
    tenant_id   TEXT NOT NULL,
    name        TEXT NOT NULL,
    version     TEXT NOT NULL,
    serial      INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    package     BLOB NOT NULL,
    uploaded_at TEXT NOT NULL,
    uploaded_by TEXT NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
) STRICT;

-- One component's place in a bundle: which version is in force, which is tried beside it, and which were before. `revision` rises
-- with every step, so that of two administrators who step at once one is told.
CREATE TABLE component_entries (
    tenant_id TEXT NOT NULL,
    name      TEXT NOT NULL,
    place     TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
) STRICT;

CREATE TABLE publishers (
    key_id     TEXT NOT NULL,
    namespace  TEXT NOT NULL,
    tenant_id  TEXT NOT NULL,
    public_key TEXT NOT NULL,
    label      TEXT NOT NULL,
    kinds      TEXT NOT NULL,
    trusted_at TEXT NOT NULL,
    trusted_by TEXT NOT NULL,
    expires_at TEXT,
    PRIMARY KEY (key_id, namespace, tenant_id)
) STRICT;

-- Which capability a component may have, since when, and until when.
CREATE TABLE component_grants (
    tenant_id  TEXT NOT NULL,
    name       TEXT NOT NULL,
    capability TEXT NOT NULL,
    granted_at TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    expires_at TEXT,
    PRIMARY KEY (tenant_id, name, capability)
) STRICT;

-- What may not run any more: a component's digest, one version (`name@version`), or everything that a key signed.
CREATE TABLE component_revocations (
    kind       TEXT NOT NULL CHECK (kind IN ('digest', 'version', 'key')),
    subject    TEXT NOT NULL,
    tenant_id  TEXT NOT NULL,
    reason     TEXT NOT NULL,
    revoked_at TEXT NOT NULL,
    revoked_by TEXT NOT NULL,
    PRIMARY KEY (kind, subject, tenant_id)
) STRICT;

-- One row. Every change above raises it; each gateway looks at it and reads again.
CREATE TABLE catalog_epoch (
    id    INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO catalog_epoch (id, epoch) VALUES (1, 0);
