-- Who may use the gateway: tenants, users, their personal access tokens, and what was revoked.

CREATE TABLE tenants (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    disabled_at TIMESTAMPTZ
);

CREATE TABLE users (
    id          TEXT PRIMARY KEY,
    tenant_id   TEXT NOT NULL REFERENCES tenants (id),
    name        TEXT NOT NULL,
    roles       JSONB NOT NULL,
    department  TEXT,
    created_at  TIMESTAMPTZ NOT NULL,
    disabled_at TIMESTAMPTZ,
    UNIQUE (tenant_id, name)
);

-- `mac` is HMAC-SHA-256 over the token's id, tenant, user and secret: a row that was moved to another user matches no token.
CREATE TABLE pats (
    id           TEXT PRIMARY KEY,
    tenant_id    TEXT NOT NULL REFERENCES tenants (id),
    user_id      TEXT NOT NULL REFERENCES users (id),
    name         TEXT NOT NULL,
    mac          BYTEA NOT NULL,
    scopes       JSONB NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ
);
CREATE INDEX pats_by_user ON pats (tenant_id, user_id, created_at);
CREATE INDEX pats_by_revocation ON pats (revoked_at) WHERE revoked_at IS NOT NULL;

-- `kind` is user (everything issued to it up to `revoked_at`), session or token (a jti). Personal access tokens carry their own `revoked_at`.
CREATE TABLE revocations (
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'session', 'token')),
    subject    TEXT NOT NULL,
    revoked_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (kind, subject)
);

-- One row. Every change that takes a right away raises it; each process polls it and forgets what it remembered.
CREATE TABLE auth_epoch (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL
);
INSERT INTO auth_epoch (id, epoch) VALUES (1, 0);
