-- A browser that was sent to an identity provider, and is to come back. `state` and `browser` are the SHA-256 of what the address and the
-- cookie of that browser hold; what else the provider has to repeat is derived from both, so that nothing here is enough to finish it.
CREATE TABLE provider_sign_ins (
    state      BYTEA PRIMARY KEY,
    browser    BYTEA NOT NULL,
    provider   TEXT NOT NULL,
    next       TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX provider_sign_ins_by_end ON provider_sign_ins (expires_at);

-- Whom an identity provider means. Issuer and subject alone say it: names and addresses are given to others later.
CREATE TABLE provider_subjects (
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    user_id    TEXT NOT NULL REFERENCES users (id),
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX provider_subjects_by_user ON provider_subjects (tenant_id, user_id);
