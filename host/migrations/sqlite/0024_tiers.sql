-- Which names in certificates of devices stand for whom, and the weakest way to sign in that a tenant takes.

-- `name` has its kind before it: email:alice@example.org. A name stands for one user, in whatever tenant.
CREATE TABLE certificate_names (
    name       TEXT PRIMARY KEY NOT NULL,
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    user_id    TEXT NOT NULL REFERENCES users (id),
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX certificate_names_by_user ON certificate_names (tenant_id, user_id);

ALTER TABLE tenants ADD COLUMN min_auth_tier TEXT NOT NULL DEFAULT 'pat'
    CHECK (min_auth_tier IN ('pat', 'session', 'mtls'));
