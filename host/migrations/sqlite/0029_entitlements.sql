-- Which models the roles of a tenant may call, where the tenant says that only those count which are listed.
ALTER TABLE tenants ADD COLUMN models TEXT NOT NULL DEFAULT 'all' CHECK (models IN ('all', 'listed'));

CREATE TABLE role_models (
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    role       TEXT NOT NULL,
    pattern    TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (tenant_id, role, pattern)
) STRICT;
