-- Who may use the gateway: tenants, users, their personal access tokens, and what was revoked.
-- Times are RFC 3339 in UTC with whole seconds, so that they compare as text.

CREATE TABLE tenants (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    disabled_at TEXT
) STRICT;

CREATE TABLE users (
    id          TEXT PRIMARY KEY NOT NULL,
    tenant_id   TEXT NOT NULL REFERENCES tenants (id),
    name        TEXT NOT NULL,
    roles       TEXT NOT NULL,
    department  TEXT,
    created_at  TEXT NOT NULL,
    disabled_at TEXT,
    UNIQUE (tenant_id, name)
) STRICT;

-- `mac` is HMAC-SHA-256 over the token's id, tenant, user and secret: a row that was moved to another user matches no token.
CREATE TABLE pats (
    id           TEXT PRIMARY KEY NOT NULL,
    tenant_id    TEXT NOT NULL REFERENCES tenants (id),
    user_id      TEXT NOT NULL REFERENCES users (id),
    name         TEXT NOT NULL,
    mac          BLOB NOT NULL,
    scopes       TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    expires_at   TEXT NOT NULL,
    last_used_at TEXT,
    revoked_at   TEXT
) STRICT;
CREATE INDEX pats_by_user ON pats (tenant_id, user_id, created_at);
CREATE INDEX pats_by_revocation ON pats (revoked_at) WHERE revoked_at IS NOT NULL;

-- `kind` is user (everything issued to it up to `revoked_at`), session or token (a jti). Personal access tokens carry their own `revoked_at`.
CREATE TABLE revocations (
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'session', 'token')),
    subject    TEXT NOT NULL,
    revoked_at TEXT NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT;

-- One row. Every change that takes a right away raises it; each process polls it and forgets what it remembered.
CREATE TABLE auth_epoch (
    id    INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO auth_epoch (id, epoch) VALUES (1, 0);
