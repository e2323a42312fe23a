-- Who signs in with a password, who is signed in, and what clients were granted. Of every secret only its SHA-256 is kept: each has
-- 256 random bits, so that guesses are hopeless; passwords, which people choose, are kept as Argon2id.

CREATE TABLE passwords (
    user_id    TEXT PRIMARY KEY REFERENCES users (id),
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    hash       TEXT NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);

-- A browser, or a device that a browser let in. `secret` is the SHA-256 of its cookie.
CREATE TABLE sign_ins (
    secret     BYTEA PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE,
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    user_id    TEXT NOT NULL REFERENCES users (id),
    device     TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX sign_ins_by_user ON sign_ins (tenant_id, user_id, created_at);
CREATE INDEX sign_ins_by_end ON sign_ins (expires_at);

-- What a browser brings to whoever opened it, to be exchanged once. Its session is named from the beginning, so that a second use
-- ends what the first began, in whatever order both are seen.
CREATE TABLE authorization_codes (
    secret       BYTEA PRIMARY KEY,
    client_id    TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge    TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    tenant_id    TEXT NOT NULL REFERENCES tenants (id),
    user_id      TEXT NOT NULL REFERENCES users (id),
    scope        TEXT NOT NULL,
    resource     TEXT NOT NULL,
    nonce        TEXT NOT NULL,
    device       TEXT NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    used_at      TIMESTAMPTZ
);
CREATE INDEX authorization_codes_by_user ON authorization_codes (tenant_id, user_id, expires_at);
CREATE INDEX authorization_codes_by_end ON authorization_codes (expires_at);

-- `tenant_id` is '' for a client that users of every tenant may let in.
CREATE TABLE oauth_clients (
    id            TEXT PRIMARY KEY,
    tenant_id     TEXT NOT NULL,
    name          TEXT NOT NULL,
    redirect_uris JSONB NOT NULL,
    secret        BYTEA,
    scope         TEXT NOT NULL,
    registered    BOOLEAN NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    last_used_at  TIMESTAMPTZ
);

-- What a user granted a client: the family of its refresh tokens.
CREATE TABLE oauth_grants (
    session_id TEXT PRIMARY KEY,
    client_id  TEXT NOT NULL,
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    user_id    TEXT NOT NULL REFERENCES users (id),
    scope      TEXT NOT NULL,
    resource   TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX oauth_grants_by_user ON oauth_grants (tenant_id, user_id, created_at);
CREATE INDEX oauth_grants_by_end ON oauth_grants (expires_at);

CREATE TABLE refresh_tokens (
    secret     BYTEA PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES oauth_grants (session_id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ NOT NULL,
    used_at    TIMESTAMPTZ
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (session_id);

-- A device that waits for its user to let it in with a browser (RFC 8628).
CREATE TABLE device_codes (
    secret     BYTEA PRIMARY KEY,
    user_code  TEXT NOT NULL UNIQUE,
    client_id  TEXT NOT NULL,
    scope      TEXT NOT NULL,
    session_id TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'used')),
    tenant_id  TEXT,
    user_id    TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    polled_at  TIMESTAMPTZ
);
CREATE INDEX device_codes_by_end ON device_codes (expires_at);
